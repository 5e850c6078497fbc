"""What is kept beside a cache: read again, never mistaken for another answer, never half written, never trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import alfm
from alfm.config.parts import from_config
from alfm.features.features import Features
from alfm.features.kept import Kept


class Asked:
    """Counts how often an answer was made."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays, self.times = arrays, 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return self.arrays


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "model.h5"


def test_an_answer_is_made_once(cache: Path) -> None:
    answer = Asked(r=np.array([1.5, np.inf]), index=np.arange(3, dtype=np.int32))
    first = Kept(cache, "features").arrays("how far?", answer)
    again = Kept(cache, "features").arrays("how far?", answer)
    assert answer.times == 1 and [p.suffix for p in cache.with_suffix(".geometry").iterdir()] == [".npz"]
    assert set(again) == {"r", "index"} == set(first)
    for name, array in answer.arrays.items():
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array)


def test_without_a_cache_nothing_is_written_and_arrays_are_not_held(tmp_path: Path) -> None:
    answer = Asked(r=np.zeros(1))
    pool = Features(np.ones((3, 2), dtype=np.float32))
    for _ in range(2):
        assert pool.unit.arrays("how far?", answer) is answer.arrays
    assert answer.times == 2 and not list(tmp_path.iterdir())


def test_features_remember_in_what_they_were_given(cache: Path) -> None:
    kept, answer = Kept(cache, "features"), Asked(r=np.zeros(1))
    first, second = (Features(np.ones((3, 2), dtype=np.float32), kept=one) for one in (kept, Kept(cache, "features")))
    assert first.once("made", lambda: 1) == kept.once("made", lambda: 2) == 1 != second.once("made", lambda: 3)
    for pool in (first, second):
        pool.unit.arrays("how far?", answer)
    assert answer.times == 1


def test_other_features_questions_and_versions_have_answers_of_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Asked(r=np.zeros(1))
    for features, question in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x ")):
        Kept(cache, features).arrays(question, answer)
    assert answer.times == 4
    monkeypatch.setattr("alfm.features.kept.__version__", "another")
    Kept(cache, "a").arrays("x", answer)
    assert answer.times == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "not an archive", "another question"])
def test_a_damaged_file_is_made_again(cache: Path, damage: str) -> None:
    answer = Asked(r=np.arange(1000.0))
    kept = Kept(cache, "features")
    kept.arrays("x", answer)
    (file,) = kept.folder.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "another question":
        Kept(cache, "features").arrays("y", answer)
        data = bytearray(next(p for p in kept.folder.iterdir() if p != file).read_bytes())
        answer.times = 1
    else:
        data = {"empty": bytearray(), "cut": data[:-200], "not an archive": bytearray(b"PK is not enough")}[damage]
    file.write_bytes(data)
    assert np.array_equal(kept.arrays("x", answer)["r"], answer.arrays["r"]) and answer.times == 2
    kept.arrays("x", answer)
    assert answer.times == 2


def test_a_file_cannot_run_code(cache: Path) -> None:
    answer = Asked(r=np.zeros(1))
    kept = Kept(cache, "features")
    kept.arrays("x", answer)
    (file,) = kept.folder.iterdir()
    with np.load(file) as stored:
        question = stored["question"]

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(file, question=question, r=np.array([Bomb()], dtype=object), allow_pickle=True)
    assert kept.arrays("x", answer)["r"].dtype == float and answer.times == 2


def test_a_folder_that_cannot_be_written_costs_a_warning(cache: Path) -> None:
    cache.with_suffix(".geometry").write_text("a file in its place")
    answer = Asked(r=np.zeros(1))
    with pytest.warns(UserWarning, match="keep_geometry: cannot write .* going on without it"):
        assert Kept(cache, "features").arrays("x", answer) == answer.arrays
    assert [p.name for p in cache.parent.iterdir()] == ["model.geometry"]


ALL_PAIRS = {
    "probcover": "alfm.geometry.max_coverage.block_pairs",
    "probcover by cells": "alfm.strategies.probcover.Cells",
    "graph_cut": "alfm.strategies.graph_cut.total_similarity",
    "propagated": "alfm.heads.propagation.knn",
}


@pytest.mark.parametrize("name", list(ALL_PAIRS))
def test_a_second_process_does_not_look_at_all_pairs_again(
    digits_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "pixels.h5"
    path.write_bytes(digits_cache.read_bytes())
    strategy = "graph_cut" if name == "graph_cut" else "random" if name == "propagated" else "probcover"
    options = {"exact_up_to": 100, "probe": 4} if name == "probcover by cells" else {}
    setting = {
        "init_strategy": "random", "classifier": "propagated" if name == "propagated" else "logistic",
        "seeds": [1, 2], "rounds": 3, "device": "cpu",
    }  # fmt: skip

    def run(keep: bool) -> list[float]:
        task = alfm.Simulation(path, "cpu", keep_geometry=keep)
        built = from_config("query_strategy", strategy, **options)
        return alfm.simulate(task, built, **setting)["accuracy"].tolist()

    plain = run(False)
    assert not path.with_suffix(".geometry").exists()
    assert run(True) == plain
    kept = sorted(path.with_suffix(".geometry").iterdir())
    assert kept

    def never(*args: object, **options: object) -> None:
        raise AssertionError("looked at all pairs again")

    monkeypatch.setattr(ALL_PAIRS[name], never)
    assert run(True) == plain
    assert sorted(path.with_suffix(".geometry").iterdir()) == kept
    with pytest.raises(AssertionError, match="again"):
        run(False)
