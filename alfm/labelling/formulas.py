"""Cells that a spreadsheet would run as a formula: written with a quote before them, read back without it."""

from __future__ import annotations

import re

_RUN = re.compile(r"'*[=+\-@\t\r]")
"""What a spreadsheet runs, quotes before it included: so that a text with quotes of its own comes back as it was."""


def guarded(text: str) -> str:
    """A text as a cell that no spreadsheet runs. Inverse of `unguarded`."""
    return f"'{text}" if _RUN.match(text) else text


def unguarded(cell: str) -> str:
    """A cell that `guarded` wrote -> the text; others are as they were."""
    return cell[1:] if cell.startswith("'") and _RUN.match(cell) else cell
