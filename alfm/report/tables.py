"""What is said of finished runs, as tables.

One per setting (data set, model, head with its options, budget, splits and all else but the strategies), for the
cold start that most of its strategies share; runs with another cold start are shown in a second one and never enter a
test. Seeds that picked the same items count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import MEGABYTES, SECONDS, SHARE, Table, TableCell
from alfm.report.comparisons import against_tables, matrix_tables
from alfm.report.significance import statistics_table
from alfm.report.stops import stop_tables
from alfm.results.replicates import counted
from alfm.results.setting import REFERENCE, Setting, summary, under_test
from alfm.results.statistics import MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd


def summary_table(
    df: pd.DataFrame, metric: str, title: str, show_start: bool = False, numbers: pd.DataFrame | None = None
) -> Table:
    """`summary` for reading: the metric at each quarter of the budget, its areas, and what they cost.

    numbers: the summary, where it is there already.
    """
    numbers = summary(df, metric) if numbers is None else numbers
    even = np.allclose(
        numbers["AUBC over rounds mean"], numbers["AUBC over labels mean"], rtol=0, atol=5e-5, equal_nan=True
    )
    places = [c.removesuffix(" mean") for c in numbers if c.endswith(" mean")]
    if even:
        places.remove("AUBC over labels")
    heads = [p.replace("over rounds", "").strip() if even else p for p in places]
    shown = {
        "start": show_start,
        "seeds": numbers["seeds"].nunique() > 1,  # else said once, below
        "differ": bool((numbers["units"] < numbers["seeds"]).any()),
        "filled": bool((numbers["filled"] > 0).any()),
    }
    extra = [name for name, there in shown.items() if there]
    rows = [_summary_row(row, extra, places, METRICS[metric].scale) for row in numbers.to_dict("records")]
    header = ["strategy", *extra, *heads, "fit+query+eval s", "MB"]
    return Table(title, header, rows, _summary_notes(df, numbers, metric, even, extra))


def _summary_row(row: Mapping[Any, Any], extra: Sequence[str], places: Sequence[str], scale: Scale) -> list[TableCell]:
    about = {
        "start": TableCell(row["init_strategy"]),
        "seeds": TableCell(row["seeds"]),
        "differ": TableCell(_different(row)),
        "filled": TableCell(row["filled"] or None, SHARE),
    }
    return [
        TableCell(row["strategy"]),
        *(about[name] for name in extra),
        *(TableCell(row[f"{place} mean"], scale, spread=row[f"{place} std"]) for place in places),
        TableCell(tuple(row[f"{part} seconds"] for part in ("fit", "query", "eval")), SECONDS),
        TableCell(row["peak memory bytes"], MEGABYTES),
    ]


def _summary_notes(df: pd.DataFrame, numbers: pd.DataFrame, metric: str, even: bool, extra: Sequence[str]) -> list[str]:
    count = numbers["seeds"].iloc[0]
    seeds = "seeds" if "seeds" in extra else counted(count, numbers["draws"].iloc[0])
    unit = METRICS[metric].scale.unit
    notes = [
        f"{metric}{f' in {unit}' if unit else ''} after n labels, mean ±std over {seeds}. AUBC: area under the budget "
        f"curve{' over rounds (over labels it is the same)' if even else ''}. Seconds: all seeds together. MB: peak "
        "memory."
    ]
    if "paid" in df:
        last = df.loc[df["round"] == df["round"].max(), "paid"]
        notes.append(
            "Draws of the pool differ in size, and so does what they pay for: n is their mean, at the end of "
            f"{last.min()} to {last.max()} labels."
        )
    if "added" in df and (names := df.loc[df["added"].fillna(False).astype(bool), "strategy"].unique()).size:
        notes.append(f"{', '.join(names)} was added to a sweep that had nothing to compare with.")
    if "filled" in extra:
        most = numbers.loc[numbers["most filled"].idxmax()]
        notes.append(
            f"filled: share of the picks drawn at random because the strategy left them open; most in one round: "
            f"{most['strategy']}, {SHARE.text(most['most filled'])}."
        )
    if "differ" in extra:
        notes.append(
            "differ: how many of the seeds picked different items from start to end; 'one start': all seeds began with "
            "the same items and picked the same, so they are one curve and have no ±. Means are over all seeds, ± and "
            f"tests count what differs. {_remedy(df)}"
        )
    return notes


def _different(row: Mapping[Any, Any]) -> str:
    if row["units"] == row["seeds"]:
        return str(row["seeds"])
    return "one start" if row["units"] == 1 else f"{row['units']} of {row['seeds']}"


def _remedy(df: pd.DataFrame) -> str:
    """What lets the seeds of runs that repeat one another differ; a command for runs that `al_train` made."""
    if (df["draw"] != "").any() or "index_sets" in set(df["init_strategy"]):
        return "Remedy: more draws (index_sets.partition, pool.seed)."
    if set(df["init_strategy"]) <= {REFERENCE}:
        return "Remedy: other seeds."
    if "path" not in df:
        return f'Remedy: one random start for all, init_strategy="random", and at least {MIN_SEEDS} seeds.'
    names = ",".join(dict.fromkeys(df["query_strategy"]))
    seeds = sorted(set(df["seed"]))
    seeds += [seed for seed in range(1, 2 * MIN_SEEDS) if seed not in seeds][: max(0, MIN_SEEDS - len(seeds))]
    sweep = "-m " if "," in names else ""
    return (
        f"Remedy: one random start for all, python -m alfm.al_train {sweep}query_strategy={names} init_strategy=random "
        f"'seeds=[{','.join(map(str, seeds))}]', with the other settings as they were."
    )


def tables_of(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """A setting's printed tables, and full ones by file name: of comparisons, tests (from ten seeds that differ on) and
    stops."""
    stops, full = stop_tables(setting, metric)
    tables = summary_tables(setting, metric)
    if not len(setting.shared):
        return [*tables, *stops], full
    compared: list[Table] = []
    try:
        for part in (against_tables, matrix_tables):
            found, behind = part(setting, metric)
            compared += found
            full |= behind
        if (tests := statistics_table(setting, metric)) is not None:
            compared.append(tests[0])
            full |= tests[1]
    except UserError as reason:
        tables[0].notes.append(f"No tests: {reason}.")
    return [tables[0], *compared, *tables[1:], *stops], full


def summary_tables(setting: Setting, metric: str) -> list[Table]:
    """The shared start's table and, where there are some, that of the other cold starts; titles name what is tested.

    None where rules could end all runs.
    """
    tables = []
    if len(setting.shared):
        what = under_test(setting.shared)
        tables.append(summary_table(setting.shared, metric, f"{what[0].upper()}{what[1:]}: {setting.start_title}"))
    if len(setting.own):
        title = f"Other cold starts, not comparable by tests: {under_test(setting.own)}, {setting.title}"
        tables.append(summary_table(setting.own, metric, title, show_start=True))
    return tables
