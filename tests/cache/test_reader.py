"""Reading caches: ours, foreign ones, and files that are wrong in every way we could think of."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm.cache import open_cache
from alfm.errors import UserError


def make(path: Path, **splits: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in splits.items():
            for key, value in arrays.items():
                file.create_dataset(f"{name}/{key}", data=value)
    return path


def arrays(n: int = 12, d: int = 4, c: int = 3, dtype: str = "float16") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {"features": rng.normal(size=(n, d)).astype(dtype), "labels": np.arange(n) % c}


def refuse(path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match):
        cache = open_cache(path)
        for split in cache.splits:
            cache.features(split)


def test_plain_cache_without_ids_or_attributes(tmp_path: Path) -> None:
    train, test = arrays(12), arrays(5, c=4)
    cache = open_cache(make(tmp_path / "a.h5", test=test, train=train))
    assert cache.splits == ["train", "test"] and cache.dim == 4
    assert cache.num_classes == 4 and cache.class_names is None  # over all splits
    assert cache.ids("train") is None
    assert cache.features("train").dtype == np.float16
    np.testing.assert_array_equal(cache.features("train"), train["features"])
    np.testing.assert_array_equal(cache.labels("test"), test["labels"])
    np.testing.assert_array_equal(cache.read_rows("train", 3, 9), train["features"][3:9])
    rows = np.array([7, 1, 7, 11])
    np.testing.assert_array_equal(cache.take("train", rows), train["features"][rows])
    assert cache.views("train").shape == (12, 1, 4)


def test_take_of_scattered_rows(tmp_path: Path) -> None:
    train = arrays(3000)
    cache = open_cache(make(tmp_path / "a.h5", train=train))
    rows = np.random.default_rng(0).choice(3000, size=90)
    np.testing.assert_array_equal(cache.take("train", rows), train["features"][rows])
    with pytest.raises(IndexError):
        cache.take("train", np.array([3000]))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4"])
@pytest.mark.parametrize("how", [{}, {"chunks": (64, 8)}, {"chunks": (64, 4)}, {"chunks": (64, 8), "compression": 1}])
def test_rows_read_where_they_lie_are_those_of_hdf5(dtype: str, how: dict[str, object], tmp_path: Path) -> None:
    train, path = arrays(9000, d=8), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", data=train["features"].astype(dtype), **how)
        file["train/labels"] = train["labels"]
    cache, rng = open_cache(path), np.random.default_rng(0)
    wholly = how.get("chunks", (64, 8)) == (64, 8) and "compression" not in how
    assert (cache._direct("train") is not None) == (wholly and dtype != ">f4")
    rows = np.concatenate([rng.choice(9000, 700), np.arange(60, 140), [5, 5]])  # runs over the edge of a chunk, doubles
    np.testing.assert_array_equal(cache.take("train", rows), train["features"][rows])
    np.testing.assert_array_equal(cache.read_rows("train", 50, 300), train["features"][50:300])
    np.testing.assert_array_equal(cache.features("train"), train["features"])


def test_rows_of_a_file_that_changed_or_ends_early(tmp_path: Path) -> None:
    old, new, path = arrays(9000), arrays(9001), tmp_path / "a.h5"
    cache, rows = open_cache(make(path, train=old)), np.arange(0, 9000, 70)
    np.testing.assert_array_equal(cache.take("train", rows), old["features"][rows])
    path.unlink()
    make(path, other=old, train=new)  # the rows lie elsewhere now
    np.testing.assert_array_equal(cache.take("train", rows), new["features"][rows])
    direct = cache._direct("train")
    assert direct is not None
    with path.open("r+b") as handle:
        handle.truncate(int(direct.starts[0]) + 50)
    with pytest.raises(UserError, match="is damaged"):
        cache.take("train", rows)
    path.unlink()
    with pytest.raises(UserError, match="is damaged or not"):
        cache.read_rows("train", 0, 3)


def test_not_finite_rows_are_found_wherever_they_are_read(tmp_path: Path) -> None:
    train = arrays(9000)
    train["features"][7000, 1] = np.inf
    cache = open_cache(make(tmp_path / "a.h5", train=train))
    for read in (lambda: cache.take("train", np.arange(0, 9000, 70)), lambda: cache.read_rows("train", 6990, 7002)):
        with pytest.raises(UserError, match="row 7000"):
            read()


def test_labels_of_al_foundation_models_are_squeezed(tmp_path: Path) -> None:
    train = arrays()
    train["labels"] = train["labels"].reshape(-1, 1)
    cache = open_cache(make(tmp_path / "old.hdf", train=train))
    assert cache.labels("train").shape == (12,) and cache.labels("train").dtype == np.int64


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "bool"])
def test_any_integral_label_dtype(tmp_path: Path, dtype: str) -> None:
    train = arrays(c=2)
    train["labels"] = train["labels"].astype(dtype)
    np.testing.assert_array_equal(open_cache(make(tmp_path / "a.h5", train=train)).labels("train"), np.arange(12) % 2)


def test_views(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3, 4)).astype("float32")
    cache = open_cache(make(tmp_path / "a.h5", train={"features": features, "labels": np.zeros(6, int)}))
    assert cache.num_views("train") == 3
    np.testing.assert_array_equal(cache.features("train"), features[:, 0])
    np.testing.assert_array_equal(cache.views("train"), features)
    np.testing.assert_array_equal(cache.read_rows("train", 2, 5, view=1), features[2:5, 1])
    np.testing.assert_array_equal(cache.take("train", np.array([4, 0]), view=2), features[[4, 0], 2])


def test_big_endian_features(tmp_path: Path) -> None:
    train = arrays()
    stored = {"features": train["features"].astype(">f2"), "labels": train["labels"]}
    cache = open_cache(make(tmp_path / "a.h5", train=stored))
    np.testing.assert_array_equal(cache.features("train"), train["features"])
    np.testing.assert_array_equal(cache.take("train", np.array([3])), train["features"][3:4])


def test_class_names_set_the_number_of_classes(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", train=arrays(c=3))
    with h5py.File(path, "a") as file:
        file.attrs["class_names"] = ["ant", "bee", "cat", "däng"]
    cache = open_cache(path)
    assert cache.num_classes == 4 and cache.class_names == ["ant", "bee", "cat", "däng"]
    with h5py.File(path, "a") as file:
        file.attrs["class_names"] = ["ant", "bee"]
    refuse(path, "names 2 classes but train has label 2")


def test_a_label_below_zero_is_none_of_the_names(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", train=arrays(c=3))
    with h5py.File(path, "a") as file:
        file.attrs["class_names"] = ["ant", "bee", "cat"]
        file["train/labels"][0] = -2
    refuse(path, "unlabelled=-2")
    with pytest.raises(UserError, match="names 3 classes but train has label -2"):
        open_cache(path, unlabelled=None)
    assert open_cache(path, unlabelled=-2).labels("train")[0] == -1


def test_gaps_in_the_numbers_of_classes_are_closed_over_all_splits(tmp_path: Path) -> None:
    train, test = arrays(), arrays(6)
    train["labels"], test["labels"] = np.array([1, 2, 7, -1] * 3), np.array([9, 1, 2, 7, -1, 7])
    cache = open_cache(make(tmp_path / "a.h5", train=train, test=test))
    assert cache.renumbered and cache.class_names == ["1", "2", "7", "9"] and cache.num_classes == 4
    np.testing.assert_array_equal(cache.labels("train"), [0, 1, 2, -1] * 3)
    np.testing.assert_array_equal(cache.labels("test"), [3, 0, 1, 2, -1, 2])
    assert "numbered 1 to 9" in cache.remarks[0]
    with h5py.File(cache.path, "a") as file:
        file.attrs["class_names"] = [f"class {number}" for number in range(12)]
    named = open_cache(cache.path)
    assert not named.renumbered and named.num_classes == 12 and named.remarks == []
    np.testing.assert_array_equal(named.labels("train"), train["labels"])


def test_one_to_three_are_three_classes_and_nothing_to_two_stay(tmp_path: Path) -> None:
    train = arrays()
    plain = open_cache(make(tmp_path / "a.h5", train=train))
    assert not plain.renumbered and plain.class_names is None and plain.num_classes == 3
    one = open_cache(make(tmp_path / "b.h5", train=train | {"labels": train["labels"] + 1}))
    assert one.renumbered and one.num_classes == 3
    np.testing.assert_array_equal(one.labels("train"), plain.labels("train"))


def test_a_number_that_means_unlabelled_is_told(tmp_path: Path) -> None:
    labels = np.array([0, 1, 255, 2] * 3, "uint8")
    path = make(tmp_path / "a.h5", train=arrays() | {"labels": labels})
    told = open_cache(path, unlabelled=255)
    assert told.num_classes == 3 and not told.renumbered
    np.testing.assert_array_equal(told.labels("train"), [0, 1, -1, 2] * 3)
    kept = open_cache(path, unlabelled=None)
    assert kept.num_classes == 4 and kept.class_names == ["0", "1", "2", "255"]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[0, 1, 2, -1] * 3]),  # a row: MATLAB
        np.array([0, 1, 2, np.nan] * 3),  # scikit-activeml's convention
        np.array([[0], [1], [2], [-1]] * 3),
    ],
)
def test_labels_as_people_hold_them(tmp_path: Path, labels: np.ndarray) -> None:
    cache = open_cache(make(tmp_path / "a.h5", train=arrays() | {"labels": labels}))
    np.testing.assert_array_equal(cache.labels("train"), [0, 1, 2, -1] * 3)


def test_one_hot_labels(tmp_path: Path) -> None:
    for dtype in ("uint8", "float64", "bool"):
        onehot = np.eye(3, dtype=dtype)[np.arange(12) % 3]
        cache = open_cache(make(tmp_path / f"{dtype}.h5", train=arrays() | {"labels": onehot}))
        np.testing.assert_array_equal(cache.labels("train"), np.arange(12) % 3)


@pytest.mark.parametrize("fill", [-9999, 99])
@pytest.mark.parametrize("how", ["property", "_FillValue"])
def test_labels_with_a_fill_value(tmp_path: Path, fill: int, how: str) -> None:
    path = make(tmp_path / "a.h5", train={"features": arrays()["features"]})
    with h5py.File(path, "a") as file:
        labels = file.create_dataset("train/labels", (12,), "i4", fillvalue=fill if how == "property" else None)
        labels[:9] = np.arange(9) % 3
        if how != "property":
            labels[9:] = fill
            labels.attrs["_FillValue"] = np.array([fill], "i4")
    np.testing.assert_array_equal(open_cache(path).labels("train"), [0, 1, 2] * 3 + [-1] * 3)


def test_a_fill_value_that_may_be_a_class_is_one(tmp_path: Path) -> None:
    for fill in (0, 2):
        path = make(tmp_path / f"{fill}.h5", train={"features": arrays()["features"]})
        with h5py.File(path, "a") as file:
            file.create_dataset("train/labels", (12,), "i4", fillvalue=fill)[:] = np.arange(12) % 3
        np.testing.assert_array_equal(open_cache(path).labels("train"), np.arange(12) % 3)


def _child(cache: object, queue: multiprocessing.Queue) -> None:
    queue.put(cache.features("train").sum(dtype="float64"))  # type: ignore[attr-defined]


def test_no_handle_crosses_a_fork(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    cache = open_cache(make(tmp_path / "a.h5", train=arrays()))
    queue = context.Queue()
    children = [context.Process(target=_child, args=(cache, queue)) for _ in range(3)]
    for child in children:
        child.start()
    sums = {queue.get(timeout=60) for _ in children}
    for child in children:
        child.join()
    assert sums == {cache.features("train").sum(dtype="float64")}
    held = [link.resolve() for link in Path("/proc/self/fd").iterdir()] if Path("/proc/self/fd").exists() else []
    assert cache.path.resolve() not in held


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    train = arrays()
    first = open_cache(make(tmp_path / "a.h5", train=train)).fingerprint
    assert open_cache(make(tmp_path / "b.h5", train=train)).fingerprint == first
    train["features"][3, 2] += 1
    assert open_cache(make(tmp_path / "c.h5", train=train)).fingerprint != first


# ---- untrusted input --------------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "none.h5", "no feature cache")
    refuse(tmp_path, "is a folder")


def test_not_hdf5_and_truncated(tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"not a cache at all" * 100)
    refuse(bad, "damaged or not an HDF5")
    bad.write_bytes(b"")
    refuse(bad, "damaged or not an HDF5")
    whole = make(tmp_path / "a.h5", train=arrays(500))
    whole.write_bytes(whole.read_bytes()[:-700])
    refuse(whole, "damaged|incomplete")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_and_inf(tmp_path: Path, value: float, dtype: str) -> None:
    train = arrays(dtype=dtype)
    train["features"][7, 1] = value
    path = make(tmp_path / "a.h5", train=train)
    refuse(path, "NaN or Inf in train/features, row 7")
    with pytest.raises(UserError, match="row 7"):
        open_cache(path).take("train", np.array([9, 7]))
    np.testing.assert_array_equal(open_cache(path).read_rows("train", 0, 7), train["features"][:7])


@pytest.mark.parametrize(
    ("features", "labels", "match"),
    [
        (np.zeros((4, 2), "int32"), np.zeros(4, int), "dtype int32"),
        (np.zeros(4, "float32"), np.zeros(4, int), r"\(N, D\)"),
        (np.zeros((4, 1, 1, 2), "float32"), np.zeros(4, int), r"\(N, D\)"),
        (np.zeros((4, 0), "float32"), np.zeros(4, int), r"\(N, D\)"),
        (np.zeros((4, 2), "float32"), np.zeros(3, int), "one label per row"),
        (np.zeros((4, 2), "float32"), np.zeros((4, 5), int), "several labels"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, 1.5, 2]), "whole numbers"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, np.inf, 2]), "whole numbers"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, -100, 2]), "say unlabelled=-100 if that means no label"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, 255, 2]), "1 label is 255 beside 3 other values"),
        (np.zeros((4, 2), "float32"), np.array([1, 2, 65535, 3], "uint16"), "say unlabelled=65535 if"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, 2**32 - 1, 2], "uint32"), "say unlabelled=4294967295 if"),
        (np.zeros((4, 2), "float32"), np.eye(4)[[0, 1, 1, 2]] + np.eye(4)[0], "row 0 is not one-hot"),
        (np.zeros((4, 2), "float32"), np.zeros(2, int), "may be transposed"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, 2**40, 2]), "is an id"),
        (np.zeros((4, 2), "float32"), np.array([0, 1, 2**63 + 5, 2], "uint64"), "no class number"),
        (np.zeros((4, 2), "float32"), np.array([b"a"] * 4), "integers are needed"),
    ],
)
def test_wrong_shapes_dtypes_and_labels(tmp_path: Path, features: np.ndarray, labels: np.ndarray, match: str) -> None:
    refuse(make(tmp_path / "a.h5", train={"features": features, "labels": labels}), match)


def test_splits_that_disagree_or_are_missing(tmp_path: Path) -> None:
    refuse(make(tmp_path / "a.h5", train=arrays(d=4), test=arrays(d=5)), "differ in feature dimension")
    refuse(make(tmp_path / "b.h5", train={"labels": np.zeros(3)}), "no split")
    refuse(make(tmp_path / "c.h5", train={"features": np.zeros((3, 2), "float32")}), "no labels")
    cache = open_cache(make(tmp_path / "d.h5", train=arrays()))
    with pytest.raises(UserError, match="no split 'tran': did you mean train"):
        cache.features("tran")


def test_sizes_are_checked_before_allocation(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:  # claims 2 TB and stores nothing
        file.create_dataset("train/features", shape=(10**9, 1000), dtype="float16", chunks=(1024, 1000))
        file.create_dataset("train/labels", shape=(10**9,), dtype="int64", chunks=(1024,))
    refuse(path, "incomplete or damaged")
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", shape=(10**8, 1000), dtype="float16", chunks=(1024, 1000), compression=9)
        file["train/features"][:1024] = 0
        file.create_dataset("train/labels", data=np.zeros(4))
    refuse(path, "incomplete or damaged")


def test_other_files_are_not_followed(tmp_path: Path) -> None:
    other = make(tmp_path / "other.h5", train=arrays())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["train"] = h5py.ExternalLink(str(other), "train")
    refuse(path, "another file")
    with h5py.File(path, "w") as file:  # a soft link that leads to such a link
        file["away"] = h5py.ExternalLink(str(other), "train")
        file["z"] = h5py.SoftLink("/away")
    refuse(path, "another file")
    for name in ("features", "ids", "checksums"):
        with h5py.File(path, "w") as file:
            file.create_dataset("train/labels", data=np.zeros(12))
            if name != "features":
                file.create_dataset("train/features", data=np.zeros((12, 2), "float32"))
            file["not/a/split/away"] = h5py.ExternalLink(str(other), "train/features")
            file[f"train/{name}"] = h5py.SoftLink("/not/a/split/away")
        refuse(path, "soft link")
    with h5py.File(path, "w") as file:
        file["not/a/split/away"] = h5py.ExternalLink(str(other), "train")
        file["train"] = h5py.SoftLink("/not/a/split/away")
    refuse(path, "soft link")
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", (4, 2), "float32", external=[(str(other), 0, 32)])
        file.create_dataset("train/labels", data=np.zeros(4))
    refuse(path, "another file")
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((12, 4), "float16")
        layout[:] = h5py.VirtualSource(str(other), "train/features", (12, 4))
        file.create_virtual_dataset("train/features", layout)
        file.create_dataset("train/labels", data=np.zeros(12))
    refuse(path, "another file")


def test_wrong_ids(tmp_path: Path) -> None:
    refuse(make(tmp_path / "a.h5", train=arrays() | {"ids": np.arange(3)}), "12 strings")
    refuse(make(tmp_path / "b.h5", train=arrays() | {"ids": np.arange(12.0)}), "12 strings")
    path = make(tmp_path / "c.h5", train=arrays() | {"ids": np.array([b"caf\xe9"] * 12)})
    assert len(open_cache(path).ids("train") or []) == 12
