"""Queries made by hand: clustered features, some labels, a fitted head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query


def clusters(N: int, D: int, C: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) float64 in C Gaussian clusters of unequal width, classes (N,) int64, every class present."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(C), rng.integers(C, size=max(0, N - C))])[:N]
    x = 2.0 * rng.normal(size=(C, D))[y] + spread * (0.5 + y[:, None] / C) * rng.normal(size=(N, D)) + 0.3
    return x, y


def make_query(
    N: int = 120,
    D: int = 8,
    C: int = 4,
    n: int = 12,
    seeds: Sequence[int] = (1,),
    dtype: torch.dtype = torch.float64,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    rows: Sequence[Sequence[int]] | None = None,
    classifier: Classifier | None = None,
    head: LinearHead | None = None,
    block_rows: int | None = None,
    round: int = 2,
) -> Query:
    """A round's query for len(seeds) replicates, each with n labelled rows of its own (or `rows`), and a fitted head.

    Replicate r's labelled rows depend on its seed alone. Everything unlabelled is available.
    """
    if x is None:
        x, y = clusters(N, D, C)
    assert y is not None
    pool = Features(torch.from_numpy(np.asarray(x)).to(dtype), block_rows=block_rows)
    if rows is None:
        rows = [np.random.default_rng(seed + 1000).permutation(pool.N)[:n].tolist() for seed in seeds]
    width = max(len(own) for own in rows)
    padded = torch.tensor([list(own) + [-1] * (width - len(own)) for own in rows])
    targets = torch.where(padded >= 0, torch.from_numpy(np.asarray(y))[padded.clamp_min(0)], -1)
    available = torch.ones(len(seeds), pool.N, dtype=torch.bool)
    for r, own in enumerate(rows):
        available[r, list(own)] = False
    classifier = classifier or Logistic()
    if head is None:
        head = classifier.fit(pool, padded, targets, C, list(seeds), round)
    return Query(pool, padded, targets, available, C, list(seeds), round, head, classifier)


def raw_head(weight: Tensor, bias: Tensor | None = None) -> LinearHead:
    """A head on raw features: weight (R, C, D), bias (R, C) or 0."""
    R, C, _ = weight.shape
    return LinearHead((RAW,) * R, weight, torch.zeros(R, C, dtype=weight.dtype) if bias is None else bias)


@dataclass
class Seen:
    """What a reference needs of one replicate, in NumPy float64."""

    phi: np.ndarray  # (N, D')
    logits: np.ndarray  # (N, C)
    p: np.ndarray  # (N, C)
    labelled: np.ndarray  # (n,)
    targets: np.ndarray  # (n,)
    free: np.ndarray  # (N,) bool
    weight: np.ndarray  # (C, D')


def seen(query: Query, r: int = 0) -> Seen:
    """Replicate r's embeddings, predictions and labels as float64 arrays."""
    assert query.head is not None
    phi = query.pool.materialise(query.head.spaces[r]).double().numpy()
    weight, bias = query.head.weight[r].double().numpy(), query.head.bias[r].double().numpy()
    logits = phi @ weight.T + bias
    e = np.exp(logits - logits.max(1, keepdims=True))
    return Seen(
        phi,
        logits,
        e / e.sum(1, keepdims=True),
        query.labelled(r).numpy(),
        query.labels_of(r).numpy(),
        query.available[r].numpy(),
        weight,
    )


def permuted(query: Query, order: np.ndarray) -> Query:
    """The same query with the pool's rows in another order: new row i is old row order[i]; the head is the same."""
    place = torch.from_numpy(np.argsort(order))
    rows = torch.where(query.rows >= 0, place[query.rows.clamp_min(0)], -1)
    assert isinstance(query.pool.features, Tensor)
    pool = Features(query.pool.features[torch.from_numpy(order)], block_rows=query.pool.block_rows)
    available = query.available[:, torch.from_numpy(order)]
    return Query(
        pool, rows, query.targets, available, query.num_classes, query.seeds, query.round, query.head, query.classifier
    )


def _duplicates() -> tuple[Query, int]:
    x, y = clusters(20, 5, 4)
    return make_query(x=np.concatenate([x, x, x]), y=np.concatenate([y, y, y]), C=4, dtype=torch.float32), 30


def _zeros() -> tuple[Query, int]:
    x, y = clusters(40, 5, 4)
    x[10:25] = 0.0
    # raw coordinates, so that a zero feature is a zero embedding
    return make_query(x=x, y=y, C=4, classifier=Logistic(scaling="none"), dtype=torch.float32), 12


def _all_zero() -> tuple[Query, int]:
    return make_query(x=np.zeros((30, 3)), y=np.arange(30) % 4, C=4, dtype=torch.float32), 5


def _extreme() -> tuple[Query, int]:
    x, y = clusters(60, 6, 4)
    weight = 1e4 * torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 6))).float()
    return make_query(x=x, y=y, C=4, dtype=torch.float32, head=raw_head(weight)), 8


def _missing_class() -> tuple[Query, int]:
    x, y = clusters(60, 6, 5)
    return make_query(x=x, y=y, C=5, rows=[np.flatnonzero(y < 3)[:9].tolist()], dtype=torch.float32), 7


SITUATIONS: dict[str, Callable[[], tuple[Query, int]]] = {
    "one item": lambda: (make_query(dtype=torch.float32), 1),
    "more than dimensions": lambda: (make_query(D=3, dtype=torch.float32), 20),
    "more than classes": lambda: (make_query(C=3, dtype=torch.float32), 17),
    "all that is left": lambda: (make_query(N=40, n=8, dtype=torch.float32), 32),
    "one dimension": lambda: (make_query(N=50, D=1, C=2, n=4, dtype=torch.float32), 6),
    "two classes": lambda: (make_query(N=50, C=2, n=4, dtype=torch.float32), 6),
    "a class without a label": _missing_class,
    "one label in all": lambda: (make_query(n=1, dtype=torch.float32), 6),
    "duplicate rows": _duplicates,
    "zero vectors": _zeros,
    "nothing but zeros": _all_zero,
    "extreme logits": _extreme,
    "half precision": lambda: (make_query(dtype=torch.float16), 9),
}
"""Hard situations by name: functions without arguments that make a query and a budget."""


def picks_in(strategy: Strategy, situation: str) -> tuple[np.ndarray, int]:
    """A strategy's picks (B,) in a situation after `ask`'s checks, and how many had to be filled."""
    query, budget = SITUATIONS[situation]()
    picks, filled = ask(strategy, query, budget)
    own = picks[0].numpy()
    assert len(set(own.tolist())) == budget == len(own)
    assert query.available[0].numpy()[own].all()
    return own, filled[0]


def assert_replicates_independent(make: Callable[[], Strategy], budget: int = 10, **options) -> None:
    """Seeds (1, 2, 3) together pick what each of them picks alone; float32, bit for bit."""
    options = {"dtype": torch.float32, **options}
    together = make().select(make_query(seeds=(1, 2, 3), **options), budget)
    for r, seed in enumerate((1, 2, 3)):
        alone = make().select(make_query(seeds=(seed,), **options), budget)
        assert together[r].tolist() == alone[0].tolist()


def assert_equivariant(strategy: Strategy, budget: int = 10, **options) -> None:
    """Permuting the pool permutes a deterministic strategy's picks; float64."""
    query = make_query(**options)
    order = np.random.default_rng(5).permutation(query.pool.N)
    expected = strategy.select(query, budget)[0].numpy()
    got = strategy.select(permuted(query, order), budget)[0].numpy()
    assert order[got].tolist() == expected.tolist()


class Rows:
    """Features that stay elsewhere."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape = x, x.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.x[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.x[rows]
