"""A small pool and its desk."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_pool import CLASSES, SCRIPT, Desks, N

from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.page.desk import Desk
from alfm.labelling.page.security import Access


@pytest.fixture
def make_desk(write_cache: Any, tmp_path: Path) -> Iterator[Desks]:
    """`make_desk(modality="text", audit=0, n=5, ...)`: a desk on 60 items, its worker not started."""
    desks: list[Desk] = []

    def make(modality: str = "text", *, audit: int = 0, n: int = 5, folder: str = "state", **settings: Any) -> Desk:
        ids = [f"{number:03}.{'png' if modality == 'image' else 'txt'}" for number in range(N)]
        state = tmp_path / folder
        if modality == "image":
            (tmp_path / "photos").mkdir(exist_ok=True)
            for number, name in enumerate(ids):
                Image.new("RGB", (40, 30), (4 * number, 120, 200)).save(tmp_path / "photos" / name)
            said: dict[str, Any] = {"root": str(tmp_path / "photos")}
        else:
            with (tmp_path / "texts.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "text"])
                writer.writerows([name, SCRIPT if row == 7 else f"Weather note {row}"] for row, name in enumerate(ids))
            said = {"items": tmp_path / "texts.csv"}
        path = tmp_path / "a.h5"
        if not path.exists():
            write_cache(ids, modality=modality)
        if (state / "journal.jsonl").exists():
            learner = ActiveLearner.load(state, **said)
        else:
            given = {"query_strategy": "margins", "classes": CLASSES, "folder": state} | said | settings
            learner = ActiveLearner(path, **given)
            if audit:
                learner.audit(audit)
        desk = Desk(learner, n=n)
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        desk.close()


@pytest.fixture
def access() -> Access:
    return Access.of("127.0.0.1", 8765)
