"""The checks that users run find what is wrong, and pass what is right; ours run through them elsewhere too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from alfm.backbones.pixels import Pixels
from alfm.config.paths import conf_dir
from alfm.datasets.base import Dataset
from alfm.strategies.base import Strategy
from alfm.testing import _SITUATIONS as NAMES
from alfm.testing import check_backbone, check_dataset, situations, strategy_checks


class Smallest(Strategy):
    """The items of smallest norm."""

    needs_head = False

    def select(self, query, budget):
        score = query.pool.raw.sq_norms.expand(query.R, -1).masked_fill(~query.available, torch.inf)
        return score.argsort(stable=True)[:, :budget]


class Short(Smallest):
    def select(self, query, budget):
        picks = super().select(query, budget)
        picks[:, -1] = -1
        return picks


class ByRow(Smallest):
    def select(self, query, budget):
        return torch.stack([free.nonzero()[:budget, 0] for free in query.available])


class Remembers(Smallest):
    """Picks depend on whether a round has gone before."""

    def select(self, query, budget):
        query.carry["rounds"] = query.carry.get("rounds", 0) + 1
        order = super().select(query, int(query.available.sum(1).min()))
        return order[:, query.carry["rounds"] - 1 :][:, :budget]


class Moody(Smallest):
    stochastic = True


def broken(strategy: Strategy, **options: bool) -> set[str]:
    names = set()
    for check in strategy_checks(**options):
        try:
            check(strategy)
        except AssertionError as error:
            assert str(error)
            names.add(str(check))
    return names


def test_a_strategy_that_keeps_its_promises_passes() -> None:
    assert not broken(Smallest()) and not broken(Smallest(), cold=True)


@pytest.mark.parametrize(
    ("strategy", "breaks"),
    [
        (Short(), {"ordinary"}),
        (ByRow(), {"order of the pool"}),
        (Remembers(), {"carried state"}),
        (Moody(), {"seeds"}),
    ],
)
def test_a_broken_promise_is_found(strategy: Strategy, breaks: set[str]) -> None:
    assert broken(strategy) >= breaks
    assert not broken(ByRow(), permutes=False)


def test_every_situation_has_its_check() -> None:
    assert tuple(situations()) == NAMES


# ---- data sets ------------------------------------------------------------------------------------------------------


class Noise:
    def __init__(self, count: int = 5, shift: int = 0) -> None:
        self.labels = np.arange(count) % 3
        self.ids = [f"noise/{i + shift}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int):
        return Image.fromarray(np.random.default_rng(index).integers(0, 255, (4, 4), dtype=np.uint8))


def noise() -> Dataset:
    return Dataset("noise", "image", {"train": Noise()}, ["a", "b", "c"], "noise-5")


def test_a_data_set_that_keeps_its_promises_passes() -> None:
    assert check_dataset(noise).name == "noise"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modality": "smell"}, "modality 'smell'"),
        ({"modality": "text"}, "no item of modality 'text'"),
        ({"classes": ["a"]}, "beyond the names"),
        ({"fingerprint": ""}, "fingerprint"),
        ({"splits": {}}, "no splits"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said(change: dict, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_dataset(lambda: replace(noise(), **change))


def test_a_split_that_is_another_each_time_is_found() -> None:
    count = iter(range(10))
    with pytest.raises(AssertionError, match="built again, its items are others"):
        check_dataset(lambda: replace(noise(), splits={"train": Noise(shift=next(count))}))
    doubled = Noise()
    doubled.ids[1] = doubled.ids[0]
    with pytest.raises(AssertionError, match="an id occurs twice"):
        check_dataset(lambda: replace(noise(), splits={"train": doubled}))


def test_the_bundled_data_set_passes() -> None:
    from omegaconf import OmegaConf

    from alfm.config.build import build

    digits = OmegaConf.load(conf_dir() / "dataset" / "digits.yaml")
    assert check_dataset(lambda: build(digits)).splits


# ---- backbones ------------------------------------------------------------------------------------------------------

ITEMS = [noise().splits["train"].load(row) for row in range(3)]


class Centring(Pixels):
    """Features that depend on the batch."""

    def encode(self, batch):
        features = super().encode(batch)
        return features - features.mean(0)


class Unnamed(Pixels):
    def load(self, device):
        self.fingerprint = ""


class Folder(Pixels):
    def load(self, device):
        self.name = "a/b"


def test_the_backbone_without_weights_passes() -> None:
    check_backbone(Pixels(), ITEMS)
    check_backbone(Pixels(size=3), ITEMS)


@pytest.mark.parametrize(
    ("backbone", "says"),
    [(Centring(), "rest of the batch"), (Unnamed(), "fingerprint"), (Folder(), "cannot be the name of a file")],
)
def test_what_is_wrong_with_a_backbone_is_said(backbone: Pixels, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_backbone(backbone, ITEMS)
