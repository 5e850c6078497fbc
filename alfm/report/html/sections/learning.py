"""Learning curves, the gain over random, and in which rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from alfm.metrics import METRICS, Scale
from alfm.report.cells import ALIKE, OPEN, Table, TableCell
from alfm.report.html.known import Known, shown
from alfm.report.html.parts import Section
from alfm.report.html.pictures import Lines, Series
from alfm.report.html.sections.ceiling import no_ceiling, share_of_ceiling
from alfm.report.significance import MARKS
from alfm.report.tables import summary_table
from alfm.results.setting import REFERENCE, summary, units_of
from alfm.results.statistics import BANDS, mean_interval

if TYPE_CHECKING:
    import pandas as pd

_POINTS = Scale(digits=1, sign="+")


def learning_curves(known: Known, levels: Mapping[str, float]) -> Section:
    """levels: ceilings, by what reached them."""
    series = list(mean_curves(known.shared, known.metric, known.strategies, METRICS[known.metric].scale.factor))
    title = f"{known.words.capitalize()} after so many labels: {known.setting.data}"
    picture = Lines(f"{known.stem}-curves", title, known.words, series, known.scale, levels=levels)
    title = f"What each strategy reached, and what it cost: {known.setting.data}"
    table = summary_table(known.shared, known.metric, title, numbers=known.numbers)
    lead = [f"Mean over seeds, with 95 % intervals; best first. {known.setting.start.capitalize()} start for all."]
    if "added" in known.shared and known.shared["added"].fillna(False).astype(bool).any():
        lead.append(f"Nobody asked for {REFERENCE}: it was added to a sweep that had nothing to compare with.")
    if missing := no_ceiling(known):
        lead.append(missing)
    shares = share_of_ceiling(known)
    return Section(f"{known.stem}-curves", "Learning curves", lead, [picture, table, *([shares] if shares else [])])


def mean_curves(df: pd.DataFrame, column: str, names: Iterable[str], factor: float = 1) -> Iterable[Series]:
    """Of each strategy: mean of a column over seeds and half of its t-interval, by labels."""
    for name in names:
        run = df[(df["strategy"] == name) & df[column].notna()]
        if not len(run):
            continue
        x, middle, half = [], [], []
        for labels, part in run.groupby("num_labeled"):
            mean, width = mean_interval(factor * part[column].to_numpy(dtype=np.float64), unit=units_of(part))
            x.append(int(labels))
            middle.append(float(mean))
            half.append(float(width))
        yield Series(name, x, middle, half)


def gain_over_random(known: Known) -> Section | None:
    """Paired by seed."""
    if not known.gains:
        return None
    series = [Series(name, x.tolist(), m.tolist(), h.tolist()) for name, (x, m, h) in known.gains.items()]
    title = f"Gain over {REFERENCE}: {known.setting.data}"
    picture = Lines(
        f"{known.stem}-gain", title, f"{known.points} above {REFERENCE}", series, Scale(digits=2), zero=True
    )
    blocks: list[Table | Lines] = [picture]
    if (bands := _bands(known)) is not None:
        blocks.append(bands)
    lead = [
        f"Each seed's difference to {REFERENCE} from the same initial set, averaged; above the line is better. An "
        "interval that leaves the line out is no verdict yet: verdicts count all comparisons, see below."
    ]
    return Section(f"{known.stem}-gain", f"Gain over {REFERENCE}", lead, blocks)


def _bands(known: Known) -> Table | None:
    bands = known.bands
    if bands is None or not len(bands):
        return None
    columns: dict[str, dict[str, TableCell]] = {}
    last = max(len(x) for x, _, _ in known.gains.values())
    for band, own in bands.groupby("band", sort=False):
        first, end = BANDS[str(band)]
        columns[f"{band}, rounds {first} to {min(end, last)}"] = {
            row.strategy: TableCell(row.gap, _POINTS, MARKS.get(row.verdict, OPEN)) for row in own.itertuples()
        }
    names = [name for name in known.strategies if name != REFERENCE]
    rows = [[TableCell(shown(n)), *(cells.get(n, TableCell(None)) for cells in columns.values())] for n in names]
    note = (
        f"{known.points.capitalize()} above {REFERENCE}, mean over the rounds of a band; paired t-tests, Holm over the "
        f"strategies. {ALIKE}: not better than {REFERENCE}; {OPEN}: too few seeds that differ by then."
    )
    if last > (end := max(end for _, end in BANDS.values())):
        note += f" Rounds {end + 1} to {last} are in no band; the area counts them."
    return Table(f"With few, middling and many labels: {known.setting.data}", ["strategy", *columns], rows, [note])


def other_starts(known: Known) -> Section | None:
    """Runs that began otherwise: they cannot be paired, and are shown apart."""
    own = known.setting.own
    if not len(own):
        return None
    names = own["strategy"].astype(str) + " (" + own["init_strategy"].astype(str) + " start)"
    named = own.assign(strategy=names)
    order = list(summary(named, known.metric)["strategy"])
    series = list(mean_curves(named, known.metric, order, METRICS[known.metric].scale.factor))
    title = f"{known.words.capitalize()} from other cold starts: {known.setting.data}"
    picture = Lines(f"{known.stem}-other-starts", title, known.words, series, known.scale)
    table = summary_table(own, known.metric, "Other cold starts, not comparable by tests", show_start=True)
    lead = ["These began with other items, so that a difference may be one of the beginnings: no tests."]
    return Section(f"{known.stem}-other-starts", "Other cold starts", lead, [picture, table])
