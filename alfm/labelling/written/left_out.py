"""What of people's files could not be used, line by line, so that it can be put right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alfm.labelling.formulas import guarded
from alfm.labelling.label_files import LabelFile
from alfm.labelling.written.asked import cannot_write
from alfm.labelling.written.next_csv import is_table, write_table

COLUMNS = ("file", "where", "what", "why")


def write_left_out(file: Path, files: Sequence[LabelFile]) -> Path | None:
    """The file, or None where nothing was left out; then one of an earlier call is removed. `UserError` for a file that
    is not ours."""
    rows = [[guarded(cell) for cell in (read.source, *one)] for read in files for one in read.left_out]
    if rows:
        write_table(file, COLUMNS, rows, [COLUMNS])
        return file
    try:
        if is_table(file, [COLUMNS]):
            file.unlink()
    except OSError as error:
        raise cannot_write(file, error) from error
    return None
