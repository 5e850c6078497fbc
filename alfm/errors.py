"""The one exception for a user's mistake: entry points print its sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_MOST = 50
"""Names that a sentence lists."""


class UserError(Exception):
    """Something the user can put right. The message says what was wrong, where, and what to do."""


def nearest_names(wrong: str, known: Sequence[str], most: int = 3) -> str:
    """``", did you mean a, b?"`` for a misspelt name, or the list, cut if long, when nothing is near."""
    import difflib

    near = difflib.get_close_matches(wrong, known, n=most, cutoff=0.5)
    near.sort(key=lambda name: name.casefold() != wrong.casefold())  # capitals apart the same: first
    if near:
        return f"did you mean {' or '.join(near)}?"
    names = sorted(known)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"known: {', '.join(names[:_MOST])}{more}"


def say(text: str, head: str = "Error: ") -> None:
    """A sentence on standard error."""
    print(head + text, file=sys.stderr, flush=True)
