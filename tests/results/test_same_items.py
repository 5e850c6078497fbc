"""Items of several caches, told by their ids."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import yaml

from alfm.cache.reader import open_cache
from alfm.metrics import METRICS
from alfm.results.load import load_runs
from alfm.results.rounds_file import columns
from alfm.results.run_folder import RunFolder
from alfm.results.same_items import begun_with, items_of


def made(folder: Path, model: str, names: list[str] | None, picks: list[int], test: int = 2) -> Path:
    """A cache of items with these ids, and a run on it that began with rows `picks`; the run's folder."""
    path, n = folder / f"{model}.h5", 6
    with h5py.File(path, "w") as file:
        for split, rows in (("train", n), ("test", test)):
            file[f"{split}/features"] = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
            file[f"{split}/labels"] = np.arange(rows) % 2
        if names is not None:
            file["train/ids"] = np.array(names, dtype=h5py.string_dtype())
    with RunFolder.open(
        folder / "logs", dataset="d", model=model, classifier="logistic", query_strategy="margins",
        init_strategy="random", config={"query_strategy": {"name": "margins"}, "seeds": [5]},
        cache_fingerprint=open_cache(path).fingerprint, environment={"cache": str(path)},
    ) as run:  # fmt: skip
        for t in range(2):
            row = dict.fromkeys(columns(), 0) | dict.fromkeys(METRICS, 0.5)
            row |= {"seed": 5, "round": t + 1, "num_labeled": 2 * (t + 1), "num_replicates": 1}
            run.append([row], {5: np.array(picks[2 * t : 2 * t + 2])})
        run.finish([5], "all rounds done")
    return run.path


def begun(folder: Path):
    items = items_of(folder)
    assert items is not None
    return begun_with(load_runs(folder), items)


def test_the_same_items_in_another_order_began_alike(tmp_path):
    names = [f"train/{i}.png" for i in range(6)]
    a = made(tmp_path, "a", names, [0, 1, 2, 3])
    b = made(tmp_path, "b", names[::-1], [4, 5, 0, 1])
    c = made(tmp_path, "c", names, [4, 5, 0, 1])
    assert begun(a) == begun(b) == {("", 5): frozenset({"|train/0.png", "|train/1.png"})}
    assert begun(c) != begun(a)
    first, second = items_of(a), items_of(b)
    assert first and second and first.same(second)


def test_other_items_are_told_from_them(tmp_path):
    names = [f"{i}.png" for i in range(6)]
    first = items_of(made(tmp_path, "a", names, [0, 1, 2, 3]))
    strangers = items_of(made(tmp_path, "b", [f"x{name}" for name in names], [0, 1, 2, 3]))
    longer = items_of(made(tmp_path, "c", names, [0, 1, 2, 3], test=3))
    some = items_of(made(tmp_path, "e", [*names[:5], "new.png"], [0, 1, 2, 3]))
    assert first and strangers and longer and some
    assert not first.same(strangers) and not first.same(longer) and first.same(some)


def test_what_cannot_be_read_is_not_known(tmp_path):
    names = [f"{i}.png" for i in range(6)]
    assert items_of(made(tmp_path, "a", None, [0, 1, 2, 3])) is None
    assert items_of(made(tmp_path, "b", ["same.png"] * 6, [0, 1, 2, 3])) is None
    changed = made(tmp_path, "c", names, [0, 1, 2, 3])
    config = yaml.safe_load((changed / "config.yaml").read_text())
    config["run"]["cache_fingerprint"] = "another"
    (changed / "config.yaml").write_text(yaml.safe_dump(config))
    assert items_of(changed) is None
    gone = made(tmp_path, "e", names, [0, 1, 2, 3])
    (tmp_path / "e.h5").unlink()
    assert items_of(gone) is None
