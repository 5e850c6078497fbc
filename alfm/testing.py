"""What every strategy, backbone and data set promises, as checks that yours can be run through; ours are.

>>> from alfm.testing import check_backbone, check_dataset, strategy_checks
>>> @pytest.mark.parametrize("check", strategy_checks(), ids=str)
... def test_my_strategy(check):
...     check(Smallest())

`strategy_checks()` are those of a query strategy, `strategy_checks(cold=True)` those of a cold start. One that may
leave part of a batch to chance, or whose picks depend on the order of the pool, says so by `may_fill` and `permutes`.
`check_dataset(function)` builds a data set twice and reads some of its items; `check_backbone(backbone, items)` embeds
some. Each raises AssertionError with a sentence that says what is wrong. No test runner is needed.
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alfm.backbones.base import Backbone
from alfm.datasets.base import Audio, Dataset, ItemError, Split
from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.simulation.task import Task
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query

# ---- queries --------------------------------------------------------------------------------------------------------


def clusters(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 (n, dim) and classes int64 (n,): clustered, anisotropic, every class present."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 3.0))
    y = np.concatenate([np.arange(classes), rng.choice(classes, n - classes, p=share)])
    centres = rng.normal(0, 2, (classes, dim))
    x = centres[y] + rng.normal(0, 1, (n, dim)) * rng.gamma(2, 0.5, dim)
    return x.astype(np.float32), y.astype(np.int64)


def query_of(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    labelled: Sequence[int] = (),
    seeds: Sequence[int] = (1, 2),
    cold: bool = False,
    head: LinearHead | None = None,
    block_rows: int | None = None,
    round: int = 4,
) -> Query:
    """The query of a round after the rows `labelled` (the same in all replicates), with a fitted head.

    x: features (N, D); y: classes int64 (N,), which only an oracle sees whole. cold: nothing is labelled, no head.
    """
    pool = Features(x, block_rows=block_rows)
    labels = torch.from_numpy(y)
    R = len(seeds)
    rows = torch.tensor([] if cold else list(labelled), dtype=torch.int64).expand(R, -1)
    available = torch.ones(R, pool.N, dtype=torch.bool)
    available.scatter_(1, rows, False)
    if head is None and not cold:
        head = Logistic().fit(pool, rows, labels[rows], classes, seeds)
    oracle = None
    if len(np.unique(y)) > 1:
        oracle = Task(pool, labels, Features(x[::2].copy()), labels[::2], classes)
    number = 1 if cold else round
    return Query(pool, rows, labels[rows], available, classes, seeds, number, head, Logistic(), {}, oracle)


@functools.cache
def easy() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """260 items of 6 classes in 12 dimensions: features, classes, and four rows of each class."""
    x, y = clusters(260, 12, 6)
    return x, y, [int(i) for c in range(6) for i in np.flatnonzero(y == c)[:4]]


@functools.cache
def situations() -> dict[str, tuple[Query, int]]:
    """Hard ones, by name: a query and a budget."""
    x, y, labelled = easy()
    wide, y_wide = clusters(80, 40, 3, 1)
    thin, y_thin = clusters(90, 1, 3, 2)
    two, y_two = clusters(90, 6, 2, 3)
    few, y_few = clusters(30, 5, 3, 4)
    zeros = two.copy()
    zeros[10:40] = 0
    base = query_of(x, y, 6, labelled)
    assert base.head is not None
    sure = LinearHead(base.head.spaces, base.head.weight * 1e4, base.head.bias * 1e4)
    small = query_of(x[:40], y[:40], 6, [0, 1, 2, 3])
    return {
        _ORDINARY: (base, 12),
        "B = 1": (base, 1),
        "B > D": (query_of(x[:, :4].copy(), y, 6, labelled), 30),
        "B > C": (query_of(two, y_two, 2, [0, 1, 5]), 20),
        "B = all that is left": (small, 36),
        "B beyond what is left": (small, 99),
        "more dimensions than items": (query_of(wide, y_wide, 3, [0, 1, 2, 9]), 7),
        "D = 1": (query_of(thin, y_thin, 3, [0, 1, 2, 9]), 8),
        "C = 2": (query_of(two, y_two, 2, [0, 1]), 8),
        "a class with no label": (query_of(x, y, 6, [0, 1, 2, 3]), 10),
        "one label in all": (query_of(x, y, 6, [3]), 10),
        "duplicate rows": (query_of(np.repeat(few, 4, 0), np.repeat(y_few, 4), 3, [0, 1, 5, 9, 40]), 25),
        "zero vectors": (query_of(zeros, y_two, 2, [0, 1, 11]), 15),
        "extreme logits": (query_of(x, y, 6, labelled, head=sure), 12),
    }


_ORDINARY = "ordinary"
_SITUATIONS = (
    _ORDINARY, "B = 1", "B > D", "B > C", "B = all that is left", "B beyond what is left", "more dimensions than items",
    "D = 1", "C = 2", "a class with no label", "one label in all", "duplicate rows", "zero vectors", "extreme logits",
)  # fmt: skip
_COLD_BUDGETS = (1, 9, 60, 260, 300)

# ---- strategies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One promise. Call it with a strategy; AssertionError where that breaks it."""

    name: str
    run: Callable[[Strategy], None]

    def __call__(self, strategy: Strategy) -> None:
        self.run(strategy)

    def __str__(self) -> str:
        return self.name


def strategy_checks(*, cold: bool = False, may_fill: bool = False, permutes: bool = True) -> list[Check]:
    """What a query strategy promises or, with `cold`, one that begins with nothing labelled.

    may_fill: it may leave part of a batch to chance. permutes: where seeds do not matter, another order of the pool's
    rows gives the same items.
    """
    if cold:
        batches = [Check(f"B = {budget}", functools.partial(_cold_batch, budget)) for budget in _COLD_BUDGETS]
        batches.append(Check("duplicates, zeros, one dimension", _hard_colds))
    else:
        batches = [Check(name, functools.partial(_batch, name, may_fill)) for name in _SITUATIONS]
        batches.append(Check("carried state", _carried))
    others = [
        Check("seeds", functools.partial(_seeds, cold, may_fill)),
        Check("block size", functools.partial(_blocks, cold)),
    ]
    if permutes and not may_fill:
        others.append(Check("order of the pool", functools.partial(_permuted, cold)))
    return batches + others


def _whole(strategy: Strategy, query: Query, budget: int) -> list[int]:
    """A batch is whole, distinct and of available items; how many of each replicate were filled at random."""
    query.carry.clear()
    picks, filled = ask(strategy, query, budget)
    for r in range(query.R):
        free = query.available[r]
        assert picks.shape == (query.R, min(budget, int(free.sum()))), f"a batch of shape {tuple(picks.shape)}"
        assert len(set(picks[r].tolist())) == picks.shape[1], "an item is picked twice"
        assert bool(free[picks[r]].all()), "an item is picked that is not available"
    return filled


def _batch(situation: str, may_fill: bool, strategy: Strategy) -> None:
    filled = _whole(strategy, *situations()[situation])
    assert situation != _ORDINARY or may_fill or not any(filled), f"{filled} items of the batches are left to chance"


def _cold_batch(budget: int, strategy: Strategy) -> None:
    x, y, _ = easy()
    filled = _whole(strategy, query_of(x, y, 6, cold=True), budget)
    assert not any(filled), f"{filled} items of the batches are left to chance"


def _hard_colds(strategy: Strategy) -> None:
    x = easy()[0]
    for hard in (np.repeat(x[:30], 3, 0), np.zeros((40, 3), np.float32), x[:, :1].copy()):
        _whole(strategy, query_of(hard, (np.arange(len(hard)) % 4).astype(np.int64), 4, cold=True), 12)


def _picks(strategy: Strategy, query: Query, budget: int = 8) -> list[list[int]]:
    return ask(strategy, query, budget)[0].tolist()


def _seeds(cold: bool, may_fill: bool, strategy: Strategy) -> None:
    x, y, labelled = easy()
    together = _picks(strategy, query_of(x, y, 6, labelled, (1, 2, 3, 4, 5), cold))
    for r in (0, 3):
        alone = _picks(strategy, query_of(x, y, 6, labelled, (r + 1,), cold))
        assert alone == [together[r]], "a seed picks other items alone than together with others"
    different = len({tuple(sorted(row)) for row in together})
    if strategy.stochastic:
        assert different > 1, "it is marked stochastic, and five seeds pick the same items"
    elif not may_fill:
        assert different == 1, "it is not marked stochastic, and seeds pick different items"


def _blocks(cold: bool, strategy: Strategy) -> None:
    x, y, labelled = easy()
    small = _picks(strategy, query_of(x, y, 6, labelled, (1, 2), cold, block_rows=37))
    assert small == _picks(strategy, query_of(x, y, 6, labelled, (1, 2), cold)), "picks depend on the size of blocks"


def _permuted(cold: bool, strategy: Strategy) -> None:
    if strategy.stochastic:
        return
    x, y, labelled = easy()
    order = np.random.default_rng(5).permutation(len(x))
    place = np.argsort(order)
    plain = _picks(strategy, query_of(x.astype(np.float64), y, 6, labelled, (1,), cold))[0]
    moved = query_of(x[order].astype(np.float64), y[order], 6, [int(place[i]) for i in labelled], (1,), cold)
    found = [int(order[i]) for i in _picks(strategy, moved)[0]]
    assert found == plain, "picks depend on the order of the pool's rows"


def _carried(strategy: Strategy) -> None:
    x, y, labelled = easy()
    first = query_of(x, y, 6, labelled, (1,))
    later = labelled + _picks(strategy, first)[0]
    carried, fresh = (query_of(x, y, 6, later, (1,), round=5) for _ in range(2))
    carried.carry, carried.pool = first.carry, first.pool
    same = _picks(strategy, carried) == _picks(strategy, fresh)
    assert same, "what is carried from the round before changes picks, so a resumed run would go another way"


# ---- data sets ------------------------------------------------------------------------------------------------------


def check_dataset(make: Callable[[], Dataset], items: int = 3) -> Dataset:
    """Build it twice and read up to `items` items of each split; the data set, AssertionError with what is wrong."""
    dataset, again = make(), make()
    assert isinstance(dataset, Dataset), f"an alfm.datasets.base.Dataset is needed, not {type(dataset).__name__}"
    assert dataset.name and dataset.modality in _ITEMS, f"name {dataset.name!r}, modality {dataset.modality!r}"
    assert dataset.fingerprint and dataset.fingerprint == again.fingerprint, "built again, its fingerprint is another"
    assert dataset.splits and list(dataset.splits) == list(again.splits), "it has no splits, or other ones each time"
    json.dumps(dataset.notes)  # TypeError: they are stored with the cache
    for name, split in dataset.splits.items():
        _check_split(f"split {name!r}", split, again.splits[name], dataset)
        for row in _some_rows(split, items):
            _check_item(f"split {name!r}, item {row}", split, row, dataset.modality)
    return dataset


def _check_split(where: str, split: Split, again: Split, dataset: Dataset) -> None:
    labels = split.labels
    assert isinstance(labels, np.ndarray) and labels.dtype == np.int64, f"{where}: labels must be int64"
    assert labels.shape == (len(split),) and len(split.ids) == len(split), f"{where}: a label and an id for every item"
    assert labels.min(initial=-1) >= -1, f"{where}: a label below -1, which means unlabelled"
    classes = dataset.classes
    assert classes is None or labels.max(initial=-1) < len(classes), f"{where}: a label beyond the names of classes"
    assert all(isinstance(item, str) for item in split.ids), f"{where}: ids must be texts"
    assert len(set(split.ids)) == len(split), f"{where}: an id occurs twice"
    same = list(split.ids) == list(again.ids) and np.array_equal(labels, again.labels)
    assert same, f"{where}: built again, its items are others or in another order, and the fingerprint is the same"
    pickle.dumps(split)  # worker processes get it


def _some_rows(split: Split, items: int) -> list[int]:
    """First, last and between; of a stream, which is read in order, the first ones."""
    items = min(items, len(split))
    if getattr(split, "in_order", False):
        return list(range(items))
    return sorted({round(row) for row in np.linspace(0, len(split) - 1, items)})


def _check_item(where: str, split: Split, row: int, modality: str) -> None:
    try:
        item = split.load(row)
    except ItemError as error:
        assert split.ids[row] in str(error), f"{where}: the message must name {split.ids[row]!r}: {error}"
        return
    assert _ITEMS[modality](item), f"{where}: a {type(item).__name__} is no item of modality {modality!r}"
    if isinstance(item, Audio):
        assert item.samples.dtype == np.float32 and item.samples.ndim == 1, f"{where}: samples must be float32 (T,)"


_ITEMS: dict[str, Callable[[Any], bool]] = {
    "image": lambda item: hasattr(item, "convert") and hasattr(item, "size"),  # a PIL image
    "text": lambda item: isinstance(item, str),
    "audio": lambda item: isinstance(item, Audio),
}

# ---- backbones ------------------------------------------------------------------------------------------------------


def check_backbone(backbone: Backbone, items: Sequence[Any], device: str = "cpu", tolerance: float = 1e-4) -> None:
    """Embed `items` (two or more of its modality, not all equal) in one batch and one by one.

    Raises AssertionError with what is wrong. tolerance: how far, relative to the largest feature, the two may differ.
    """
    assert len(items) > 1, "two items or more are needed"
    where = torch.device(device)
    pickle.dumps(backbone)  # worker processes preprocess with it
    backbone.load(where)
    assert backbone.modality in _ITEMS, f"modality {backbone.modality!r} is none of {', '.join(_ITEMS)}"
    name = backbone.name
    assert name and not set(name) & set('/\\:*?"<>|\0'), f"name {name!r} cannot be the name of a file"
    fingerprint = backbone.fingerprint
    assert fingerprint, "after load it needs a fingerprint"
    json.dumps(backbone.provenance)  # TypeError: it is stored with the cache
    worker = pickle.loads(pickle.dumps(backbone))
    ready = [pickle.loads(pickle.dumps(worker.preprocess(item))) for item in items]
    together = _encoded(backbone, ready, where)
    assert backbone.dim == together.shape[1], f"dim is {backbone.dim}, and features are {together.shape[1]} wide"
    alone = torch.cat([_encoded(backbone, [item], where) for item in ready])
    apart = (together - alone).abs().max() / together.abs().max().clamp_min(1e-12)
    assert apart <= tolerance, f"features depend on the rest of the batch: {apart:.2g} of the largest"
    assert torch.equal(together, _encoded(backbone, ready, where)), "the same batch gives other features again"
    assert backbone.fingerprint == fingerprint, "encoding changes the fingerprint"


def _encoded(backbone: Backbone, ready: list[Any], device: torch.device) -> torch.Tensor:
    batch = backbone.collate(ready)
    with torch.inference_mode():
        moved = {key: value.to(device) for key, value in batch.items()} if isinstance(batch, dict) else batch.to(device)
        features = backbone.encode(moved)
    assert features.ndim == 2 and len(features) == len(ready), f"encode gives {tuple(features.shape)} for {len(ready)}"
    assert features.is_floating_point() and bool(features.isfinite().all()), "features must be finite floats"
    return features.double().cpu()
