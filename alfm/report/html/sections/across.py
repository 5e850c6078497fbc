"""All settings together: gains side by side, differences over caches, one number per strategy, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import OPEN, Table, TableCell
from alfm.report.html.known import Known, shown
from alfm.report.html.parts import Chapter, Section
from alfm.report.html.pictures import Diagram, Estimate, Forest, Matrix
from alfm.report.significance import MARKS
from alfm.results.aggregate import aggregate
from alfm.results.matrix import MIN_CACHES, matrix_over
from alfm.results.setting import REFERENCE
from alfm.results.statistics import average_ranks

if TYPE_CHECKING:
    import pandas as pd

_POINTS = Scale(digits=2, sign="+")


@dataclass(frozen=True)
class Together:
    """Settings that share all but their data: rules: head, budget and start, in words; knowns: by cache, in words."""

    rules: str
    stem: str
    knowns: Mapping[str, Known]

    @cached_property
    def tested(self) -> dict[str, Known]:
        """Those with runs of random to compare with."""
        return {name: one for name, one in self.knowns.items() if one.tests is not None}

    @cached_property
    def aggregate(self) -> pd.DataFrame | None:
        """`aggregate` of them, of the strategies that all have; None where that cannot be said."""
        curves = {name: one.curves for name, one in self.tested.items() if one.curves is not None}
        if len(curves) < 2 or len(curves) < len(self.tested):
            return None
        try:
            return aggregate(curves)
        except UserError:
            return None


def together(knowns: Sequence[Known]) -> list[Together]:
    """Groups of at least two settings that differ in their data only."""
    groups: dict[str, dict[str, Known]] = {}
    for one in knowns:
        if len(one.shared):
            setting = one.setting
            rules = ", ".join(filter(None, (setting.rules, f"{setting.start} start" if setting.start else "")))
            own = groups.setdefault(rules, {})
            name = setting.data if setting.data not in own else f"{setting.data} ({setting.names['cache'][:8]})"
            own[name] = one
    several = [(rules, own) for rules, own in groups.items() if len(own) > 1]
    return [Together(rules, f"together{i or ''}", own) for i, (rules, own) in enumerate(several)]


def chapter(group: Together) -> Chapter:
    """What can be said of a group."""
    sections = [one for one in (_gains(group), _one_number(group), _differences(group), _ranks(group)) if one]
    return Chapter(group.stem, "All data sets together", sections, [f"{len(group.knowns)} settings: {group.rules}."])


def _gains(group: Together) -> Section | None:
    if not group.tested:
        return None
    columns: dict[str, dict[str, TableCell]] = {}
    for name, one in group.tested.items():
        assert one.tests is not None
        columns[name] = {
            r.strategy: TableCell(r.gap, _POINTS, MARKS.get(r.verdict, OPEN))
            for r in one.tests.dropna(subset="gap").itertuples()
        }
    means = {s: [c[s].value for c in columns.values() if s in c] for c in columns.values() for s in c}
    order = sorted(means, key=lambda s: -sum(map(float, means[s])) / len(means[s]))  # type: ignore[arg-type]
    rows = [[TableCell(shown(s)), *(cells.get(s, TableCell(None)) for cells in columns.values())] for s in order]
    points = next(iter(group.tested.values())).points
    note = (
        f"{points.capitalize()} above {REFERENCE}, averaged over all rounds; in words whether that is told apart from "
        f"{REFERENCE} on that data set: '=' is not, '{OPEN}' has too few seeds that differ. Empty: not run."
    )
    table = Table(f"Gain over {REFERENCE} on each data set", ["strategy", *columns], rows, [note])
    return Section(f"{group.stem}-gains", f"Gain over {REFERENCE} on each data set", [], [table])


def _one_number(group: Together) -> Section | None:
    frame = group.aggregate
    if frame is None:
        return None
    points = next(iter(group.tested.values())).points
    gains = [Estimate(shown(r.strategy), r.iqm, r.low, r.high) for r in frame.itertuples()]
    chances = [
        Estimate(shown(r.strategy), 100 * r.improvement, 100 * r.improvement_low, 100 * r.improvement_high)
        for r in frame.sort_values("improvement", ascending=False, kind="stable").itertuples()
    ]
    title = f"Interquartile mean of the gain over {REFERENCE}"
    pictures = [
        Forest(f"{group.stem}-iqm", title, f"{points} above {REFERENCE}", gains, Scale(digits=2)),
        Forest(
            f"{group.stem}-improvement",
            f"Probability of being better than {REFERENCE}",
            "%",
            chances,
            Scale(digits=1),
            50.0,
        ),
    ]
    lead = [
        "The mean of the middle half of all runs' gains, and how probable it is that a run is better than one of "
        f"{REFERENCE}; 95 % intervals from a bootstrap that draws seeds within each data set (Agarwal et al. 2021)."
    ]
    if missing := _incomplete(group):
        lead.append(missing)
    return Section(f"{group.stem}-iqm", "One number for each strategy", lead, pictures)


def _differences(group: Together) -> Section | None:
    frames = {name: one.shared for name, one in group.knowns.items() if one.matrix is not None}
    if len(frames) < 2:
        return None
    first = next(iter(group.knowns.values()))
    frame = matrix_over(frames, first.metric, "strategy")
    names = list(dict.fromkeys(frame["a"]))
    mean = {name: frame.loc[frame["a"] == name, "difference"].mean() for name in names}
    names.sort(key=lambda name: -mean[name])
    few = len(frames) < MIN_CACHES
    note = f"Row minus column, in {first.points} of the mean over all rounds, averaged over data sets; " + (
        f"wins, ties and losses count data sets. Intervals and p take {MIN_CACHES} of them."
        if few
        else "the interval, wins, ties and losses count data sets. p: Wilcoxon's signed ranks, unadjusted."
    )
    picture = Matrix(f"{group.stem}-matrix", "Every strategy beside every other, over data sets", names, frame, note)
    lead = [note]
    if missing := _incomplete(group):
        lead.append(f"Each pair is over the data sets that have both. {missing}")
    return Section(f"{group.stem}-matrix", "Every strategy beside every other, over data sets", lead, [picture])


def _ranks(group: Together) -> Section | None:
    if len(group.knowns) < MIN_CACHES:
        return None
    title = "Critical-difference diagram"
    anchor = f"{group.stem}-ranks"
    if missing := _incomplete(group):
        return Section(anchor, title, [f"No ranks: a grid with gaps has none. {missing}"])
    import pandas as pd

    areas = {name: one.numbers.set_index("strategy")["AUBC over rounds mean"] for name, one in group.knowns.items()}
    first = next(iter(group.knowns.values()))
    try:
        ranks = average_ranks(pd.DataFrame(areas).T, METRICS[first.metric].higher_is_better)
    except UserError as reason:
        return Section(anchor, title, [f"No ranks: {reason}."])
    lead = [
        f"Mean rank by the area under the budget curve over {ranks.num_blocks} data sets. Friedman p = "
        f"{ranks.friedman_p:.2g}; strategies under one bar are not told apart (Nemenyi; Demsar 2006)."
    ]
    found = {str(name): float(rank) for name, rank in ranks.average.items()}
    return Section(anchor, title, lead, [Diagram(anchor, title, found, ranks.critical_difference)])


def _incomplete(group: Together) -> str:
    """Which strategies lack runs on which data; empty for a whole grid."""
    have = {name: set(one.strategies) for name, one in group.knowns.items()}
    every = set().union(*have.values())
    gaps = {s: [name for name, own in have.items() if s not in own] for s in sorted(every)}
    words = "; ".join(f"{s} on {', '.join(where)}" for s, where in gaps.items() if where)
    return f"Not run: {words}." if words else ""
