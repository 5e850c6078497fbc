"""Names from two sources that are compared: a character can be written in two ways, and a file begin with a mark.

Unicode writes `é` as one character (NFC: what most keyboards and Linux give) or as `e` and an accent (NFD: what macOS
gives for file names). Text editors on Windows put a byte order mark first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def same_name(text: str) -> str:
    """What equal names have in common: NFC, without a byte order mark. A string of ASCII comes back as it is."""
    return text if text.isascii() else unicodedata.normalize("NFC", text.replace("\ufeff", ""))


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Every name as written -> the name that it stands for: itself where it is written in one way only, else its NFC.

    So that names stay as people wrote them wherever there is nothing to unite.
    """
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(same_name(name), set()).add(name)
    return {
        name: name if len(written) == 1 and "\ufeff" not in name else common
        for common, written in spellings.items()
        for name in written
    }
