"""What is computed for a labelling state: features, heads, batches. Made when first asked for, and anew when the
settings say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any

from alfm.features.features import Features, Memory
from alfm.labelling import parts
from alfm.labelling.items import Items
from alfm.labelling.newest import NewestHead
from alfm.labelling.parts import Part
from alfm.labelling.pool import Caches
from alfm.labelling.rounds import Rounds

Settings = Mapping[str, Any]


class Models:
    """Every method takes the newest settings act. May be asked from several threads, and loads once."""

    def __init__(
        self, caches: Caches, device: str, memory: Memory, table: Path | str | None, root: Path | str | None
    ) -> None:
        """table and root: where the items are, see `Items.open`."""
        self.caches, self._device, self._memory, self._table, self._root = caches, device, memory, table, root
        self._lock = RLock()
        self._of: Settings | None = None
        self._parts: Mapping[str, Part] = {}
        self._features: Features | None = None
        self._items: Items | None = None
        self._rounds: Rounds | None = None
        self._newest: NewestHead | None = None

    def take(self, settings: Settings, made: Mapping[str, Part]) -> None:
        """These are the objects that the settings mean."""
        with self._lock:
            self._follow(settings, made)

    def parts(self, settings: Settings) -> Mapping[str, Part]:
        """Strategies and classifier. Raises UserError for what cannot be made."""
        with self._lock:
            self._follow(settings)
            return self._parts

    def features(self, settings: Settings) -> Features:
        """The pool's, row by row."""
        with self._lock:
            self._follow(settings)
            if self._features is None:
                self._features = self.caches.features(settings["caches"], self._device, self._memory)
            return self._features

    def items(self, settings: Settings) -> Items:
        """What lies behind the rows."""
        with self._lock:
            self._follow(settings)
            if self._items is None:
                caches = [self.caches.find(entry) for entry in settings["caches"]]
                splits = [entry["split"] for entry in settings["caches"]]
                self._items = Items.open(caches, splits, root=self._root, table=self._table)
            return self._items

    def rounds(self, settings: Settings) -> Rounds:
        """What makes batches; one thread at a time may use it."""
        with self._lock:
            pool = self.features(settings)
            if self._rounds is None:
                made = {group: part.made for group, part in self._parts.items()}
                for group in ("query_strategy", "init_strategy"):
                    made[group] = self.caches.in_pool(made[group], settings["caches"])
                self._rounds = Rounds(
                    pool, seed=settings["seed"], warm_start=settings.get("warm_start") is not False, **made
                )
            return self._rounds

    def newest(self, settings: Settings) -> NewestHead:
        """What makes suggestions."""
        with self._lock:
            pool = self.features(settings)
            if self._newest is None:
                self._newest = NewestHead(pool, self._parts["classifier"].made, settings["seed"])
            return self._newest

    def _follow(self, settings: Settings, made: Mapping[str, Part] | None = None) -> None:
        if settings is self._of:
            return
        self._parts = parts.read(settings) if made is None else made
        if self._of is not None and self._of["caches"] != settings["caches"]:
            self._features = self._items = None
        self._of, self._rounds, self._newest = settings, None, None
