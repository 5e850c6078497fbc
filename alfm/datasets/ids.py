"""File names as cache ids: always valid UTF-8, and always the way back to the very file.

A POSIX file name is bytes. Python shows bytes that are not UTF-8 as lone surrogates, which HDF5 and CSV
cannot store. They become `%XX`; a `%` that already stands before two hexadecimal digits becomes `%25`, so the
way back is exact, and ordinary names, `50%.jpg` included, stay as they are.
"""

from __future__ import annotations

import re

_MUST_ESCAPE = re.compile("[\udc80-\udcff]|%(?=[0-9A-Fa-f]{2})")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")


def escape(name: str) -> str:
    """A path as `os.fsdecode` gives it -> an id that encodes as UTF-8. Inverse of `unescape`."""

    def percent(match: re.Match[str]) -> str:
        code = ord(match.group())
        return f"%{code - 0xDC00 if code >= 0xDC80 else code:02X}"

    return _MUST_ESCAPE.sub(percent, name)


def unescape(item_id: str) -> str:
    """An id made by `escape` -> the path, as `os.fsdecode` gives it (usable with `open`)."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match.group(1), 16)]), item_id.encode("utf-8"))
    return raw.decode("utf-8", "surrogateescape")


def file_stem(text: str) -> str:
    """A name that any file system takes: letters, digits, `.`, `_`, `-`, `+`; never empty, never hidden."""
    stem = re.sub(r"[^A-Za-z0-9._+-]+", "_", escape(text)).strip("._")
    return stem[:150] or "unnamed"
