"""Strategies against random and against one another, on one cache and over several."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_tables import run_report, write_run

from alfm.report.cells import P_VALUE, Table
from alfm.report.over_caches import tables_over
from alfm.report.tables import tables_of
from alfm.results.against_random import runs_against_random
from alfm.results.load import load_runs
from alfm.results.matrix import matrix_of
from alfm.results.setting import settings_of

LEVELS = {"random": 0.5, "margins": 0.55, "coreset": 0.45, "badge": 0.5}


def report_of(folder: Path, **runs: int) -> dict[str, tuple[list[str], dict[str, list[str]], list[str]]]:
    """Beginning of the title -> header, cells by row, notes, of runs with so many seeds each."""
    for strategy, seeds in runs.items():
        write_run(folder, strategy, LEVELS[strategy], seeds=seeds)
    (setting,) = settings_of(load_runs(folder))
    tables = tables_of(setting, "accuracy")[0]
    return {
        table.title.split(":")[0].split(",")[0]: (
            list(table.header), {row[0]: row[1:] for row in table.texts}, list(table.notes),
        )
        for table in tables
    }  # fmt: skip


def test_a_verdict_for_each_strategy(tmp_path: Path) -> None:
    header, rows, notes = report_of(tmp_path, random=10, margins=10, coreset=10, badge=10)["Against random"]
    assert header == ["strategy", "verdict", "gap", "low", "high", "p", "p Holm", "found from"]
    # trapezoids of rounds 1-5, the first of which is the same for all: 3.5/4 of 5 points
    assert rows["margins"][:2] == ["better", "+4.36"] and rows["margins"][4:6] == ["<0.001", "<0.001"]
    assert rows["coreset"][0] == "worse"
    assert rows["badge"][0] == "not better than random"
    full = runs_against_random(load_runs(tmp_path)).set_index("strategy").loc["badge"]
    assert rows["badge"][5] == P_VALUE.text(full["p_holm"]) and rows["badge"][6] == f"{full['smallest_effect']:.2f}"
    assert "80%" in notes[1]


def test_few_seeds_have_gaps_and_nothing_that_looks_like_a_test(tmp_path: Path) -> None:
    found = report_of(tmp_path, random=3, margins=3)
    header, rows, notes = found["Against random"]
    assert header == ["strategy", "verdict", "gap", "low", "high"]
    assert rows["margins"][0] == "too few seeds"
    assert "No test below 10 seeds that differ: margins." in notes[-1]
    assert found["Every two of the query strategies"][1]["margins"] == ["", "+4.34 3/0/0"]
    assert "Statistics of query strategies" not in found


def test_the_matrix_has_the_best_first_and_a_p_for_each_pair(tmp_path: Path) -> None:
    header, rows, _ = report_of(tmp_path, random=10, margins=10, coreset=10)["Every two of the query strategies"]
    assert header == ["minus", "margins", "random", "coreset"]
    assert rows["margins"] == ["", "+4.36 10/0/0 p=0.002", "+8.75 10/0/0 p=0.002"]
    assert rows["coreset"][0] == "-8.75 0/0/10 p=0.002"


def test_full_tables_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_of(tmp_path, random=10, margins=10, badge=3)
    assert run_report(capsys, tmp_path, "--out", tmp_path, "--format", "csv")[0] == 0
    pairs = pd.read_csv(tmp_path / "digits-pixels-accuracy-matrix.csv")
    pd.testing.assert_frame_equal(pairs, matrix_of(load_runs(tmp_path)), check_dtype=False)
    assert set(pairs["units"]) == {3, 10}  # each pair over the seeds that its two have
    verdicts = pd.read_csv(tmp_path / "digits-pixels-accuracy-against_random.csv").set_index("strategy")["verdict"]
    assert verdicts.to_dict() == {"margins": "better", "badge": "too few seeds"}


def test_a_large_matrix_is_only_written(tmp_path: Path) -> None:
    df = load_runs(write_run(tmp_path, "random", 0.5, seeds=2))
    (setting,) = settings_of(pd.concat([df.assign(query_strategy=f"s{i}", run=f"s{i}") for i in range(17)]))
    tables, full = tables_of(setting, "accuracy")
    assert len(full["matrix"]) == 17 * 16 and not any("Every two" in table.title for table in tables)


def test_p_values_are_short() -> None:
    assert [P_VALUE.text(p) for p in (1.0, 0.049, 0.0123, 0.001, 0.0004)] == ["1", "0.049", "0.012", "0.001", "<0.001"]
    assert (P_VALUE.named(0.5), P_VALUE.named(1e-9)) == ("p=0.5", "p<0.001")


# -- over caches -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Runs of three strategies on caches a to f, and of one on b alone."""
    folder = tmp_path_factory.mktemp("six")
    for dataset in "abcdef":
        for strategy in ("random", "margins", "coreset"):
            write_run(folder, strategy, LEVELS[strategy], seeds=10, dataset=dataset, cache=dataset)
    write_run(folder, "badge", LEVELS["badge"], seeds=10, dataset="b", cache="b")
    return load_runs(folder)


def over(df: pd.DataFrame) -> dict[str, Table]:
    """By the beginning of the title."""
    tables, full = tables_over(list(settings_of(df)), "accuracy")
    assert len(full) == len([one for one in tables if not one.title.startswith("Ranks")])
    return {table.title.split(":")[0]: table for table in tables}


def cell(table: Table, a: str, b: str) -> str:
    (row,) = (row for row in table.texts if row[0] == a)
    return row[list(table.header).index(b)]


def test_below_six_caches_there_are_differences_and_gains_alone(six: pd.DataFrame) -> None:
    found = over(six[six["dataset"] != "f"])
    assert list(found) == ["Every two over 5 caches", "Gain over random on 5 caches"]
    assert cell(found["Every two over 5 caches"], "margins", "random") == "+4.36 5/0/0"
    assert cell(found["Every two over 5 caches"], "badge", "margins").endswith(" 0/0/1")
    rows = {row[0]: row[1:] for row in found["Gain over random on 5 caches"].texts}
    assert rows["margins"][0] == "+4.37" and rows["margins"][3:] == ["100 %", "100 %", "100 %"]
    assert set(rows) == {"margins", "coreset"}


def test_from_six_caches_on_there_are_p_and_ranks(six: pd.DataFrame) -> None:
    found = over(six)
    assert cell(found["Every two over 6 caches"], "margins", "random") == "+4.36 6/0/0 p=0.031"
    ranks = found["Ranks of query strategies over caches"]
    assert ranks.texts == [["margins", "1.00"], ["random", "2.00"], ["coreset", "3.00"]]
    assert ranks.notes[1] == "Not on every cache, so not ranked: badge."


def test_ranks_refuse_incomplete_grids(six: pd.DataFrame) -> None:
    found = over(six[(six["query_strategy"] != "coreset") | (six["dataset"] != "a")])
    assert "Ranks of query strategies over caches" not in found  # two are left, and two have no ranks
    assert [row[0] for row in found["Gain over random on 6 caches"].texts] == ["margins"]
    assert cell(found["Every two over 6 caches"], "coreset", "random").endswith(" 0/0/5")  # the five that have both


def test_heads_on_one_cache_and_copies_of_it_are_no_other_caches(six: pd.DataFrame) -> None:
    one = six[six["dataset"] == "a"]
    for column, value in (("conditions", '{"classifier": {"strength": %d}}'), ("dataset", "copy %d")):
        several = pd.concat([one.assign(**{column: value % n}) for n in range(6)], ignore_index=True)
        assert len(list(settings_of(several))) == 6
        assert over(several) == {}
    same = six.assign(initial="x", picked=six["query_strategy"])
    assert over(same) == {}  # ten seeds that picked the same


def test_the_report_prints_and_writes_what_is_said_over_caches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset in "ab":
        for strategy in ("random", "margins"):
            write_run(tmp_path, strategy, LEVELS[strategy], seeds=10, dataset=dataset, cache=dataset)
    status, out, _ = run_report(capsys, tmp_path, "--format", "markdown")
    assert status == 0 and "**Every two over 2 caches: logistic head" in out and "**Gain over random" in out
    gains = pd.read_csv(tmp_path / "report" / "over-caches-1-gains-accuracy.csv")
    assert gains["strategy"].tolist() == ["margins"] and set(gains["caches"]) == {2}
