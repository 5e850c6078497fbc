"""Pools of items for tests that need no cache: ids, and files or texts behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from alfm.errors import UserError


@dataclass
class FakeItems:
    """What readers and writers ask of `alfm.labelling.items.Items`."""

    ids: list[str]
    texts: list[str] | None = None
    root: Path | None = None
    modality: str | None = None
    why_unseen: str | None = None
    gone: set[int] = field(default_factory=set)

    @property
    def N(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str | None:
        return None if self.root is None else str(self.root / self.ids[row])

    def text(self, row: int) -> str | None:
        return None if self.texts is None else self.texts[row]

    def row(self, item: str) -> int:
        return self.ids.index(item)

    def load(self, row: int) -> str:
        assert self.texts is not None
        return self.texts[row]

    def mark(self, row: int) -> str:
        return ""

    def file_bytes(self, row: int) -> tuple[bytes, str]:
        place = self.path(row)
        if place is None or row in self.gone:
            raise UserError(f"{self.ids[row]}: the file is gone")
        return Path(place).read_bytes(), "application/octet-stream"


PHOTOS = ["cat/001.jpg", "cat/002.jpg", "dog/001.jpg", "dog/003.jpg", "bird.jpg"]


def photos(root: Path | None = None) -> FakeItems:
    """Five files, two of one name; under a root each holds its own id."""
    if root is not None:
        for name in PHOTOS:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
    return FakeItems(list(PHOTOS), root=root, modality="image")


def sentences() -> FakeItems:
    """Four texts, two of which are the same."""
    return FakeItems(["t:0", "t:1", "t:2", "t:3"], ["good film", "bad film", "so, so", "bad film"], modality="text")
