from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from alfm.errors import UserError
from alfm.metrics import METRICS, area_under_budget_curve
from alfm.report.__main__ import main
from alfm.report.cells import Table, TableCell
from alfm.report.curves import _panel, plot_curves, styles_of
from alfm.report.terminal import print_summary, show
from alfm.results.load import load_runs
from alfm.results.run_folder import RunFolder
from alfm.results.setting import settings_of, summary

BUDGETS = [4, 6, 8, 12, 20]  # labels after each round: not even, so that the two areas differ


def write_run(
    log_dir: Path, strategy: str, level: float, seeds: int = 3, start: str = "random", shift: int = 0, **options
) -> Path:
    """A run as the loop writes it; accuracy rises by 0.05 a round from `level`, seeds differ by 0.002.

    different: of a start that is the same for all seeds, how many pick different items after it (None: starts differ);
    filled: picks of each round after the first that were drawn at random; first: the accuracy of the first round.
    """
    finished, filled = options.pop("finished", True), options.pop("filled", 0)
    different, first = options.pop("different", None), options.pop("first", 0.5)
    cache, behaviour = options.pop("cache", "cache"), options.pop("behaviour", None)
    names = {"dataset": options.pop("dataset", "digits"), "model": "pixels", "classifier": "logistic"}
    with RunFolder.open(
        log_dir,
        **names,
        query_strategy=strategy,
        init_strategy=start,
        config={"query_strategy": {"name": strategy}, "init_strategy": start, "seeds": list(range(seeds)), **options},
        cache_fingerprint=cache,
        behaviour=behaviour,
    ) as folder:
        for round_, labels in enumerate(BUDGETS):
            rows, picks = [], {}
            before = BUDGETS[round_ - 1] if round_ else 0
            for replicate in range(seeds):
                seed = replicate if different is None else replicate % different
                noise = np.random.default_rng([seed, round_, len(strategy)]).normal(0, 0.001) if round_ else 0
                value = (level if round_ else first) + 0.05 * round_ + 0.002 * seed * (round_ > 0) + noise
                place = 100 * seed if round_ or different is None else 0
                picks[replicate] = np.arange(before, labels) + place + shift
                row = {**dict.fromkeys(METRICS, value), "nll": 2 - value, "seed": replicate, "round": round_}
                rows.append(
                    {
                        **row,
                        "num_labeled": labels,
                        "fit_seconds": 0.3,
                        "query_seconds": 0.6,
                        "eval_seconds": 0.03,
                        "num_replicates": seeds,
                        "num_filled": filled if round_ else 0,
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


def test_the_same_strategy_with_other_options_is_told_apart_by_them(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs, "margins", 0.52, query_strategy={"name": "margins", "posterior": {"p": 0.5}})
    write_run(logs, "margins", 0.51, query_strategy={"name": "margins", "posterior": {"p": 0.75}})
    (setting,) = settings_of(load_runs(logs))
    labels = set(setting.shared["strategy"])
    assert labels == {"random", "entropy", "margins", "margins (posterior.p=0.5)", "margins (posterior.p=0.75)"}
    _, out, _ = run_report(capsys, logs)
    assert "Query strategies (margins: posterior.p): digits / pixels" in out


def test_old_and_new_behaviour_are_two_runs(logs: Path) -> None:
    write_run(logs, "margins", 0.52, behaviour={"refits_on_views": 1})
    write_run(logs, "random", 0.5, dataset="dtd")
    labels = {s.names["dataset"]: set(s.shared["strategy"]) for s in settings_of(load_runs(logs))}
    assert labels["digits"] == {"random", "entropy", "margins", "margins (refits_on_views=1)"}
    assert labels["dtd"] == {"random"}  # what does not concern it does not set it apart


def test_copies_of_a_run_are_read_once_and_other_twins_by_their_folders(logs: Path) -> None:
    (found,) = [path for path in (logs / "digits" / "pixels").iterdir() if path.name.startswith("margins")]
    shutil.copytree(found, logs / "copy" / found.name)
    df = load_runs(logs)
    assert (df["query_strategy"] == "margins").sum() == 15
    other = write_run(logs / "elsewhere", "margins", 0.6, shift=1)  # the same hash on another machine, other picks
    (setting,) = settings_of(load_runs(logs))
    assert {str(logs / "copy" / found.name), str(other), "random", "entropy"} == set(setting.shared["strategy"])


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
    assert "Paired over 10 seeds. Fewer than 10 seeds that differ, so left out: badge." in statistics
    assert "+0.8 better" in statistics


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


def test_runs_that_have_not_measured_a_metric_are_left_out_by_name(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = next(path for path in (logs / "digits" / "pixels").iterdir() if path.name.startswith("margins"))
    for file in (old / "rounds.csv", old / "progress.json"):
        file.write_text(file.read_text().replace(",ece,", ",brier,").replace('"checksums"', '"of another version"'))
    status, out, _ = run_report(capsys, logs, "--metric", "ece")
    assert status == 0
    assert f"Left out: 3 replicates that have not measured ece ({old.name})" in " ".join(out.split())
    assert "margins" not in out.replace(old.name, "")
    assert "margins" in run_report(capsys, logs)[1].replace(old.name, "")  # by accuracy
    status, out, err = run_report(capsys, old, "--metric", "ece")
    assert (status, out) == (1, "")
    assert "has measured ece; give another --metric" in err
    with pytest.raises(UserError, match="have not measured ece; choose another metric .accuracy, "):
        plot_curves(load_runs(old), logs / "x.png", "ece")


def test_a_metric_that_some_rounds_lack_is_shown_where_it_is(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    df = load_runs(logs).query("query_strategy == 'margins'")
    df.loc[(df["seed"] == 1) & (df["round"] < 2), "ece"] = np.nan  # a run that an earlier version began
    print_summary(df, "ece")
    line = next(text.split() for text in capsys.readouterr().out.splitlines() if text.strip().startswith("margins"))
    assert line[:2] == ["margins", "-"] and "±" in line[3] and line.count("-") == 2  # and no area


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
    assert "cannot write" in err
    only = next(path for path in (logs / "digits" / "pixels").iterdir() if path.name.startswith("random"))
    status, _, err = run_report(capsys, only, "--out", logs / "file")  # nothing to write but a picture
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
        "import sys\nfrom alfm.report.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
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


# -- what must not be compared ----------------------------------------------------------------------------------------


def test_ten_copies_of_one_curve_are_shown_as_one_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strategy, level, different in (
        ("random", 0.5, 10),
        ("margins", 0.55, 1),
        ("entropy", 0.4, 1),
        ("uherding", 0.6, 2),
    ):
        write_run(tmp_path, strategy, level, seeds=10, start="maxherding", different=different)
    status, out, _ = run_report(capsys, tmp_path)
    assert status == 0
    table = out.split("accuracy in %")[0]
    lines = {text.split()[0]: text for text in table.splitlines() if text.strip()}
    assert "one start" in lines["margins"] and "±" not in lines["margins"]
    assert "2 of 10" in lines["uherding"] and "±" in lines["uherding"]
    assert "±" in lines["random"]
    words = " ".join(out.split())
    assert "Statistics" not in out and "better" not in out and "rank" not in words and "p =" not in words
    assert "No tests: significance needs at least 10 replicates that differ" in words
    assert "(entropy 1, margins 1, uherding 2)" in words
    named = words.split("python -m alfm.al_train -m query_strategy=")[1].split()[0]
    assert set(named.split(",")) == {"random", "margins", "entropy", "uherding"}
    assert "init_strategy=random 'seeds=[0,1,2,3,4,5,6,7,8,9]'" in words
    files = {file.stem.rpartition("-")[2]: pd.read_csv(file) for file in (tmp_path / "report").glob("*.csv")}
    assert set(files) == {"matrix", "against_random"}
    assert all(table["p"].isna().all() for table in files.values())
    print_summary(load_runs(tmp_path))  # as al_train ends
    assert "one start" in capsys.readouterr().out


def test_a_deterministic_strategy_does_not_spoil_the_others_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for strategy, level, different in (("random", 0.5, 10), ("badge", 0.55, 10), ("margins", 0.6, 1)):
        write_run(tmp_path, strategy, level, seeds=10, start="maxherding", different=different)
    _, out, _ = run_report(capsys, tmp_path)
    statistics = " ".join(out.split("Statistics")[1].split())
    assert "Fewer than 10 seeds that differ, so left out: margins." in statistics
    assert "All seeds began with the same items: differences hold for that start." in statistics
    assert "+4.0 better" in statistics
    assert "margins +" not in statistics


def test_intervals_of_copies_are_not_drawn(tmp_path: Path) -> None:
    for strategy, different in (("random", 10), ("margins", 1)):
        write_run(tmp_path, strategy, 0.5, seeds=10, start="maxherding", different=different)
    (setting,) = settings_of(load_runs(tmp_path))
    axes = Figure().subplots()
    _panel(axes, setting.shared, styles_of([setting]), "accuracy", own=False)
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"random", "margins, one start"}
    assert len(axes.collections) == 1  # the band of random


def test_other_heads_and_splits_are_other_settings_by_the_keys_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"classifier": {"strength": 0.001}, "splits": {"test": "test"}}
    write_run(tmp_path, "random", 0.5, seeds=10, **plain)
    write_run(tmp_path, "margins", 0.55, seeds=10, **{**plain, "classifier": {"strength": 10}})
    write_run(tmp_path, "entropy", 0.55, seeds=10, **{**plain, "splits": {"test": "train"}})
    write_run(tmp_path, "coreset", 0.55, seeds=10, **plain, cache="another")
    status, out, _ = run_report(capsys, tmp_path)
    words = " ".join(out.split())
    assert status == 0
    assert "Statistics" not in out and "better" not in out
    assert words.count("Query strategies: digits / pixels, logistic head (strength=") == 4
    assert "logistic head (strength=10), 4 to 20 labels in 5 rounds, splits.test=test, cache cache, random" in words
    assert "digits / pixels: runs that differ in these are not compared with one another: " in words
    for difference in ("classifier.strength: ", "0.001 / 10", "splits.test: ", "cache: "):
        assert difference in words
    pictures = [path.name for path in (tmp_path / "report").glob("*.png")]
    assert len(pictures) == 4


@pytest.mark.parametrize("key", ["train_views", "warm_start", "an_option_of_tomorrow"])
def test_whatever_enters_the_hash_keeps_runs_apart(tmp_path: Path, key: str) -> None:
    write_run(tmp_path, "random", 0.5, seeds=10, **{key: True})
    write_run(tmp_path, "margins", 0.5, seeds=10, **{key: False})
    write_run(tmp_path, "entropy", 0.5, seeds=10)  # older: it does not say
    settings = list(settings_of(load_runs(tmp_path)))
    assert {s.rest for s in settings} == {f"{key}=true", f"{key}=false", ""}
    for strategy, same in (
        ("random", {"device": "cuda"}),
        ("margins", {"memory": "file"}),
        ("entropy", {"force": True}),
    ):
        write_run(tmp_path / "same", strategy, 0.5, **{key: True}, **same)
    assert len(list(settings_of(load_runs(tmp_path / "same")))) == 1


def test_runs_that_differ_in_their_draw_alone_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for partition in (1, 2, 3, 4):
        for strategy, level in (("random", 0.5), ("margins", 0.55)):
            if (strategy, partition) != ("margins", 4):
                draw = {"index_sets": {"partition": partition}, "pool": {"seed": 5}}
                write_run(tmp_path, strategy, level, seeds=5, shift=1000 * partition, **draw)
    df = load_runs(tmp_path)
    assert set(df["draw"]) == {f"pool.seed=5, partition={partition}" for partition in (1, 2, 3, 4)}
    assert "partition" not in " ".join(df["conditions"])
    assert len(list(settings_of(df))) == 1
    numbers = summary(next(settings_of(df)).shared)
    assert dict(zip(numbers["strategy"], zip(numbers["seeds"], numbers["draws"], strict=True), strict=True)) == {
        "margins": (15, 3), "random": (20, 4),
    }  # fmt: skip
    assert main([str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Paired over 15 replicates of 3 draws." in out
    assert "left out (missing: pool.seed=5, partition=4: margins)" in out


def test_first_rounds_that_disagree_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "random", 0.5, seeds=10)
    other = write_run(tmp_path, "margins", 0.55, seeds=10, first=0.6)
    _, out, _ = run_report(capsys, tmp_path)
    words = " ".join(out.split())
    assert f"margins ({other.name}) began seed 0 with the same items, but their first rounds differ" in words
    assert "better" not in out


def test_random_fill_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "random", 0.5)
    print_summary(load_runs(tmp_path))
    assert "filled" not in capsys.readouterr().out
    write_run(tmp_path, "alfamix", 0.6, filled=1)
    for show_it in (lambda: print_summary(load_runs(tmp_path)), lambda: main([str(tmp_path)])):
        show_it()
        out = capsys.readouterr().out
        lines = {text.split()[0]: text for text in out.split("Against")[0].splitlines() if text.strip()}
        assert " 20 % " in lines["alfamix"]  # one of each of 4 rounds, of 20 picks
        assert "%" not in lines["random"]
        assert "most in one round: alfamix, 50 %" in out


@pytest.mark.parametrize("width", [30, 60, 80, 100])
def test_numbers_are_never_broken_over_lines(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["facility_location (query_rows=some/file.npy, diversity=0.5)", "random", "cluster_margin", "a" * 40]
    header = ["strategy", *(f"after {n}" for n in (1000, 2000, 3000)), "AUBC over labels", "fit+query+eval s", "MB"]
    rows = [
        [name, *(f"{10 * i + j}.5 ±{j}.{i}" for j in range(4)), f"0.4{i}+1.1+0.23", f"104{i}"]
        for i, name in enumerate(names)
    ]
    show(Table("Title " * 20, header, [[TableCell(text) for text in row] for row in rows], ["note " * 40]))
    out = capsys.readouterr().out
    for row in rows:
        assert all(cell in out for cell in row[1:])
    for head in header[1:]:
        assert all(word in out for word in head.split())
    if width >= 60:
        assert max(map(len, out.splitlines())) <= width
    starts = [line for line in out.splitlines() if line.strip().startswith("random")]
    assert len(starts) == sum("strategy" in line for line in out.splitlines())  # each part names its rows
