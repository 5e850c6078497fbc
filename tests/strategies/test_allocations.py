"""No strategy makes anything of size N x N or N x C x D: the largest array of a query, found by watching it."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from strategies.test_properties import QUERIES, strategy
from torch.utils._python_dispatch import TorchDispatchMode

from alfm.strategies.ask import ask
from alfm.testing import clusters, query_of

N, D, C = 5000, 64, 20
SMALLEST = N * C * D  # 6.4 million numbers; N x N is four times that


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made under it holds in storage of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.untyped_storage().nbytes() // one.element_size())
        return out


@pytest.fixture(scope="module")
def pool():
    x, y = clusters(N, D, C, seed=3)
    with Largest():
        torch.zeros(1)  # what torch imports for it takes five times as long while allocations are traced
    return x, y, list(range(2 * C))


@pytest.mark.parametrize("name", QUERIES)
def test_nothing_grows_with_pairs_of_items(name: str, pool) -> None:
    x, y, labelled = pool
    query = query_of(x, y, C, labelled, seeds=(1,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # replicates then run in this thread, where they are watched
    tracemalloc.start()
    try:
        with Largest() as largest:
            ask(strategy("query_strategy", name), query, 10)
        numpy_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        torch.set_num_threads(threads)
    assert 0 < largest.numbers < SMALLEST
    assert numpy_bytes < 4 * N * N  # all arrays together; cluster_margin's linkage is of a sample of constant size


def test_what_is_watched() -> None:
    with Largest() as largest:
        torch.zeros(30, 30).expand(100, 30, 30).sum()
        torch.zeros(10, 7) @ torch.zeros(7, 50)
    assert largest.numbers == 900
