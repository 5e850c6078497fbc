"""Which query strategies beat random selection on real features, in which phase, and at what price?

Every strategy on every cache: one label per class and step, the same random initial set for all, ten seeds, default
head. Runs go through `alfm.al_train` into ordinary run folders, so an interrupted comparison goes on where it was and
`python -m alfm.report` reads the same runs. Strategies that bring a cold start of their own are run with it too, and
shown in a second table, never in the paired tests. Oracles are run when they are named, and shown apart.

    python benchmarks/compare_strategies.py --data features --caches dtd,cifar10 --out logs/compare
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import comma, describe, markdown, strategy_names

from alfm.errors import UserError
from alfm.metrics import Scale
from alfm.report.cells import TableCell

if TYPE_CHECKING:
    import pandas as pd

OWN_STARTS = {
    "typiclust": "typiclust", "tcm": "typiclust", "probcover": "probcover", "maxherding": "maxherding",
    "uherding": "maxherding", "dropquery": "centroid",
}  # fmt: skip
ORACLES = ("boss",)
NO_METHODS = ("replay",)  # picks somebody else's items
START = "random"
MARKS = {"better": "▲", "worse": "▼", "not better than random": ""}
TENTHS, HUNDREDTHS, POINTS = Scale(digits=1), Scale(digits=2), Scale(digits=1, sign="+")
Lines = list[str]


def main() -> int:
    arguments = parse()
    caches = find_caches(arguments.data, comma(arguments.caches))
    known = strategy_names()
    chosen = (
        [s for s in known if s not in (*ORACLES, *NO_METHODS)]
        if arguments.strategies == "all"
        else comma(arguments.strategies)
    )
    if wrong := [name for name in chosen if name not in known]:
        print(f"Error: no strategy {', '.join(wrong)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen.sort(key=lambda name: name != "random")  # whatever is cut short can be compared with it
    os.environ["LOG_DIR"] = str(arguments.out)
    status = 0 if arguments.report else run(arguments, caches, chosen)
    try:
        text, result = report(arguments, caches, chosen)
    except UserError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 1
    print(text)
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return status


def parse() -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of caches, <dataset>/<model>.h5")
    parser.add_argument("--caches", default="", help="data sets to use, a,b; all when empty (77 classes take a while)")
    parser.add_argument("--strategies", default="all", help="a,b, or all but the oracles")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, 1 to this; tests need 10")
    parser.add_argument("--rounds", type=int, default=21, help="rounds, the initial set being the first")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("logs/compare"), help="where the run folders go")
    parser.add_argument("--no-own-starts", action="store_true", help="leave out the second table")
    parser.add_argument("--report", action="store_true", help="run nothing, read what is there")
    parser.add_argument(
        "--keep", type=Path, metavar="PATH", help="figures written before by --json: of strategies not run here"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write what is printed here too")
    return parser.parse_args()


def find_caches(folder: Path, wanted: Sequence[str]) -> list[Path]:
    """Cache files at `folder`/<dataset>/<model>.h5, of the data sets wanted; ends the program when there are none."""
    found = sorted([*folder.glob("*/*.h5"), *folder.glob("*/*.hdf")])
    chosen = [path for path in found if not wanted or path.parent.name in wanted]
    missing = set(wanted) - {path.parent.name for path in found}
    if missing or not chosen:
        have = ", ".join(sorted({path.parent.name for path in found})) or "none"
        sys.exit(f"Error: no cache of {', '.join(sorted(missing)) or 'any data set'} in {folder} (it has {have})")
    return chosen


def run(arguments: argparse.Namespace, caches: Sequence[Path], strategies: Sequence[str]) -> int:
    """All runs that are not there yet, one cache after the other; the exit status of the worst."""
    from alfm.al_train import TASK
    from alfm.config.hydra import run_hydra
    from alfm.engines.base import open_session
    from alfm.engines.local import Local

    engine = Local(open_session(TASK))  # one for all, so that each cache is read once

    seeds = ",".join(str(seed) for seed in range(1, arguments.seeds + 1))
    status = 0
    for cache in caches:
        common = [
            f"cache='{cache}'",
            f"seeds=[{seeds}]",
            f"iterations.n={arguments.rounds}",
            f"device={arguments.device}",
        ]
        shared = ["-m", *common, f"init_strategy={START}", f"query_strategy={','.join(strategies)}"]
        status = max(status, run_hydra("al_train", TASK, engine.run, argv=shared))
        for strategy, start in OWN_STARTS.items():
            if strategy in strategies and not arguments.no_own_starts:
                own = [*common, f"init_strategy={start}", f"query_strategy={strategy}"]
                status = max(status, run_hydra("al_train", TASK, engine.run, argv=own))
    return status


# -- what the runs say -----------------------------------------------------------------------------------------------


def report(
    arguments: argparse.Namespace, caches: Sequence[Path], strategies: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """The tables as markdown, and all figures."""
    import pandas as pd

    from alfm.results.load import load_runs
    from alfm.results.statistics import SETTING, better_than_random

    machine = describe(arguments.device)
    runs = load_runs(arguments.out)
    runs = runs[(runs["round"] <= arguments.rounds) & runs["seed"].between(1, arguments.seeds)]
    whole = runs.groupby("path")["seed"].transform("nunique") == arguments.seeds
    runs = runs[whole & runs["query_strategy"].isin(strategies)]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['device']}; written {machine['time']}.",
        f"`python benchmarks/compare_strategies.py {shlex.join(told(sys.argv[1:]))}`",
        "",
        f"{arguments.seeds} seeds, {arguments.rounds} rounds of 1 label per class, the same random initial set for "
        "every strategy, default head. Bands of rounds: low 1-7, middle 8-14, high 15-21. Columns low, middle, high: "
        "test accuracy in points minus that of random, mean over seeds, tested by paired t-tests with Holm's "
        "correction over the strategies of a cache: ▲ significantly better than random, ▼ significantly worse, no "
        "mark: not better than random, ?: fewer than ten seeds that differ, no test. Row of random: its accuracy. "
        "AUBC: area under the accuracy curve over rounds in %. Seconds: fitting, and choosing, of one seed's whole "
        "run; other programs shared the machine, so they compare to within a factor.",
    ]
    result: dict[str, Any] = {"machine": machine, "command": list(told(sys.argv[1:])), "caches": {}}
    gaps: dict[str, pd.DataFrame] = {}
    areas: dict[str, pd.Series] = {}
    for cache in caches:
        name = f"{cache.parent.name}/{cache.stem}"
        here = runs[(runs["dataset"] == cache.parent.name) & (runs["model"] == cache.stem)]
        if len(here[SETTING].drop_duplicates()) > 1:
            raise UserError(f"{name} has runs under several conditions in {arguments.out}: use a folder of its own")
        shared = here[here["init_strategy"] == START]
        plain = shared[~shared["query_strategy"].isin(ORACLES)]
        before = {} if arguments.keep is None else json.loads(arguments.keep.read_text())["caches"].get(name, {})
        if "random" in set(plain["query_strategy"]):
            numbers, bands = beside_kept(name, summary(shared), better_than_random(plain), before)
        elif before:
            numbers, bands = (
                pd.DataFrame(before["strategies"]).set_index("query_strategy"),
                pd.DataFrame(before["bands"]),
            )
        else:
            lines += ["", f"## {name}", "", "Not run."]
            continue
        compared = [s for s in numbers.index if s not in ORACLES]
        gaps[name], areas[name] = bands, numbers.loc[compared, "aubc"]
        lines += ["", f"## {name}", "", *band_table(compared, numbers, bands)]
        missing = [s for s in strategies if s not in numbers.index]
        if missing:
            lines += ["", f"Not run: {', '.join(missing)}."]
        lines += filled(numbers)
        own = own_starts(here[here["init_strategy"] != START], before)
        if len(own):
            lines += ["", "With a cold start of their own (accuracy in %; not comparable by tests):", ""]
            lines += own_table(own, numbers)
        lines += oracle_lines(shared)
        result["caches"][name] = {
            "strategies": numbers.reset_index().to_dict("records"),
            "bands": bands.drop(columns=[*SETTING, "init_options"], errors="ignore").to_dict("records"),
            "own_starts": own.reset_index().to_dict("records"),
        }
    lines += ["", "## Over all caches", "", *overall(gaps, areas)]
    return "\n".join(lines), result


def told(words: Sequence[str]) -> Iterator[str]:
    """The command line without this machine's folders."""
    for word in words:
        yield word.rstrip("/").rsplit("/", 1)[-1] if "/" in word else word


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Per strategy: accuracy in each band and AUBC in %, seconds of one seed's run, items filled at random."""
    import pandas as pd

    from alfm.metrics import area_under_budget_curve
    from alfm.results.statistics import BANDS

    rows = []
    for strategy, cells in runs.groupby("query_strategy", sort=False):
        curves = [c.sort_values("round") for _, c in cells.groupby("seed")]
        row: dict[str, Any] = {"query_strategy": strategy, "init_strategy": cells["init_strategy"].iloc[0]}
        for band, (first, last) in BANDS.items():
            part = cells.loc[cells["round"].between(first, last), "accuracy"]
            row[band] = 100 * float(part.mean()) if len(part) else float("nan")
        areas = [area_under_budget_curve(c["accuracy"].to_numpy(), c["num_labeled"].to_numpy()) for c in curves]
        row["aubc"] = 100 * sum(areas) / len(areas)
        row["seeds"] = len(curves)
        for kind in ("fit", "query"):  # a row holds the wall time of its whole batch of replicates
            row[f"{kind}_seconds"] = float((cells[f"{kind}_seconds"] / cells["num_replicates"]).sum() / len(curves))
        row["num_filled"] = int(cells["num_filled"].sum())
        rows.append(row)
    return pd.DataFrame(rows).set_index("query_strategy")


def beside_kept(
    name: str, numbers: pd.DataFrame, bands: pd.DataFrame, before: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`summary` and gaps of a cache with those written before of strategies that were not run here.

    Holm's correction and the verdicts are of all of them. Raises UserError where random is not what it was then.
    """
    import pandas as pd

    from alfm.results.statistics import verdict, with_holm

    if not before:
        return numbers, bands
    old = pd.DataFrame(before["strategies"]).set_index("query_strategy")
    if abs(old.loc["random", "aubc"] - numbers.loc["random", "aubc"]) > 1e-6:
        raise UserError(f"{name}: random is not what it was when --keep was written, so run all strategies anew.")
    new = set(numbers.index)
    kept = pd.DataFrame([row for row in before["bands"] if row["strategy"] not in new])
    bands = with_holm(pd.concat([bands, kept], ignore_index=True))
    bands["verdict"] = [verdict(row, "random") for row in bands.itertuples()]
    return pd.concat([numbers, old[~old.index.isin(new)]]), bands


def own_starts(runs: pd.DataFrame, before: dict[str, Any]) -> pd.DataFrame:
    """`summary` of runs from cold starts of their own, with those written before."""
    import pandas as pd

    tables = [summary(runs)] if len(runs) else []
    done = set(runs["query_strategy"])
    kept = [row for row in before.get("own_starts", []) if row["query_strategy"] not in done]
    if kept:
        tables.append(pd.DataFrame(kept).set_index("query_strategy"))
    return pd.concat(tables) if tables else pd.DataFrame()


def band_table(strategies: Sequence[str], numbers: pd.DataFrame, bands: pd.DataFrame) -> Lines:
    """One line per strategy, best AUBC first."""
    names = list(dict.fromkeys(bands["band"]))
    gaps = {
        (row.strategy, row.band): TableCell(row.gap, POINTS, MARKS.get(row.verdict, "?")) for row in bands.itertuples()
    }
    order = numbers.loc[list(strategies)].sort_values("aubc", ascending=False)
    rows = []
    for row in order.itertuples():
        base = row.Index == "random"
        phases = [TableCell(getattr(row, b), TENTHS, "%") if base else gaps.get((row.Index, b)) for b in names]
        numbers_of = (row.aubc, row.fit_seconds, row.query_seconds)
        rows.append([row.Index, *phases, *(TableCell(number, HUNDREDTHS) for number in numbers_of)])
    return markdown(["strategy", *names, "AUBC", "fit s", "query s"], rows)


def own_table(own: pd.DataFrame, shared: pd.DataFrame) -> Lines:
    """Strategies with their own cold start, the same strategy from the shared one in brackets."""
    rows = []
    for row in own.sort_values("aubc", ascending=False).itertuples():
        beside = shared.loc[row.Index] if row.Index in shared.index else None
        cells = []
        for kind in ("low", "middle", "high", "aubc"):
            own_start = getattr(row, kind)
            mark = "" if beside is None else f"({beside[kind]:.1f})"
            cells.append(None if own_start != own_start else TableCell(own_start, TENTHS, mark))  # NaN: no round
        rows.append([row.Index, row.init_strategy, *cells])
    return markdown(["strategy", "cold start", "low", "middle", "high", "AUBC (from the random start)"], rows)


def oracle_lines(shared: pd.DataFrame) -> Lines:
    """The ceiling, and how much of its lead over random each strategy lacks."""
    from alfm.results.pairing import paired_curves
    from alfm.results.statistics import regret

    if not set(ORACLES) <= set(shared["query_strategy"]):
        return []
    lacking = sorted(regret(paired_curves(shared)).items(), key=lambda item: item[1])
    rows = [[name, TableCell(value, HUNDREDTHS)] for name, value in lacking]
    return [
        "",
        "Oracle (sees labels): share of its lead over random that is missing, on AUBC",
        "",
        *markdown(["strategy", "regret"], rows),
    ]


def filled(numbers: pd.DataFrame) -> Lines:
    """Who left a part of a batch to chance."""
    some = [f"{name} {count}" for name, count in numbers["num_filled"].items() if count]
    return ["", f"Picks of all seeds that came from completing a batch at random: {', '.join(some)}."] if some else []


def overall(gaps: dict[str, pd.DataFrame], areas: dict[str, pd.Series]) -> Lines:
    """Mean rank by AUBC over caches, mean gaps, and on how many caches a band is better or worse than random."""
    import pandas as pd

    from alfm.results.statistics import average_ranks

    if not gaps:
        return ["No cache has runs of random."]
    table = pd.DataFrame(areas).T.dropna(axis=1)
    bands = pd.concat(gaps.values())
    try:
        ranks = average_ranks(table)
    except UserError as reason:
        return [f"No ranks: {reason}."]
    names = list(dict.fromkeys(bands["band"]))
    rows = []
    for strategy, rank in ranks.average.items():
        row: list[Any] = [str(strategy), TableCell(rank, TENTHS)]
        for band in names:
            part = bands[(bands["strategy"] == strategy) & (bands["band"] == band)]
            better, worse = (int((part["verdict"] == v).sum()) for v in ("better", "worse"))
            row.append(TableCell(part["gap"].mean(), POINTS, f"({better}▲ {worse}▼)") if len(part) else None)
        rows.append(row)
    left_out = sorted({name for series in areas.values() for name in series.index} - set(table.columns))
    note = (
        f"Caches: {', '.join(gaps)}. Mean rank by AUBC; Friedman p = {ranks.friedman_p:.2g}, Nemenyi critical "
        f"difference {ranks.critical_difference:.1f} ({ranks.num_blocks} caches: only large differences show). Bands: "
        "mean gap to random in points, and on how many caches it is significantly better and worse."
        + (f" Not run on every cache, so left out: {', '.join(left_out)}." if left_out else "")
    )
    return [*markdown(["strategy", "rank", *names], rows), "", note]


if __name__ == "__main__":
    sys.exit(main())
