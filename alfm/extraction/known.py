"""`known=`: items that other caches hold already are not embedded again; what is new goes into a cache of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alfm.backbones.base import Backbone
from alfm.cache import open_cache
from alfm.commands import setting, typed
from alfm.datasets.base import Dataset, Split
from alfm.datasets.ids import escape
from alfm.errors import UserError
from alfm.extraction.plan import differences


@dataclass
class SomeRows:
    """Rows of a split, ascending, as a split of their own; labels int64 (N,)."""

    split: Split
    rows: list[int]
    ids: list[str] = field(init=False)
    labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [self.split.ids[row] for row in self.rows]
        self.labels = np.asarray(self.split.labels)[self.rows]
        self.in_order = bool(getattr(self.split, "in_order", False))

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Any:
        """See the split."""
        return self.split.load(self.rows[index])

    @property
    def decode(self) -> Any:
        """The split's options of reading, where it has some."""
        return getattr(self.split, "decode", None)

    def encoded(self, index: int) -> Any:
        """Where the item is decoded from, where the split says it."""
        return self.split.encoded(self.rows[index]) if hasattr(self.split, "encoded") else None


class Known:
    """The caches that were named, and the ids in them."""

    def __init__(self, given: str | Sequence[str] | None) -> None:
        names = [given] if isinstance(given, str) else list(given or ())
        if given is not None and not names:
            raise UserError("known=[] names no cache: give those whose items are not to be embedded again.")
        self.caches = [open_cache(Path(name).expanduser(), unlabelled=None) for name in names]
        self._ids: set[str] = set()
        for cache in self.caches:
            for split in cache.splits:
                ids = cache.ids(split)
                if ids is None:
                    raise UserError(f"known={cache.path} has no ids, so what it holds cannot be told from what is new.")
                self._ids.update(ids)

    def __bool__(self) -> bool:
        return bool(self.caches)

    def __str__(self) -> str:
        return ", ".join(str(cache.path) for cache in self.caches)

    def check(self, dataset: Dataset, backbone: Backbone, decode: str) -> None:
        """`UserError` for a cache that was made with another model, or read its images otherwise: see what differs."""
        here = {"model": backbone.name, **backbone.provenance, "model_fingerprint": backbone.fingerprint}
        for cache in self.caches:
            there = cache.attributes
            if there.get("model_fingerprint") != backbone.fingerprint:
                told = [key for key in here if key != "model_fingerprint" and here[key] is not None]
                found = differences(here, there, told) or differences(here, there, ["model_fingerprint"])
                raise UserError(
                    f"known={cache.path} was made with another model ({found}), and features of two models cannot be "
                    "compared: give the same model=, or leave out known=."
                )
            if (theirs := there.get("decode", "pil")) != decode:
                raise UserError(
                    f"known={cache.path} was made with decode={theirs}, and features would differ a little beside its "
                    f"own: give decode={theirs}, or leave out known=."
                )
            scale = _list(there.get("intensity_range"))
            if scale and dataset.intensity_range and scale != list(dataset.intensity_range):
                raise UserError(
                    f"known={cache.path} was read with images from {scale[0]:g} (black) to {scale[1]:g} (white), and "
                    f"these would be from {dataset.intensity_range[0]:g} to {dataset.intensity_range[1]:g}: say "
                    f"{typed('dataset.intensity_range', scale)}, or leave out known=."
                )

    def new(self, splits: Mapping[str, Split]) -> dict[str, Split]:
        """What of each split is in none of the caches; splits without such items are left away."""
        kept: dict[str, Split] = {}
        for name, split in splits.items():
            rows = [row for row, text in enumerate(split.ids) if not self._has(text)]
            if rows:
                kept[name] = split if len(rows) == len(split) else SomeRows(split, rows)
        return kept

    def model_name(self, backbone: Backbone) -> str:
        """What the cache of the new items is called: the second beside one, the third beside two."""
        return f"{backbone.name}-{len(self.caches) + 1}"

    def check_target(self, target: Path, splits: Mapping[str, Split], force: bool) -> None:
        """`UserError` when the new cache would replace one of these, or is there with a part of what is new."""
        if any(cache.path.resolve() == target.resolve() for cache in self.caches):
            raise UserError(
                f"known={target} would be replaced by the cache of what is new: give that another name with "
                "cache.model=NAME."
            )
        if force or not target.exists():
            return
        other = open_cache(target, unlabelled=None)
        theirs = {text for split in other.splits for text in other.ids(split) or ()}
        ours = {text for split in splits.values() for text in split.ids}
        if theirs and theirs != ours and (both := len(theirs & ours)):
            names = [str(cache.path) for cache in (*self.caches, other)]
            raise UserError(
                f"{target} holds {both:,} of these {len(ours):,} items already: name it too, {typed('known', names)}."
            )

    def digest(self, splits: Mapping[str, Split]) -> str | None:
        """Tells one choice of items from another; None where nothing was named."""
        if not self.caches:
            return None
        digest = hashlib.blake2b(digest_size=8)
        for name, split in splits.items():
            digest.update(json.dumps([name, list(split.ids)]).encode())
        return digest.hexdigest()

    def pool(self, *others: Path) -> str:
        """`cache=[...]`: all of it together, as a word of a command."""
        paths = [str(path) for path in (*(cache.path for cache in self.caches), *others)]
        return setting("cache", paths if len(paths) > 1 else paths[0])

    def _has(self, text: str) -> bool:
        return text in self._ids or escape(text) in self._ids


def _list(value: Any) -> list[float] | None:
    try:
        found = json.loads(value) if isinstance(value, str) else value
        return [float(number) for number in found] if found is not None and len(found) == 2 else None
    except (ValueError, TypeError):
        return None
