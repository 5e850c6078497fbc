"""Ordinary data sets keep fingerprint, order, split and class numbers: digests stored from the version before readings
became strict. One that changes makes people embed everything again, so it must be meant."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from alfm.datasets.arrays import digits
from alfm.datasets.base import Dataset
from alfm.datasets.folder import folder
from alfm.datasets.table import table
from alfm.datasets.tar_shards import tar_shards

TEXT = {"modality": "text", "column": "text", "label_column": "label"}


def rows(count: int = 60) -> list[tuple[str, str]]:
    return [(f"sentence {i}, which is {'short' if i % 3 else 'long'}", f"class {i * i % 7}") for i in range(count)]


def frame(count: int = 60, **columns: list) -> pd.DataFrame:
    return pd.DataFrame({"text": [t for t, _ in rows(count)], "label": [y for _, y in rows(count)], **columns})


def pictures(root: Path, count: int = 24) -> list[str]:
    made = []
    for i in range(count):
        path = root / "img" / f"kind {i % 3}" / f"é {i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + i % 2, 3), (i, 0, 0)).save(path)
        made.append(str(path.relative_to(root)))
    return made


def names(tmp: Path) -> Dataset:
    frame().to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), **TEXT)


def share(tmp: Path) -> Dataset:
    frame().to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), test_fraction=0.25, seed=3, **TEXT)


def numbers(tmp: Path) -> Dataset:
    frame(label=[str(i % 12) for i in range(60)]).to_csv(tmp / "a.csv")
    return table(str(tmp / "a.csv"), id_column="Unnamed: 0", **TEXT)


def gaps(tmp: Path) -> Dataset:
    frame(label=[i % 3 * 5 + 1 for i in range(60)]).to_csv(tmp / "a.tsv", index=False, sep="\t")
    return table(str(tmp / "a.tsv"), **TEXT)


def partly_labelled(tmp: Path) -> Dataset:
    frame(label=["" if i % 4 else "yes" if i % 8 else "no" for i in range(60)]).to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), **TEXT)


def line_breaks(tmp: Path) -> Dataset:
    texts = [f'one "{i}"\nand, more\n\nthan that' if i % 5 else f"it's {i}' 5\" tall" for i in range(60)]
    frame(text=texts).to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), **TEXT)


def per_split(tmp: Path) -> Dataset:
    frame(30).to_csv(tmp / "a.csv", index=False, quoting=1)
    frame(60).iloc[30:].to_csv(tmp / "b.csv", index=False, lineterminator="\r\n", encoding="utf-8-sig")
    return table(files={"train": str(tmp / "a.csv"), "test": str(tmp / "b.csv")}, **TEXT)


def given_classes(tmp: Path) -> Dataset:
    frame(label=[i % 3 for i in range(60)]).to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), classes=["good", "bad", "middling", "never"], **TEXT)


def no_header(tmp: Path) -> Dataset:
    (tmp / "a.txt").write_text("".join(f"img/{i}.jpg {i % 4}\n" for i in range(20)))
    return table(str(tmp / "a.txt"), label_column="label", separator=" ", columns=["path", "label"])


def paths(tmp: Path) -> Dataset:
    made = pictures(tmp)
    cells = {"file": made, "kind": [i % 3 for i in range(24)], "part": ["train", "test", "train"] * 8}
    pd.DataFrame(cells).to_csv(tmp / "a.csv", index=False)
    return table(str(tmp / "a.csv"), column="file", label_column="kind", split_column="part", max_pixels=1000)


def keys(tmp: Path) -> Dataset:
    made = pictures(tmp)
    cells = {"key": [path.removeprefix("img/").removesuffix(".bmp") for path in made], "y": list("ab") * 12}
    pd.DataFrame(cells).to_csv(tmp / "a.csv", index=False)
    return table(
        str(tmp / "a.csv"), column="key", label_column="y", path_format=["none/{}.bmp", "img/{}.bmp"], id_column="key"
    )


def parquet(tmp: Path) -> Dataset:
    pytest.importorskip("pyarrow")
    labels = [float(i % 5) if i % 6 else float("nan") for i in range(60)]
    frame(label=labels, key=range(60)).to_parquet(tmp / "a.parquet")
    return table(str(tmp / "a.parquet"), id_column="key", **TEXT)


def categories(tmp: Path) -> Dataset:
    pytest.importorskip("pyarrow")
    data = frame(label=[f"c{i % 3}" for i in range(60)])
    data["label"] = data["label"].astype("category")
    data.to_parquet(tmp / "a.parquet")
    return table(str(tmp / "a.parquet"), **TEXT)


def class_folders(tmp: Path) -> Dataset:
    pictures(tmp)
    return folder(str(tmp / "img"), test_fraction=0.25)


def balanced(tmp: Path) -> Dataset:
    pictures(tmp, 23)
    return folder(str(tmp / "img"), balance=True)


def shards(tmp: Path) -> Dataset:
    with tarfile.open(tmp / "a.tar", "w") as archive:
        for i in range(20):
            for ending, raw in (("txt", f"text {i}".encode()), ("cls", b"%d\n" % (i % 4))):
                member = tarfile.TarInfo(f"{i:03d}.{ending}")
                member.size = len(raw)
                archive.addfile(member, io.BytesIO(raw))
    return tar_shards({"train": "a.tar"}, str(tmp), "text", test_fraction=0.5, name="shards")


def sklearn_digits(tmp: Path) -> Dataset:
    return digits()


STORED: dict[Callable[[Path], Dataset], str] = {
    names: "fd37fb5af93eff81a3bff823ed81b520 30062bc8415c8d35",
    share: "492a1e2b51118775366e73b955f5523a 8c2c7478999fe957",
    numbers: "6535ac63399f27013c33e5b59eba1916 dff47dd2349f8aff",
    gaps: "e4046229cd663aa71cb1a4f955292315 052f9b89f0389127",
    partly_labelled: "3cef26c71d018d2398abc9ee0e477a7b 2d7b9fd21bfe0f9c",
    line_breaks: "3c7d3f349bdb33f199317324628c08c8 30062bc8415c8d35",
    per_split: "c6d55568c5de24ca92e217433646084f 5f55b021648f5e89",
    given_classes: "65c1cc6d8b7bc8a4ef1f82d919465ffc e9c05a5b661587fb",
    no_header: "0cb4e1a16f854d925a389af27e4afc53 735538f9ca9cf94e",
    paths: "ebd5e46c49a9fcd7582b2b052b4f7deb 7f6abfff43bb21f6",
    keys: "9bca8847989d5b9d5b53873faa34f2bd 2319eabd08934b91",
    parquet: "e40b00f9aff9791700928884e00e432b 4abeaa42f1e0bec5",
    categories: "bbb86550161790dea074f852241e777a 820e8e5455594396",
    class_folders: "c9b97337362e09fbc2cf02b9807d6aeb 877ac180f7a1003e",
    balanced: "4e2ba7d1ae57209f341b7573c8871d47 3bc7273992a6e9fa",
    shards: "a0f086e47788019551d3c40b44e22203 e38377ab4fc02671",
    sklearn_digits: "9535c5b0ad132851d7926da8476febb5 58a521b2b238f61d",
}


def described(data: Dataset) -> str:
    """Fingerprint, and a digest of what it stands for."""
    pieces = [repr((split, part.ids, np.asarray(part.labels).tolist())) for split, part in data.splits.items()]
    whole = repr((data.name, data.classes, pieces)).encode()
    return f"{data.fingerprint} {hashlib.sha256(whole).hexdigest()[:16]}"


@pytest.mark.parametrize("build", STORED, ids=lambda build: build.__name__)
def test_ordinary_data_sets_are_what_they_were(build: Callable[[Path], Dataset], tmp_path: Path) -> None:
    assert described(build(tmp_path)) == STORED[build]
