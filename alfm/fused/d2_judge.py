"""Which proposals of D^2 sampling become centres."""

from __future__ import annotations

import torch
from torch import Tensor

from alfm import devices
from alfm.fused.d2_propose import BATCH, COUNT, PATIENCE, REJECTED, ROW, STALE, USED, WANTED
from alfm.fused.operation import define

FEWEST, MOST, LARGEST = 8, 64, 1024
"""Proposals drawn together: at least and at most, and at most where they were doubled since nothing was accepted."""


def d2_judge(
    rows: Tensor,
    kind: Tensor,
    near: Tensor,
    between: Tensor,
    sq: Tensor,
    factor: Tensor,
    uniform: Tensor,
    bound: Tensor,
    met: Tensor,
    sums: Tensor,
    picks: Tensor,
    centre_sq: Tensor,
    state: Tensor,
    floor: float,
) -> Tensor:
    """Of each problem's proposals in order: accepted ones are its next picks. Where each goes: int64 (R, w), P - 1 for
    nowhere.

    rows, kind, factor, uniform, state: see `d2_propose`. near (R, w, P), between (R, w, w): inner products with the
    centres, of which the last is nobody's, and among the rows, in the dtype of the squared lengths sq (R, G W) and
    centre_sq (R, P). A squared distance of at most `floor` times the sum of both lengths is 0. met: int32 (R, G W), how
    many centres a row's bound has met. Written are bound, met, sums, picks int64 (R, P), centre_sq and state.
    """
    slots: Tensor = torch.ops.alfm.d2_judge(
        rows, kind, near, between, sq, factor, uniform, bound, met, sums, picks, centre_sq, state, floor
    )
    return slots


def _d2_judge(
    rows: Tensor,
    kind: Tensor,
    near: Tensor,
    between: Tensor,
    sq: Tensor,
    factor: Tensor,
    uniform: Tensor,
    bound: Tensor,
    met: Tensor,
    sums: Tensor,
    picks: Tensor,
    centre_sq: Tensor,
    state: Tensor,
    floor: float,
) -> Tensor:
    (R, w), (_, G), P = rows.shape, sums.shape, picks.shape[1]
    W, there, place = bound.shape[1] // G, kind == ROW, torch.arange(w, device=rows.device)
    had, known, seen, own = state[:, COUNT].clone(), bound.gather(1, rows), met.gather(1, rows), sq.gather(1, rows)
    centre = torch.arange(P, device=rows.device)
    unmet = (centre >= seen[..., None]) & (centre < had[:, None, None])
    nearest = torch.where(unmet, _distances(near, own, centre_sq, floor), torch.inf).amin(2)
    true = torch.minimum(known, nearest)
    number = state[:, USED, None] + state[:, BATCH, None] + there.cumsum(1) - 1
    threshold = uniform.gather(1, number.clamp(0, uniform.shape[1] - 1)) * known
    count, slots, free = had[:, None].clone(), torch.full_like(rows, P - 1), devices.of(rows).looks_are_free
    left = there
    for _ in range(w):  # from one that is accepted to the next
        left = left & (threshold < true) & (count < state[:, WANTED, None])
        if free and not bool(left.any()):
            break
        take, j = left.any(1, keepdim=True), left.to(torch.uint8).argmax(1, keepdim=True)
        slots.scatter_(1, j, torch.where(take, count, slots.gather(1, j)))
        inner = between.gather(1, j[..., None].expand(-1, -1, w))
        nearer = _distances(inner, own.gather(1, j), own, floor)[:, 0]
        nearer.masked_fill_(rows == rows.gather(1, j), 0)  # exactly: no row becomes a centre twice
        true = torch.where(take, torch.minimum(true, nearer), true)
        left = left & (place > j)
        count += take
    picks.scatter_(1, slots, rows)
    centre_sq.scatter_(1, slots, own)
    # A row that is there twice has one value, its last; where there is none, what stands there already.
    last = torch.where((rows[:, :, None] == rows[:, None]) & there[:, None], place, -1).amax(2)
    changed = last >= 0
    bound.scatter_(1, rows, torch.where(changed, true.gather(1, last.clamp_min(0)), known))
    met.scatter_(1, rows, torch.where(changed, count.to(met.dtype), seen))
    group = torch.div(rows, W, rounding_mode="floor")
    touched = ((group[:, :, None] == group[:, None]) & there[:, None]).any(2)
    table = group[..., None].expand(-1, -1, W)
    mass = bound.view(R, G, W).gather(1, table) * factor.view(R, G, W).gather(1, table)
    sums.scatter_(1, group, torch.where(touched, mass.sum(2), sums.gather(1, group)))
    _count(state, kind[:, 0] > 0, there.sum(1), count[:, 0])
    return slots


def _distances(inner: Tensor, sq_a: Tensor, sq_b: Tensor, floor: float) -> Tensor:
    """Squared distances (R, w, t) in float64; what is below rounding is 0."""
    sq = sq_a[..., None] + sq_b[:, None]
    distance = sq - 2 * inner
    return distance.masked_fill_(distance <= floor * sq, 0).double()


def _count(state: Tensor, made: Tensor, rows: Tensor, count: Tensor) -> None:
    """Who made proposals of so many rows has so many picks now, and makes as many proposals as they need next."""
    chosen = count - state[:, COUNT]
    want = (state[:, WANTED] - count) * rows / chosen.clamp_min(1).double()
    some = (want * 1.1).clamp(FEWEST, MOST).long()
    rejected = torch.where(chosen > 0, 0, state[:, REJECTED] + rows)
    stale = rejected >= state[:, PATIENCE]
    now = state.clone()
    now[:, COUNT] = count
    now[:, USED] += state[:, BATCH] + rows
    now[:, BATCH] = torch.where(chosen > 0, some, (2 * state[:, BATCH]).clamp_max(LARGEST))
    now[:, REJECTED] = torch.where(stale, 0, rejected)
    now[:, STALE] = stale.long()
    state.copy_(torch.where(made[:, None], now, state))


define(
    "d2_judge(Tensor rows, Tensor kind, Tensor near, Tensor between, Tensor sq, Tensor factor, Tensor uniform,"
    " Tensor(a!) bound, Tensor(b!) met, Tensor(c!) sums, Tensor(d!) picks, Tensor(e!) centre_sq, Tensor(f!) state,"
    " float floor) -> Tensor",
    _d2_judge,
)
