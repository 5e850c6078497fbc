"""Recordings, tar shards, Hugging Face data sets, torchvision classes: items, splits and bad input."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm.datasets.audio import mono, read_audio
from alfm.datasets.base import ItemError
from alfm.datasets.folder import folder
from alfm.datasets.hugging_face import hugging_face
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
