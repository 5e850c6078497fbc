"""`python -m alfm.report [LOG_DIR_OR_RUNS...]`: tables, statistics and learning curves of finished runs.

One table per setting (data set, model, head with its options, budget, splits and all else but the strategies), for the
cold start that most of its strategies share; runs with another cold start are shown in a second one and never enter a
test. Seeds that picked the same items count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.metrics import LOWER_IS_BETTER
from alfm.results.conditions import differing
from alfm.results.setting import REFERENCE, Setting, summary, units_of
from alfm.results.statistics import MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

_MIN_BLOCKS = 5  # settings from which ranks over them are shown


@dataclass
class Table:
    """A printed table: strings only. `notes` are printed below it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def summary_table(df: pd.DataFrame, metric: str, title: str, show_start: bool = False) -> Table:
    """`summary` rounded for reading: fractions in percent, "mean ±std"."""
    numbers = summary(df, metric)
    places = [c.removesuffix(" mean") for c in numbers if c.endswith(" mean")]
    even = np.allclose(numbers["AUBC over rounds mean"], numbers["AUBC over labels mean"], rtol=0, atol=5e-5)
    if even:
        places.remove("AUBC over labels")
    heads = [p.replace("over rounds", "").strip() if even else p for p in places]
    counts = numbers["seeds"].unique()
    varied = len(counts) > 1  # else said once, below
    repeated = bool((numbers["units"] < numbers["seeds"]).any())
    filled = bool((numbers["filled"] > 0).any())
    shown = {"start": show_start, "seeds": varied, "differ": repeated, "filled": filled}
    header = ["strategy", *(name for name, there in shown.items() if there), *heads, "fit+query+eval s", "MB"]
    rows = []
    for row in numbers.to_dict("records"):
        extra = {
            "start": row["init_strategy"], "seeds": str(row["seeds"]), "differ": _different(row),
            "filled": f"{100 * row['filled']:.3g} %" if row["filled"] else "",
        }  # fmt: skip
        cells = [row["strategy"], *(extra[name] for name, there in shown.items() if there)]
        cells += [_plus_minus(row[f"{p} mean"], row[f"{p} std"], metric) for p in places]
        cells.append("+".join(_seconds(row[f"{part} seconds"]) for part in ("fit", "query", "eval")))
        cells.append(f"{row['peak memory bytes'] / 1e6:.0f}")
        rows.append(cells)
    seeds = "seeds" if varied else "1 seed" if counts[0] == 1 else f"{counts[0]} seeds"
    unit = "" if metric == "nll" else " in %"
    notes = [
        f"{metric}{unit} after n labels, mean ±std over {seeds}. AUBC: area under the budget curve"
        f"{' over rounds (over labels it is the same)' if even else ''}. Seconds: all seeds together. MB: peak memory."
    ]
    if filled:
        most = numbers.loc[numbers["most filled"].idxmax()]
        notes.append(
            f"filled: share of the picks drawn at random because the strategy left them open; most in one round: "
            f"{most['strategy']}, {100 * most['most filled']:.3g} %."
        )
    if repeated:
        notes.append(
            "differ: how many of the seeds picked different items from start to end; 'one start': all seeds began with "
            "the same items and picked the same, so they are one curve and have no ±. Means are over all seeds, ± and "
            f"tests count what differs. {_remedy(df)}"
        )
    return Table(title, header, rows, notes)


def _different(row: Mapping[Any, Any]) -> str:
    if row["units"] == row["seeds"]:
        return str(row["seeds"])
    return "one start" if row["units"] == 1 else f"{row['units']} of {row['seeds']}"


def _remedy(df: pd.DataFrame) -> str:
    """What lets the seeds of runs that repeat one another differ; a command for runs that `al_train` made."""
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


def _plus_minus(mean: float, std: float, metric: str) -> str:
    scale, digits = (1, 3) if metric == "nll" else (100, 1)
    if np.isnan(mean):
        return "-"
    spread = "" if np.isnan(std) else f" ±{scale * std:.{digits}f}"
    return f"{scale * mean:.{digits}f}{spread}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 1 else f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


def statistics_table(setting: Setting, metric: str) -> tuple[Table, dict[str, pd.DataFrame]] | None:
    """Comparisons of the shared start, and the full tables behind them; None with a single strategy.

    Raises UserError where the runs cannot be paired or have too few seeds that differ: then there is no significance to
    speak of.
    """
    from alfm.results import statistics as st

    if setting.shared["strategy"].nunique() < 2:
        return None
    df, few = _enough(setting.shared)
    curves = st.paired_curves(df, metric, "strategy")
    penalties, pairs = st.penalty_matrix(curves), st.wilcoxon_holm(curves)
    full = {"penalties": penalties, "wilcoxon": pairs}
    columns: dict[str, dict[str, str]] = {}
    size = curves.sample_size
    notes = [f"Paired over {len(curves.seeds)} seeds{f', of which {size} differ' if size < len(curves.seeds) else ''}."]
    if few:
        notes[0] += f" Fewer than {MIN_SEEDS} seeds that differ, so left out: {', '.join(few)}."
    if len(set(curves.initial)) == 1:
        notes[0] += " All seeds began with the same items: differences hold for that start."
    reachable = min(1.0, 2.0 ** (1 - size) * len(pairs))
    if reachable < st.ALPHA:
        sure = pairs[pairs["p_holm"] < st.ALPHA]
        columns["beats"] = {s: str(int((sure["better"] == s).sum())) for s in curves.strategies}
        columns["beaten by"] = {s: str(int((sure["worse"] == s).sum())) for s in curves.strategies}
        notes.append(f"beats, beaten by: strategies, by Wilcoxon on AUBC with Holm (p < {st.ALPHA}).")
    else:  # a column of zeros would read as "all alike"
        notes.append(
            f"Wilcoxon with Holm over {len(pairs)} pairs cannot go below p = {reachable:.2g} with this many seeds: "
            "compare fewer strategies, or add seeds."
        )
    columns["penalty"] = {s: f"{penalties[s].mean():.2f}" for s in curves.strategies}
    notes.append("penalty: mean share of rounds in which another strategy is better by a paired t-test.")
    order = list(curves.strategies)
    if len(curves.strategies) > 2:
        ranks = st.ranks_over_seeds(curves)
        columns["rank"] = {s: f"{rank:.1f}" for s, rank in ranks.average.items()}
        order = list(ranks.average.index)
        notes.append(
            f"rank: mean over seeds by AUBC; Friedman p = {ranks.friedman_p:.2g}, Nemenyi critical difference "
            f"{ranks.critical_difference:.1f}."
        )
    if REFERENCE in curves.strategies:
        bands = st.better_than_random(df, metric=metric, label="strategy")
        full["better_than_random"] = bands
        marks = {"better": " better", "worse": " worse", f"not better than {REFERENCE}": " ="}
        for band, part in bands.groupby("band", sort=False):
            first, last = st.BANDS[str(band)]
            columns[f"{band} {first}-{last}"] = {
                row.strategy: f"{row.gap:+.1f}{marks.get(row.verdict, ' ?')}" for row in part.itertuples()
            }
        efficiency = st.label_efficiency(curves)
        full["label_efficiency"] = efficiency
        half = int(curves.num_labeled[np.searchsorted(curves.num_labeled, curves.num_labeled[-1] / 2)])
        columns[f"efficiency at {half}"] = {
            row.strategy: f"{row.bound}{row.efficiency:.2f}"
            for row in efficiency[efficiency["num_labeled"] == half].itertuples()
        }
        notes.append(
            f"Rounds of each band: points above {REFERENCE} (paired t-test, Holm over strategies), '=': not better "
            f"than {REFERENCE}, '?': too few seeds that differ by then. efficiency: labels {REFERENCE} needs to be as "
            f"good as the strategy with {half} labels, over {half}; '>' where it never is."
        )
        if "boss" in curves.strategies:
            try:
                gaps = st.regret(curves)
                columns["regret"] = {s: f"{gaps[s]:.2f}" for s in curves.strategies}
                notes.append("regret: share of the oracle's (boss) lead over random that is missing, on AUBC.")
            except UserError as reason:
                notes.append(f"No regret: {reason}.")
    rows = [[s, *(cells.get(s, "") for cells in columns.values())] for s in order]
    return Table(f"Statistics of {_under_test(df)}: {setting.start_title}", ["strategy", *columns], rows, notes), full


def _enough(shared: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Runs of the strategies with enough seeds that differ, and the other strategies; all runs where nobody has."""
    ends = shared.sort_values("round").groupby(["strategy", "seed"], sort=False).tail(1)
    few = [str(name) for name, rows in ends.groupby("strategy", sort=False) if units_of(rows).max() + 1 < MIN_SEEDS]
    if shared["strategy"].nunique() - len(few) < 2:
        few = []
    return shared[~shared["strategy"].isin(few)], few


def rank_tables(settings: Sequence[Setting], metric: str) -> list[Table]:
    """Ranks over data sets and backbones (shared starts, mean area over the common seeds) of the strategies that all of
    them have, for every head, budget and start that enough of them share.

    Only settings that tests can speak of are blocks; there is no table below `_MIN_BLOCKS` of them or three strategies,
    where Friedman's test has nothing to say.
    """
    import pandas as pd

    from alfm.results.statistics import average_ranks, paired_curves

    rows: dict[str, dict[str, dict[str, float]]] = {}
    for setting in settings:
        try:
            curves = paired_curves(_enough(setting.shared)[0], metric, "strategy")
        except UserError:  # said where the setting is shown
            continue
        if curves.sample_size >= MIN_SEEDS:
            rules = ", ".join(filter(None, (setting.rules, f"{setting.start} start" if setting.start else "")))
            areas = dict(zip(curves.strategies, curves.areas().mean(axis=1).tolist(), strict=True))
            rows.setdefault(rules, {})[setting.names["cache"] or setting.data] = areas
    tables = []
    for rules, blocks in rows.items():
        scores = pd.DataFrame(blocks).T.dropna(axis=1)
        if len(blocks) < _MIN_BLOCKS or scores.shape[1] < 3:
            continue
        ranks = average_ranks(scores, higher_is_better=metric not in LOWER_IS_BETTER)
        note = (
            f"Mean rank by AUBC ({metric}) over {ranks.num_blocks} settings that differ in their data only; Friedman p "
            f"= {ranks.friedman_p:.2g}, Nemenyi critical difference {ranks.critical_difference:.1f}: closer strategies "
            "are not told apart."
        )
        lines = [[str(name), f"{rank:.2f}"] for name, rank in ranks.average.items()]
        tables.append(Table(f"Ranks of query strategies over settings: {rules}", ["strategy", "rank"], lines, [note]))
    return tables


def tables_of(setting: Setting, metric: str) -> tuple[list[Table], dict[str, pd.DataFrame]]:
    """A setting's printed tables, and the full tables of its tests (empty below ten seeds that differ)."""
    tables = _summaries(setting, metric)
    try:
        found = statistics_table(setting, metric)
    except UserError as reason:
        tables[0].notes.append(f"No tests: {reason}.")
        found = None
    if found is None:
        return tables, {}
    return [tables[0], found[0], *tables[1:]], found[1]


def _summaries(setting: Setting, metric: str) -> list[Table]:
    """The shared start's table and, where there are some, that of the other cold starts; titles name what is tested."""
    what = _under_test(setting.shared)
    tables = [summary_table(setting.shared, metric, f"{what[0].upper()}{what[1:]}: {setting.start_title}")]
    if len(setting.own):
        title = f"Other cold starts, not comparable by tests: {_under_test(setting.own)}, {setting.title}"
        tables.append(summary_table(setting.own, metric, title, show_start=True))
    return tables


def _under_test(df: pd.DataFrame) -> str:
    """For example "query strategies (margins: oversample)"."""
    varied = []
    for name, group in df.groupby("query_strategy", sort=False):
        if keys := differing(group["query_options"]):
            varied.append(f"{name}: {', '.join(keys)}")
    return "query strategies" + (f" ({'; '.join(varied)})" if varied else "")
