"""Members fitted as reweightings of the same rows: the heads of the resamples, alone or together."""

from __future__ import annotations

import pytest
import torch
from strategies.factory import clusters

from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic, solve
from alfm.posteriors import Ensemble
from alfm.posteriors.ensemble import EnsembleDraws

C, SEEDS = 4, [3, 4, 5]


class Plain:
    """A classifier that only knows `fit`."""

    def __init__(self, inner: Logistic) -> None:
        self.fit = inner.fit


def labelled(n: int, D: int, dtype: torch.dtype) -> tuple[Features, torch.Tensor, torch.Tensor]:
    """A pool, rows and targets of three replicates, the last of which has fewer labels."""
    x, y = clusters(90, D, C, spread=2.0)
    rows = torch.stack([torch.randperm(90, generator=torch.Generator().manual_seed(s))[:n] for s in SEEDS])
    targets = torch.from_numpy(y)[rows]
    rows[2, n - 3 :], targets[2, n - 3 :] = -1, -1
    return Features(torch.from_numpy(x).to(dtype)), rows, targets


def bound(pool: Features, rows: torch.Tensor, targets: torch.Tensor, classifier, passes: int = 6, which=slice(0, 3)):
    rows, targets, seeds = rows[which], targets[which], SEEDS[which]
    head = classifier.fit(pool, rows, targets, C, seeds, 2)
    return Ensemble(passes).bind(pool, head, classifier, rows, targets, seeds, 2)


@pytest.mark.parametrize("n, D", [(9, 20), (30, 8)])  # coordinates in the labelled span, and principal axes
@pytest.mark.parametrize("class_weight", ["balanced", "none"])
def test_members_are_the_heads_of_their_resamples(n: int, D: int, class_weight: str) -> None:
    pool, rows, targets = labelled(n, D, torch.float64)
    exact = Logistic(tolerance=1e-14, class_weight=class_weight)
    draws = bound(pool, rows, targets, exact)
    plain = bound(pool, rows, targets, Plain(exact))
    unseen = (plain.members.weight.abs().amax(2) == 0).sum(1)
    if n == 9:
        assert unseen.max() > 0  # a resample without some class
    torch.testing.assert_close(draws.members.weight, plain.members.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(draws.members.bias, plain.members.bias, atol=1e-5, rtol=1e-5)
    assert draws.members.weight.std(0).max() > 0.01


def test_members_do_not_depend_on_the_other_replicates() -> None:
    pool, rows, targets = labelled(20, 6, torch.float32)
    together = bound(pool, rows, targets, Logistic()).members
    for r in range(3):
        alone = bound(pool, rows, targets, Logistic(), which=slice(r, r + 1)).members
        assert torch.equal(together.weight[6 * r : 6 * r + 6], alone.weight)
        assert torch.equal(together.bias[6 * r : 6 * r + 6], alone.bias)


def test_batches_of_members_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, rows, targets = labelled(20, 6, torch.float64)
    exact = Logistic(tolerance=1e-14)
    whole = bound(pool, rows, targets, exact).members
    head = exact.fit(pool, rows, targets, C)
    sizes = []
    monkeypatch.setattr("alfm.heads.logistic.BATCHED", 2 * 20 * C)
    monkeypatch.setattr("alfm.heads.logistic.solve", lambda *args: (sizes.append(len(args[2])), solve(*args))[1])
    parts = Ensemble(6).bind(pool, head, exact, rows, targets, SEEDS, 2)
    assert sizes == [2] * 9
    torch.testing.assert_close(parts.members.weight, whole.weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("resident", [True, False])
def test_one_product_gives_every_members_logits(resident: bool) -> None:
    pool, rows, targets = labelled(20, 6, torch.float64)
    pool.resident = resident
    draws = bound(pool, rows, targets, Logistic())
    members: LinearHead = draws.members
    for index in (slice(7, 40), torch.tensor([33, 5, 80])):
        x = pool.features[index]
        expected = torch.stack([members.forward(x, i) for i in range(6, 12)])
        assert isinstance(draws, EnsembleDraws)
        torch.testing.assert_close(draws.logits(index, x, 1), expected)
