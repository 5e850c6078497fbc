from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alfm.comparison import settings_of, summary
from alfm.curves import plot_curves, styles_of
from alfm.errors import UserError
from alfm.metrics import METRICS, area_under_budget_curve
from alfm.report import main, print_summary, rank_table, report_tables
from alfm.results import RunFolder, load_runs

BUDGETS = [4, 6, 8, 12, 20]  # labels after each round: not even, so that the two areas differ


def write_run(
    log_dir: Path, strategy: str, level: float, seeds: int = 3, start: str = "random", shift: int = 0, **options
) -> Path:
    """A run as the loop writes it; accuracy rises by 0.05 a round from `level`, seeds differ by 0.002."""
    finished = options.pop("finished", True)
    names = {"dataset": options.pop("dataset", "digits"), "model": "pixels", "classifier": "logistic"}
    with RunFolder.open(
        log_dir,
        **names,
        query_strategy=strategy,
        init_strategy=start,
        config={"query_strategy": strategy, "init_strategy": start, "seeds": list(range(seeds)), **options},
        cache_fingerprint="cache",
    ) as folder:
        for round_, labels in enumerate(BUDGETS):
            rows, picks = [], {}
            before = BUDGETS[round_ - 1] if round_ else 0
            for seed in range(seeds):
                noise = np.random.default_rng([seed, round_, len(strategy)]).normal(0, 0.001) if round_ else 0
                value = (level if round_ else 0.5) + 0.05 * round_ + 0.002 * seed + noise
                picks[seed] = np.arange(before, labels) + 100 * seed + shift
                row = {**dict.fromkeys(METRICS, value), "nll": 2 - value, "seed": seed, "round": round_}
                rows.append(
                    {
                        **row,
                        "num_labeled": labels,
                        "fit_seconds": 0.3,
                        "query_seconds": 0.6,
                        "eval_seconds": 0.03,
                        "num_replicates": seeds,
                        "num_filled": 0,
                        "peak_memory_bytes": 10**6 * round_,
                    }
                )
            folder.append(rows, picks)
        if finished:
            folder.finish(range(seeds), "all rounds done")
    return folder.path


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for strategy, level in (("random", 0.5), ("margins", 0.55), ("entropy", 0.45)):
        write_run(tmp_path, strategy, level)
    write_run(tmp_path, "typiclust", 0.6, start="typiclust", shift=50)
    return tmp_path


def test_summary_numbers(logs: Path) -> None:
    df = load_runs(logs)
    (setting,) = settings_of(df)
    assert setting.start == "random"
    assert set(setting.own["strategy"]) == {"typiclust"}
    table = summary(setting.shared).set_index("strategy")
    assert list(table.index) == ["margins", "random", "entropy"]  # best first
    # quarters of 20 labels: 5, 10, 15, 20 -> the first rounds that have them
    assert [c for c in table if c.endswith(" mean") and c.startswith("after")] == [
        "after 6 mean",
        "after 12 mean",
        "after 20 mean",
    ]
    of_margins = df[df["query_strategy"] == "margins"]
    at_12 = of_margins.loc[of_margins["num_labeled"] == 12, "accuracy"]
    row = table.loc["margins"]
    assert (row["after 12 mean"], row["after 12 std"]) == pytest.approx((at_12.mean(), at_12.std()))
    for over in ("rounds", "labels"):
        areas = [
            area_under_budget_curve(one["accuracy"], one["num_labeled"], over) for _, one in of_margins.groupby("seed")
        ]
        assert row[f"AUBC over {over} mean"] == pytest.approx(np.mean(areas))
    # each of five rounds took 0.3 s for all seeds together
    assert (row["fit seconds"], row["query seconds"], row["eval seconds"]) == pytest.approx((1.5, 3.0, 0.15))
    assert row["peak memory bytes"] == 4 * 10**6
    assert summary(setting.shared, "nll")["strategy"].tolist() == ["margins", "random", "entropy"]


def test_the_same_strategy_with_other_options_keeps_its_folders_name(logs: Path) -> None:
    twin = write_run(logs, "margins", 0.52, enable_dropout=True)
    (setting,) = settings_of(load_runs(logs))
    labels = set(setting.shared["strategy"])
    assert twin.name in labels
    assert {"random", "entropy"} < labels
    assert len(labels) == 4


def test_different_numbers_of_seeds_get_a_column(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(logs, "badge", 0.5, seeds=2)
    print_summary(load_runs(logs))
    first = capsys.readouterr().out.split("Other cold starts")[0]
    lines = {text.split()[0]: text.split() for text in first.splitlines() if text.strip()}
    assert lines["strategy"][1] == "seeds"
    assert (lines["badge"][1], lines["margins"][1]) == ("2", "3")


def test_settings_are_kept_apart(logs: Path) -> None:
    write_run(logs, "random", 0.5, dataset="dtd")
    settings = {setting.names["dataset"]: setting for setting in settings_of(load_runs(logs))}
    assert set(settings) == {"digits", "dtd"}
    assert set(settings["dtd"].shared["strategy"]) == {"random"}


def run_report(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_report_with_few_seeds(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_report(capsys, logs)
    assert (status, err) == (0, "")
    first, second = out.split("Other cold starts")
    assert "digits / pixels, logistic head, 4 to 20 labels in 5 rounds, random start" in first
    line = next(text for text in first.splitlines() if text.strip().startswith("margins"))
    assert " 60.1 ±0.3 " in line
    assert "1.5+3.0+0.15" in line
    assert "at least 10 seeds, these runs share 3" in first
    assert "over 3 seeds" in first
    assert "typiclust" in second
    assert "typiclust" not in first
    picture = logs / "report" / "digits-pixels-accuracy.png"
    assert f"Written: {picture}" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_report_with_enough_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strategy, level in (("random", 0.5), ("margins", 0.55), ("coreset", 0.45), ("boss", 0.6)):
        write_run(tmp_path, strategy, level, seeds=10)
    status, out, _ = run_report(capsys, tmp_path, "--out", tmp_path / "out")
    assert status == 0
    statistics = out.split("Statistics")[1]
    lines = {text.split()[0]: text for text in statistics.splitlines() if text.strip()}
    # mean of rounds 1-5, the first of which is the same for all: 4/5 of 5 points
    assert "+4.0 better" in lines["margins"]
    assert "-4.0 worse" in lines["coreset"]
    assert "Friedman" in statistics
    assert lines["boss"].split()[1:3] == ["3", "0"]  # beats three, beaten by none
    # random has with 20 labels what margins has with 12
    efficiency = pd.read_csv(tmp_path / "out" / "digits-pixels-accuracy-label_efficiency.csv")
    at_12 = efficiency.set_index(["strategy", "num_labeled"]).loc[("margins", 12), "efficiency"]
    assert f"{at_12:.2f} " in lines["margins"]
    assert at_12 == pytest.approx(20 / 12, abs=0.02)
    assert lines["margins"].split()[-1] == "0.50"  # regret: half way between boss and random
    penalties = pd.read_csv(tmp_path / "out" / "digits-pixels-accuracy-penalties.csv", index_col=0)
    assert penalties.loc["margins", "random"] == 1.0
    bands = pd.read_csv(tmp_path / "out" / "digits-pixels-accuracy-better_than_random.csv")
    assert set(bands["verdict"]) == {"better", "worse"}


def test_a_strategy_with_few_seeds_does_not_spoil_the_others_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for strategy, seeds in (("random", 11), ("margins", 10), ("badge", 3)):
        write_run(tmp_path, strategy, 0.5 + 0.01 * len(strategy), seeds=seeds)
    _, out, _ = run_report(capsys, tmp_path)
    statistics = out.split("Statistics")[1]
    assert "Paired over 10 seeds. Fewer than 10 seeds, so left out: badge." in statistics
    assert "+0.8 better" in statistics


def test_ranks_over_settings(tmp_path: Path) -> None:
    for dataset in "abcde":
        for strategy, level in (("random", 0.5), ("margins", 0.55), ("coreset", 0.45)):
            write_run(tmp_path, strategy, level, seeds=2, dataset=dataset)
    write_run(tmp_path, "badge", 0.6, seeds=2, dataset="a")  # not everywhere, so not ranked
    tables = [table for _, tables, _ in report_tables(load_runs(tmp_path), "accuracy") for table in tables]
    settings = list(settings_of(load_runs(tmp_path)))
    ranks = rank_table(settings, "accuracy")
    assert len(tables) == 5
    assert ranks is not None
    assert ranks.rows == [["margins", "1.00"], ["random", "2.00"], ["coreset", "3.00"]]
    assert "over 5 settings" in ranks.notes[0]
    assert rank_table(settings[:4], "accuracy") is None


def test_report_refuses_to_pair_other_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "random", 0.5, seeds=10)
    write_run(tmp_path, "margins", 0.55, seeds=10, shift=1)  # says random start, but began elsewhere
    status, out, _ = run_report(capsys, tmp_path)
    assert status == 0
    assert "began seed 0 with different items" in out
    assert "better" not in out


def test_csv_and_markdown(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run_report(capsys, logs, "--format", "csv")
    table = pd.read_csv(io.StringIO(out))
    assert status == 0
    assert "Written:" in err
    assert dict(zip(table["strategy"], table["own_cold_start"], strict=True)) == {
        "margins": False,
        "random": False,
        "entropy": False,
        "typiclust": True,
    }
    assert table["quarter_4_labels"].unique().tolist() == [20]
    expected = summary(load_runs(logs).assign(strategy="x").query("query_strategy == 'random'"))
    got = table.set_index("strategy").loc["random"]
    assert got["quarter_4_mean"] == pytest.approx(expected["after 20 mean"].item())
    status, out, _ = run_report(capsys, logs, "--format", "markdown", "--metric", "nll")
    assert "| strategy | after 6 |" in out
    assert "| margins | 1.3" in out


def test_unfinished_replicates_are_left_out_and_named(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = write_run(logs, "badge", 0.9, finished=False)
    _, out, _ = run_report(capsys, logs)
    assert f"Left out: 3 replicates that are not finished ({unfinished.name})" in out
    assert "badge" not in out.replace(unfinished.name, "")
    status, out, err = run_report(capsys, unfinished)
    assert (status, out) == (1, "")
    assert "no finished run" in err


def test_mistakes_are_one_sentence(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_report(capsys, logs / "nowhere") == (
        1,
        "",
        f"Error: {logs / 'nowhere'} does not exist; give a folder that `python -m alfm.al_train` wrote\n",
    )
    (logs / "empty").mkdir()
    status, _, err = run_report(capsys, logs / "empty")
    assert status == 1
    assert "holds no run" in err
    for arguments, message in ((["--metric", "acuracy"], "did you mean accuracy"), (["--format", "pdf"], "'pdf'")):
        with pytest.raises(SystemExit) as stop:
            main([str(logs), *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    (logs / "file").write_text("")
    status, _, err = run_report(capsys, logs, "--out", logs / "file")
    assert status == 1
    assert "cannot draw" in err


def test_default_is_the_log_dir(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_DIR", str(logs))
    status, out, _ = run_report(capsys)
    assert status == 0
    assert "margins" in out


def test_too_many_pairs_for_the_seeds_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, strategy in enumerate(("random", "a", "b", "c", "d", "e", "f", "g")):
        write_run(tmp_path, strategy, 0.5 + 0.01 * i, seeds=10)
    _, out, _ = run_report(capsys, tmp_path)
    # 28 pairs x 2^-9 is above 0.05
    assert "Wilcoxon with Holm over 28 pairs cannot go below p = 0.055" in out
    assert "beaten by" not in out
    assert "penalty" in out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom alfm.report import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_print_summary_and_plot_of_bare_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # what `alfm.simulate` returns: the columns of rounds.csv alone
    write_run(tmp_path, "random", 0.5, seeds=1)
    bare = load_runs(tmp_path)[["seed", "round", "num_labeled", *METRICS]]
    bare = bare.assign(fit_seconds=1.0, query_seconds=1.0, eval_seconds=1.0, num_replicates=1, peak_memory_bytes=1)
    print_summary(bare)
    out = capsys.readouterr().out
    assert " 69.9 " in out
    assert "±0" not in out  # one seed has no spread
    assert plot_curves(bare, tmp_path / "deep" / "one.png").stat().st_size > 1000


def test_plot_mistakes(logs: Path, tmp_path: Path) -> None:
    df = load_runs(logs)
    with pytest.raises(UserError, match="these runs are of 2"):
        plot_curves(pd.concat([df, df.assign(dataset="dtd")]), tmp_path / "x.png")
    with pytest.raises(UserError, match="did you mean macro_f1"):
        plot_curves(df, tmp_path / "x.png", "macro_f")
    with pytest.raises(UserError, match="cannot draw"):
        plot_curves(df, tmp_path / "x.docx")


def test_thirty_strategies_look_different(logs: Path) -> None:
    base = load_runs(logs).query("query_strategy == 'random'")
    many = pd.concat([base.assign(query_strategy=f"strategy {i}") for i in range(31)] + [base])
    styles = styles_of(list(settings_of(many)))
    looks = {(style["color"], str(style["linestyle"])) for style in styles.values()}
    assert len(styles) == len(looks) == 32
