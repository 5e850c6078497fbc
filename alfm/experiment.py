"""From a feature cache to learning curves: what `python -m alfm.al_train` does, as a Python API."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alfm.cache.checked import check_once
from alfm.cache.geometry import GeometryFolder
from alfm.cache.reader import FeatureCache
from alfm.conditions import as_config, condition_columns, config_of_class
from alfm.datasets.labels import ASK
from alfm.errors import UserError, nearest_names
from alfm.geometry.neighbours import any_near
from alfm.heads.base import Classifier
from alfm.heads.dropout import Recipe
from alfm.heads.logistic import Logistic
from alfm.heads.propagation import Propagated
from alfm.loop import Round, Task, run, schedule
from alfm.options import Device, Labels, Name, Rounds, checked
from alfm.pool import Memory, Pool
from alfm.results import RunFolder, _budget_text, hashed_config, picks_fingerprints, start_fingerprint
from alfm.row_numbers import RowNumbers
from alfm.settings import build, conf_dir, paths
from alfm.spaces import RAW
from alfm.strategies.base import Strategy
from alfm.strategies.index_file import IndexFile

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

KINDS = {"query_strategy": Strategy, "init_strategy": Strategy, "classifier": Classifier}
SEEDS = (1, 10, 100, 1000, 10000)


def pick_device(device: str = "auto") -> torch.device:
    """`auto`: CUDA, else MPS, else CPU. UserError for a device that this machine does not have."""
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UserError(f"There is no device {device!r}: use auto, cpu, cuda, cuda:1 or mps.") from None
        there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
        if (chosen.index or 0) >= there.get(chosen.type, 0):
            raise UserError(f"This machine has no device {device}: use device=auto, or another.")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class CacheRows:
    """Some rows of a cache's split that stay in the file (`memory=file`)."""

    def __init__(self, cache: FeatureCache, split: str, rows: np.ndarray) -> None:
        self.cache, self.split, self.rows = cache, split, rows
        self.shape = (len(rows), cache.dim)
        self._whole = len(rows) == cache.num_rows(split)

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._whole:
            return self.cache.read_rows(self.split, start, stop)
        return self.cache.take(self.split, self.rows[start:stop])

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.cache.take(self.split, self.rows[rows])


@checked
class Simulation(Task):
    """A `Task` made from a cache. cache_rows int64 (N,): the pool's rows as rows of the cache's split; `numbers` turns
    one into the other.

    Items without a label (-1) are left out of a simulated pool and are not scored in the test split; `left_out` says
    how many (pool, test).
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
    ) -> None:
        """train_views: where the cache holds augmented views, heads train on all of them.

        keep_geometry: what is found out about the pool at the price of all pairs is kept beside the cache (see
        `GeometryFolder`). unlabelled: see `open_cache` (for a path).

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
            _labelled(cache, pool_split)  # without labels a test split would not help
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
        where = pick_device(device)
        pool_rows, labels = _labelled(cache, pool_split)
        test_rows, test_labels = _labelled(cache, test_split)
        self.cache, self.cache_rows = cache, pool_rows
        self.numbers = RowNumbers(cache, pool_split, pool_rows)
        self.left_out = (cache.num_rows(pool_split) - len(pool_rows), cache.num_rows(test_split) - len(test_rows))
        if len(np.unique(labels)) < 2:
            raise UserError(f"Split {pool_split!r} of {cache.path} holds one class only: there is nothing to learn.")
        views = None
        if train_views and cache.num_views(pool_split) > 1:
            views = cache.views(pool_split)[pool_rows, 1:]
        super().__init__(
            pool=Pool(_features(cache, pool_split, pool_rows, memory), where, memory, views=views),
            labels=torch.from_numpy(labels).to(where),
            test=Pool(_features(cache, test_split, test_rows, memory), where, memory),
            test_labels=torch.from_numpy(test_labels).to(where),
            num_classes=cache.num_classes,
        )
        if keep_geometry:
            rows = hashlib.blake2b(pool_rows.tobytes(), digest_size=16).hexdigest()
            about = f"{cache.fingerprint} {pool_split} {rows} {self.pool.device.type}"
            self.pool.geometry = GeometryFolder(cache.path, about)

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
        if self.pool.offset:
            spaces = {space for one in strategies for space in one.measures}
            if spaces & {"raw", "unit"} or ("head" in spaces and plain_space(classifier, self.pool)):
                known["offset"] = 1  # before, distances between such features were rounding
            if isinstance(classifier, Propagated):
                known["offset"] = 1
        elif any(one.repairs_near for one in strategies) and any_near(self.pool.unit):
            known["near"] = 1  # before, distances between near items came from products
        if self.cache.renumbered:
            known["renumbered_classes"] = 1  # before, gaps counted as classes, and budgets per class with them
        return known


def plain_space(classifier: Classifier | None, pool: Pool) -> bool:
    """Does this classifier see the features as they are? True when that is not known."""
    inner = classifier.classifier if isinstance(classifier, Propagated) else classifier
    if isinstance(inner, Logistic):
        return inner.space(pool) is RAW
    return not isinstance(inner, Recipe)


def fits_heads(strategy: Strategy) -> bool:
    """Does a query of this strategy fit heads, in itself or in its posterior?"""
    return strategy.refits or bool(getattr(getattr(strategy, "posterior", None), "refits", False))


def _labelled(cache: FeatureCache, split: str) -> tuple[np.ndarray, np.ndarray]:
    labels = cache.labels(split)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(f"Split {split!r} of {cache.path} holds no labelled item, so nothing can be simulated on it.")
    return rows, labels[rows].copy()


def _features(cache: FeatureCache, split: str, rows: np.ndarray, memory: Memory) -> np.ndarray | CacheRows:
    if memory == "file":
        return CacheRows(cache, split, rows)
    features = cache.features(split)
    return features if len(rows) == len(features) else features[rows]


@checked
def budgets_of(
    num_classes: int, rounds: Rounds, init: Labels, step: Labels, per_class: bool = True, doubling: bool = False
) -> list[int]:
    """Labels per round; `init` and `step` count per class unless `per_class` is False. UserError for less than one."""
    factor = num_classes if per_class else 1
    first, each = round(init * factor), round(step * factor)
    if first < 1 or each < 1:
        raise UserError(f"budget.init={init:g} and budget.step={step:g} must give at least one label a round.")
    return schedule(rounds, first, each, doubling)


def run_replicates(
    task: Simulation,
    classifier: Classifier,
    init_strategy: Strategy,
    query_strategy: Strategy,
    budgets: Sequence[int],
    seeds: Sequence[int],
    folder: RunFolder | None = None,
    warm_start: bool = True,
    on_round: Callable[[Round, Sequence[int]], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows (`results.COLUMNS`) of every seed and round, new ones as they are made.

    Replicates that stand at the same round run side by side. With a `folder`, finished seeds are not run again,
    interrupted ones go on where they were, and every round is stored before it is yielded.
    """
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"seeds must be a list of different whole numbers, none negative; got {list(seeds)}.")
    groups: dict[int, list[int]] = {}
    picked: dict[int, np.ndarray] = {seed: np.empty(0, np.int64) for seed in seeds}
    for seed in seeds:
        rows: list[Any] = []
        if folder is not None:
            picked[seed], rows = folder.progress(seed)
            yield from rows
        if folder is None or seed not in folder.completed_seeds():
            groups.setdefault(len(rows), []).append(seed)
    init_strategy, query_strategy = init_strategy.in_pool(task.numbers), query_strategy.in_pool(task.numbers)
    for group in groups.values():
        done = np.stack([task.numbers.of_cache(picked[seed], "picks.npz") for seed in group])
        if (done < 0).any():
            assert folder is not None
            raise UserError(f"{folder.path}/picks.npz names items without a label: run again with force=true.")
        ended = None
        for made in run(task, classifier, init_strategy, query_strategy, budgets, group, done, warm_start):
            new = [_row(made, i, seed, len(group)) for i, seed in enumerate(group)]
            if folder is not None:
                folder.append(new, {seed: task.cache_rows[made.picks[i]] for i, seed in enumerate(group)})
            if on_round is not None:
                on_round(made, group)
            ended = made.ended
            yield from new
        if folder is not None:
            # nothing new to run: every round was stored, only the mark was missing
            folder.finish(group, ended or "all rounds done")


def _row(made: Round, replicate: int, seed: int, replicates: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "round": made.round,
        "num_labeled": made.num_labeled,
        **made.metrics[replicate],
        "fit_seconds": made.fit_seconds,
        "query_seconds": made.query_seconds,
        "eval_seconds": made.eval_seconds,
        "num_replicates": replicates,
        "num_filled": made.num_filled[replicate],
        "peak_memory_bytes": made.peak_memory_bytes,
    }


def from_config(group: str, name: str, **options: Any) -> Any:
    """Build `conf/<group>/<name>.yaml`, e.g. `from_config("query_strategy", "margins", cluster_features=True)`.

    Raises UserError, with the nearest names, when there is no such config or option.
    """
    from omegaconf import OmegaConf

    return build(OmegaConf.merge(_node(group, name), options), KINDS.get(group), group)


def _node(group: str, name: str) -> DictConfig:
    """`conf/<group>/<name>.yaml` as `al_train` composes it; UserError with the nearest names when there is none."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    known = [path.stem for path in (conf_dir() / group).glob("*.yaml")]
    if name not in known:
        raise UserError(f"There is no {group}={name}: {nearest_names(name, known)}")
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node = compose("al_train", overrides=[f"{group}={name}"])[group]
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = before
    OmegaConf.set_struct(node, False)
    return node


def _named(group: str, given: Any) -> tuple[str, dict[str, Any], Any]:
    """What `simulate` was given for a group, a config's name or an object: its name, its config, the object."""
    from omegaconf import OmegaConf

    name = given if isinstance(given, str) else config_of_class(type(given), conf_dir() / group)
    node = {} if name is None else _node(group, name)
    plain: Any = OmegaConf.to_container(node, resolve=True) if node else {}
    if isinstance(given, str):
        return given, plain, build(node, KINDS.get(group), group)
    return name or type(given).__name__.lower(), as_config(given, plain), given


@checked
def simulate(
    cache: FeatureCache | Simulation | str | Path,
    query_strategy: str | Strategy = "uherding",
    *,
    init_strategy: str | Strategy = "random",
    classifier: str | Classifier = "logistic",
    seeds: Sequence[int] = SEEDS,
    rounds: Rounds = 20,
    init: Labels = 1,
    step: Labels = 1,
    per_class: bool = True,
    doubling: bool = False,
    device: Device = "auto",
    memory: Memory = "auto",
) -> pd.DataFrame:
    """Simulated active learning on cached features with known labels; no result is written.

    cache: a path, an open cache, or a `Simulation` (kept between calls, so that features are loaded once).
    Strategies and classifier: names of configs, or objects. Returns one row per seed and round with the columns of
    `rounds.csv` and those by which `load_runs` tells runs apart (dataset, model, query_strategy, init_strategy,
    classifier, budget, cache, the conditions with the options of strategies and head, initial, picked), so that frames
    can be concatenated and given to `alfm.statistics` and the report; objects are described by their class and options.
    Raises UserError for what a user can put right.
    """
    import pandas as pd

    task = cache if isinstance(cache, Simulation) else Simulation(cache, device, memory)
    given = {"query_strategy": query_strategy, "init_strategy": init_strategy, "classifier": classifier}
    named = {group: _named(group, one) for group, one in given.items()}
    built = {group: one for group, (_, _, one) in named.items()}
    budgets = budgets_of(task.num_classes, rounds, init, step, per_class, doubling)
    picks: dict[int, list[np.ndarray]] = {}

    def remember(made: Round, group: Sequence[int]) -> None:
        for seed, new in zip(group, made.picks, strict=True):
            picks.setdefault(seed, []).append(task.cache_rows[new])

    rows = list(run_replicates(task, budgets=budgets, seeds=[int(seed) for seed in seeds], on_round=remember, **built))
    config = {
        **{group: config for group, (_, config, _) in named.items()},
        "budget": {"init": init, "step": step, "per_class": per_class},
        "iterations": {"n": rounds, "exp": doubling},
        "splits": task.splits,
        "train_views": task.train_views,
        "warm_start": True,
    }
    path, fingerprint = task.cache.path.absolute(), task.cache.fingerprint
    frame = pd.DataFrame(rows).assign(
        dataset=path.parent.name, model=path.stem, **{group: name for group, (name, _, _) in named.items()},
        budget=_budget_text(config, []), cache=fingerprint,
        **condition_columns(hashed_config(config), task.behaviour(**built)),
    )  # fmt: skip
    frame["initial"] = frame["seed"].map({seed: start_fingerprint(own[0], fingerprint) for seed, own in picks.items()})
    for seed, own in picks.items():
        up_to = np.cumsum([len(new) for new in own]).tolist()
        frame.loc[frame["seed"] == seed, "picked"] = picks_fingerprints(np.concatenate(own), up_to, fingerprint)
    return frame
