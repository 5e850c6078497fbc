"""Proposals of D^2 sampling and their judgement: the texts in torch's operations, and the kernels, interpreted."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from fused.on_card import compiled, interpreted, there
from torch import Tensor

from alfm.fused.d2_judge import d2_judge
from alfm.fused.d2_propose import BATCH, COUNT, NOTHING, OVER, REJECTED, ROW, USED, WANTED, d2_propose

CASES = list(product(((3, 16), (1, 32)), (torch.float64, torch.float32)))
"""Problems, proposals; dtype of features."""


class Going:
    """R problems of 300 rows in the plane, half way: the first tight, one that is stale, one of few proposals."""

    def __init__(self, R: int, width: int, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(7 * R + width)
        self.x = torch.randn(R, 320, 2, generator=draw, dtype=dtype)
        self.x[0] /= 40
        self.width, self.floor, P = width, 32 * torch.finfo(dtype).eps, 41
        self.sq = self.x.square().sum(2)
        self.factor = torch.rand(R, 320, generator=draw, dtype=torch.float64)
        self.factor[:, 300:], self.factor[:, 7] = 0, 0
        self.picks = torch.randint(0, 300, (R, P), generator=draw)
        self.centre_sq = self.sq.gather(1, self.picks)
        self.centres = self.x.gather(1, self.picks[..., None].expand(-1, -1, 2))
        self.bound = 4 * (self.sq.double() + self.centre_sq[:, :1].double())
        self.met = torch.randint(0, 3, (R, 320), generator=draw, dtype=torch.int32)
        self.sums = self._sums()
        self.uniform = torch.rand(R, 4096, generator=draw, dtype=torch.float64)
        state = [40, 4, width - 3, 30, 5, 256, 0, 0], [9, 3, 64, 0, 0, 256, 1, 0], [6, 5, 11, 0, 9, 256, 0, 0]
        self.state = torch.tensor(state[:R])

    def _sums(self) -> Tensor:
        return (self.bound * self.factor).view(len(self.x), 16, 20).sum(2)

    def propose(self, by: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = by(self.bound, self.factor, self.sums, self.uniform, self.state, self.width)
        return found

    def judge(self, by: Any, rows: Tensor, kind: Tensor) -> list[Tensor]:
        """All that is written."""
        own = self.x.gather(1, rows[..., None].expand(-1, -1, 2))
        slots = by(
            rows, kind, own @ self.centres.mT, own @ own.mT, self.sq, self.factor, self.uniform, self.bound, self.met,
            self.sums, self.picks, self.centre_sq, self.state, self.floor,
        )  # fmt: skip
        return [slots, self.bound, self.met, self.sums, self.picks[:, :-1], self.centre_sq[:, :-1], self.state]


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_proposals_and_their_judgement(size: tuple[int, int], dtype: torch.dtype) -> None:
    given, before, R = Going(*size, dtype), Going(*size, dtype), size[0]
    rows, kind = given.propose(d2_propose)
    made = [before.state[0, BATCH], 0, 11][:R]
    assert (kind != NOTHING).sum(1).tolist() == made and (given.factor.gather(1, rows)[kind == ROW] > 0).all()
    mass = given.bound * given.factor
    for r in range(R):
        u = given.uniform[r, given.state[r, USED] :][: made[r]]
        assert rows[r, : made[r]].tolist() == torch.searchsorted(mass[r].cumsum(0), u * mass[r].sum()).tolist()
    given.judge(d2_judge, rows, kind)
    for r in range(R):
        count, places = int(given.state[r, COUNT]), rows[r][kind[r] == ROW]
        assert before.state[r, COUNT] + (r == 0) <= count <= given.state[r, WANTED]
        picks = given.picks[r, :count]
        assert len(picks[before.state[r, COUNT] :].unique()) == count - before.state[r, COUNT]
        distance = (given.x[r, places, None] - given.x[r, picks]).square().sum(2).double().amin(1)
        assert (given.bound[r, places] >= distance - 1e-5).all() and (given.met[r, places] == count).all()
        assert given.state[r, USED] == before.state[r, USED] + made[r] + len(places)
    torch.testing.assert_close(given.sums, given._sums())
    assert torch.equal(given.state[1:2], before.state[1:2])


def test_nothing_is_accepted_until_bounds_are_stale() -> None:
    given = Going(1, 53, torch.float64)
    given.bound[:], given.state[0, REJECTED] = 1e30, 200
    given.sums = given._sums()
    given.judge(d2_judge, *given.propose(d2_propose))
    assert given.state.tolist() == [[40, 4, 100, 250, 105, 256, 0, 0]]
    given.state[0, BATCH] = 6
    given.bound[:], given.met[:] = 1e30, 0
    given.judge(d2_judge, *given.propose(d2_propose))
    assert given.state.tolist() == [[40, 4, 12, 0, 117, 256, 1, 0]]
    _, kind = given.propose(d2_propose)
    assert not kind.any() and not given.state[0, OVER]


def test_no_mass_is_the_end() -> None:
    given = Going(3, 64, torch.float64)
    given.bound.zero_()
    given.sums.zero_()
    _, kind = given.propose(d2_propose)
    assert not kind.any() and given.state[:, OVER].tolist() == [1, 0, 1]


def test_the_kernels_find_the_same() -> None:
    assert interpreted("fused.test_d2_kernels") == ["equal"] * len(CASES)


def compare() -> None:
    """The kernels, interpreted on the CPU, and the texts in torch's operations: two batches."""
    from alfm.fused.kernels.d2_judge import d2_judge as judged
    from alfm.fused.kernels.d2_propose import d2_propose as proposed

    for size, dtype in CASES:
        ours, plain = Going(*size, dtype), Going(*size, dtype)
        for _ in range(2):
            (rows, kind), (expected, kinds) = ours.propose(there(proposed)), plain.propose(d2_propose)
            assert torch.equal(rows, expected) and torch.equal(kind, kinds), (rows, expected)
            for found, wanted in zip(
                ours.judge(there(judged), rows, kind), plain.judge(d2_judge, rows, kind), strict=True
            ):
                torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        print("equal")


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_the_kernels_compile_for_cards(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from alfm.fused.kernels.d2_judge import _d2_judge
    from alfm.fused.kernels.d2_propose import _d2_propose

    whole, double = ("rows", "kind", "state", "picks", "slots"), ("bound", "factor", "sums", "uniform")
    types = dict.fromkeys(whole, "*i64") | dict.fromkeys(double, "*fp64") | {"met": "*i32", "floor": "fp32"}
    types |= dict.fromkeys(("near", "between", "sq", "centre_sq"), f"*{kind}")
    compiled(_d2_propose, types, {"GROUPS": 1024, "ROWS": 1024})
    for width, warps in ((64, 4), (1024, 8)):
        constants = {"WIDTH": width, "TILE": 2048 // width, "FEWEST": 8, "MOST": 64, "LARGEST": 1024}
        made = compiled(_d2_judge, types, constants, enable_fp_fusion=False, num_warps=warps)
        assert "fma.rn.f32" not in made["ptx"]
