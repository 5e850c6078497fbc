"""ALFA-Mix: the closed form against the paper's mixing anchor by anchor, candidates, shortages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference.alfamix import alfamix_candidates, alfamix_flips
from reference.uncertainty import ranked, uncertainty
from strategies.factory import SITUATIONS, assert_replicates_independent, make_query, picks_in, seen

from alfm.heads.dropout import Dropout
from alfm.strategies.alfamix import AlfaMix, flip_length

MAY_FALL_SHORT = {"all that is left", "one label in all", "nothing but zeros"}


@pytest.mark.parametrize("classifier", [None, Dropout()])
@pytest.mark.parametrize("n", [8, 30])
def test_the_smallest_cap_is_where_the_paper_s_mixing_flips(classifier, n: int) -> None:
    query = make_query(n=n, block_rows=50, classifier=classifier)
    view, needed = seen(query), AlfaMix().flipping_caps(query)[0].numpy()
    bias = query.head.bias[0].double().numpy()
    flipped = 0
    for cap in (0.1, 0.5, 1.0, 3.0):
        expected = alfamix_flips(view.phi, view.weight, bias, view.labelled, view.targets, cap)
        assert ((needed < cap) == expected).all()
        flipped += expected.sum()
    assert 0 < flipped < 4 * len(needed)


@pytest.mark.parametrize("budget", [3, 10, 40])
def test_candidates(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query(n=12)
    view, offered = seen(query), []

    def spy(query, candidates, budget, embedding, up_to):
        offered.extend(candidates)
        return [c[:budget] for c in candidates]

    monkeypatch.setattr("alfm.strategies.alfamix.clustered", spy)
    AlfaMix().select(query, budget)
    bias = query.head.bias[0].double().numpy()
    expected = alfamix_candidates(view.phi, view.weight, bias, view.labelled, view.targets, view.free, budget)
    assert offered[0].tolist() == expected and len(expected) > 0


def test_a_certain_item_has_a_direction() -> None:
    """p - e_y underflows to 0, its direction does not."""
    W = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    logits = torch.tensor([[500.0, 0.0, -500.0]])
    # towards class 1: logits change by (-1, 1, 1) per unit of g = (-1, 1), gap 500, so 250 |g|
    assert flip_length(logits, W).tolist() == pytest.approx([250 * np.sqrt(2)])


def test_classes_without_a_label_have_no_anchor() -> None:
    query, _ = SITUATIONS["a class without a label"]()
    assert not torch.isnan(AlfaMix().flipping_caps(query)).any()
    assert sorted(set(query.labels_of(0).tolist())) == [0, 1, 2] and query.num_classes == 5


@pytest.mark.parametrize("situation", SITUATIONS)
def test_hard_situations(situation: str) -> None:
    filled = picks_in(AlfaMix(), situation)[1]
    assert filled == 0 or situation in MAY_FALL_SHORT


def test_shortage_is_left_to_the_caller() -> None:
    query, budget = SITUATIONS["one label in all"]()
    assert (AlfaMix().select(query, budget) == -1).all()


def test_a_shortage_filled_by_margins_is_the_strategys_own() -> None:
    query, budget = SITUATIONS["one label in all"]()
    view = seen(query)
    expected = ranked(uncertainty(view.p, "margins"), view.free, budget)
    assert AlfaMix(fill="margins").select(query, budget)[0].tolist() == expected
    assert picks_in(AlfaMix(fill="margins"), "one label in all")[1] == 0
    plain = make_query()
    assert torch.equal(AlfaMix(fill="margins").select(plain, 5), AlfaMix().select(make_query(), 5))


def test_replicates_and_seeds() -> None:
    assert_replicates_independent(AlfaMix, budget=5)
    one, two = (AlfaMix().select(make_query(seeds=(s,), rows=[list(range(12))]), 5)[0].tolist() for s in (1, 2))
    assert one != two
