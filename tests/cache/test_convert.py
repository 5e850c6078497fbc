"""Embeddings from elsewhere become caches of ours, or one clear sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm.cache import open_cache
from alfm.cache.__main__ import main
from alfm.cache.convert import Options, convert
from alfm.cache.verify import verify
from alfm.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9000, 8)).astype("float32")  # more than two blocks
Y = RNG.integers(0, 4, 9000)


def same(path: Path, split: str, features: np.ndarray, labels: np.ndarray, dtype: str = "float16") -> None:
    assert verify(path).problems == []
    cache = open_cache(path)
    np.testing.assert_array_equal(cache.features(split), features.astype(dtype))
    np.testing.assert_array_equal(cache.labels(split), labels)


def test_al_foundation_models(tmp_path: Path) -> None:
    source, target = tmp_path / "dinov2.hdf", tmp_path / "out" / "dinov2.h5"
    with h5py.File(source, "w") as file:
        file["train/features"], file["train/labels"] = X, Y.reshape(-1, 1)
        file["test/features"], file["test/labels"] = X[:50], Y[:50].reshape(-1, 1)
    convert(source, target)
    same(target, "train", X, Y)
    same(target, "test", X[:50], Y[:50])


@pytest.mark.parametrize("kib", [8, 40, 140])
def test_a_limit_on_file_sizes_leaves_nothing_half_written(tmp_path: Path, kib: int, monkeypatch, capsys) -> None:
    """150 KB of rows: whichever call meets the limit, there is one sentence, and no file."""
    resource = pytest.importorskip("resource")
    np.savez(tmp_path / "a.npz", embeddings=X, labels=Y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, before[1]))
    try:
        status = main(["convert", "a.npz"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert status == 1 and said.count("\n") == 1, said
    assert said.startswith("Error: a.h5 is larger than files may be here")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_views_are_kept(tmp_path: Path) -> None:
    views = X[:600].reshape(100, 6, 8)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train/features"], file["train/labels"] = views, Y[:100]
    cache = convert(tmp_path / "a.hdf5", tmp_path / "b.h5", Options(dtype="float32"))
    np.testing.assert_array_equal(cache.views("train"), views)


def test_npz_with_one_split_and_a_share_for_test(tmp_path: Path) -> None:
    ids = np.array([f"row-{index}" for index in range(9000)])
    np.savez(tmp_path / "a.npz", embeddings=X, labels=Y, ids=ids)
    cache = convert(tmp_path / "a.npz", tmp_path / "a.h5", Options(test_fraction=0.2, dtype="float32"))
    assert cache.num_rows("test") == 1800
    index = {text: row for row, text in enumerate(ids)}
    for split in ("train", "test"):
        rows = [index[text] for text in cache.ids(split) or []]
        same(tmp_path / "a.h5", split, X[rows], Y[rows], "float32")
    assert not set(cache.ids("train") or []) & set(cache.ids("test") or [])


def test_npz_with_named_splits(tmp_path: Path) -> None:
    test = {"test_features": X[80:90], "test_labels": Y[80:90]}
    np.savez_compressed(tmp_path / "a.npz", X_train=X[:80], y_train=Y[:80], **test)
    convert(tmp_path / "a.npz", tmp_path / "a.h5")
    same(tmp_path / "a.h5", "train", X[:80], Y[:80])
    same(tmp_path / "a.h5", "test", X[80:90], Y[80:90])


def test_npz_class_names_and_no_labels(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog"])
    np.savez(tmp_path / "a.npz", features=X, labels=names[Y])
    assert convert(tmp_path / "a.npz", tmp_path / "a.h5").class_names == list(names)
    same(tmp_path / "a.h5", "train", X, Y)
    np.savez(tmp_path / "b.npz", features=X[:5])
    same(convert(tmp_path / "b.npz", tmp_path / "b.h5").path, "train", X[:5], np.full(5, -1))


def test_npy_with_labels_and_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    (tmp_path / "ids.txt").write_text("\n".join(f"é{row}" for row in range(9000)), encoding="utf-8")
    x, y, ids = (str(tmp_path / name) for name in ("x.npy", "y.npy", "ids.txt"))
    command = ["convert", x, "--labels", y, "--ids", ids]
    assert main(command) == 0
    assert "Only train is labelled: al_train needs a labelled test split too" in capsys.readouterr().out
    same(tmp_path / "x.h5", "train", X, Y)
    assert (open_cache(tmp_path / "x.h5").ids("train") or [])[8999] == "é8999"
    assert main(command) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "x.h5"), "--force"]) == 1  # --force would not help
    assert "x.h5 is what is to be converted: name another file" in capsys.readouterr().err


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet(tmp_path: Path, fixed: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), 8) if fixed else pa.list_(pa.float64())
    split = np.array(["train", "test", "train"])[np.arange(9000) % 3]
    names = np.array(["ant", "bee", "cat", "dog"])[Y]
    columns = {"vec": pa.array(list(X), kind), "label": names, "id": np.arange(9000), "split": split}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=1000)
    cache = convert(tmp_path / "a.parquet", tmp_path / "a.h5", Options(dtype="float32"))
    for name in ("train", "test"):
        same(tmp_path / "a.h5", name, X[split == name], Y[split == name], "float32")
    assert cache.class_names == ["ant", "bee", "cat", "dog"]
    assert (cache.ids("test") or [])[:2] == ["1", "4"]


def test_parquet_mistakes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    def refuse(columns: dict[str, object], match: str, **options: str) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=match):
            convert(tmp_path / "a.parquet", tmp_path / "a.h5", Options(**options))
        assert not (tmp_path / "a.h5").exists()

    vectors = list(X[:4])
    refuse({"label": [1, 2]}, "no column of vectors")
    refuse({"a": vectors, "b": vectors}, "several columns of vectors")
    refuse({"a": [*vectors[:3], None]}, "missing values")
    refuse({"a": [*vectors[:3], vectors[3][:5]]}, "different lengths")
    refuse({"a": vectors, "label": [0, 1, 2, 0.5]}, "whole numbers")
    refuse({"a": vectors, "mark": [0, 1, 2, 3]}, "did you mean mark", labels="mrak")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="damaged or no Parquet"):
        convert(tmp_path / "b.parquet", tmp_path / "b.h5")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"alfm\[parquet\]"):
        convert(tmp_path / "a.parquet", tmp_path / "a.h5")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", features=np.array([print], dtype=object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UserError, match="Python objects"):
            convert(tmp_path / name, tmp_path / "out.h5")


def test_lying_headers_allocate_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    raw = (tmp_path / "a.npy").read_bytes()
    lie = raw.replace(b"(2, 2), }            ", b"(9999999999, 9999), }")
    assert len(lie) == len(raw) and lie != raw
    (tmp_path / "a.npy").write_bytes(lie)
    with pytest.raises(UserError, match="damaged"):
        convert(tmp_path / "a.npy", tmp_path / "a.h5")
    import zipfile

    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("features.npy", lie)
    with pytest.raises(UserError, match="damaged.*claims"):
        convert(tmp_path / "b.npz", tmp_path / "b.h5")
    (tmp_path / "c.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="damaged"):
        convert(tmp_path / "c.npz", tmp_path / "c.h5")


def test_values_that_no_cache_may_hold(tmp_path: Path) -> None:
    bad, large = X[:5000].copy(), X[:5000].copy()
    bad[4500, 1] = np.nan
    large[4600, 2] = 65520.0
    for array, match in ((bad, "row 4500"), (large, "float16 cannot hold values of 6.552e.04: use --dtype float32")):
        np.savez(tmp_path / "a.npz", features=array)
        with pytest.raises(UserError, match=match):
            convert(tmp_path / "a.npz", tmp_path / "a.h5", Options(dtype="float16"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]
    assert convert(tmp_path / "a.npz", tmp_path / "a.h5", Options(dtype="float32")).features("train")[4600, 2] == 65520


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"features": X[:4], "labels": Y[:3]}, "3 labels"),
        ({"features": X[:4], "labels": np.array([0, 1, 2, -5])}, "say --unlabelled=-5 if"),
        ({"features": X[:4], "labels": np.array([0, 1, 2, 255])}, "say --unlabelled=255 if.* or --unlabelled=null"),
        ({"features": X[:4], "labels": np.array([0, 1, 2, 10**9])}, "label 1000000000 in train: that is an id"),
        ({"features": X[:4], "labels": np.zeros((4, 3))}, "several labels"),
        ({"features": X[:4].astype(int)}, "floats"),
        ({"features": X[0]}, "floats"),
        ({"fetures": X[:4]}, "it has fetures"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=match):
        convert(tmp_path / "a.npz", tmp_path / "a.h5")


def test_unknown_suffix_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(UserError, match=r"one of .*\.npz"):
        convert(tmp_path / "a.pkl", tmp_path / "a.h5")
    with pytest.raises(UserError, match="no file"):
        convert(tmp_path / "none.npz", tmp_path / "a.h5")


def test_converted_caches_run_in_al_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people already have, used at once: `.npz`, Parquet and an AL-foundation-models `.hdf`."""
    from alfm.al_train import main as al_train

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.setenv("LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.chdir(tmp_path)
    labels = np.arange(240) % 3
    features = (RNG.normal(size=(240, 8)) + 3 * np.eye(8)[labels]).astype("float32")
    np.savez("a.npz", features=features, labels=labels)
    split = np.where(np.arange(240) < 180, "train", "test")
    vectors = pa.array(list(features), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": vectors, "label": labels, "split": split}), "b.parquet")
    with h5py.File("c.hdf", "w") as file:
        for name, rows in (("train", slice(0, 180)), ("test", slice(180, 240))):
            file[f"{name}/features"], file[f"{name}/labels"] = features[rows], labels[rows, None]
    for source, more in (("a.npz", ["--test-fraction", "0.25"]), ("b.parquet", []), ("c.hdf", [])):
        target = tmp_path / source.replace(".", "-") / "model.h5"
        assert main(["convert", source, str(target), *more]) == 0
        assert al_train([f"cache={target}", "seeds=[1]", "iterations.n=2"]) == 0
    assert al_train(["cache=c.hdf", "seeds=[1]", "iterations.n=2"]) == 0  # directly, too
    assert len(list((tmp_path / "logs").rglob("rounds.csv"))) == 4
