"""Ids, labels, shares and fingerprints."""

from __future__ import annotations

import os
import re
import shlex

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from alfm.datasets.arrays import ImageArray, digits
from alfm.datasets.assemble import check_apart, fingerprint, labels_from_values, stratified_share
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


def test_tiny_classes_add_up_to_the_share() -> None:
    _, second = stratified_share(np.repeat(np.arange(100), 2), 0.2)
    assert len(second) == 40


def test_every_class_that_is_tested_has_an_item_in_train() -> None:
    for counts in ([1, 1, 30, 1], [2, 2, 2, 9], [1] * 9 + [50], [3, 1, 4, 1, 5, 1]):
        for fraction in (0.2, 0.5, 0.9):
            labels = np.repeat(np.arange(len(counts)), counts)
            first, second = stratified_share(labels, fraction, seed=5)
            assert set(labels[second]) <= set(labels[first]) and len(first) + len(second) == len(labels)


def test_a_class_that_keeps_its_item_changes_nothing_for_the_others() -> None:
    labels = np.repeat([0, 1, 2], [1, 40, 30])  # 0.6 is owed, so the class of one was taken as a whole
    _, second = stratified_share(labels, 0.6, seed=2)
    assert np.bincount(labels[second], minlength=3).tolist() == [0, 24, 18]
    with pytest.raises(UserError, match="the last item of a class is not taken"):
        stratified_share(np.arange(100), 0.2)
    unlabelled = np.full(3, -1)
    assert len(stratified_share(unlabelled, 0.5)[1]) == 2


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


def read(values, classes=None, **options):
    columns = values if isinstance(values, dict) else {"train": values}
    labels, names = labels_from_values(columns, classes, **options)
    found = {split: column.tolist() for split, column in labels.items()}
    return (found if isinstance(values, dict) else found["train"]), names


def test_numbers_are_those_that_come_back_as_they_were_written() -> None:
    assert read(["007", "7", "7"]) == ([0, 1, 1], ["007", "7"])
    assert read(["01", "02", "10"]) == ([0, 1, 2], ["01", "02", "10"])
    assert read(["0.0", "1.0", "10.0", "2.0"]) == ([0, 1, 3, 2], ["0", "1", "2", "10"])
    assert read({"train": ["0", "1"], "test": ["0.0", "1.0"]}) == ({"train": [0, 1], "test": [0, 1]}, ["0", "1"])
    assert read(["1.0", "2.0", "x"]) == ([0, 1, 2], ["1.0", "2.0", "x"])  # one name makes names of all
    assert read(["1.00", "1.0"]) == ([1, 0], ["1.0", "1.00"])
    assert read(["1_000", "+1", "\u0661", "1e3"])[1] == ["+1", "1_000", "1e3", "\u0661"]
    assert read(["123456789012345678901", "1"])[1] == ["1", "123456789012345678901"]


def test_a_name_wins_over_a_place() -> None:
    stars = ["1", "2", "3", "4", "5"]
    remarks: list[str] = []
    assert read([1, 2, 3, 4], stars, remarks=remarks)[0] == [0, 1, 2, 3] and "label 1 is the class '1'" in remarks[0]
    assert read(["1.0", 4.0], stars)[0] == [0, 3]
    remarks.clear()
    assert read([0, 1, 4], stars, remarks=remarks)[0] == [0, 1, 4] and "label 0 is the class '1'" in remarks[0]
    remarks.clear()
    assert read([0, 1], ["no", "yes"], remarks=remarks)[0] == [0, 1] and not remarks
    assert read(["yes", 0], ["no", "yes"])[0] == [1, 0]
    assert read(["0", "1"], ["0", "1"], remarks=remarks)[0] == [0, 1] and not remarks
    for values in ([0, 1, 7], ["1", "x"], ["6"]):
        with pytest.raises(UserError, match="is not among the 5 classes"):
            read(values, stars)
    with pytest.raises(UserError, match="'a' more than once"):
        read(["a"], ["a", "b", "a"])


@pytest.mark.parametrize(
    ("values", "typed"),
    [
        ([-1, 0, 1], "-1"), (["-1", "1"], "-1"), (["-1.0", "0.0"], "-1"), ([-1.0, 1.0], "-1"), ([-1, 1, -2], "[-2,-1]"),
        (["NaN", "a"], "NaN"), (["nan", "NaN", "a"], "NaN"), (["None", "a"], "None"), (["N/A", "a"], "N/A"),
        (["NA", "0"], "NA"), (["null", "a"], "'null'"), (["<NA>", "a"], "'<NA>'"), (["?", "a"], "'?'"),
        (["#N/A", "n.a.", "a"], "['#N/A','n.a.']"), (["-1", "nan", "b"], "[-1,NaN]"),
        ([0, 1, 2, 255], "255"), ([1, 2, 65535], "65535"), (["0", "1", "99"], "99"), (["None", "-1"], "[-1,None]"),
    ],
)  # fmt: skip
def test_what_may_mean_no_label_is_asked_and_the_answer_works_as_typed(values: list, typed: str) -> None:
    with pytest.raises(UserError, match=r"or dataset\.unlabelled=null if it is a class") as caught:
        read(values, unlabelled="ask")
    said = re.search(r"say (.*) if that means no label", str(caught.value)).group(1)
    override = OverridesParser.create().parse_override(shlex.split(said)[0])
    assert override.key_or_group == "dataset.unlabelled" and said.strip('"') == f"dataset.unlabelled={typed}"
    labels, names = read(values, unlabelled=override.value())
    assert -1 in labels and (names is None or max(labels) == len(names) - 1)
    labels, names = read(values, unlabelled=None)
    assert min(labels) == 0 and len(names) == len(set(map(str, values)))


def test_what_is_not_asked() -> None:
    for values in ([None, "a", ""], [float("nan"), 1.0], ["unknown", "a"], ["+", "-"], [0, 1, 3], [0, 99], ["  ", "b"]):
        read(values, unlabelled="ask")
    assert read([-1, -1], unlabelled="ask") == ([-1, -1], None)  # nothing but that: an unlabelled data set
    assert read(["NaN", "nan"], unlabelled="ask") == ([-1, -1], None)
    assert read([-1, 0, 1], ["-1", "0", "1"], unlabelled="ask")[0] == [0, 1, 2]  # named as a class
    assert read(["None", "a"], ["a", "None"], unlabelled="ask")[0] == [1, 0]
    assert read([-1, 0, 1]) == ([-1, 0, 1], ["0", "1"])  # caches: negative numbers are unlabelled
    remarks: list[str] = []
    assert read([0, 1], unlabelled=[7, -1], remarks=remarks)[0] == [0, 1]
    assert remarks == [f"dataset.unlabelled={n}: no label has this value" for n in (7, -1)]


def test_bytes_and_unicode_forms_are_one_name() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert read([b"cat", "cat", np.bytes_(b"dog")]) == ([0, 0, 1], ["cat", "dog"])
    assert read([b"1", b"0"]) == ([1, 0], ["0", "1"])
    assert read([composed, decomposed, "\ufeffa", "a"]) == ([1, 1, 0, 0], ["a", composed])
    assert read([decomposed]) == ([0], [decomposed])  # written in one way: as it is
    assert read([composed, "b"], [decomposed, "b"]) == ([0, 1], [decomposed, "b"])
    with pytest.raises(UserError, match="not UTF-8"):
        read([b"\xff"])


def test_names_that_are_nearly_the_same_are_said() -> None:
    remarks: list[str] = []
    read(["cat", "Cat", "cat ", "dog"], remarks=remarks)
    assert remarks == ["the classes 'Cat', 'cat', 'cat ' are nearly the same, and kept apart"]
    remarks.clear()
    read(["1", "1.0", "n"], remarks=remarks)
    assert "'1', '1.0'" in remarks[0]


def test_names_in_one_split_and_numbers_in_another() -> None:
    mixed = {"train": ["cat", "dog"], "test": [0, 1]}
    with pytest.raises(UserError, match=r"of test are numbers \(0, 1\) and those of train are names \(cat, dog\)"):
        read(mixed)
    assert read(mixed, ["cat", "dog"])[0] == {"train": [0, 1], "test": [0, 1]}
    read({"train": ["3", "x"], "test": ["3", "4"]})
    read({"train": ["00501", "00502"], "test": ["10001"]})
    read({"train": ["a"], "test": [None]})


def test_splits_that_share_a_source_are_refused() -> None:
    check_apart("dataset.files", {"train": ["a", "b"], "test": ["c"]})
    with pytest.raises(UserError, match="dataset.files: b is given for train and for test"):
        check_apart("dataset.files", {"train": ["a", "b"], "test": ["b"]})


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
