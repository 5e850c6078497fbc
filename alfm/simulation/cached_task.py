"""A task made from a feature cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.cache.checked import check_once
from alfm.cache.reader import FeatureCache
from alfm.cache.split import features_of, labelled
from alfm.config.paths import paths
from alfm.datasets.labels import ASK
from alfm.errors import UserError, nearest_names
from alfm.features.features import Features, Memory
from alfm.features.kept import Kept
from alfm.features.spaces import RAW
from alfm.geometry.knn import any_near
from alfm.heads.base import Classifier
from alfm.heads.dropout import Recipe
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated
from alfm.options import Device, Name, OptionError, checked, options_of
from alfm.results.row_numbers import RowNumbers
from alfm.simulation.index_sets import IndexSets
from alfm.simulation.item_numbers import ItemNumbers
from alfm.simulation.oracle import Annotator, OracleOptions
from alfm.simulation.pools import PoolOptions, made_pool
from alfm.simulation.task import Task
from alfm.strategies.base import Strategy
from alfm.strategies.given_rows import GivenRows
from alfm.strategies.index_file import IndexFile
from alfm.strategies.parts.sub_pool import Subsampled

T = TypeVar("T", PoolOptions, OracleOptions)


@checked
class Simulation(Task):
    """A `Task` made from a cache. cache_rows int64 (N,): the pool's rows as rows of the cache's split, from its size on
    those of copies; `numbers` turns one into the other.

    Items without a label (-1) are left out of a simulated pool and are not scored in the test split; `left_out` says
    how many (pool, test). `sets`: index sets that say what is in the pool besides, or None; `initial`: the pool rows
    int64 (n,) that they begin with, or None; `in_no_set`: how many labelled items they leave out; `held_out`: features
    and labels of their validation set. `made`: what was made of the rest, `annotator`: who answers, None
    for the cache's labels.
    """

    def __init__(
        self,
        cache: FeatureCache | str | Path,
        device: Device = "auto",
        memory: Memory = "auto",
        pool_split: Name = "train",
        test_split: Name = "test",
        train_views: bool = True,
        keep_geometry: bool = False,
        unlabelled: Any = ASK,
        index_sets: IndexSets | None = None,
        pool: PoolOptions | Mapping[str, Any] | None = None,
        oracle: OracleOptions | Mapping[str, Any] | None = None,
    ) -> None:
        """train_views: where the cache holds augmented views, heads train on all of them.

        keep_geometry: what is found out about the pool at the price of all pairs is kept beside the cache (see
        `Kept`). unlabelled: see `open_cache` (for a path). pool, oracle: options by name, or as objects.

        Raises UserError: no such cache or split, a damaged one (looked at once, see `check_once`), NaN or Inf, nothing
        labelled, one class only.
        """
        if pool_split == test_split:
            raise UserError(
                f"splits.pool={pool_split} and splits.test={test_split} are the same split: what heads are trained on "
                "must not measure them; name another with splits.test=NAME."
            )
        cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache, unlabelled, "splits.unlabelled")
        check_once(cache, paths().logs)
        if pool_split in cache.splits:
            labelled(cache, pool_split)  # without labels a test split would not help
        for split in (pool_split, test_split):
            if split not in cache.splits:
                raise UserError(
                    f"{cache.path} has no split {split!r} (it has {', '.join(cache.splits)}); simulated rounds need a "
                    "pool and a labelled test split: extract again with dataset.test_fraction=0.2 force=true (or "
                    "convert with --test-fraction 0.2 --force), or name another with splits.pool= and splits.test=."
                )
        self.splits: dict[str, Any] = {"pool": pool_split, "test": test_split}
        if unlabelled != ASK:
            self.splits["unlabelled"] = unlabelled
        self.train_views = train_views
        where = devices.choose_device(device, float64=True)
        self.pool_options = given(PoolOptions, pool, "pool")
        self.oracle_options = given(OracleOptions, oracle, "oracle")
        size, every = cache.num_rows(pool_split), cache.labels(pool_split)
        known, labels = labelled(cache, pool_split)
        test_rows, test_labels = labelled(cache, test_split)
        self.left_out = (size - len(known), cache.num_rows(test_split) - len(test_rows))
        self.index_sets = index_sets
        self.sets = index_sets.read(cache, pool_split) if index_sets is not None and index_sets.given else None
        self.in_no_set = 0
        if self.sets is not None:
            chosen = self.sets.in_pool(known)
            self.in_no_set = len(known) - int(chosen.sum()) - self.sets.sizes.get("validation", 0)
            known, labels = known[chosen], labels[chosen]
        if len(np.unique(labels)) < 2:
            raise UserError(f"Split {pool_split!r} of {cache.path} holds one class only: there is nothing to learn.")
        self.made = made_pool(known, labels, size, self.pool_options)
        pool_rows, labels = self.made.rows, every[self.made.rows]
        self.cache, self.cache_rows = cache, self.made.numbers
        self.numbers = RowNumbers(cache, pool_split, self.cache_rows)
        self.initial = None
        if self.sets is not None and self.sets.labelled is not None:
            self.initial = self.numbers.of_cache(self.sets.labelled, self.sets.files["labelled"])
            if (self.initial < 0).any():
                raise UserError(
                    f"The pool leaves out {int((self.initial < 0).sum())} of the {len(self.initial)} items of "
                    f"{self.sets.files['labelled']}: leave pool.imbalance out, or choose another initial set."
                )
        self.annotator = None
        if not self.oracle_options.flawless:
            self.annotator = Annotator(labels, self.cache_rows, size, cache.num_classes, self.oracle_options)
        views = None
        if train_views and cache.num_views(pool_split) > 1:
            views = cache.views(pool_split)[pool_rows, 1:]
        kept = None
        if keep_geometry:
            rows = hashlib.blake2b(self.cache_rows.tobytes(), digest_size=16).hexdigest()
            kept = Kept(cache.path, f"{cache.fingerprint} {pool_split} {rows} {devices.of(where).arithmetic}")
        self._memory = memory
        super().__init__(
            pool=Features(
                features_of(cache, pool_split, pool_rows, memory == "file"), where, memory, views=views, kept=kept
            ),
            labels=torch.from_numpy(labels).to(where),
            test=Features(features_of(cache, test_split, test_rows, memory == "file"), where, memory),
            test_labels=torch.from_numpy(test_labels).to(where),
            num_classes=cache.num_classes,
        )

    def given_start(self, init_strategy: str) -> GivenRows:
        """The cold start of index sets that have an initial one. UserError where another was chosen besides."""
        assert self.sets is not None and self.initial is not None
        if init_strategy != "random":
            raise UserError(
                f"init_strategy={init_strategy} and {self.sets.files['labelled']} both say what a run begins with: "
                "leave one of them out."
            )
        return GivenRows(self.initial)

    def given_budgets(self, budgets: Sequence[int], listed: bool) -> list[int]:
        """Labels of each round where index sets say with which a run begins. UserError where a list says otherwise."""
        assert self.sets is not None and self.initial is not None
        if listed and budgets[0] != len(self.initial):
            raise UserError(
                f"budget.schedule begins with {budgets[0]} labels and {self.sets.files['labelled']} lists "
                f"{len(self.initial)} that the pool holds: begin the schedule with {len(self.initial)}, "
                "and with budget.unit=labels where that is no whole number of labels per class."
            )
        return [len(self.initial), *budgets[1:]]

    @cached_property
    def items(self) -> ItemNumbers:
        """How the pool's items are numbered in index sets; by the cache's rows where nothing else is known of them."""
        if self.sets is not None:
            return self.sets.items
        try:
            return ItemNumbers(self.cache, self.numbers.split)
        except UserError:
            return ItemNumbers(self.cache, self.numbers.split, "rows")

    @cached_property
    def held_out(self) -> tuple[Features, torch.Tensor] | None:
        """Features (V, D) and labels int64 (V,) of the validation set that a file names; None where there is none."""
        if self.sets is None or self.sets.validation is None or not len(self.sets.validation):
            return None
        split, rows, device = self.numbers.split, self.sets.validation, self.pool.device
        features = Features(features_of(self.cache, split, rows, self._memory == "file"), device, self._memory)
        return features, torch.from_numpy(self.cache.labels(split)[rows]).to(device)

    def held_answers(self, seed: int) -> Tensor:
        """What a seed's annotator says of the items that are held out, int64 (V,) on the host, -1 for no answer."""
        assert self.sets is not None and self.sets.validation is not None
        rows = self.sets.validation
        labels = self.cache.labels(self.numbers.split)[rows]
        if self.annotator is not None:
            size, classes = self.numbers.size, self.cache.num_classes
            labels = Annotator(labels, rows, size, classes, self.oracle_options).answers(seed)
        return torch.from_numpy(labels.astype(np.int64))

    def answers(self, seeds: Sequence[int]) -> Tensor:
        if self.annotator is None:
            return super().answers(seeds)
        return torch.from_numpy(np.stack([self.annotator.answers(seed) for seed in seeds]))

    @property
    def about(self) -> dict[str, Any]:
        """What a run says of the items it learns from, which its configuration does not show."""
        return {} if self.pool_options.as_it_is else {"pool": self.made.facts}

    def behaviour(
        self, query_strategy: Strategy, init_strategy: Strategy, classifier: Classifier | None = None
    ) -> dict[str, int]:
        """Which later mends change this run's picks or curves, by name, and their numbers: they enter its hash.

        Empty for a run that does bit for bit what it did in the first versions. A mend adds its key here, for exactly
        the runs that it concerns, and raises its number when it changes them again.
        """
        known = {}
        if isinstance(init_strategy, IndexFile) and init_strategy.replays_otherwise(self.numbers):
            known["replayed_start"] = 1  # before, rows of a run's cache were taken for rows of the pool
        if self.pool.views is not None and fits_heads(query_strategy):
            known["refits_on_views"] = 1  # before, heads fitted inside strategies saw the plain items only
        strategies = (query_strategy, init_strategy)
        on_part = any(one.clusters_part(self.pool.N) for one in strategies)
        if on_part:
            known["clusters_on_part"] = 2  # 1: other products; before, k-means saw all candidates of a large pool
        if self.pool.offset:
            spaces = {space for one in strategies for space in one.measures}
            if spaces & {"raw", "unit"} or ("head" in spaces and plain_space(classifier, self.pool)):
                known["offset"] = 1  # before, distances between such features were rounding
            if isinstance(classifier, Propagated):
                known["offset"] = 1
        elif not on_part and any(one.repairs_near for one in strategies) and any_near(self.pool.unit):
            known["near"] = 1  # before, distances between near items came from products
        if self.cache.renumbered:
            known["renumbered_classes"] = 1  # before, gaps counted as classes, and budgets per class with them
        if self.annotator is not None and self.annotator.options.confusion is not None:
            known["confusion"] = self.annotator.digest  # no mend: which matrix lay at that path
        return known


def given(kind: type[T], options: T | Mapping[str, Any] | None, name: str) -> T:
    """Options as an object, from those that were given by name. UserError for names that it does not have."""
    if isinstance(options, Mapping):
        for wrong in options.keys() - options_of(kind).keys():
            raise UserError(f"{name}.{wrong}: there is no such option, {nearest_names(wrong, list(options_of(kind)))}")
        try:
            return kind(**options)
        except OptionError as error:
            raise error.at(name) from None
    return kind() if options is None else options


def plain_space(classifier: Classifier | None, pool: Features) -> bool:
    """Does this classifier see the features as they are? True when that is not known."""
    inner = classifier.classifier if isinstance(classifier, Propagated) else classifier
    if isinstance(inner, Logistic):
        return inner.space(pool) is RAW
    return not isinstance(inner, Recipe)


def fits_heads(strategy: Strategy) -> bool:
    """Does a query of this strategy fit heads, in itself, in its posterior or in the strategy that it asks?"""
    if isinstance(strategy, Subsampled):
        return fits_heads(strategy.strategy)
    return strategy.refits or bool(getattr(getattr(strategy, "posterior", None), "refits", False))
