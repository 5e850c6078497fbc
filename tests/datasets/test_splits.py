"""Names of splits, as people write them."""

from __future__ import annotations

import pytest

from alfm.datasets.splits import canonical_split, looks_like_split, split_names
from alfm.errors import UserError


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "TRAIN", "Training", "training", "trn", " train "]),
        ("test", ["test", "Test", "TESTING", "Testing", "tst"]),
        ("val", ["val", "Val", "Valid", "Validation", "VALID", "Dev", "development"]),
    ],
)
def test_usual_names_in_any_case(split: str, names: list[str]) -> None:
    assert {canonical_split(name) for name in names} == {split}


def test_names_that_caches_already_have_stay() -> None:
    for name in ("train", "test", "val", "valid", "validation", "dev"):
        assert canonical_split(name) == name
    assert canonical_split("cat") is None and canonical_split("trainer") is None


def test_a_column_of_names() -> None:
    assert split_names(["Training", "TEST", "fold 3", "test"]) == {
        "Training": "train",
        "TEST": "test",
        "fold 3": "fold 3",
        "test": "test",
    }
    with pytest.raises(UserError, match="'train' and 'Training' would both be the split 'train'"):
        split_names(["train", "Training"])


@pytest.mark.parametrize("name", ["train_set", "images-test", "TestData", "train2", "Testing", "val.old", "trainset"])
def test_names_made_of_usual_ones(name: str) -> None:
    assert looks_like_split(name)


@pytest.mark.parametrize("name", ["trainer", "valley", "contest", "devil", "cat"])
def test_names_that_only_begin_like_one(name: str) -> None:
    assert not looks_like_split(name)
