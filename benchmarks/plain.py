"""Our selections against the plain loops they must agree with, timed in one process. Jobs of `speed.py`.

A plain loop serves ONE replicate and is written as one would write it in torch without further thought: all threads,
norms computed once, one matrix-vector product over the whole pool per pick. Ours serves `replicates` together.
Where picks are deterministic, the job also says whether ours and the plain loop's are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pools
from machine import drain, peak_bytes


def _setting(folder: str, labelled: int, replicates: int, device: str) -> tuple[Any, Any]:
    """The task, and a function that makes a round's query from scratch on a fresh pool (nothing is carried)."""
    import torch

    from alfm.features.features import Features
    from alfm.heads.logistic import Logistic
    from alfm.strategies.query import Query

    task = pools.task(folder, device)
    starts = [np.random.default_rng(r + 1).choice(task.pool.N, labelled, replace=False) for r in range(replicates)]
    rows = torch.from_numpy(np.stack(starts)).to(device)
    seeds = list(range(1, replicates + 1))
    classifier = Logistic()

    def query(with_head: bool, only: int | None = None) -> Query:
        pool = Features(task.pool.features, device)
        mine, who = (rows, seeds) if only is None else (rows[only : only + 1], seeds[only : only + 1])
        available = torch.ones(len(who), pool.N, dtype=torch.bool, device=device).scatter_(1, mine, False)
        head = None
        if with_head:
            head = classifier.fit(pool, mine, task.labels[mine], task.num_classes, who)
            pool.vectors(head.spaces[0])  # phi, made when the head first visits the pool
        return Query(pool, mine, task.labels[mine], available, task.num_classes, who, 2, head, classifier)

    return task, query


def _next(task: Any, query: Any, picks: Any) -> Any:
    """The query of the round after, with the same head and what was carried."""
    from dataclasses import replace

    import torch

    rows = torch.cat([query.rows, picks], 1)
    available = query.available.clone().scatter_(1, picks, False)
    return replace(query, rows=rows, targets=task.labels[rows], available=available, round=query.round + 1)


def _timed(device: str, fn: Callable[[], Any]) -> tuple[float, Any]:
    began = drain(device)
    value = fn()
    return drain(device) - began, value


def coreset(folder: str, labelled: int, batch: int, replicates: int, repeats: int, device: str) -> dict[str, Any]:
    """k-center greedy on raw features: from nothing (labels and batch), and the next round with carried distances."""
    import torch

    from alfm.config.parts import from_config
    from alfm.strategies.ask import ask

    task, make = _setting(folder, labelled, replicates, device)
    strategy = from_config("query_strategy", "coreset")
    X, times = task.pool.raw.matrix, {"fresh": [], "carried": [], "plain": [], "plain_next": []}
    if X is None:
        X = torch.cat([x for _, x in task.pool.raw.blocks()])

    def plain(centres: Any, near: Any, sq: Any) -> tuple[Any, Any, Any]:
        if near is None:  # labels in blocks of one product each: quicker than a pass per label
            sq = torch.linalg.vecdot(X, X)
            near = torch.full_like(sq, torch.inf)
            for part in centres.split(64):
                torch.minimum(near, (sq[:, None] - 2 * (X @ X[part].T) + sq[part]).amin(1), out=near)
            near[centres] = 0
        picks = []
        for _ in range(batch):
            pick = near.argmax()
            picks.append(pick)
            torch.minimum(near, sq - 2 * (X @ X[pick]) + sq[pick], out=near)
            near[pick] = 0
        return torch.stack(picks), near, sq

    same, peak = [], 0  # the peak before any plain loop has run
    for _ in range(repeats):
        query = make(False)
        seconds, (picks, _) = _timed(device, lambda q=query: ask(strategy, q, batch))
        times["fresh"].append(seconds)
        following = _next(task, query, picks)
        seconds, (more, _) = _timed(device, lambda q=following: ask(strategy, q, batch))
        times["carried"].append(seconds)
        peak = peak or peak_bytes(device)
        seconds, (expected, near, sq) = _timed(device, lambda q=query: plain(q.rows[0], None, None))
        times["plain"].append(seconds)
        seconds, (after, _, _) = _timed(device, lambda n=near, s=sq: plain(None, n, s))
        times["plain_next"].append(seconds)
        same.append(bool((expected == picks[0]).all() and (after == more[0]).all()))
    return _summary(times) | {"same_picks": all(same), "our_peak_bytes": peak}


def badge(folder: str, labelled: int, batch: int, replicates: int, repeats: int, device: str) -> dict[str, Any]:
    """D^2 sampling on gradient embeddings, both with their pool pass for the predictions."""
    import torch

    from alfm.config.parts import from_config
    from alfm.strategies.ask import ask

    task, make = _setting(folder, labelled, replicates, device)
    strategy = from_config("query_strategy", "badge")
    times: dict[str, list[float]] = {"fresh": [], "plain": []}
    query, peak = make(True), 0

    def plain() -> Any:
        head, phi = query.head, query.pool.vectors(query.head.spaces[0]).matrix
        if phi is None:
            phi = torch.cat([x for _, x in query.pool.vectors(query.head.spaces[0]).blocks()])
        d = torch.softmax(head.logits(phi, 0), 1)
        d[torch.arange(len(d), device=device), d.argmax(1)] -= 1
        sq = torch.linalg.vecdot(d, d) * torch.linalg.vecdot(phi, phi)
        free = query.available[0].double()
        pick = torch.where(query.available[0], sq, -1).argmax()
        near = torch.full_like(sq, torch.inf)
        rng = np.random.default_rng(0)
        picks = [pick]
        for _ in range(batch - 1):
            inner = (d @ d[pick]) * (phi @ phi[pick])
            near = torch.minimum(near, (sq - 2 * inner + sq[pick]).clamp_min_(0))
            near[pick] = 0
            mass = torch.cumsum(near.double() * free, 0)
            pick = torch.searchsorted(mass, mass[-1] * rng.random(), right=True).clamp_max(len(mass) - 1)
            picks.append(pick)
        return torch.stack(picks)

    for _ in range(repeats):
        query.carry.clear()
        times["fresh"].append(_timed(device, lambda: ask(strategy, query, batch))[0])
        peak = peak or peak_bytes(device)
        times["plain"].append(_timed(device, plain)[0])
    return _summary(times) | {"our_peak_bytes": peak}


def probcover(folder: str, labelled: int, batch: int, replicates: int, repeats: int, device: str) -> dict[str, Any]:
    """Greedy maximum cover for all replicates, against the one pass that finds the balls, and a plain greedy loop."""
    import torch

    from alfm.geometry.kmeans import kmeans
    from alfm.geometry.max_coverage import Cover, CoverState, purity_distances, purity_radius

    task, make = _setting(folder, labelled, replicates, device)
    query = make(False)
    unit = query.pool.unit
    x = unit.matrix if unit.matrix is not None else torch.cat([x for _, x in unit.blocks()])
    rng = np.random.default_rng(0)
    seconds, clusters = _timed(device, lambda: kmeans(x, min(task.num_classes, len(x)), rng))
    times: dict[str, list[float]] = {"kmeans": [seconds], "radius": [], "pass": [], "greedy": [], "plain_greedy": []}

    def greedy(cover: Any) -> list[Any]:
        picks = []
        for r in range(replicates):
            state = CoverState(cover)
            state.add(query.labelled(r))
            picks.append(state.select(query.available[r], batch))
        return picks

    def plain(cover: Any) -> list[int]:
        """One replicate, degrees counted again over all edges at every pick."""
        indices, offsets = cover.indices, cover.offsets
        covered = np.zeros(query.pool.N, dtype=bool)
        free = query.available[0].cpu().numpy().copy()
        for row in query.labelled(0).tolist():
            covered[indices[offsets[row] : offsets[row + 1]]] = True
        picks = []
        for _ in range(batch):
            degree = np.add.reduceat((~covered[indices]).astype(np.int32), offsets[:-1])  # every ball holds its centre
            pick = int(np.where(free, degree, -1).argmax())
            if degree[pick] < 1:
                break
            picks.append(pick)
            free[pick] = False
            covered[indices[offsets[pick] : offsets[pick + 1]]] = True
        return picks

    pseudo, same, edges, peak = clusters.assignment.to(device), None, None, 0
    for _ in range(repeats):
        seconds, radii = _timed(device, lambda: purity_distances(unit, pseudo))
        times["radius"].append(seconds)
        seconds, cover = _timed(device, lambda r=radii: Cover(unit, purity_radius(r)))
        times["pass"].append(seconds)
        seconds, picks = _timed(device, lambda c=cover: greedy(c))
        times["greedy"].append(seconds)
        peak = peak or peak_bytes(device)
        edges = int(cover.degrees.sum(dtype=torch.int64))
        if cover.indices is not None:
            seconds, expected = _timed(device, lambda c=cover: plain(c))
            times["plain_greedy"].append(seconds)
            same = expected == picks[0].tolist()[: len(expected)]
    return _summary({key: values for key, values in times.items() if values}) | {
        "same_picks": same, "edges": edges, "our_peak_bytes": peak
    }  # fmt: skip


def maxherding(folder: str, labelled: int, batch: int, replicates: int, repeats: int, device: str) -> dict[str, Any]:
    """All replicates against one replicate of the same strategy."""
    from alfm.config.parts import from_config
    from alfm.strategies.ask import ask

    _, make = _setting(folder, labelled, replicates, device)
    strategy = from_config("query_strategy", "maxherding")
    times: dict[str, list[float]] = {"fresh": [], "plain": []}
    same, peak = [], 0
    for _ in range(repeats):
        together, single = make(False), make(False, 0)
        seconds, (picks, _) = _timed(device, lambda q=together: ask(strategy, q, batch))
        times["fresh"].append(seconds)
        peak = peak or peak_bytes(device)
        seconds, (expected, _) = _timed(device, lambda q=single: ask(strategy, q, batch))
        times["plain"].append(seconds)
        same.append(bool((picks[0] == expected[0]).all()))
    return _summary(times) | {"same_picks": all(same), "our_peak_bytes": peak}


def _summary(times: dict[str, list[float]]) -> dict[str, Any]:
    return {key: statistics.median(values) for key, values in times.items()} | {"all_seconds": times}
