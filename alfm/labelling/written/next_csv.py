"""A batch as a table that a spreadsheet opens: its column `label` is filled in and read back with `labels=next.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from alfm.datasets.ids import escape
from alfm.files import replacing
from alfm.labelling.formulas import guarded
from alfm.labelling.items import Items
from alfm.labelling.written.asked import Asked, cannot_write, only_ours, path_of

COLUMNS = ("id", "path", "suggestion", "confidence", "label", "purpose", "round", "label_set")
"""Of images and recordings; texts have `text` in place of `path`."""
OURS = (COLUMNS, tuple("text" if name == "path" else name for name in COLUMNS))


def write_next(file: Path, asked: Asked, items: Items) -> None:
    """In asking order; what a spreadsheet would run has a quote before it. `UserError` for a file that is not ours."""
    shows_text = items.modality == "text"
    columns = OURS[1] if shows_text else COLUMNS
    rows = []
    for item in asked.items:
        shown = items.text(item.row) if shows_text else escape(path_of(items, item.row) or "")
        confidence = "" if item.confidence is None else round(item.confidence, 4)
        told = [guarded(item.suggestion or ""), confidence, "", item.purpose, asked.round, asked.label_set]
        rows.append([guarded(item.id), guarded((shown or "").replace("\0", "\ufffd")), *told])
    write_table(file, columns, rows, OURS)


def write_table(
    file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], ours: Sequence[Sequence[str]]
) -> None:
    """A table in UTF-8, texts in quotes, with a mark for spreadsheets where there is more than ASCII in it. ours: the
    headers by which a file of ours is known. `UserError` for another file in its place, and where it cannot be
    written."""
    only_ours(file, lambda start: any(_begins(start, header) for header in ours))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # also what another separator cuts
    writer.writerow(columns)
    writer.writerows(rows)
    raw = text.getvalue()
    try:
        with replacing(file) as handle:
            handle.write(raw.encode("utf-8" if raw.isascii() else "utf-8-sig", "replace"))
    except OSError as error:
        raise cannot_write(file, error) from error


def is_table(file: Path, ours: Sequence[Sequence[str]]) -> bool:
    """Whether a table of ours is there; may raise OSError."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        start = handle.read(4096)
    return any(_begins(start, header) for header in ours)


def _begins(start: bytes, header: Sequence[str]) -> bool:
    """Whether a table, as we or a spreadsheet wrote it, has this header."""
    first = start.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].decode("utf-8", "replace").strip()
    return any(first.replace('"', "").split(separator) == list(header) for separator in ",;\t")
