"""What a run picked, learnt from by another head or from another backbone's features, beside the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alfm.metrics import METRICS, Scale
from alfm.report.cells import Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.parts import Chapter, Section
from alfm.report.html.pictures import WHOLE, Lines
from alfm.report.html.sections.learning import mean_curves
from alfm.results.replays import Replayed, beside_original, replayed

if TYPE_CHECKING:
    import pandas as pd

_POINTS = Scale(digits=2, sign="+")


def chapter(knowns: Sequence[Known]) -> Chapter | None:
    """Of all runs together: a replay and its original are mostly of two settings. None without a replay."""
    runs: dict[str, pd.DataFrame] = {}
    for one in knowns:
        for part in (one.setting.shared, one.setting.own):
            if "path" in part and "query_options" in part:
                runs |= {str(path): own for path, own in part.groupby("path", sort=False)}
    pairs = [(own, of) for own in runs.values() if (of := replayed(own["query_options"].iloc[0]))]
    if not pairs:
        return None
    sections: list[Section] = []
    lonely = []
    for replay, of in pairs:
        original = next((own for own in runs.values() if _is(own, of)), None)
        if original is None:
            lonely.append(f"{_named(replay)} ({of.run} on {of.dataset} / {of.model})")
        elif section := _section(f"transfer-{len(sections) + 1}", original, replay, knowns[0]):
            sections.append(section)
    lead = ["The picks are the original's, seed by seed and round by round; what differs is who learns from them."]
    if lonely:
        lead.append(f"Without its original among the runs of this page: {'; '.join(lonely)}.")
    return Chapter("transfer", "What was picked, learnt from by another", sections, lead)


def _is(own: pd.DataFrame, of: Replayed) -> bool:
    first = own.iloc[0]
    return (first["dataset"], first["model"], first["run"]) == (of.dataset, of.model, of.run)


def _named(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    return f"{first['query_strategy']}, on {first['model']} with a {first['classifier']} head"


def _section(anchor: str, original: pd.DataFrame, replay: pd.DataFrame, known: Known) -> Section | None:
    frame = beside_original(original, replay, known.metric)
    if not len(frame):
        return None
    scale = METRICS[known.metric].scale
    names = [_named(original), _named(replay)]
    if names[0] == names[1]:
        names[1] += ", again"
    both = (part.assign(strategy=name) for part, name in zip((original, replay), names, strict=True))
    series = [one for part, name in zip(both, names, strict=True)
              for one in mean_curves(part, known.metric, [name], scale.factor)]  # fmt: skip
    title = f"{names[1]}: beside its original"
    picture = Lines(f"{anchor}-curves", title, known.words, series, known.scale)
    rows = [
        [
            TableCell(row.labels, WHOLE), TableCell(row.seeds),
            *(TableCell(value, scale) for value in (row.original, row.replayed)),
            *(TableCell(value, _POINTS) for value in (row.difference, row.low, row.high)),
        ]
        for row in frame.itertuples()
    ]  # fmt: skip
    header = ["labels", "seeds", names[0], names[1], f"difference, {known.points}", "low", "high"]
    note = (
        f"{known.words.capitalize()}, means over the seeds that both have. Difference: how much better the replay is, "
        "paired by seed, with its 95 % interval. Unlike a strategy's, a difference in backbones or heads is there with "
        "the first labels already."
    )
    return Section(anchor, title, [], [picture, Table(f"{title}, at each quarter", header, rows, [note])])
