"""`python -m alfm.report [LOG_DIR_OR_RUNS...]`: tables, statistics and learning curves of finished runs.

One table per setting (data set, model, head, budget), for the cold start that most of its strategies share; runs with
another cold start are shown in a second one and never enter a test.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alfm.comparison import REFERENCE, Setting, settings_of, summary
from alfm.curves import plot_curves, styles_of
from alfm.errors import UserError, nearest_names
from alfm.metrics import LOWER_IS_BETTER, METRICS

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
    extra = [*(["start"] if show_start else []), *(["seeds"] if varied else [])]
    header = ["strategy", *extra, *heads, "fit+query+eval s", "MB"]
    rows = []
    for row in numbers.to_dict("records"):
        cells = [row["strategy"], *([row["init_strategy"]] if show_start else []), *([str(row["seeds"])] * varied)]
        cells += [_plus_minus(row[f"{p} mean"], row[f"{p} std"], metric) for p in places]
        cells.append("+".join(_seconds(row[f"{part} seconds"]) for part in ("fit", "query", "eval")))
        cells.append(f"{row['peak memory bytes'] / 1e6:.0f}")
        rows.append(cells)
    seeds = "seeds" if varied else "1 seed" if counts[0] == 1 else f"{counts[0]} seeds"
    unit = "" if metric == "nll" else " in %"
    note = (
        f"{metric}{unit} after n labels, mean ±std over {seeds}. AUBC: area under the budget curve"
        f"{' over rounds (over labels it is the same)' if even else ''}. Seconds: all seeds together. MB: peak memory."
    )
    return Table(title, header, rows, [note])


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

    Raises UserError where the runs cannot be paired or have too few seeds: then there is no significance to speak of.
    """
    from alfm import statistics as st

    if setting.shared["strategy"].nunique() < 2:
        return None
    seeds = setting.shared.groupby("strategy", sort=False)["seed"].nunique()
    few = list(seeds.index[seeds < st.MIN_SEEDS])
    if len(seeds) - len(few) < 2:
        few = []  # then nobody has enough, which is said below
    df = setting.shared[~setting.shared["strategy"].isin(few)]
    curves = st.paired_curves(df, metric, "strategy")
    penalties, pairs = st.penalty_matrix(curves), st.wilcoxon_holm(curves)
    full = {"penalties": penalties, "wilcoxon": pairs}
    columns: dict[str, dict[str, str]] = {}
    left_out = f" Fewer than {st.MIN_SEEDS} seeds, so left out: {', '.join(few)}." if few else ""
    notes = [f"Paired over {len(curves.seeds)} seeds.{left_out}"]
    reachable = min(1.0, 2.0 ** (1 - len(curves.seeds)) * len(pairs))
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
        import pandas as pd

        scores = pd.DataFrame(curves.areas().T, columns=curves.strategies)
        ranks = st.average_ranks(scores, higher_is_better=curves.sign > 0)
        columns["rank"] = {s: f"{rank:.1f}" for s, rank in ranks.average.items()}
        order = list(ranks.average.index)
        notes.append(
            f"rank: mean over seeds by AUBC; Friedman p = {ranks.friedman_p:.2g}, Nemenyi critical difference "
            f"{ranks.critical_difference:.1f}."
        )
    if REFERENCE in curves.strategies:
        bands = st.better_than_random(df, metric=metric, label="strategy")
        full["better_than_random"] = bands
        marks = {"better": " better", "worse": " worse", "too few seeds": " ?"}
        for band, part in bands.groupby("band", sort=False):
            first, last = st.BANDS[str(band)]
            columns[f"{band} {first}-{last}"] = {
                row.strategy: f"{row.gap:+.1f}{marks.get(row.verdict, ' =')}" for row in part.itertuples()
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
            f"than {REFERENCE}. efficiency: labels {REFERENCE} needs to be as good as the strategy with {half} labels, "
            f"over {half}; '>' where it never is."
        )
        if "boss" in curves.strategies:
            try:
                gaps = st.regret(curves)
                columns["regret"] = {s: f"{gaps[s]:.2f}" for s in curves.strategies}
                notes.append("regret: share of the oracle's (boss) lead over random that is missing, on AUBC.")
            except UserError as reason:
                notes.append(f"No regret: {reason}.")
    rows = [[s, *(cells.get(s, "") for cells in columns.values())] for s in order]
    return Table(f"Statistics: {setting.start_title}", ["strategy", *columns], rows, notes), full


def rank_table(settings: Sequence[Setting], metric: str) -> Table | None:
    """Ranks over settings (shared starts, mean area over seeds) of the strategies that all of them have; None below
    `_MIN_BLOCKS` settings or three strategies, where Friedman's test has nothing to say."""
    import pandas as pd

    from alfm.statistics import average_ranks

    if len(settings) < _MIN_BLOCKS:
        return None
    scores = {s.start_title: summary(s.shared, metric).set_index("strategy")["AUBC over rounds mean"] for s in settings}
    table = pd.DataFrame(scores).T.dropna(axis=1)
    if table.shape[1] < 3:
        return None
    ranks = average_ranks(table, higher_is_better=metric not in LOWER_IS_BETTER)
    note = (
        f"Mean rank by AUBC ({metric}) over {ranks.num_blocks} settings; Friedman p = {ranks.friedman_p:.2g}, Nemenyi "
        f"critical difference {ranks.critical_difference:.1f}: closer strategies are not told apart."
    )
    rows = [[str(name), f"{rank:.2f}"] for name, rank in ranks.average.items()]
    return Table("Ranks over settings", ["strategy", "rank"], rows, [note])


def report_tables(df: pd.DataFrame, metric: str) -> Iterator[tuple[Setting, list[Table], dict[str, pd.DataFrame]]]:
    """Per setting: its printed tables, and the full tables of its tests (empty below ten seeds)."""
    for setting in settings_of(df):
        tables, full = [summary_table(setting.shared, metric, setting.start_title)], {}
        try:
            found = statistics_table(setting, metric)
            if found:
                tables.append(found[0])
                full = found[1]
        except UserError as reason:
            tables[0].notes.append(f"No tests: {reason}.")
        if len(setting.own):
            title = f"Other cold starts, not comparable by tests: {setting.title}"
            tables.append(summary_table(setting.own, metric, title, show_start=True))
        yield setting, tables, full


def print_summary(df: pd.DataFrame, metric: str = "accuracy") -> None:
    """Print the summary tables of runs, without statistics (the end of `al_train`)."""
    for setting in settings_of(df):
        show(summary_table(setting.shared, metric, setting.start_title))
        if len(setting.own):
            show(summary_table(setting.own, metric, f"Other cold starts: {setting.title}", show_start=True))


def show(table: Table, style: str = "table") -> None:
    """Print as a `table` for the terminal or as `markdown`."""
    if style == "markdown":
        lines = [table.header, ["---"] + ["---:"] * (len(table.header) - 1), *table.rows]
        print(f"**{table.title}**\n")
        print("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines))
        print("".join(f"\n{note}\n" for note in table.notes))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width to keep to
    rich = RichTable(box=box.SIMPLE_HEAD, padding=0)
    for i, name in enumerate(table.header):
        rich.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=not i)
    for row in table.rows:
        rich.add_row(*map(Text, row))
    console.print(Text(table.title, style="bold"))
    console.print(rich)
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a user's mistake) or 2 (a wrong command line)."""
    parser = argparse.ArgumentParser("python -m alfm.report", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("paths", nargs="*", type=Path, metavar="LOG_DIR_OR_RUN", help="default: LOG_DIR")
    parser.add_argument("--out", type=Path, help="folder for curves and test tables (default: report/ in LOG_DIR)")
    parser.add_argument("--metric", default="accuracy", help=f"one of {', '.join(METRICS)}")
    parser.add_argument("--format", default="table", choices=("table", "markdown", "csv"))
    arguments = parser.parse_args(argv)
    if arguments.metric not in METRICS:
        parser.error(f"no metric {arguments.metric!r}: {nearest_names(arguments.metric, list(METRICS))}")
    try:
        _report(arguments.paths, arguments.out, arguments.metric, arguments.format)
    except UserError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 1
    return 0


def _report(paths: list[Path], out: Path | None, metric: str, style: str) -> None:
    import pandas as pd

    from alfm.results import load_runs

    if not paths:
        from alfm.settings import paths as folders

        paths = [folders().logs]
    df = load_runs(paths, finished_only=False)
    done = df[df["finished"]]
    waiting = df.loc[~df["finished"], ["path", "seed"]].drop_duplicates()
    if done.empty:
        raise UserError(f"no finished run in {', '.join(map(str, paths))}; start al_train again to continue them")
    out = out or paths[0] / "report"
    settings, everything = [], []
    written = []
    for setting, tables, full in report_tables(done, metric):
        settings.append(setting)
        if style == "csv":
            for part in filter(len, (setting.shared, setting.own)):
                own = part is setting.own
                numbers = summary(part, metric).assign(**setting.names, metric=metric, own_cold_start=own)
                everything.append(_by_quarter(numbers))
        else:
            for table in tables:
                show(table, style)
        for name, table in full.items():
            written.append(_write_csv(table, out / f"{_stem(setting, done)}-{metric}-{name}.csv"))
    overall = rank_table(settings, metric)
    if overall and style != "csv":
        show(overall, style)
    if style == "csv":
        print(pd.concat(everything, ignore_index=True).to_csv(index=False), end="")
    styles = styles_of(settings)
    for setting in settings:
        runs = pd.concat([setting.shared, setting.own])
        written.append(plot_curves(runs, out / f"{_stem(setting, done)}-{metric}.png", metric, styles))
    # standard output stays a clean table where another program reads it
    where = sys.stdout if style == "table" else sys.stderr
    if len(waiting):
        runs = ", ".join(sorted({Path(path).name for path in waiting["path"]}))
        print(f"Left out: {len(waiting)} replicates that are not finished ({runs}).", file=where)
    for file in written:
        print(f"Written: {file}", file=where)


def _by_quarter(numbers: pd.DataFrame) -> pd.DataFrame:
    """Settings have different budgets: in one CSV their columns are named by the quarter, the labels beside them."""
    places = [c.removesuffix(" mean") for c in numbers if c.startswith("after ") and c.endswith(" mean")]
    renamed = {}
    for quarter, place in zip(range(5 - len(places), 5), places, strict=True):
        renamed |= {f"{place} mean": f"quarter {quarter} mean", f"{place} std": f"quarter {quarter} std"}
        numbers = numbers.assign(**{f"quarter {quarter} labels": int(place.removeprefix("after "))})
    return numbers.rename(columns=renamed).rename(columns=lambda name: name.replace(" ", "_"))


def _write_csv(table: pd.DataFrame, file: Path) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(file, index=table.index.dtype == object or str(table.index.dtype).startswith("str"))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
    return file


def _stem(setting: Setting, df: pd.DataFrame) -> str:
    """Data set and model, and what else is needed to tell settings of the same two apart."""
    from alfm.results import file_name

    names = setting.names
    same = df[(df["dataset"] == names["dataset"]) & (df["model"] == names["model"])]
    extra = [names[c] for c in ("classifier", "budget") if same[c].nunique() > 1]
    return file_name("-".join([names["dataset"], names["model"], *extra]).replace(" ", "_"))


if __name__ == "__main__":
    sys.exit(main())
