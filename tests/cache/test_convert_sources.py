"""Arrays and columns as people hold them: read for what they are, or refused with the command that helps."""

from __future__ import annotations

import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm.cache import FeatureCache, open_cache
from alfm.cache import convert as converting
from alfm.cache.__main__ import main
from alfm.cache.convert import Options, convert
from alfm.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8)).astype("float32")
Y = np.arange(60) % 3


class Said(list):
    def __call__(self, line: str) -> None:
        self.append(line)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def read(source: Path, say: Said | None = None, **options: object) -> FeatureCache:
    say = Said() if say is None else say
    return convert(source, source.with_suffix(".h5"), Options(**options), force=True, say=say)


def same(cache: FeatureCache, labels: np.ndarray = Y, split: str = "train", features: np.ndarray = X) -> None:
    np.testing.assert_array_equal(cache.labels(split), labels)
    np.testing.assert_array_equal(cache.features(split), features.astype(cache.dtype(split)))


def refuse(source: Path, match: str, **options: object) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    assert not source.with_suffix(".h5").exists()


# ---- float16 or float32 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [X * 1e-8, X + 4096, X * 1e6])
def test_features_that_float16_would_destroy(tmp_path: Path, changed: np.ndarray) -> None:
    source, said = npz(tmp_path, features=changed, labels=Y), Said()
    refuse(source, "use --dtype float32, or leave --dtype away", dtype="float16")
    cache = read(source, said)
    assert cache.dtype("train") == np.float32 and any("stored as float32: float16" in line for line in said)
    same(cache, features=changed)
    assert read(npz(tmp_path, features=X, labels=Y)).dtype("train") == np.float16


def test_a_later_block_that_float16_would_destroy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = RNG.normal(size=(9000, 4)).astype("float32")
    features[8500:] += 4096
    source = npz(tmp_path, features=features)
    monkeypatch.setattr(converting, "_SAMPLED", 1)
    refuse(source, r"train, rows 8192 to 8999\): use --dtype float32")
    assert read(source, dtype="float32").dtype("train") == np.float32


def test_what_not_even_float32_can_hold(tmp_path: Path) -> None:
    refuse(npz(tmp_path, features=X.astype("float64") + 1e8), "subtract the mean")


# ---- labels ---------------------------------------------------------------------------------------------------------


def test_gaps_are_closed_over_all_splits_with_the_numbers_as_names(tmp_path: Path) -> None:
    said = Said()
    arrays = {"X_train": X, "y_train": Y + 1, "X_test": X[:9], "y_test": np.full(9, 7)}
    cache = read(npz(tmp_path, **arrays), said)
    assert cache.class_names == ["1", "2", "3", "7"] and not cache.renumbered
    same(cache)
    same(cache, np.full(9, 3), "test", X[:9])
    assert any("numbered 1 to 7: read as 0 to 3" in line for line in said)
    assert any(line.startswith("train: all 60 items labelled") for line in said)
    assert any("class that train has none of (7)" in line for line in said)


def test_a_lone_far_label_and_both_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.where(np.arange(60) < 6, 255, Y)
    source = str(npz(tmp_path, features=X, labels=labels.astype("uint8")))
    assert main(["convert", source]) == 1
    err = capsys.readouterr().err
    assert "6 labels are 255 beside 3 other values" in err
    words = [word for word in shlex.split(err) if word.startswith("--unlabelled")]
    assert words == ["--unlabelled=255", "--unlabelled=null"]
    assert main(["convert", source, words[0]]) == 0
    assert "train: 54 of 60 items labelled (0 18, 1 18, 2 18)" in (out := capsys.readouterr().out)
    assert "a share of it (--test-fraction 0.2 --force)" in out
    assert main(["convert", source, words[1], "--force"]) == 0
    assert open_cache(source.replace(".npz", ".h5")).class_names == ["0", "1", "2", "255"]


def test_unlabelled_that_does_not_occur_is_said(tmp_path: Path) -> None:
    said = Said()
    read(npz(tmp_path, features=X, labels=Y), said, unlabelled=9)
    assert any("--unlabelled=9: no label has this value" in line for line in said)


def test_minus_one_stays_unlabelled_in_arrays(tmp_path: Path) -> None:
    said = Said()
    cache = read(npz(tmp_path, features=X, labels=np.where(Y == 0, -1, 1)), said)
    np.testing.assert_array_equal(cache.labels("train"), np.where(Y == 0, -1, 0))
    assert any("-1 means unlabelled: if it is a class" in line for line in said)


@pytest.mark.parametrize(
    "labels", [Y[None], Y[:, None], np.eye(3)[Y], np.eye(3, dtype=bool)[Y], Y.astype("float64"), Y.astype("uint8")]
)
def test_shapes_and_dtypes_of_labels(tmp_path: Path, labels: np.ndarray) -> None:
    same(read(npz(tmp_path, features=X, labels=labels)))


def test_nan_is_unlabelled_and_several_labels_are_refused(tmp_path: Path) -> None:
    labels = Y.astype("float64")
    labels[::4] = np.nan
    same(read(npz(tmp_path, features=X, labels=labels)), np.where(np.isnan(labels), -1, labels))
    (tmp_path / "a.h5").unlink()
    several = np.eye(3)[Y]
    several[5] = 1
    refuse(npz(tmp_path, features=X, labels=several), "row 5 is not one-hot")


def test_bytes_are_text(tmp_path: Path) -> None:
    names = np.array([b"ant", b"bee", b"c\xc3\xa4t"])
    ids = np.array([f"é{row}".encode() for row in range(60)])
    cache = read(npz(tmp_path, features=X, labels=names[Y], ids=ids))
    assert cache.class_names == ["ant", "bee", "cät"] and (cache.ids("train") or [])[3] == "é3"
    same(cache)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Replaced characters would make one id of several."""
    refuse(npz(tmp_path, features=X, labels=Y, ids=np.array([b"\xff", b"\xfe"] * 30)), "is not UTF-8 text")


def test_names_in_one_split_and_numbers_in_another(tmp_path: Path) -> None:
    source = npz(tmp_path, X_train=X, y_train=np.array(["a", "b", "c"])[Y], X_test=X, y_test=Y)
    refuse(source, "save both as names, or both as numbers")


def test_names_in_two_spellings_are_one_class(tmp_path: Path) -> None:
    train, test = np.array(["é", "b", "c"])[Y], np.array(["e\u0301", "b", "c"])[Y]
    cache = read(npz(tmp_path, X_train=X, y_train=train, X_test=X, y_test=test))
    assert cache.num_classes == 3
    np.testing.assert_array_equal(cache.labels("train"), cache.labels("test"))


def test_class_names_beside_numbers(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog"])
    cache = read(npz(tmp_path, features=X, labels=Y + 1, class_names=names))
    assert cache.class_names == list(names)
    same(cache, Y + 1)
    (tmp_path / "a.h5").unlink()
    refuse(npz(tmp_path, features=X, labels=Y + 1, class_names=names[:3]), "names 3 classes but train has label 3")


# ---- which array is what ------------------------------------------------------------------------------------------


def test_several_arrays_for_one_thing_are_asked_about(tmp_path: Path) -> None:
    refuse(npz(tmp_path, features=X, embeddings=X), r"several arrays of vectors \(features, embeddings\)")
    refuse(npz(tmp_path, features=X, clip=X[:, :4]), r"several arrays of vectors \(features, clip\).*--features NAME")
    same(read(npz(tmp_path, features=X[:, :4], clip=X, labels=Y), features="clip"))
    (tmp_path / "a.h5").unlink()
    refuse(npz(tmp_path, features=X, labels=Y, y=Y), r"several arrays of labels \(labels, y\).*--labels NAME")
    same(read(npz(tmp_path, features=X, labels=Y[::-1], y=Y), labels="y"))


@pytest.mark.parametrize(
    ("name", "split"), [("X_valid", "valid"), ("X_val", "val"), ("valid_features", "valid"), ("X_Test", "test")]
)
def test_usual_names_of_splits(tmp_path: Path, name: str, split: str) -> None:
    labels = name.replace("X", "y").replace("features", "labels")
    cache = read(npz(tmp_path, X_train=X, y_train=Y, **{name: X[:20], labels: Y[:20]}))
    assert cache.splits == ["train", split]
    same(cache, Y[:20], split, X[:20])


def test_vectors_of_no_known_split_are_not_dropped(tmp_path: Path) -> None:
    source = npz(tmp_path, X_train=X, y_train=Y, X_extra=X[:20])
    refuse(source, "X_extra is as wide as the features.*--features X_train")
    same(read(source, features="X_train"))


def test_names_that_are_not_there(tmp_path: Path) -> None:
    source = npz(tmp_path, features=X, labels=Y)
    refuse(source, "no array 'lables' for labels: did you mean labels", labels="lables")
    refuse(source, "no array 'names' for ids", ids="names")
    refuse(source, "no array 'fold'", split="fold")
    refuse(source, "no array 'emb' for features", features="emb")


def test_what_was_not_used_is_said(tmp_path: Path) -> None:
    said = Said()
    read(npz(tmp_path, features=X, labels=Y, epoch=np.array(3), y_test=Y), said)
    assert any("not used: epoch, y_test (2)" in line for line in said)


def test_objects_that_nobody_asked_for_are_left_out(tmp_path: Path) -> None:
    said = Said()
    extra = np.array([{"a": 1}, print], dtype=object)
    same(read(npz(tmp_path, features=X, labels=Y, notes=extra, meta=extra), said))
    assert any("left out, since they hold Python objects or cannot be read: notes, meta (2)" in line for line in said)
    (tmp_path / "a.h5").unlink()
    refuse(
        npz(tmp_path, features=X, labels=np.array(["a", None] * 30, object)), r"labels holds Python objects.*dtype=str"
    )
    refuse(npz(tmp_path, features=X, names=extra), "names holds Python objects", ids="names")
    same(read(npz(tmp_path, features=X, labels=Y, ids=np.array(["a"] * 60, object))))


def test_a_column_of_splits(tmp_path: Path) -> None:
    column = np.array(["Training", "TEST", "Training"])[Y]
    cache = read(npz(tmp_path, features=X, labels=Y, split=column))
    assert cache.splits == ["train", "test"]
    same(cache, Y[Y == 1], "test", X[Y == 1])


# ---- HDF5 -----------------------------------------------------------------------------------------------------------


def test_hdf5_with_arrays_at_the_root(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["X_train"], file["y_train"], file["X_test"], file["y_test"] = X, Y, X[:9], Y[:9]
    with pytest.raises(UserError, match="python -m alfm.cache convert reads other layouts"):
        open_cache(tmp_path / "a.hdf5")
    cache = read(tmp_path / "a.hdf5")
    same(cache)
    same(cache, Y[:9], "test", X[:9])


@pytest.mark.parametrize("marked", [True, False])
def test_matlab_stores_everything_transposed(tmp_path: Path, marked: bool) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["X"], file["y"] = X.T.astype("float64"), (Y + 1.0)[None]
        file.create_group("#refs#")
        if marked:
            for name in ("X", "y"):
                file[name].attrs["MATLAB_class"] = np.bytes_("double")
    cache = read(tmp_path / "a.mat", test_fraction=0.25)
    rows = np.concatenate([cache.features("train"), cache.features("test")])
    assert rows.shape == X.shape and cache.class_names == ["1", "2", "3"]
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in X.astype("float16")}


def test_a_square_matrix_of_matlab_is_turned_and_another_is_not(tmp_path: Path) -> None:
    for marked in (True, False):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["features"] = X[:8]
            file["labels"] = Y[:8]
            if marked:
                file["features"].attrs["MATLAB_class"] = np.bytes_("single")
        made = convert(tmp_path / "a.h5", tmp_path / "b.h5", Options(dtype="float32"), force=True)
        np.testing.assert_array_equal(made.features("train"), X[:8].T if marked else X[:8])


def test_old_mat_files_are_told_how_to_become_readable(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    refuse(tmp_path / "a.mat", "-v7.3")


def test_hdf5_names_in_groups_and_at_any_case(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["Train/embeddings"], file["Train/y"] = X, np.array([b"ant", b"bee", b"cat"])[Y]
        file["VALID/embeddings"], file["VALID/y"] = X[:6], np.array([b"ant", b"bee", b"cat"])[Y[:6]]
        file["Train/extra"] = np.zeros(3)
    said = Said()
    cache = read(tmp_path / "a.hdf5", said)
    assert cache.splits == ["train", "val"] and cache.class_names == ["ant", "bee", "cat"]
    same(cache)
    assert any("not used: Train/extra (1)" in line for line in said)
    (tmp_path / "a.h5").unlink()
    refuse(tmp_path / "a.hdf5", "no array 'clip'", features="clip")


def test_hdf5_without_labels_and_with_a_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train/features"], file["test/features"] = X, X[:5]
        file.create_dataset("train/labels", (60,), "i4", fillvalue=-9999)[:30] = Y[:30]
    cache = read(tmp_path / "a.hdf5")
    same(cache, np.where(np.arange(60) < 30, Y, -1))
    same(cache, np.full(5, -1), "test", X[:5])


def test_links_out_of_a_file_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["features"] = X
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "features")
    refuse(tmp_path / "a.hdf5", "not followed")


# ---- files beside .npy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("y.txt", "\n".join(map(str, Y))),
        ("y.csv", "\n".join(map(str, Y)) + "\n"),
        ("y.csv", "label\n" + "\n".join(map(str, Y))),
        ("y.csv", "id,label\n" + "\n".join(f"{row},{y}" for row, y in enumerate(Y))),
        ("y.tsv", "key\tclass\n" + "\n".join(f"{row}\t{y}" for row, y in enumerate(Y))),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_labels_in_text_beside_npy(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / name).write_text(content, encoding=encoding)
    same(read(tmp_path / "x.npy", labels=str(tmp_path / name)))


def test_columns_of_files_beside_npy(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    np.save(tmp_path / "x.npy", X)
    names = np.array(["ant", "bee", "cät"])[Y]
    pq.write_table(pa.table({"species": names, "who": [f"w{row}" for row in range(60)]}), tmp_path / "a.parquet")
    table = str(tmp_path / "a.parquet")
    refuse(tmp_path / "x.npy", f"name one with --labels {table}:COLUMN", labels=table)
    cache = read(tmp_path / "x.npy", labels=f"{table}:species", ids=f"{table}:who")
    assert cache.class_names == ["ant", "bee", "cät"] and (cache.ids("train") or [])[2] == "w2"
    same(cache)
    (tmp_path / "x.h5").unlink()
    refuse(tmp_path / "x.npy", "no column 'specis': did you mean species", labels=f"{table}:specis")
    (tmp_path / "y.csv").write_bytes(b"label\n" + "\n".join(names).encode("cp1252"))
    refuse(tmp_path / "x.npy", "say --encoding cp1252", labels=str(tmp_path / "y.csv"))
    same(read(tmp_path / "x.npy", labels=str(tmp_path / "y.csv"), encoding="cp1252"))
    (tmp_path / "x.h5").unlink()
    (tmp_path / "z.csv").write_text("1\n2\n")
    refuse(tmp_path / "x.npy", "2 labels", labels=str(tmp_path / "z.csv"))
    (tmp_path / "z.csv").write_text("1,2\n1\n")
    refuse(tmp_path / "x.npy", "record 2 has 1 fields", labels=str(tmp_path / "z.csv"))
    refuse(tmp_path / "x.npy", "one array: leave --features away", features="X")
    (tmp_path / "y.json").write_text("[]")
    refuse(tmp_path / "x.npy", "a .npy, .csv, .tsv, .txt or .parquet file", labels=str(tmp_path / "y.json"))


def test_a_file_with_another_separator_is_not_one_column(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "y.csv").write_text("id;label\n" + "".join(f"{i};{label}\n" for i, label in enumerate(Y)))
    refuse(tmp_path / "a.npy", "save it with ',' instead", labels=str(tmp_path / "y.csv"))


def test_marks_and_spellings_of_files_beside_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "y.txt").write_text("".join(f"{label}\n" for label in Y), encoding="utf-32")
    same(read(tmp_path / "a.npy", labels=str(tmp_path / "y.txt")))
    (tmp_path / "y.csv").write_text("id,e\u0301\n" + "".join(f"{i},{y}\n" for i, y in enumerate(Y)), encoding="utf-8")
    same(read(tmp_path / "a.npy", labels=f"{tmp_path}/y.csv:\u00e9"))


def test_minus_one_in_a_text_is_asked_about(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "y.txt").write_text("\n".join(map(str, Y - 1)))
    refuse(
        tmp_path / "x.npy",
        "20 labels are -1 beside 2 other values: say --unlabelled=-1",
        labels=str(tmp_path / "y.txt"),
    )
    same(read(tmp_path / "x.npy", labels=str(tmp_path / "y.txt"), unlabelled=-1), Y - 1)
    same(read(tmp_path / "x.npy", labels=str(tmp_path / "y.txt"), unlabelled=None), Y)


# ---- Parquet --------------------------------------------------------------------------------------------------------


def table(path: Path, **columns: object) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"vector": list(X), **columns}), path / "a.parquet")
    return path / "a.parquet"


def test_a_named_pandas_index_is_a_column_of_ids(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for index in (pd.Index([f"k{row}" for row in range(60)], name="key"), pd.RangeIndex(100, 160, name="key")):
        pd.DataFrame({"vector": list(X), "label": Y}, index=index).to_parquet(tmp_path / "a.parquet")
        for option in ({"ids": "key"}, {}):
            assert read(tmp_path / "a.parquet", **option).ids("train") == [str(key) for key in index]


def test_a_fold_is_a_split_only_when_it_is_named(tmp_path: Path) -> None:
    said, source = Said(), table(tmp_path, label=Y, fold=Y)
    assert read(source, said).splits == ["train"]
    assert any("not used: fold (a split is taken from it with --split fold)" in line for line in said)
    assert read(source, split="fold").splits == ["0", "1", "2"]


def test_columns_of_parquet(tmp_path: Path) -> None:
    split = [["Training", "Testing", None][y] for y in Y]
    refuse(table(tmp_path, label=Y, split=split), "row 2 has nothing in the column of splits")
    split = [["Training", "Testing", "Training"][y] for y in Y]
    assert read(table(tmp_path, label=Y, split=split)).splits == ["train", "test"]
    (tmp_path / "a.h5").unlink()
    refuse(table(tmp_path, label=Y, target=Y), r"several columns of labels \(label, target\)")
    refuse(table(tmp_path, label=Y - 1), "say --unlabelled=-1 if that means no label")
    same(read(table(tmp_path, label=Y - 1), unlabelled=-1), Y - 1)
    same(read(table(tmp_path, label=[b"ant", b"bee", b"cat"] * 20)))
    assert open_cache(tmp_path / "a.h5").class_names == ["ant", "bee", "cat"]
    same(read(table(tmp_path, label=np.eye(3, dtype=int)[Y].tolist())))
    same(read(table(tmp_path, label=[float(y) if y else None for y in Y])), Y - 1)
    made = read(table(tmp_path, label=Y + 1))
    assert made.class_names == ["1", "2", "3"]
    (tmp_path / "a.h5").unlink()
    refuse(table(tmp_path, label=[[1, 1, 0]] * 60), "several labels per item")


def test_labels_that_count_from_0_have_no_names_as_ever(tmp_path: Path) -> None:
    assert read(table(tmp_path, label=Y)).class_names is None
    assert read(npz(tmp_path, features=X, labels=Y)).class_names is None
