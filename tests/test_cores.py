from __future__ import annotations

import os
from pathlib import Path

import pytest

import alfm
from alfm.cores import available_cores


def test_where_the_system_does_not_tell_what_a_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows."""
    if hasattr(os, "sched_getaffinity"):
        assert available_cores() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == (os.cpu_count() or 1)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_nobody_else_asks_the_system() -> None:
    sources = {path.name: path.read_text() for path in Path(alfm.__file__).parent.rglob("*.py")}
    assert [name for name, text in sources.items() if "sched_getaffinity" in text or "cpu_count()" in text] == [
        "cores.py"
    ]
