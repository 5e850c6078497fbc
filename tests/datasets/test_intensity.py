"""Images of more than 8 bits: one scale for a whole data set, and pixels of all others as they were."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm.datasets.base import Dataset
from alfm.datasets.deep import colour_layout, colour_values
from alfm.datasets.folder import folder
from alfm.datasets.hugging_face import hugging_face
from alfm.datasets.images import read_image
from alfm.datasets.intensity import Reading
from alfm.datasets.table import table
from alfm.datasets.tar_shards import tar_shards
from alfm.datasets.torchvision_data import torchvision_dataset
from alfm.errors import UserError

RNG = np.random.default_rng(0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, *extra: bytes, bits: int = 16) -> bytes:
    """A PNG of grey, grey and alpha, RGB or RGBA values."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = values.astype(">u2" if bits == 16 else "u1")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(values: np.ndarray, tags: dict[int, int] | None = None) -> bytes:
    """A TIFF of grey values (uint16, int16, int32, uint32, float32) or of uint16 RGB(A), uncompressed."""
    height, width, channels = values.reshape(*values.shape[:2], -1).shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = values.dtype.itemsize * 8
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if channels > 2 else 1, 273: 0, 277: channels}
    entries |= {278: height, 279: len(raw), 339: kind} | (tags or {})
    if channels > 1:
        entries |= {258: None, 339: None}
    start = 8 + 2 + 12 * len(entries) + 4
    shorts = b"".join(struct.pack("<H", value) * channels for value in (bits, kind))
    entries[273] = start + len(shorts)
    fields = b""
    for tag in sorted(entries):
        value = entries[tag]
        if value is None:
            offset = start + (0 if tag == 258 else 2 * channels)
            inline = struct.pack("<HH", bits, bits) if channels == 2 else struct.pack("<I", offset)
            fields += struct.pack("<HHI", tag, 3, channels) + inline
        else:
            fields += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + b"\0" * 4 + shorts + raw


def grey(top: int, low: int = 0, dtype: str = "u2") -> np.ndarray:
    """(6, 7) values that reach from `low` to `top`."""
    values = RNG.integers(low, top + 1, (6, 7))
    values[0, 0], values[0, 1] = low, top
    return values.astype(dtype)


def save(root: Path, *images: bytes, ending: str = "tif") -> Path:
    for number, raw in enumerate(images):
        place = root / "ab"[number % 2] / f"{number}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw)
    return root


def pixels(data: Dataset, item_id: str) -> np.ndarray:
    for split in data.splits.values():
        if item_id in split.ids:
            image = split.load(split.ids.index(item_id))
            assert image.mode == "RGB"
            return np.asarray(image, dtype=int)
    raise AssertionError(item_id)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values.astype(float) - low) / (high - low) * 255)


# ---- which scale ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([grey(200), grey(3900)], [0, 4095]),  # 12 bits in 16, with a dark frame
        ([grey(200), grey(256)], [0, 1023]),  # 10 bits: 255 and 256 are one apart, not a factor of 256
        ([grey(200), grey(90)], [0, 255]),
        ([grey(200), grey(60000)], [0, 65535]),
        ([grey(9000), grey(15000)], [0, 16383]),
        ([grey(900, dtype="i4"), grey(2000, dtype="i4")], [0, 4095]),
        ([grey(2000, -1000, "i2"), grey(100, -1024, "i2")], [-1024, 3071]),  # computed tomography
        ([grey(100) / np.float32(100), grey(50) / np.float32(100)], [0, 1]),
        ([grey(100) / np.float32(99.9), grey(50) / np.float32(100)], [0, 1.25]),  # just above 1
        ([grey(3000).astype("f4")], [0, 4095]),
        ([(grey(100, -100, "i2") / 100).astype("f4")], [-1, 1]),
    ],
)
def test_one_scale_for_a_series(tmp_path: Path, series: list[np.ndarray], expected: list[float]) -> None:
    data = folder(str(save(tmp_path, *map(tiff, series))))
    assert data.intensity_range == expected
    assert f"{expected[1]:,} white in all of them" in data.remarks[0] and len(data.remarks) == 1
    for number, values in enumerate(series):
        found = pixels(data, f"{'ab'[number % 2]}/{number}.tif")
        assert np.abs(found[..., 0] - scaled(values, *expected)).max() <= 1


@pytest.mark.parametrize(
    "series",
    [
        [grey(70000, dtype="u4")],
        [grey(3_000_000_000, dtype="u4")],
        [grey(3000, -3000, "i2")],
        [grey(37).astype("f4") / 10],
        [grey(100).astype("f4") / 100, grey(4000)],
    ],
)
def test_no_usual_scale_is_asked_for_and_the_advice_works(tmp_path: Path, series: list[np.ndarray]) -> None:
    root = str(save(tmp_path, *map(tiff, series)))
    with pytest.raises(UserError, match="no usual scale: say which become black and white") as error:
        folder(root)
    told = str(error.value).split("dataset.intensity_range=[")[1].split("]")[0]
    low, high = map(float, told.split(","))
    data = folder(root, intensity_range=[low, high])
    assert data.intensity_range == [low, high] and pixels(data, "a/0.tif").shape == (6, 7, 3)


def test_what_files_say_about_themselves() -> None:
    def scale(*images: bytes) -> list[float] | None:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            return folder(str(save(Path(place), *images, ending="png"))).intensity_range

    dark = grey(200)
    assert scale(tiff(dark, {281: 4095})) == [0, 4095]  # MaxSampleValue
    assert scale(tiff(dark, {281: 65535})) == [0, 65535]
    assert scale(tiff(grey(900), {281: 255})) == [0, 1023]  # it does not hold
    assert scale(png(dark, chunk(b"sBIT", b"\x0c"))) == [0, 4095]
    assert scale(png(grey(60000), chunk(b"sBIT", b"\x0c"))) == [0, 65535]  # scaled up, as the format has it
    assert scale(png(np.repeat(dark[..., None], 3, -1), chunk(b"sBIT", b"\x0a\x0a\x0a"))) == [0, 1023]
    with_alpha = np.concatenate([np.repeat(dark[..., None], 3, -1), np.full((6, 7, 1), 65535)], -1)
    assert scale(png(with_alpha, chunk(b"sBIT", b"\x0a\x0a\x0a\x10"))) == [0, 1023]
    pgm = b"P5 7 6 4095\n" + dark.astype(">u2").tobytes()
    assert scale(pgm) == [0, 65535]  # Pillow has scaled it by its own maximum already


def test_an_item_beyond_the_scale_stops_with_its_id_and_the_advice_works(tmp_path: Path) -> None:
    train = folder(str(save(tmp_path, tiff(grey(900)), tiff(grey(1000))))).splits["train"]
    (tmp_path / "a/0.tif").write_bytes(tiff(grey(3000)))
    with pytest.raises(
        UserError, match=r"^a/0.tif has values from 0 to 3000, beyond the range from 0 to 1023 .*: widen"
    ) as error:
        train.load(0)
    assert "'dataset.intensity_range=[0,4095]'" in str(error.value) and "intensity_clip=true" in str(error.value)
    wide = folder(str(tmp_path), intensity_range=[0, 4095])
    assert wide.fingerprint != folder(str(tmp_path)).fingerprint
    assert pixels(wide, "a/0.tif").max() == round(3000 / 4095 * 255)
    window = folder(str(tmp_path), intensity_range=[100, 500], intensity_clip=True)
    found = pixels(window, "a/0.tif")
    assert found.min() == 0 and found.max() == 255


def test_infinite_values_stop_and_nan_is_black(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 42, dtype="f4").reshape(6, 7)
    values[0, 1], values[0, 2] = np.nan, np.inf
    data = folder(str(save(tmp_path, tiff(values))))
    assert data.intensity_range == [0, 1]
    with pytest.raises(UserError, match="a/0.tif has values from 0 to inf"):
        data.splits["train"].load(0)
    assert pixels(folder(str(tmp_path), intensity_range=[0, 1], intensity_clip=True), "a/0.tif")[0, :3, 0].tolist() == [
        0,
        0,
        255,
    ]


def test_a_deep_image_among_others_that_the_sample_missed(tmp_path: Path) -> None:
    root = save(tmp_path, png(grey(255), bits=8), png(grey(200), bits=8), ending="png")
    train = folder(str(root)).splits["train"]
    (root / "a/0.png").write_bytes(png(grey(3000)))
    with pytest.raises(UserError, match=r"a/0.png .* to 3000, deeper than the 8 bits .*intensity_range=\[0,4095\]'"):
        train.load(0)
    values = grey(60000)
    (root / "a/0.png").write_bytes(png(values))  # nothing but 16 bits holds it
    assert np.abs(np.asarray(train.load(0))[..., 0] - scaled(values, 0, 65535)).max() <= 1


@pytest.mark.parametrize("given", [3, [1], [2, 1], [0, float("inf")], ["a", "b"], [1, 1], [True, 5], {"a": 1}])
def test_ranges_that_are_none(tmp_path: Path, given: object) -> None:
    with pytest.raises(UserError, match="intensity_range=.*: give the values that become black and white"):
        folder(str(save(tmp_path, tiff(grey(900)))), intensity_range=given)
    with pytest.raises(UserError, match="intensity_clip=maybe"):
        folder(str(tmp_path), intensity_clip="maybe")


# ---- every source of images -----------------------------------------------------------------------------------------


def as_folder(place: Path, **options: object) -> Dataset:
    return folder(str(place / "images"), **options)


def as_table(place: Path, **options: object) -> Dataset:
    files = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.tif"))
    (place / "t.csv").write_text("path\n" + "\n".join(files))
    return table(str(place / "t.csv"), **options)


def as_tar(place: Path, **options: object) -> Dataset:
    with tarfile.open(place / "s.tar", "w") as archive:
        for path in sorted(place.rglob("*.tif")):
            archive.add(path, path.name)
    return tar_shards({"train": "s.tar"}, str(place), **options)


def as_hub(place: Path, streaming: bool = False, **options: object) -> Dataset:
    datasets = pytest.importorskip("datasets")
    rows = [{"image": {"bytes": path.read_bytes(), "path": None}} for path in sorted(place.rglob("*.tif"))]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(place / "p.parquet"))
    files = {"train": str(place / "p.parquet")}
    return hugging_face("parquet", "image", "image", data_files=files, streaming=streaming, **options)


def as_stream(place: Path, **options: object) -> Dataset:
    return as_hub(place, streaming=True, **options)


@pytest.mark.parametrize("source", [as_folder, as_table, as_tar, as_hub, as_stream])
def test_every_source_has_one_scale(tmp_path: Path, source: Callable[..., Dataset]) -> None:
    series = [grey(200), grey(3900)]
    save(tmp_path / "images", *map(tiff, series))
    data = source(tmp_path)
    assert data.intensity_range == [0, 4095] and any("white in all of them" in said for said in data.remarks)
    train = data.splits["train"]
    for row, values in enumerate(series):
        assert np.abs(np.asarray(train.load(row), dtype=int)[..., 0] - scaled(values, 0, 4095)).max() <= 1
    given = source(tmp_path, intensity_range=[0, 16383])
    assert given.intensity_range == [0, 16383] and given.fingerprint != data.fingerprint
    assert np.asarray(given.splits["train"].load(1)).max() == round(3900 / 16383 * 255)


def test_torchvision_does_not_cut_values_off(tmp_path: Path) -> None:
    root = str(save(tmp_path, png(grey(3000)), png(grey(200)), ending="png"))
    with pytest.raises(UserError, match="ImageFolder of torchvision cuts off .*: read them with dataset=image_folder"):
        torchvision_dataset("ImageFolder", root, {"train": {}})
    save(tmp_path, png(grey(255), bits=8), png(grey(255), bits=8), ending="png")
    assert len(torchvision_dataset("ImageFolder", root, {"train": {}}).splits["train"]) == 2


# ---- 16 bits a channel, in colour -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("write", [png, tiff])
def test_colours_of_12_bits_are_not_black(tmp_path: Path, channels: int, write: Callable[..., bytes]) -> None:
    if write is tiff and channels == 2:
        return  # not a TIFF that Pillow reads
    series = [RNG.integers(0, 4096, (6, 7, channels), dtype="u2") for _ in range(2)]
    series[0][..., :3] //= 20  # a dark one
    for values in series if channels in (2, 4) else ():
        values[..., -1] = 65535 if write is png else 4095
    data = folder(str(save(tmp_path, *map(write, series), ending="png")))
    assert data.intensity_range == [0, 4095]
    for number, values in enumerate(series):
        colours = values[..., :1] if channels == 2 else values[..., :3]
        found = pixels(data, f"{'ab'[number % 2]}/{number}.png")
        assert np.abs(found - scaled(colours, 0, 4095)).max() <= 1


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_true_values_of_16_bit_colours(channels: int) -> None:
    values = RNG.integers(0, 65536, (6, 7, channels), dtype="u2")
    for raw in (png(values), tiff(values)) if channels != 2 else (png(values),):
        source = io.BytesIO(raw)
        with Image.open(source) as image:
            layout = colour_layout(image)
            image.load()
            assert np.array_equal(colour_values(image, source, layout), values)


def test_a_turned_image_is_upright_in_colour_and_grey() -> None:
    for values in (RNG.integers(0, 4096, (6, 7, 3), dtype="u2"), grey(4000)):
        exif = Image.Exif()
        exif[0x0112] = 6
        raw = png(values, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
        found = np.asarray(read_image(raw, "a", intensity_range=[0, 4095]))
        plain = np.asarray(read_image(png(values), "a", intensity_range=[0, 4095]))
        assert found.shape == (7, 6, 3) and np.array_equal(found, np.rot90(plain, -1))


# ---- what stays as it is --------------------------------------------------------------------------------------------


def first_reading(raw: bytes) -> np.ndarray:
    """Pixels as the first version read them: an image's own scale, and Pillow's high bytes."""
    with Image.open(io.BytesIO(raw)) as image:
        image.load()
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            values = np.nan_to_num(np.asarray(image).astype(np.float32))
            top = float(values.max(initial=0.0))
            is_float = np.asarray(image).dtype.kind == "f"
            full = 1.0 if is_float and top <= 1 else 255.0 if top <= 255 else max(65535.0, top)
            return np.asarray(
                Image.fromarray(np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8)).convert("RGB")
            )
        if image.mode in ("RGBA", "LA"):
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
        return np.asarray(image.convert("RGB"))


FULL = {
    "8 bits": (png(grey(255), bits=8), png(RNG.integers(0, 256, (6, 7, 3)), bits=8)),
    "grey": (png(grey(65535)), tiff(grey(40000)), tiff(grey(300))),
    "colour": (png(RNG.integers(0, 65536, (6, 7, 3))), tiff(RNG.integers(0, 65536, (6, 7, 3), dtype="u2"))),
    "alpha": (png(RNG.integers(0, 65536, (6, 7, 4))), png(RNG.integers(0, 65536, (6, 7, 2)))),
    "unit floats": (tiff(np.linspace(0, 1, 42, dtype="f4").reshape(6, 7)), tiff(np.full((6, 7), 0.3, "f4"))),
    "8 bits in 16": (tiff(grey(255)), tiff(grey(255, dtype="i4"))),
}


@pytest.mark.parametrize("kind", FULL)
def test_full_range_stays_bit_for_bit(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(str(save(tmp_path, *FULL[kind], ending="png")))
    for number, raw in enumerate(FULL[kind]):
        assert np.array_equal(pixels(data, f"{'ab'[number % 2]}/{number}.png"), first_reading(raw))
    monkeypatch.setattr("alfm.datasets.folder.settle", lambda *_: Reading())
    assert folder(str(tmp_path)).fingerprint == data.fingerprint  # caches of the first version are found


def test_a_cache_of_the_first_reading_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = {}
    for name, images in {
        "12 bits": [tiff(grey(4000))],
        "a dark frame": [tiff(grey(60000)), tiff(grey(200))],
        "transparent colour": [png(RNG.integers(0, 256, (6, 7, 3)), chunk(b"tRNS", b"\0\1\0\2\0\3"), bits=8)],
    }.items():
        marked[name] = folder(str(save(tmp_path / name, *images, ending="png"))).fingerprint
    monkeypatch.setattr("alfm.datasets.folder.settle", lambda *_: Reading())
    for name, mark in marked.items():
        assert folder(str(tmp_path / name)).fingerprint != mark, name


# ---- a transparent colour -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_lies_over_white(bits: int) -> None:
    key = (1, 2, 3) if bits == 8 else (300, 2, 65535)
    values = np.full((4, 5, 3), 20 if bits == 8 else 20 * 257)
    values[1, 2] = key
    values[3, 3] = (key[0], key[1], key[2] - 1)  # equal in the high bytes only
    found = np.asarray(read_image(png(values, chunk(b"tRNS", struct.pack(">HHH", *key)), bits=bits), "keyed"))
    white = (found == 255).all(-1)
    assert white[1, 2] and white.sum() == 1 and (found[0, 0] == 20).all()
    shades = np.full((4, 5), 40 if bits == 8 else 40 * 257)
    shades[1, 2] = 7
    found = np.asarray(read_image(png(shades, chunk(b"tRNS", struct.pack(">H", 7)), bits=bits), "grey"))
    assert (found[1, 2] == 255).all() and (found[0, 0] == 40).all()
