"""A file that is replaced is the old one or the new one, never half of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alfm.files import replacing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in (b"first", b"second, longer"):
        with replacing(file) as handle:
            handle.write(text)
        assert file.read_bytes() == text
    with pytest.raises(KeyboardInterrupt), replacing(file) as handle:
        handle.write(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"second, longer" and list(tmp_path.iterdir()) == [file]


def test_where_nothing_can_be_written_an_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError), replacing(tmp_path / "none" / "a.json"):
        pass
