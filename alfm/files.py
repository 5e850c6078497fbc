"""Small files that are written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file beside `file` to write into, renamed over it when the block ends well and removed when not; OSError."""
    # process numbers are alike in containers that share a folder
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with temporary.open("wb") as handle:
            yield handle
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
