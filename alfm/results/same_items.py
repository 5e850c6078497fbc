"""Items by their ids, across caches: are two caches of the same items, and which seeds began with the same ones?"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from alfm.cache.reader import open_cache
from alfm.datasets.names import same_name
from alfm.errors import UserError
from alfm.results.run_folder import read_config, read_state

if TYPE_CHECKING:
    import pandas as pd

Begun = dict[Hashable, frozenset[str]]
"""(draw, seed) -> ids of its initial set."""


@dataclass(frozen=True)
class Items:
    """Of the cache that a run was made on: pool: the name of every row; test: how many test items, tested: their names,
    None where that split has none."""

    pool: list[str]
    test: int
    tested: frozenset[str] | None

    @cached_property
    def known(self) -> frozenset[str]:
        """The pool's names."""
        return frozenset(self.pool)

    def same(self, other: Items) -> bool:
        """Is the other cache of the same items, in whatever order? Few may be left out of one pool."""
        if self.test != other.test or (self.tested and other.tested and self.tested != other.tested):
            return False
        return 2 * len(self.known & other.known) > max(len(self.known), len(other.known))


def items_of(folder: Path) -> Items | None:
    """Of the run in a folder; None where its cache is gone, has changed, or holds no ids that name an item each."""
    try:
        config = read_config(folder)
        path = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["sessions"][-1]["cache"]
        cache = open_cache(Path(path))
        splits = dict(config.get("splits") or {})
        pool, test = str(splits.get("pool", "train")), str(splits.get("test", "test"))
        ids, others = cache.ids(pool), cache.ids(test)
        if ids is None or cache.fingerprint != config["run"]["cache_fingerprint"]:
            return None
        names = [same_name(one) for one in ids]
        if len(set(names)) < len(names):
            return None
        tested = None if others is None else frozenset(map(same_name, others))
        return Items(names, cache.num_rows(test), tested)
    except (OSError, ValueError, KeyError, IndexError, TypeError, UserError):
        return None


def begun_with(df: pd.DataFrame, items: Items) -> Begun:
    """Of the replicates of runs on one cache, whose rounds are `df`. Copies of an item are apart from it."""
    found: Begun = {}
    size = len(items.pool)
    for path, run in df.groupby("path", sort=False):
        state = read_state(Path(str(path)))
        for row in run.drop_duplicates(["draw", "seed"]).itertuples():
            seed = int(row.seed)
            own = state.picks[seed][: int(state.rows[seed][0]["num_labeled"])].tolist()
            found[row.draw, row.seed] = frozenset(f"{n // size or ''}|{items.pool[n % size]}" for n in own)
    return found
