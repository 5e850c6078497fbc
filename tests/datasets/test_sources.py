"""Recordings, tar shards, Hugging Face data sets, torchvision classes: items, splits and bad input."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm.datasets.assemble import fingerprint
from alfm.datasets.audio import mono, read_audio
from alfm.datasets.base import ItemError
from alfm.datasets.folder import folder
from alfm.datasets.hugging_face import hugging_face
from alfm.datasets.published import cub200
from alfm.datasets.table import table
from alfm.datasets.tar_shards import tar_shards
from alfm.datasets.torchvision_data import torchvision_dataset
from alfm.errors import UserError


def png(grey: int = 0, size: tuple[int, int] = (6, 5)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, grey).save(buffer, "PNG")
    return buffer.getvalue()


# ---- audio ----------------------------------------------------------------------------------------------------------


def wav(samples: np.ndarray, rate: int, form: str = "WAV") -> bytes:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form)
    return buffer.getvalue()


def test_stereo_becomes_mono_at_its_own_rate() -> None:
    wave = np.sin(np.arange(8000) / 10) * 0.5
    audio = read_audio(wav(np.stack([wave, -wave / 2], 1), 8000), "a")
    assert audio.rate == 8000 and audio.samples.shape == (8000,) and audio.samples.dtype == np.float32
    assert np.abs(audio.samples - wave / 4).max() < 1e-3
    assert len(read_audio(wav(wave, 8000, "FLAC"), "a", max_seconds=0.25).samples) == 2000


@pytest.mark.parametrize("raw", [b"", b"RIFF", b"not a sound at all" * 10])
def test_what_is_no_recording(raw: bytes) -> None:
    pytest.importorskip("soundfile")
    with pytest.raises(ItemError, match="talk/1.wav"):
        read_audio(raw, "talk/1.wav")


def test_samples_are_between_minus_one_and_one() -> None:
    assert mono(np.array([0, 128, 192], np.uint8), 8000, "x").samples.tolist() == [-1, 0, 0.5]
    assert mono(np.array([0, 2**15], np.uint16), 8000, "x").samples.tolist() == [-1, 0]
    assert mono(np.array([-1.5, 1.5]), 8000, "x").samples.tolist() == [-1.5, 1.5]
    with pytest.raises(ItemError, match="x: samples go up to 32767, they must lie in"):
        mono(np.array([0.0, 32767.0]), 8000, "x")


def test_no_samples_and_no_numbers() -> None:
    with pytest.raises(ItemError, match="talk/2.wav: the recording holds no samples"):
        read_audio(wav(np.zeros(0), 16000), "talk/2.wav")
    with pytest.raises(ItemError, match="NaN"):
        mono(np.array([0, np.nan]), 8000, "x")
    assert mono(np.array([-32768, 16384], np.int16), 8000, "x").samples.tolist() == [-1, 0.5]


def test_audio_folder(tmp_path: Path) -> None:
    for name in ("yes", "no"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").write_bytes(wav(np.zeros(100), 8000))
    (tmp_path / "yes" / "cover.jpg").write_bytes(b"")
    data = folder(str(tmp_path), "audio", max_seconds=10)
    assert data.modality == "audio" and data.classes == ["no", "yes"]
    assert data.splits["train"].load(1).rate == 8000


def test_a_missing_package_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("soundfile", "datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"soundfile: pip install 'alfm\[audio\]'"):
        read_audio(b"RIFF", "a.wav")
    with pytest.raises(UserError, match=r"pip install 'alfm\[hf\]'"):
        hugging_face("a/b", "text", "text")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"Parquet needs pyarrow: pip install 'alfm\[parquet\]'"):
        table(str(tmp_path / "a.parquet"))


# ---- tar shards -----------------------------------------------------------------------------------------------------


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, raw in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def test_tar_shards(tmp_path: Path) -> None:
    for number in range(3):
        items = {f"a/{i}": (png(10 * i), b"%d" % (i % 2)) for i in range(4)}
        members = {k: v for key, (image, y) in items.items() for k, v in ((f"{key}.png", image), (f"{key}.cls", y))}
        shard(tmp_path / f"train-{number:02d}.tar", {**members, "readme.md": b"no item"})
    data = tar_shards({"train": "train-{00..01}.tar", "test": "*-02.tar"}, root=str(tmp_path))
    train = data.splits["train"]
    assert len(train) == 8 and len(data.splits["test"]) == 4 and data.name == tmp_path.name
    assert train.ids[:2] == ["train-00/a/0", "train-00/a/1"] and train.ids[4] == "train-01/a/0"
    assert train.labels.tolist() == [0, 1] * 4
    assert pickle.loads(pickle.dumps(train)).load(6).getpixel((0, 0)) == (20, 20, 20)
    cut = tar_shards({"train": ["train-00.tar", "train-01.tar"]}, root=str(tmp_path), test_fraction=0.5)
    assert sorted(cut.splits["test"].labels) == [0, 0, 1, 1]
    assert set(cut.splits["test"].ids).isdisjoint(cut.splits["train"].ids)
    assert [cut.splits["test"].load(i).size for i in range(4)] == [(6, 5)] * 4


def test_tar_labels_from_json_and_texts(tmp_path: Path) -> None:
    members = {"1.txt": "grüße".encode(), "1.json": json.dumps({"mood": "kind"}).encode(), "2.txt": b""}
    shard(tmp_path / "s.tar", members)
    data = tar_shards({"train": "s.tar"}, str(tmp_path), "text", label="json:mood")
    train = data.splits["train"]
    assert [train.load(0), train.load(1)] == ["grüße", ""]
    assert train.labels.tolist() == [0, -1] and data.classes == ["kind"]


def test_tar_labels_that_are_missing_are_counted_or_refused(tmp_path: Path) -> None:
    def read(members: dict[str, bytes], label: str | None, **options):
        shard(tmp_path / "s.tar", members)
        return tar_shards({"train": "s.tar"}, str(tmp_path), "text", label=label, **options)

    texts = {f"{i}.txt": b"t" for i in range(4)}
    kinds = {f"{i}.json": json.dumps({"kind": "ab"[i % 2]} if i else {"other": 1}).encode() for i in range(3)}
    data = read(texts | kinds, "json:kind")
    assert data.splits["train"].labels.tolist() == [-1, 1, 0, -1]
    assert data.remarks == [
        "items without a label (a member ending in .json): 1 of 4",
        "JSON members without the field 'kind': 1 of 3",
    ]
    with pytest.raises(UserError, match=r"json:knid: no JSON member has this field; did you mean kind"):
        read(texts | kinds, "json:knid")
    with pytest.raises(UserError, match=r"dataset.label=class: no item has a member with this ending"):
        read(texts | kinds, "class")
    assert read(texts, "cls").remarks == ["items without a label (a member ending in .cls): 4 of 4"]
    assert read(texts | kinds, None).remarks == []
    numbers = {f"{i}.cls": b"%d" % (i - 1) for i in range(4)}
    with pytest.raises(UserError, match="dataset.unlabelled=-1"):
        read(texts | numbers, "cls")
    assert read(texts | numbers, "cls", unlabelled=-1).splits["train"].labels.tolist() == [-1, 0, 1, 2]
    with pytest.raises(UserError, match="the label of 0 cannot be read"):
        read(texts | {"0.cls": b"\xff"}, "cls")
    assert read(texts | {"0.cls": "\ufeffa".encode(), "1.cls": b"a"}, "cls").classes == ["a"]


def test_tar_texts_in_another_encoding(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", {"1.txt": "café".encode("cp1252"), "2.txt": "é".encode("utf-16")})
    train = tar_shards({"train": "s.tar"}, str(tmp_path), "text").splits["train"]
    assert train.load(1) == "é"
    with pytest.raises(ItemError, match="not UTF-8 text .*dataset.encoding=cp1252"):
        train.load(0)
    assert tar_shards({"train": "s.tar"}, str(tmp_path), "text", encoding="cp1252").splits["train"].load(0) == "café"
    with pytest.raises(UserError, match="no such encoding"):
        tar_shards({"train": "s.tar"}, str(tmp_path), "text", encoding="cp12522")
    with pytest.raises(UserError, match="dataset.encoding is no option of image data"):
        tar_shards({"train": "s.tar"}, str(tmp_path), encoding="cp1252")


def test_text_files_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.txt").write_bytes("café".encode("cp1252"))
    with pytest.raises(ItemError, match="a/1.txt: not UTF-8 text .*dataset.encoding=cp1252"):
        folder(str(tmp_path), "text").splits["train"].load(0)
    assert folder(str(tmp_path), "text", encoding="cp1252").splits["train"].load(0) == "café"


def test_tar_members_that_are_no_items_are_counted_and_named(tmp_path: Path) -> None:
    named = ("a.png", "a.seg.png", "b.v2.png", "b.v2.cls", "c.heic", "c.cls", "d.jpg", "d.png", "readme.md")
    shard(tmp_path / "s.tar", {name: png() if name.endswith(("png", "jpg")) else b"1" for name in named})
    data = tar_shards({"train": "s.tar"}, str(tmp_path))
    assert data.splits["train"].ids == ["s/a", "s/d"]
    assert [sentence.partition(":")[0] for sentence in data.left_out] == [
        "1 members with more than one dot in their name, such as b.v2.png",
        "3 members that belong to no image",
        "1 image members whose item had one already, such as d.png",
    ]
    assert "1 .heic (such as c.heic), 1 .md (such as readme.md)" in data.left_out[1]
    shard(tmp_path / "s.tar", {"b.v2.png": png(), "b.cls": b"1"})
    with pytest.raises(UserError, match=r"hold no image .*; to read such as b.v2.png say .*endings=\[v2.png\]"):
        tar_shards({"train": "s.tar"}, str(tmp_path))
    assert tar_shards({"train": "s.tar"}, str(tmp_path), endings=["v2.png"]).splits["train"].labels.tolist() == [0]
    shard(tmp_path / "s.tar", {"a.png": png(), "a.cls": b"0"})
    assert tar_shards({"train": "s.tar"}, str(tmp_path)).left_out == []


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    shard(tmp_path / "s.tar", {"1.txt": b"a", "2.txt": b"", "1.cls": b"0", "2.cls": b"1"})
    assert tar_shards({"train": "s.tar"}, str(tmp_path), "text").remarks == ["texts that are empty: 1, the first s/2"]
    for name, texts in (("some", ["a", "", None, " "]), ("none", ["a", "b"])):
        datasets.Dataset.from_dict({"text": texts}).to_parquet(str(tmp_path / f"{name}.parquet"))
    said = [
        hugging_face("parquet", "text", "text", data_files={"Training": str(tmp_path / f"{name}.parquet")})
        for name in ("some", "none")
    ]
    assert said[0].remarks == ["texts that are empty: 3, the first Training:1"] and said[1].remarks == []
    assert list(said[0].splits) == ["train"]


def test_bad_shards(tmp_path: Path) -> None:
    shard(tmp_path / "zip.tar", {"1.png": png()}, "w:gz")
    with pytest.raises(UserError, match="uncompressed tar"):
        tar_shards({"train": "zip.tar"}, str(tmp_path))
    with pytest.raises(UserError, match="no shard .*gone.tar"):
        tar_shards({"train": "gone.tar"}, str(tmp_path))
    with pytest.raises(UserError, match="no shard matches"):
        tar_shards({"train": "*.none"}, str(tmp_path))
    shard(tmp_path / "text.tar", {"1.md": b"x"})
    with pytest.raises(UserError, match="hold no image"):
        tar_shards({"train": "text.tar"}, str(tmp_path))
    shard(tmp_path / "whole.tar", {"1.png": png(size=(300, 300)) + b"\0" * 5000, "2.png": b"", "3.png": b"zzz"})
    raw = (tmp_path / "whole.tar").read_bytes()
    train = tar_shards({"train": "whole.tar"}, str(tmp_path)).splits["train"]
    for index in (1, 2):
        with pytest.raises(ItemError, match=f"whole/{index + 1}"):
            train.load(index)
    (tmp_path / "cut.tar").write_bytes(raw[:2000])
    with pytest.raises(UserError, match="cut.tar"):
        tar_shards({"train": "cut.tar"}, str(tmp_path))


# ---- Hugging Face ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path: Path) -> dict[str, str]:
    datasets = pytest.importorskip("datasets")
    files = {}
    for split, count in (("train", 10), ("validation", 4)):
        rows = datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(i), "path": None} for i in range(count)],
                "text": [f"{split} {i}" if i else None for i in range(count)],
                "label": [i % 2 for i in range(count)],
                "key": [f"k{i}" for i in range(count)],
                "tags": [[0, 1]] * count,
            }
        )
        rows = rows.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=["x", "y"]))
        files[split] = str(tmp_path / f"{split}.parquet")
        rows.to_parquet(files[split])
    return files


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face(parquet: dict[str, str], streaming: bool, tmp_path: Path) -> None:
    options = {"data_files": parquet, "label_column": "label", "streaming": streaming, "cache_dir": str(tmp_path)}
    data = hugging_face("parquet", "image", "image", {"train": "train", "test": "validation"}, **options)
    train, test = data.splits["train"], data.splits["test"]
    assert data.classes == ["x", "y"] and len(train) == 10 and test.labels.tolist() == [0, 1, 0, 1]
    assert test.ids == [f"validation:{i}" for i in range(4)]
    order = [0, 1, 2, 7, 3, 3, 9]
    assert [train.load(i).getpixel((0, 0))[0] for i in order] == order
    assert pickle.loads(pickle.dumps(train)).load(5).mode == "RGB"
    texts = hugging_face("parquet", "text", "text", id_column="key", **options)
    assert list(texts.splits) == ["train", "validation"]
    assert texts.splits["train"].ids[3] == "k3" and texts.splits["train"].load(3) == "train 3"
    assert texts.splits["train"].load(0) == ""
    assert texts.fingerprint != data.fingerprint


def test_counting_a_stream_decodes_nothing(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    cells = [{"bytes": png(7), "path": None}, {"bytes": b"no image", "path": None}]
    rows = datasets.Dataset.from_dict({"image": cells}).cast_column("image", datasets.Image())
    rows.to_parquet(str(tmp_path / "a.parquet"))
    files = {"train": str(tmp_path / "a.parquet")}
    options = {"data_files": files, "streaming": True, "cache_dir": str(tmp_path)}
    train = hugging_face("parquet", "image", "image", **options).splits["train"]
    assert train.ids == ["train:0", "train:1"] and train.load(0).getpixel((0, 0)) == (7, 7, 7)
    with pytest.raises(ItemError, match="train:1"):
        train.load(1)


def test_hugging_face_share_saved_folder_and_sounds(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    sound = {"bytes": wav(np.zeros(160), 8000), "path": None}
    rows = datasets.Dataset.from_dict({"audio": [sound] * 10, "label": ["a", "b"] * 5})
    rows = rows.cast_column("audio", datasets.Audio(sampling_rate=16000))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "saved"))
    data = hugging_face(str(tmp_path / "saved"), "audio", "audio", label_column="label", test_fraction=0.2)
    test = data.splits["test"]
    assert sorted(test.labels) == [0, 1] and data.classes == ["a", "b"] and data.name == "saved"
    assert test.load(1).samples.shape == (160,) and test.load(1).rate == 8000
    assert int(test.ids[0].removeprefix("train:")) >= 0


def test_hugging_face_mistakes(parquet: dict[str, str], tmp_path: Path) -> None:
    def read(column: str, **options):
        return hugging_face("parquet", "text", column, data_files=parquet, cache_dir=str(tmp_path), **options)

    with pytest.raises(UserError, match="no column 'txet'; did you mean text"):
        read("txet")
    with pytest.raises(UserError, match="no split 'test'"):
        read("text", splits={"test": "test"})
    with pytest.raises(UserError, match="multi-label"):
        read("text", label_column="tags")
    with pytest.raises(UserError, match="data set parquet could not be had"):
        hugging_face("parquet", "text", "text", data_files={"train": str(tmp_path / "no.parquet")})


def rows_of(tmp_path: Path, name: str, **cells: list) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict(cells).to_parquet(str(tmp_path / f"{name}.parquet"))
    return str(tmp_path / f"{name}.parquet")


def test_hugging_face_bytes_are_text_and_structures_are_refused(tmp_path: Path) -> None:
    cells = {"t": ["café".encode(), b"dog"], "y": [b"x", b"y"], "k": [b"k1", b"k2"], "tags": [["a"], ["b"]]}
    options = {"data_files": {"train": rows_of(tmp_path, "a", **cells)}, "cache_dir": str(tmp_path)}
    data = hugging_face("parquet", "text", "t", label_column="y", id_column="k", **options)
    train = data.splits["train"]
    assert (
        [train.load(0), train.load(1)] == ["café", "dog"] and train.ids == ["k1", "k2"] and data.classes == ["x", "y"]
    )
    texts = {"train": rows_of(tmp_path, "b", t=["a", "b"])}
    plain = hugging_face("parquet", "text", "t", data_files=texts, cache_dir=str(tmp_path))
    rows = {part: split.rows._fingerprint for part, split in plain.splits.items()}
    assert plain.fingerprint == fingerprint(plain.splits, None, ["parquet", None, None, "t"], rows.values())
    rows = {part: split.rows._fingerprint for part, split in data.splits.items()}
    assert data.fingerprint != fingerprint(data.splits, data.classes, ["parquet", None, None, "t"], rows.values())
    with pytest.raises(ItemError, match="train:0: a cell of type list is no text"):
        hugging_face("parquet", "text", "tags", **options).splits["train"].load(0)
    with pytest.raises(UserError, match="cannot be an id"):
        hugging_face("parquet", "text", "t", id_column="tags", **options)


def test_hugging_face_splits_that_spell_their_columns_each_in_its_way(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = {"train": "NFC", "test": "NFD"}
    spelled = {split: [unicodedata.normalize(form, name) for name in ("thé", "clé")] for split, form in names.items()}
    both = datasets.DatasetDict(
        {split: datasets.Dataset.from_dict({t: [split, "b"], y: ["x", "y"]}) for split, (t, y) in spelled.items()}
    )
    both.save_to_disk(str(tmp_path / "saved"))
    data = hugging_face(str(tmp_path / "saved"), "text", "thé", label_column="clé")
    for split in spelled:
        assert data.splits[split].load(0) == split and data.splits[split].labels.tolist() == [0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_labels_that_are_ids_too(tmp_path: Path, streaming: bool) -> None:
    files = {"train": rows_of(tmp_path, "a", t=["one", "two"], y=["u", "v"])}
    options = {"data_files": files, "cache_dir": str(tmp_path), "streaming": streaming}
    train = hugging_face("parquet", "text", "t", label_column="y", id_column="y", **options).splits["train"]
    assert train.ids == ["u", "v"] and train.labels.tolist() == [0, 1]


def test_hugging_face_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def read(label_column: str = "y", **options):
        return hugging_face("parquet", "text", "t", label_column=label_column, cache_dir=str(tmp_path), **options)

    plain = {"train": rows_of(tmp_path, "a", t=["a", "b", "c"], y=[-1, 0, 1])}
    with pytest.raises(UserError, match="dataset.unlabelled=-1"):
        read(data_files=plain)
    assert read(data_files=plain, unlabelled=-1).splits["train"].labels.tolist() == [-1, 0, 1]
    assert read(data_files=plain, unlabelled=-1, classes=["no", "yes"]).classes == ["no", "yes"]
    files = {}
    for split, names in (("train", ["1", "2", "3"]), ("test", ["3", "2", "1"])):  # places, whatever the names look like
        rows = datasets.Dataset.from_dict({"t": ["a", "b", "c"], "y": [1, 2, -1]})
        rows = rows.cast_column("y", datasets.ClassLabel(names=names))
        files[split] = str(tmp_path / f"{split}.parquet")
        rows.to_parquet(files[split])
    data = read(data_files={"train": files["train"]})
    assert data.splits["train"].labels.tolist() == [1, 2, -1] and data.classes == ["1", "2", "3"]
    with pytest.raises(UserError, match="has names for its classes already"):
        read(data_files={"train": files["train"]}, classes=["a", "b", "c"])


def test_hugging_face_names_are_found_in_any_unicode_form(tmp_path: Path) -> None:
    files = {"train": rows_of(tmp_path, "a", **{"cafe\u0301": ["a", "b"]})}
    data = hugging_face("parquet", "text", "caf\u00e9", data_files=files, cache_dir=str(tmp_path))
    assert data.splits["train"].load(1) == "b"


def test_csv_files_that_the_library_would_misread_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    path = tmp_path / "a.csv"
    for text, said in (
        ("t,y\nhello, you,a\nb,c\n", "line 2: 3 fields"),
        ("t,y\na,007\nb,7\n", "007 in 'y' would become 7"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"{said}.*dataset=table"):
            hugging_face("csv", "text", "t", label_column="y", data_files=str(path), cache_dir=str(tmp_path))
    path.write_text('t,y\n"a, b",x\nb,y\n')
    data = hugging_face("csv", "text", "t", label_column="y", data_files={"train": str(path)}, cache_dir=str(tmp_path))
    assert data.splits["train"].load(0) == "a, b"


# ---- torchvision ----------------------------------------------------------------------------------------------------


def test_torchvision_by_class_name_with_joined_splits(tmp_path: Path) -> None:
    meta = tmp_path / "dtd/dtd/labels"
    meta.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (meta / f"{split}1.txt").write_text(f"a/{split}.png\nb/{split}.png\n")
        for name in "ab":
            place = tmp_path / f"dtd/dtd/images/{name}/{split}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png())
    splits = {"train": [{"split": "train"}, {"split": "val"}], "test": {"split": "test"}}
    data = torchvision_dataset("DTD", str(tmp_path), splits)
    train = data.splits["train"]
    assert train.labels.tolist() == [0, 1, 0, 1] and data.classes == ["a", "b"] and data.name == "dtd"
    assert train.ids[2] == "dtd/dtd/images/a/val.png" and train.load(3).mode == "RGB"
    assert data.fingerprint != torchvision_dataset("DTD", str(tmp_path)).fingerprint
    os.truncate(tmp_path / "dtd/dtd/images/b/val.png", 30)
    with pytest.raises(ItemError, match="images/b/val.png"):
        train.load(3)
    with pytest.raises(UserError, match="DTD.*'nope'"):
        torchvision_dataset("DTD", str(tmp_path), {"train": {"split": "nope"}})


def test_splits_that_number_their_own_classes_are_put_together_by_name(tmp_path: Path) -> None:
    for split, kinds in (("train", "ab"), ("valid", "b"), ("test", "bc")):
        for name in kinds:
            place = tmp_path / "country211" / split / name / "1.png"
            place.parent.mkdir(parents=True)
            place.write_bytes(png())
    data = torchvision_dataset("Country211", str(tmp_path), {s: {"split": s} for s in ("train", "valid", "test")})
    assert data.classes == ["a", "b", "c"]
    assert {s: part.labels.tolist() for s, part in data.splits.items()} == {
        "train": [0, 1],
        "valid": [1],
        "test": [1, 2],
    }


def test_a_damaged_published_table_is_a_sentence(tmp_path: Path) -> None:
    files = {
        "images": "\ufeff1 a/1.jpg\n2 b/2.jpg\n",
        "image_class_labels": "1 1\n2 2\n",
        "train_test_split": "1 1\n2 0\n",
    }
    for name, text in (files | {"classes": "1 a\n2 b\n"}).items():
        (tmp_path / f"{name}.txt").write_text(text)
    data = cub200(str(tmp_path))
    assert data.splits["test"].labels.tolist() == [1] and data.classes == ["a", "b"]
    for wrong, said in (("1 1\n2\n", "image 2 .* has no class"), ("1 1\n2 3\n", "image 2 has class 3")):
        (tmp_path / "image_class_labels.txt").write_text(wrong)
        with pytest.raises(UserError, match=said):
            cub200(str(tmp_path))


def test_torchvision_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean .*CIFAR10"):
        torchvision_dataset("CIFAR11", str(tmp_path))
    with pytest.raises(UserError, match=r"Food101 is not below .* could not be downloaded"):
        torchvision_dataset("Food101", str(tmp_path), download=False)
    with pytest.raises(UserError, match=r"StanfordCars is not below .*broken"):
        torchvision_dataset("StanfordCars", str(tmp_path))


def test_grey_torchvision_sets_stay_grey(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 3), ("t10k", 2)):
        images = np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4)
        head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(range(count))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    data = torchvision_dataset("MNIST", str(tmp_path))
    assert data.splits["train"].labels.tolist() == [0, 1, 2] and len(data.classes) == 10
    image = data.splits["test"].load(1)
    assert image.mode == "L" and image.getpixel((1, 0)) == 17
