"""What tuning changed."""

from __future__ import annotations

from collections.abc import Sequence

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import SHARE, Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.parts import Chapter, Section
from alfm.results.load import load_tuning
from alfm.results.tuning_effect import gain_of_tuning, options_chosen

_POINTS, _NUMBER = Scale(digits=2, sign="+"), Scale(digits=3)


def chapter(knowns: Sequence[Known]) -> Chapter | None:
    """Of all runs together: a tuned head and its twin are two settings."""
    import pandas as pd

    folders = [folder for one in knowns for folder in one.folders if (folder / "tuning.csv").exists()]
    if not folders:
        return None
    metric = knowns[0].metric
    gains = gain_of_tuning(pd.concat([one.shared for one in knowns]), metric)
    sections = []
    if len(gains):
        sign = METRICS[metric].sign
        rows = [
            [
                *(TableCell(str(text)) for text in (r.dataset, r.model, r.query_strategy)), TableCell(r.seeds),
                *(TableCell(sign * v, _POINTS) for v in (r.gain, *((r.low, r.high) if sign > 0 else (r.high, r.low)))),
            ]
            for r in gains.itertuples()
        ]  # fmt: skip
        header = ["data set", "model", "strategy", "seeds", "gain, points", "low", "high"]
        note = "Mean over rounds, tuned less untuned, paired by seed, with its 95 % interval; above 0 is better."
        table = Table("Tuned beside untuned", header, rows, [note], words=3)
        sections.append(Section("tuning-gain", "What tuning gained", [], [table]))
    try:
        chosen = options_chosen(load_tuning(folders))
    except UserError as reason:
        sections.append(Section("tuning-chosen", "What was chosen", [f"Not told: {reason}."]))
    else:
        rows = [
            [
                *(TableCell(str(text)) for text in (r.dataset, r.model, r.query_strategy, r.option)),
                TableCell(r.round),
                TableCell(r.kept, SHARE), *(TableCell(float(v), _NUMBER) for v in (r.least, r.median, r.most)),
            ]
            for r in chosen.itertuples()
        ]  # fmt: skip
        header = ["data set", "model", "strategy", "option", "round", "kept its default", "least", "median", "most"]
        table = Table("Options chosen in each round", header, rows, words=4)
        sections.append(Section("tuning-chosen", "What was chosen", [], [table]))
    return Chapter("tuning", "What tuning changed", sections)
