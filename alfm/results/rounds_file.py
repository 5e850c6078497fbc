"""`rounds.csv`: one row per seed and round, and whether rows and picks fit together.

A metric is a column between the labels and the seconds. Tables of other versions may lack one that is measured now, or
have one more: a cell that was never measured is empty (NaN is a measure that is not defined), and whatever is there is
kept and written again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from alfm.metrics import METRICS

Row = dict[str, float | int]
"""Column -> value, in the order of the table's columns, without those that were not measured."""

_PLACE = ("seed", "round", "num_labeled")
_COST = ("fit_seconds", "query_seconds", "eval_seconds", "num_replicates", "num_filled", "peak_memory_bytes")
_INTEGERS = frozenset({*_PLACE, "num_replicates", "num_filled", "peak_memory_bytes"})
LATER = ("num_abstained", "num_classes", "num_validation")
"""Whole numbers that older tables lack, up to each round: labels paid for without an answer, classes with at least one
label, and validation labels paid for. Empty where nobody counted."""


def columns(stored: Sequence[str] = ()) -> tuple[str, ...]:
    """What a row of this version holds. `stored`: a table's own columns, which stay where they are: the metrics that it
    lacks are put behind its last one, later columns behind everything."""
    if not stored:
        return (*_PLACE, *METRICS, *_COST, *LATER)
    behind = stored.index(_COST[0])
    new, later = ([name for name in names if name not in stored] for names in (METRICS, LATER))
    return (*stored[:behind], *new, *stored[behind:], *later)


COLUMNS = columns()
"""Of this version's own metrics: the name that users of 0.1.0 know."""


def as_row(given: Mapping[str, float | int], order: Sequence[str]) -> Row:
    """A round's numbers as a row of a table with columns in this order.

    ValueError unless it holds `columns()`, of which it may leave out what came later.
    """
    if not set(columns()) - set(LATER) <= set(given) <= set(columns()):
        raise ValueError(f"a row must hold exactly {', '.join(columns())}")
    whole = _INTEGERS.union(LATER)
    return {name: int(given[name]) if name in whole else float(given[name]) for name in order if name in given}


def read_rounds(file: Path) -> tuple[dict[int, list[Row]], tuple[str, ...]]:
    """Rows of each seed, in the file's order, and its columns. ValueError, OSError or csv.Error for what is no table of
    rounds."""
    rows: dict[int, list[Row]] = {}
    with file.open(newline="") as text:
        reader = csv.reader(text)
        header = tuple(next(reader, ()))
        for name in (*_PLACE, *_COST):
            if header.count(name) != 1:
                raise ValueError(f"its columns are {', '.join(header) or 'none'}, without one {name}")
        if len(set(header)) < len(header):
            raise ValueError(f"columns stand twice among {', '.join(header)}")
        for line in reader:
            cells = zip(header, line, strict=True)
            row = {name: _number(name, cell) for name, cell in cells if cell or name in _INTEGERS}
            rows.setdefault(int(row["seed"]), []).append(row)
    return rows, header


def _number(name: str, text: str) -> float | int:
    """A column that this version does not know may hold whole numbers: they are written again as they were."""
    known = name in METRICS or name in _COST
    whole = name in _INTEGERS or name in LATER or not known and text.lstrip("-").isdecimal()
    return int(text) if whole else float(text)


def written(rows: Iterable[Row], order: Sequence[str]) -> bytes:
    """The file's content; a float reads back as the same float."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(order)
    writer.writerows([row.get(name, "") for name in order] for row in rows)
    return text.getvalue().encode()


def checksum(rows: Sequence[Row], picks: np.ndarray) -> str:
    """Of one seed, so that others may go on: what its rows measured as values, however they are written, and its picks
    int64 (n,)."""
    text = json.dumps([list(row.items()) for row in rows])
    return hashlib.sha256(text.encode() + picks.astype("<i8").tobytes()).hexdigest()[:32]


def fault(rows: Sequence[Row], picks: np.ndarray) -> str | None:
    """Why consecutive rows of a seed and its picks up to the last of them do not fit together, or None."""
    for before, after in zip(rows, rows[1:], strict=False):
        if after["round"] != before["round"] + 1:
            return f"round {after['round']} follows round {before['round']}"
        if after["num_labeled"] <= before["num_labeled"]:
            return f"round {after['round']} has no new label"
    if rows[-1]["num_labeled"] != len(picks) or not len(picks):
        return f"round {rows[-1]['round']} has num_labeled {rows[-1]['num_labeled']}, but {len(picks)} picks"
    if picks.min() < 0 or len(np.unique(picks)) != len(picks):
        return "an item is picked twice or has a negative index"
    return None
