"""Independent jobs side by side on the CPU's cores, each computing with one thread.

Torch's own threads split every small product and wait for each other at its end, which costs more than the product
when a core is busy; and a sum split over threads depends in its last bits on how many there are. One job per core
has neither problem: results do not depend on the number of cores. Figures: benchmarks/notes/small-operations.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

from alfm import devices

S = TypeVar("S")
T = TypeVar("T")
Asked = TypeVar("Asked")
Told = TypeVar("Told")


def side_by_side(jobs: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """Results of the jobs, in their order. On a GPU, and inside another job, they run one after the other.

    A lone job leaves the cores to the jobs that it has itself. Jobs share memory and must not write to the same place.
    """
    if not devices.of(device).jobs_run_aside:
        return [job() for job in jobs]
    count = at_once(len(jobs), device)
    if len(jobs) == 1:
        with _left(_cores()), one_thread():
            return [jobs[0]()]
    with one_thread(), _left(0):
        if count <= 1:
            return [job() for job in jobs]
        # Each worker says it for itself: MKL keeps the number per thread, and a product that is a worker's first
        # operation would start threads of its own.
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as workers:
            return list(workers.map(lambda job: job(), jobs))


def at_once(jobs: int, device: torch.device) -> int:
    """How many of so many jobs `side_by_side` runs at a time."""
    return min(jobs, _cores() if devices.of(device).jobs_run_aside else 1)


def each_of(items: Iterator[S], job: Callable[[S], T], device: torch.device, ahead: int = 16) -> Iterator[tuple[S, T]]:
    """(item, job(item)) in the items' order, side by side; `ahead` items, on a GPU one, are held at a time."""
    for group in batched(items, ahead if devices.of(device).jobs_run_aside else 1):
        yield from zip(group, side_by_side([partial(job, item) for item in group], device), strict=True)


def asking_together(
    jobs: Sequence[Generator[Asked, Told, T]], answer: Callable[[Mapping[int, Asked]], Sequence[Told]]
) -> list[T]:
    """What jobs return that ask on their way, at least once: `answer` gets all questions at a time, by job."""
    done: dict[int, T] = {}
    asked = {place: next(job) for place, job in enumerate(jobs)}
    while asked:
        for place, told in zip(list(asked), answer(asked), strict=True):
            try:
                asked[place] = jobs[place].send(told)
            except StopIteration as end:
                done[place] = end.value
                del asked[place]
    return [done[place] for place in range(len(jobs))]


def batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` consecutive items, the last one shorter (itertools.batched is Python 3.12's)."""
    while group := list(islice(items, size)):
        yield group


class _Lone(threading.local):
    """What a lone job's thread may use, beside torch's one."""

    cores = 0


_lone = _Lone()


def _cores() -> int:
    return max(torch.get_num_threads(), _lone.cores)


@contextmanager
def _left(cores: int) -> Iterator[None]:
    before, _lone.cores = _lone.cores, cores
    try:
        yield
    finally:
        _lone.cores = before


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's CPU operations on one thread inside, as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
