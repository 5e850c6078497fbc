"""Every config of conf/dataset, offline, against a tiny stand-in of its published on-disk format."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from alfm.datasets.base import Audio, Dataset

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (200, 10, 10)).save(path)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def table(path: Path, header: list[str], *rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def class_folders(place: str, ending: str = "jpg", per_class: int = 5, split: str = "") -> Callable[[Path], None]:
    def build(data: Path) -> None:
        for name in ("one", "two"):
            for number in range(per_class):
                picture(data / place / split / name / f"{number}.{ending}")

    return build


def with_splits(place: str, *splits: str) -> Callable[[Path], None]:
    def build(data: Path) -> None:
        for split in splits:
            class_folders(place, split=split)(data)

    return build


def cifar(folder: str, files: dict[str, str], meta: tuple[str, str]) -> Callable[[Path], None]:
    def build(data: Path) -> None:
        (data / folder).mkdir(parents=True)
        for file, key in files.items():
            entry = {"data": np.zeros((4, 3072), np.uint8), key: [0, 1, 0, 1]}
            (data / folder / file).write_bytes(pickle.dumps(entry))
        (data / folder / meta[0]).write_bytes(pickle.dumps({meta[1]: ["one", "two"]}))

    return build


def food101(data: Path) -> None:
    for split in ("train", "test"):
        listed = {name: [f"{name}/{split}{i}" for i in range(2)] for name in ("one", "two")}
        lines(data / f"food-101/meta/{split}.json", json.dumps(listed))
        for path in sum(listed.values(), []):
            picture(data / f"food-101/images/{path}.jpg")


def cars(data: Path) -> None:
    base = data / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    kind = [("class", "O"), ("fname", "O")]
    rows = np.array([(1, "a.jpg"), (2, "b.jpg")], dtype=kind)
    scipy.io.savemat(base / "devkit/cars_train_annos.mat", {"annotations": rows})
    scipy.io.savemat(base / "cars_test_annos_withlabels.mat", {"annotations": rows})
    scipy.io.savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["one", "two"], dtype=object)})
    for split in ("train", "test"):
        picture(base / f"cars_{split}/a.jpg"), picture(base / f"cars_{split}/b.jpg")


def aircraft(data: Path) -> None:
    base = data / "fgvc-aircraft-2013b/data"
    lines(base / "variants.txt", "one 1", "two")
    for split in ("trainval", "test"):
        lines(base / f"images_variant_{split}.txt", f"{split}0 one 1", f"{split}1 two")
        picture(base / f"images/{split}0.jpg"), picture(base / f"images/{split}1.jpg")


def dtd(data: Path) -> None:
    for split in ("train", "test"):
        lines(data / f"dtd/dtd/labels/{split}1.txt", f"one/{split}.jpg", f"two/{split}.jpg")
        picture(data / f"dtd/dtd/images/one/{split}.jpg"), picture(data / f"dtd/dtd/images/two/{split}.jpg")


def pets(data: Path) -> None:
    for split in ("trainval", "test"):
        lines(data / f"oxford-iiit-pet/annotations/{split}.txt", f"Big_Cat_{split} 1 1 1", f"dog_{split} 2 2 1")
        for name in ("Big_Cat", "dog"):
            picture(data / f"oxford-iiit-pet/images/{name}_{split}.jpg")


def flowers(data: Path) -> None:
    base = data / "flowers-102"
    for number in range(1, 5):
        picture(base / f"jpg/image_{number:05d}.jpg")
    scipy.io.savemat(base / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [3, 4]})
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [1, 2, 1, 2]})


def svhn(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        digits = {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.array([[10], [1], [2], [3]])}
        scipy.io.savemat(data / f"{split}_32x32.mat", digits)


def places365(data: Path) -> None:
    lines(data / "categories_places365.txt", "/o/one 0", "/t/two 1")
    lines(data / "places365_train_standard.txt", "/o/one/1.jpg 0", "/t/two/1.jpg 1")
    lines(data / "places365_val.txt", "val1.jpg 0", "val2.jpg 1")
    for path in ("data_256_standard/o/one/1", "data_256_standard/t/two/1", "val_256/val1", "val_256/val2"):
        picture(data / f"{path}.jpg")


def patch_camelyon(data: Path) -> None:
    (data / "pcam").mkdir(parents=True)
    for split in ("train", "test"):
        with h5py.File(data / f"pcam/camelyonpatch_level_2_split_{split}_x.h5", "w") as file:
            file["x"] = np.zeros((3, 96, 96, 3), np.uint8)
        with h5py.File(data / f"pcam/camelyonpatch_level_2_split_{split}_y.h5", "w") as file:
            file["y"] = np.array([0, 1, 1], np.uint8).reshape(3, 1, 1, 1)


def inat2021(data: Path) -> None:
    for split in ("2021_train", "2021_valid"):
        for number, name in enumerate(("Animalia_Chordata_Aves_A_B_C_one", "Plantae_P_M_A_B_C_two")):
            picture(data / f"{split}/{number:05d}_{name}/x.jpg")


def cub200(data: Path) -> None:
    base = data / "CUB_200_2011"
    lines(base / "images.txt", "1 001.one/a.jpg", "2 001.one/b.jpg", "3 002.two/a.jpg", "4 002.two/b.jpg")
    lines(base / "image_class_labels.txt", "1 1", "2 1", "3 2", "4 2")
    lines(base / "train_test_split.txt", "1 1", "2 0", "3 1", "4 0")
    lines(base / "classes.txt", "1 001.one", "2 002.two")
    for path in ("001.one/a", "001.one/b", "002.two/a", "002.two/b"):
        picture(base / f"images/{path}.jpg")


def tinyimagenet(data: Path) -> None:
    base = data / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        picture(base / f"train/{name}/images/{name}_0.JPEG")
    lines(base / "val/val_annotations.txt", "val_0.JPEG\tn01\t0\t0\t5\t5", "val_1.JPEG\tn02\t0\t0\t5\t5")
    picture(base / "val/images/val_0.JPEG"), picture(base / "val/images/val_1.JPEG")


def domainnetreal(data: Path) -> None:
    base = data / "domainnet_real"
    for split in ("train", "test"):
        lines(base / f"real_{split}.txt", f"real/one/{split}.jpg 0", f"real/two/{split}.jpg 1")
        picture(base / f"real/one/{split}.jpg"), picture(base / f"real/two/{split}.jpg")


def ham10000(data: Path) -> None:
    rows = []
    for number in range(10):
        picture(data / f"ham10000/HAM10000_images_part_{1 + number % 2}/ISIC_{number}.jpg")
        rows.append(["HAM_0", f"ISIC_{number}", ["nv", "mel"][number // 5]])
    table(data / "ham10000/HAM10000_metadata.csv", ["lesion_id", "image_id", "dx"], *rows)


def diabetic_retinopathy(data: Path) -> None:
    rows = [[f"{number}_left", number % 2] for number in range(10)]
    for name, _ in rows:
        picture(data / f"diabetic_retinopathy/train/{name}.jpeg")
    table(data / "diabetic_retinopathy/trainLabels.csv", ["image", "level"], *rows)


def colon_polyps(data: Path) -> None:
    rows = [[f"MHIST_{i}.png", ["SSA", "HP"][i % 2], 6, ["train", "test"][i // 2]] for i in range(4)]
    for row in rows:
        picture(data / f"colon_polyps/images/{row[0]}")
    header = ["Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition"]
    table(data / "colon_polyps/annotations.csv", header, *rows)


def pap_smear_2018(data: Path) -> None:
    for name in ("im_Koilocytotic", "im_Metaplastic"):
        picture(data / f"pap_smear_2018/{name}/{name}/001.bmp")
        for number in range(5):
            picture(data / f"pap_smear_2018/{name}/{name}/CROPPED/001_0{number}.bmp")


def cell_cycle(data: Path) -> None:
    for name in ("G1", "S"):
        for number in range(5):
            for channel in (3, 4, 6):
                picture(data / f"cell_cycle/{name}/{number}_Ch{channel}.ome.jpg")


def speech_commands(data: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    base = data / "speech_commands_v0.02"
    for name in ("_background_noise_", "one", "two"):
        (base / name).mkdir(parents=True)
        for number in range(3):
            soundfile.write(base / name / f"{number}.wav", np.zeros(1600), 16000)
    lines(base / "validation_list.txt", "one/0.wav", "two/0.wav")
    lines(base / "testing_list.txt", "one/1.wav", "two/1.wav")


def text_folder(data: Path) -> None:
    (data / "mine").mkdir(parents=True)
    (data / "mine/a.txt").write_text("a text")


def audio_folder(data: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    (data / "mine/one").mkdir(parents=True)
    soundfile.write(data / "mine/one/a.wav", np.zeros(1600), 16000)


def hub(place: str, **columns: list) -> Callable[[Path], None]:
    def build(data: Path) -> None:
        datasets = pytest.importorskip("datasets")
        names = datasets.ClassLabel(names=["one", "two"])
        for split in ("train", "test"):
            rows = datasets.Dataset.from_dict(columns).cast_column("label", names)
            (data / place).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(data / place / f"{split}.parquet"))

    return build


def one_table(data: Path) -> None:
    picture(data / "mine/a.jpg")
    table(data / "mine.csv", ["path", "text", "label"], ["mine/a.jpg", "hello", "one"])


def tar_shards(data: Path) -> None:
    import io
    import tarfile

    data.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, "PNG")
    with tarfile.open(data / "train-0.tar", "w") as archive:
        for name, raw in (("a.png", buffer.getvalue()), ("a.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


CIFAR10 = {f"data_batch_{i}": "labels" for i in range(1, 6)} | {"test_batch": "labels"}
STAND_INS: dict[str, tuple[Callable[[Path], None] | None, list[str], set[str]]] = {
    # name: what is on disk, overrides, the splits that must come out
    "digits": (None, [], {"train", "test"}),
    "cifar10": (cifar("cifar-10-batches-py", CIFAR10, ("batches.meta", "label_names")), [], {"train", "test"}),
    "cifar100": (
        cifar("cifar-100-python", {"train": "fine_labels", "test": "fine_labels"}, ("meta", "fine_label_names")),
        [],
        {"train", "test"},
    ),  # fmt: skip
    "tinyimagenet": (tinyimagenet, [], {"train", "test"}),
    "imagenet": (with_splits("imagenet", "train", "val"), [], {"train", "test"}),
    "imagenet100": (with_splits("imagenet100", "train", "val"), [], {"train", "test"}),
    "colorectal_histology": (
        class_folders("colorectal_histology/Kather_texture_2016_image_tiles_5000", "tif"),
        [],
        {"train", "test"},
    ),  # fmt: skip
    "malaria": (class_folders("malaria/cell_images", "png"), [], {"train", "test"}),
    "heart_failure": (with_splits("heart_failure", "train", "test"), [], {"train", "test"}),
    "amyloid_beta_bal": (with_splits("amyloid_beta", "train", "test"), [], {"train", "test"}),
    "amyloid_beta_unbal": (with_splits("amyloid_beta", "train", "test"), [], {"train", "test"}),
    "iicbu_hela": (class_folders("iicbu_hela", "tif"), [], {"train", "test"}),
    "iicbu_lymphoma": (class_folders("iicbu_lymphoma", "tif"), [], {"train", "test"}),
    "ag_news": (
        hub("ag_news", text=["a", "b"], label=[0, 1]),
        ["dataset.path={data}/ag_news"],
        {"train", "test"},
    ),  # fmt: skip
    "speech_commands": (speech_commands, [], {"train", "val", "test"}),
    "image_folder": (class_folders("mine"), ["dataset.root={data}/mine"], {"train"}),
    "text_folder": (text_folder, ["dataset.root={data}/mine"], {"train"}),
    "audio_folder": (audio_folder, ["dataset.root={data}/mine"], {"train"}),
    "table": (one_table, ["dataset.path={data}/mine.csv"], {"train"}),
    "text_table": (one_table, ["dataset.path={data}/mine.csv", "dataset.label_column=label"], {"train"}),
    "torchvision": (dtd, ["dataset.class_name=DTD"], {"train", "test"}),
    "hugging_face": (
        hub("mine", text=["a", "b"], label=[0, 1]),
        ["dataset.path={data}/mine", "dataset.modality=text", "dataset.column=text"],
        {"train", "test"},
    ),  # fmt: skip
    "tar_shards": (tar_shards, ["dataset.root={data}", "dataset.splits={{train: train-0.tar}}"], {"train"}),
}
for own in (food101, cars, aircraft, dtd, pets, flowers, svhn, places365, patch_camelyon, inat2021, cub200):
    STAND_INS[own.__name__] = (own, [], {"train", "test"})
for own in (domainnetreal, ham10000, diabetic_retinopathy, colon_polyps, pap_smear_2018, cell_cycle):
    STAND_INS[own.__name__] = (own, [], {"train", "test"})
for plain in ("blood_smear", "pap_smear_2019", "pollen"):
    STAND_INS[plain] = (class_folders(plain), [], {"train", "test"})


@pytest.mark.parametrize("name", NAMES)
def test_every_config_reads_its_format(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, overrides, splits = STAND_INS[name]
    data = tmp_path / "data"
    if build is not None:
        build(data)
    for module in ("cifar", "flowers102", "svhn", "places365"):  # a stand-in cannot have the published checksums
        check = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(check, lambda path, md5=None: Path(path).is_file())
    monkeypatch.setenv("DATASET_DIR", str(data))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+dataset={name}", *(text.format(data=data) for text in overrides)])
    dataset = instantiate(cfg.dataset)
    assert isinstance(dataset, Dataset) and set(dataset.splits) == splits
    assert cfg.dataset.name in (None, dataset.name)
    for split in dataset.splits.values():
        assert len(split) == len(split.ids) == len(split.labels) > 0 and split.labels.dtype == np.int64
        assert len(set(split.ids)) == len(split)
        item = split.load(len(split) - 1)
        if dataset.modality == "image":
            assert item.mode in ("RGB", "L") and item.size[0] > 0
        else:
            assert isinstance(item, str if dataset.modality == "text" else Audio)
        assert pickle.loads(pickle.dumps(split)).load(0) is not None
    if name not in (
        "table",
        "audio_folder",
        "tar_shards",
        "text_table",
        "text_folder",
    ):  # these stand-ins have one item
        assert len(dataset.classes) >= 2
        assert set(dataset.splits["train"].labels) >= {0, 1}
    again = instantiate(cfg.dataset)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_every_config_names_its_licence(name: str) -> None:
    text = (CONF / "dataset" / f"{name}.yaml").read_text()
    general = {"image_folder", "audio_folder", "text_folder", "table", "text_table"}
    general |= {"torchvision", "hugging_face", "tar_shards"}
    assert text.startswith("# ")
    assert name in general or ("Source:" in text and "Licence:" in text)


def test_the_experiments_of_others_have_their_data_sets() -> None:
    foundation = """cifar10 cifar100 food101 cars aircraft dtd pets flowers svhn places365 cub200 domainnetreal
        imagenet100 inat2021 blood_smear ham10000 diabetic_retinopathy patch_camelyon malaria colorectal_histology
        pap_smear_2018 pap_smear_2019 heart_failure iicbu_hela iicbu_lymphoma amyloid_beta_bal
        amyloid_beta_unbal cell_cycle colon_polyps pollen"""
    other = "tinyimagenet imagenet ag_news speech_commands"
    assert set((foundation + " " + other).split()) <= set(NAMES)
