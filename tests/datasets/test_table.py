"""Tables: CSV and Parquet, texts and paths."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from alfm.datasets.base import ItemError
from alfm.datasets.table import table
from alfm.errors import UserError


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_texts_with_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "talk.csv", 'text,label\n"hello, you",greeting\nNA,\n"",bye\nnan,bye\n')
    data = table(path, modality="text", column="text", label_column="label")
    train = data.splits["train"]
    assert [train.load(i) for i in range(4)] == ["hello, you", "NA", "", "nan"]
    assert train.labels.tolist() == [1, -1, 0, 0] and data.classes == ["bye", "greeting"]
    assert train.ids == ["talk:0", "talk:1", "talk:2", "talk:3"] and data.name == "talk"


def test_splits_by_column_by_files_and_by_share(tmp_path: Path) -> None:
    rows = "".join(f"t{i},{i % 2},{['train', 'dev'][i > 6]}\n" for i in range(10))
    path = write(tmp_path / "all.csv", "text,y,fold\n" + rows)
    data = table(path, modality="text", column="text", label_column="y", split_column="fold")
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 7, "dev": 3}
    other = write(tmp_path / "more.tsv", "text\ty\nu\t1\n")
    data = table(files={"train": path, "test": other}, modality="text", column="text", label_column="y")
    assert data.splits["test"].ids == ["more:0"] and data.splits["test"].labels.tolist() == [1]
    data = table(path, modality="text", column="text", label_column="y", test_fraction=0.2)
    assert sorted(data.splits["test"].labels) == [0, 1]


def test_parquet_keeps_types_and_the_fingerprint_sees_texts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"t": ["a", None, "c"], "y": [0.0, 1.0, float("nan")], "key": ["k1", "k2", "k3"]})
    frame.to_parquet(tmp_path / "x.parquet")
    data = table(str(tmp_path / "x.parquet"), modality="text", column="t", label_column="y", id_column="key")
    train = data.splits["train"]
    assert train.ids == ["k1", "k2", "k3"] and train.labels.tolist() == [0, 1, -1] and train.load(1) == ""
    frame.loc[0, "t"] = "b"
    frame.to_parquet(tmp_path / "x.parquet")
    again = table(str(tmp_path / "x.parquet"), modality="text", column="t", label_column="y", id_column="key")
    assert again.fingerprint != data.fingerprint


def test_image_paths(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "one/x.png"), Image.new("RGB", (3, 4)).save(tmp_path / "two/y.png")
    path = write(tmp_path / "i.csv", "path\none/x.png\ntwo/gone.png\n")
    train = table(path).splits["train"]
    assert train.ids == ["one/x.png", "two/gone.png"] and train.load(0).size == (4, 3)
    with pytest.raises(ItemError, match=r"two/gone.png: No such file.*row 1 of .*i\.csv"):
        train.load(1)
    path = write(tmp_path / "k.csv", "key\nx\ny\n")
    keyed = table(path, column="key", path_format=["one/{}.png", "two/{}.png"], id_column="key").splits["train"]
    assert keyed.ids == ["x", "y"] and keyed.load(1).size == (3, 4)


@pytest.mark.parametrize("place", ["../secret.png", "/etc/hostname", "a/../../b.png"])
def test_paths_outside_the_root_are_refused_unless_allowed(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / "i.csv", f"path\n{place}\n")
    with pytest.raises(UserError, match=r"row 0 .*outside.*allow_absolute=true"):
        table(path)
    assert len(table(path, allow_absolute=True).splits["train"]) == 1


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("path,label\na,b\n", {"column": "paht"}, "no column 'paht'; did you mean path"),
        ("path\n", {}, "no rows"),
        ("", {}, "cannot be read as a table"),
        ("path,fold\na,\n", {"split_column": "fold"}, "row 0 .*split column"),
        ('path\n""\n', {}, "row 0 .*path is empty"),
        ("path,fold\na,test\n", {"split_column": "fold", "test_fraction": 0.5}, "test_fraction cuts train"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path: Path, text: str, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        table(write(tmp_path / "i.csv", text), **options)


def test_tables_that_are_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no table"):
        table(str(tmp_path / "no.csv"))
    with pytest.raises(UserError, match="needs dataset.path"):
        table()
    for files in ("reviews.csv", ["a.csv", "b.csv"]):
        with pytest.raises(UserError, match=r"a single table is dataset.path=FILE"):
            table(files=files)
    (tmp_path / "l1.csv").write_bytes(b"path\ncaf\xe9.png\n")
    with pytest.raises(UserError, match="not UTF-8"):
        table(str(tmp_path / "l1.csv"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="cannot be read as a table"):
        table(str(tmp_path / "x.parquet"))


def test_a_table_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "real_train.txt", "real/a/1.jpg 0\nreal/b/2.jpg 1\n")
    data = table(path, column="path", label_column="label", separator=" ", columns=["path", "label"])
    assert data.splits["train"].ids == ["real/a/1.jpg", "real/b/2.jpg"]
    assert data.splits["train"].labels.tolist() == [0, 1]


def test_usual_split_names_in_any_case(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,fold\na,Training\nb,Testing\nc,Valid\nd,extra\n")
    data = table(path, modality="text", column="text", split_column="fold")
    assert {name: split.texts for name, split in data.splits.items()} == {
        "train": ["a"],
        "test": ["b"],
        "val": ["c"],
        "extra": ["d"],
    }


# ---- what people hold -----------------------------------------------------------------------------------------------

TEXT = {"modality": "text", "column": "text", "label_column": "label"}


def test_columns_are_not_shifted_and_empty_texts_are_counted(tmp_path: Path) -> None:
    data = table(write(tmp_path / "a.csv", "text,label\nx,a,\ny,b,\n,a,\n"), **TEXT)
    assert data.splits["train"].texts == ["x", "y", ""] and data.classes == ["a", "b"]
    assert data.remarks == [f"texts that are empty: 1, the first in row 2 of {tmp_path / 'a.csv'}"]
    with pytest.raises(UserError, match="line 2: 3 fields"):
        table(write(tmp_path / "a.csv", "text,label\nhello, you,a\nx,b\n"), **TEXT)


def test_a_label_that_may_mean_none_is_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"t{i},{i % 3 - 1}\n" for i in range(9)))
    with pytest.raises(UserError, match=r"3 labels are -1 beside 2 other values: say dataset\.unlabelled=-1"):
        table(path, **TEXT)
    assert table(path, unlabelled=-1, **TEXT).classes == ["0", "1"]
    assert table(path, unlabelled=None, **TEXT).classes == ["-1", "0", "1"]
    parquet = str(tmp_path / "a.parquet")
    pytest.importorskip("pyarrow")
    pd.DataFrame({"text": ["a", "b", "c"], "label": [-1.0, 1.0, None]}).to_parquet(parquet)
    with pytest.raises(UserError, match="1 label is -1 beside"):
        table(parquet, **TEXT)
    assert table(parquet, unlabelled=[-1], **TEXT).splits["train"].labels.tolist() == [-1, 0, -1]


def test_splits_are_one_in_any_unicode_form_and_with_spaces(tmp_path: Path) -> None:
    rows = "a,x,train\nb,y,train \nc,x,caf\u00e9\nd,y,cafe\u0301\n"
    data = table(write(tmp_path / "a.csv", "text,label,part\n" + rows), split_column="part", **TEXT)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 2, "caf\u00e9": 2}


def test_the_named_index_of_a_parquet_file_is_a_column(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "a.parquet")
    frame = pd.DataFrame({"text": ["a", "b"], "label": [0, 1]})
    frame.set_axis(pd.Index(["k1", "k2"], name="key")).to_parquet(path)
    assert table(path, id_column="key", **TEXT).splits["train"].ids == ["k1", "k2"]
    assert table(path, **TEXT).splits["train"].ids == ["a:0", "a:1"]
    frame.set_axis(pd.RangeIndex(5, 7, name="row")).to_parquet(path)
    assert table(path, id_column="row", **TEXT).splits["train"].ids == ["5", "6"]
    frame.set_axis(pd.Index(["p", "q"])).to_parquet(path)
    assert table(path, id_column="__index_level_0__", **TEXT).splits["train"].ids == ["p", "q"]
    index = pd.MultiIndex.from_tuples([("s", "0"), ("s", "1")], names=["fold", "key"])
    frame.set_axis(index).to_parquet(path)
    data = table(path, id_column="key", split_column="fold", **TEXT)
    assert data.splits["s"].ids == ["0", "1"] and list(table(path, **TEXT).splits) == ["train"]
    with pytest.raises(UserError, match="no column 'kye'; did you mean key"):
        table(path, id_column="kye", **TEXT)


def test_bytes_in_parquet_are_text_and_structures_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "a.parquet")
    cells = {"text": ["caf\u00e9".encode(), b"dog"], "label": [b"x", b"y"], "key": [b"k1", b"k2"]}
    pd.DataFrame(cells).to_parquet(path)
    train = table(path, id_column="key", **TEXT).splits["train"]
    assert train.texts == ["caf\u00e9", "dog"] and train.ids == ["k1", "k2"]
    assert table(path, **TEXT).classes == ["x", "y"]
    for cell, said in (
        (b"\xff\xfe", "bytes that are not UTF-8"),
        (["a"], "a ndarray, not a text"),
        ({"a": 1}, "a dict"),
    ):
        pd.DataFrame({"text": [None, cell], "label": [0, 1]}).to_parquet(path)
        with pytest.raises(UserError, match=f"row 1 of .*: the column 'text' holds {said}"):
            table(path, **TEXT)


def test_paths_with_other_separators_and_unicode_forms_are_found(tmp_path: Path) -> None:
    places = ["img/a b.png", "img/caf\u00e9.png", "img/o\u0308l.png"]
    (tmp_path / "img").mkdir()
    for place in places:
        Image.new("RGB", (4, 3)).save(tmp_path / place)
    written = ["img\\a b.png", "img/cafe\u0301.png", "img\\\u00f6l.png"]
    train = table(write(tmp_path / "i.csv", "path\n" + "\n".join(written))).splits["train"]
    assert train.ids == places and [train.load(i).size for i in range(3)] == [(4, 3)] * 3
    with pytest.raises(UserError, match="outside"):
        table(write(tmp_path / "i.csv", "path\n..\\secret.png\n"))


def test_one_table_is_no_two_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,x\nb,y\n")
    with pytest.raises(UserError, match="is given for train and for test"):
        table(files={"train": path, "test": str(tmp_path / "." / "a.csv")}, **TEXT)


def test_an_encoding_for_the_table(tmp_path: Path) -> None:
    (tmp_path / "l1.csv").write_bytes("text,label\ncaf\u00e9,x\nna\u00efve,y\n".encode("cp1252"))
    with pytest.raises(UserError, match="dataset.encoding=cp1252"):
        table(str(tmp_path / "l1.csv"), **TEXT)
    assert table(str(tmp_path / "l1.csv"), encoding="cp1252", **TEXT).splits["train"].texts[0] == "caf\u00e9"


@pytest.mark.parametrize(("ending", "said"), [("xlsx", "as CSV"), ("jsonl", "dataset.path=json"), ("zip", "unpack")])
def test_other_files_say_how_they_are_read(tmp_path: Path, ending: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        table(write(tmp_path / f"a.{ending}", "{}"))
