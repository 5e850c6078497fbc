"""Ids, labels, shares and fingerprints."""

from __future__ import annotations

import os

import numpy as np
import pytest

from alfm.datasets.arrays import ImageArray, digits
from alfm.datasets.assemble import fingerprint, labels_from_values, stratified_share
from alfm.datasets.ids import escape, file_stem, unescape
from alfm.errors import UserError


@pytest.mark.parametrize(
    "raw",
    [b"plain.jpg", b"50%.jpg", b"a%41", b"%", b"%2", b"%25", b"caf\xc3\xa9", b"\xff\xfe", b"%\xff", b"%4\x80%"],
)
def test_file_names_survive_as_ids(raw: bytes) -> None:
    name = os.fsdecode(raw)
    assert os.fsencode(unescape(escape(name))) == raw
    escape(name).encode("utf-8")


def test_ids_differ_when_names_differ() -> None:
    names = [os.fsdecode(raw) for raw in (b"\xff", b"%FF", b"%25FF", b"%ff")]
    assert len({escape(name) for name in names}) == 4
    assert escape("50%.jpg") == "50%.jpg"


def test_file_stems() -> None:
    assert file_stem("ViT-B/32 (x)") == "ViT-B_32_x"
    assert file_stem("../..") == "unnamed"


def test_a_share_is_stratified_seeded_and_complete() -> None:
    labels = np.repeat([-1, 0, 1, 2], [10, 100, 50, 7])
    first, second = stratified_share(labels, 0.3, seed=1)
    assert sorted([*first, *second]) == list(range(167))
    for label, count in ((-1, 10), (0, 100), (1, 50), (2, 7)):
        assert abs((labels[second] == label).sum() - 0.3 * count) <= 1
    again = stratified_share(labels, 0.3, seed=1)
    assert np.array_equal(second, again[1])
    assert not np.array_equal(second, stratified_share(labels, 0.3, seed=2)[1])


def test_classes_of_one_item_add_up_to_the_share() -> None:
    _, second = stratified_share(np.arange(100), 0.2)
    assert len(second) == 20


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1, 2, float("nan")])
def test_impossible_shares(fraction: float) -> None:
    with pytest.raises(UserError, match="test_fraction"):
        stratified_share(np.zeros(10, np.int64), fraction)


def test_labels() -> None:
    def one(values, classes=None):
        labels, names = labels_from_values({"train": values}, classes)
        return labels["train"].tolist(), names

    assert one(["dog", "cat", None, "", "dog"]) == ([1, 0, -1, -1, 1], ["cat", "dog"])
    assert one([2, 0, 1, -1]) == ([2, 0, 1, -1], ["0", "1", "2"])
    assert one(["10", "2", "2"]) == ([1, 0, 0], ["2", "10"])
    assert one([1.0, float("nan"), 0.0]) == ([1, -1, 0], ["0", "1"])
    assert one([1, 1], ["a", "b", "c"]) == ([1, 1], ["a", "b", "c"])
    assert one(["b", None], ["a", "b"]) == ([1, -1], ["a", "b"])
    assert one([None, None]) == ([-1, -1], None)
    assert one([3, "x"]) == ([0, 1], ["3", "x"])


@pytest.mark.parametrize(
    ("values", "classes", "said"),
    [([[0, 1]], None, "multi-label"), ([0.5], None, "0.5"), ([7], ["a", "b"], "'7'"), (["z"], ["a"], "'z'")],
)
def test_what_is_no_label(values: list, classes: list[str] | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        labels_from_values({"train": values}, classes)


def test_the_fingerprint_changes_with_items_order_labels_and_names() -> None:
    images = np.zeros((2, 2, 2), np.uint8)

    def mark(ids, labels, classes=("a", "b"), split="train", content=("x",)):
        return fingerprint({split: ImageArray(images, np.array(labels), ids)}, classes, content)

    base = mark(["p", "q"], [0, 1])
    assert base == mark(["p", "q"], [0, 1])
    others = [
        mark(["q", "p"], [0, 1]), mark(["p", "q"], [1, 0]), mark(["pq", ""], [0, 1]),
        mark(["p", "q"], [0, 1], ("a", "c")), mark(["p", "q"], [0, 1], split="test"),
        mark(["p", "q"], [0, 1], content=("y",)),
    ]  # fmt: skip
    assert len({base, *others}) == 7


def test_digits() -> None:
    data = digits()
    train, test = data.splits["train"], data.splits["test"]
    assert len(train) + len(test) == 1797 and len(test) == 539
    assert set(train.ids).isdisjoint(test.ids)
    assert np.bincount(test.labels).min() > 50
    image = train.load(0)
    assert image.size == (8, 8) and image.mode == "L"
    assert digits().fingerprint == data.fingerprint != digits(test_fraction=0.2).fingerprint
