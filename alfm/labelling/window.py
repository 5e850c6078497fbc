"""The audit's window: the first items of one random order of the pool that nobody and nothing has chosen.

Items leave it when they are asked for, trained on or skipped; the next of the order take their places. So what is in it
is at any moment a uniform sample of the items that are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence


class Window:
    """The first `size` items of the order that are in; see `items`."""

    def __init__(self) -> None:
        self.size = 0
        self._order: list[tuple[bytes, str]] = []
        self._key: dict[str, bytes] = {}
        self._out: set[str] = set()
        self._skipped: set[str] = set()
        self._items: dict[str, None] | None = None

    def extend(self, seed: int, items: Sequence[str]) -> None:
        """More items in the pool, each in its place of the order."""
        new = {item: _key(seed, item) for item in items}
        self._key |= new
        self._order = sorted([*self._order, *((key, item) for item, key in new.items())])
        self._renew()

    @property
    def order(self) -> Iterator[str]:
        """The whole pool in the order; it does not depend on what was said."""
        return (item for _, item in self._order)

    @property
    def items(self) -> list[str]:
        """In their order."""
        return list(self._now())

    def __contains__(self, item: str) -> bool:
        return item in self._now()

    def __len__(self) -> int:
        return len(self._now())

    @property
    def skipped(self) -> list[str]:
        """Skipped items that would be in the window if they were not, in their order."""
        end = max((self._key[item] for item in self._now()), default=b"")
        return sorted((item for item in self._skipped if self._key[item] < end), key=self._key.__getitem__)

    def resize(self, size: int) -> None:
        """From now on it holds so many."""
        self.size = size
        self._renew()

    def remove(self, items: Iterable[str]) -> None:
        """They are chosen, for good."""
        new = set(items) - self._out
        self._out |= new
        if self._items is not None and new & self._items.keys():
            self._renew()

    def skip(self, item: str) -> None:
        """It is not to be had, for now."""
        if item not in self._skipped:
            self._skipped.add(item)
            if self._items is not None and item in self._items:
                self._renew()

    def unskip(self, item: str) -> bool:
        """It is to be had again; was it not?"""
        if item not in self._skipped:
            return False
        self._skipped.remove(item)
        self._renew()
        return True

    def _now(self) -> dict[str, None]:
        if self._items is None:
            self._items = {}
            if self.size:
                for _, item in self._order:
                    if item not in self._out and item not in self._skipped:
                        self._items[item] = None
                        if len(self._items) == self.size:
                            break
        return self._items

    def _renew(self) -> None:
        self._items = None


def _key(seed: int, item: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0audit\0{item}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
