"""decode=gpu: processes that read hand over the bytes of JPEGs, and the device that runs the model decodes and resizes.

A core decodes and resizes some hundred photographs a second, and a fast GPU embeds over a thousand: see the figures in
benchmarks/README.md. What is no plain JPEG is decoded by PIL in the processes that read, as without this setting, and
counted; it is resized there by the same steps on tensors.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from alfm.backbones.base import Backbone
from alfm.datasets.base import Dataset, ItemError, Split
from alfm.datasets.images import MAX_PIXELS, open_unlimited
from alfm.datasets.marks import content_mark, mark_of_bytes
from alfm.errors import UserError

_PIXELS_AT_ONCE = 1 << 26
"""Of images that are decoded together: 200 MB of them."""
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_ORIENTATION = 0x0112
_RGB_COMPONENTS = [ord(letter) for letter in "RGB"]


class Jpeg(NamedTuple):
    """A file that the device will decode."""

    raw: bytes
    pixels: int


class Ready(NamedTuple):
    """An image that was decoded on the CPU, as `Backbone.preprocess` would give it, and what it is."""

    item: torch.Tensor
    kind: str


class Packed(NamedTuple):
    """A batch with JPEGs in it. All bytes are one tensor: each that comes from another process costs an open file."""

    raw: torch.Tensor
    """uint8: the JPEGs, one after the other."""
    lengths: list[int]
    pixels: list[int]
    jpeg_places: list[int]
    """Where in the batch each JPEG stands."""
    ready: torch.Tensor | None
    """The other images, (n, ...)."""
    ready_places: list[int]
    kinds: list[str]


# ---- what may be asked for ------------------------------------------------------------------------------------------


def check_device(device: torch.device) -> None:
    """`UserError` where no GPU decodes."""
    if device.type != "cuda":
        raise UserError(f"decode=gpu needs a CUDA device, and this runs on {device.type}: use decode=pil.")


def check_images(dataset: Dataset, splits: Mapping[str, Split], backbone: Backbone, views: int) -> None:
    """`UserError` for what is decoded by PIL alone: augmented views, data that is no files of images, reduced JPEGs,
    and backbones that take PIL images only."""
    if dataset.modality != "image":
        raise UserError(f"decode=gpu is for images, and {dataset.name} is {dataset.modality}: use decode=pil.")
    if views > 1:
        raise UserError(f"decode=gpu views={views}: views are augmented on the CPU, so use decode=pil with them.")
    if not hasattr(backbone, "preprocess_decoded"):
        raise UserError(f"decode=gpu: {backbone.name} takes PIL images only (no preprocess_decoded): use decode=pil.")
    if not any(_from_files(split) for split in splits.values()):
        raise UserError(f"decode=gpu: the images of {dataset.name} do not come as JPEG files: use decode=pil.")
    for split in splits.values():
        if (size := (getattr(split, "decode", None) or {}).get("decode_size")) is not None:
            raise UserError(
                f"decode=gpu dataset.decode_size={size}: a GPU decodes whole images, so give one of the two."
            )


def _from_files(split: Split) -> bool:
    """Whether the split's `load` reads what `encoded` gives, with the options in `decode` and nothing besides."""
    in_order = getattr(split, "in_order", False)  # a stream is not read twice
    return hasattr(split, "encoded") and isinstance(getattr(split, "decode", None), dict) and not in_order


# ---- in the processes that read -------------------------------------------------------------------------------------


def read(split: Split, row: int, backbone: Any) -> tuple[Jpeg | Ready, str]:
    """One item of a batch, and the mark of its content. Raises what `split.load` does."""
    found = _plain_jpeg(split, row)
    if isinstance(found, Jpeg):
        return found, mark_of_bytes(found.raw)
    from torchvision.transforms.v2.functional import pil_to_tensor

    image = split.load(row)
    ready = backbone.preprocess_decoded(pil_to_tensor(image.convert("RGB")))
    return Ready(ready, found), content_mark(split, row, image)


def _plain_jpeg(split: Split, row: int) -> Jpeg | str:
    """The file, where a device decodes it to what `split.load` gives: 8 bits, grey or YCbCr, upright, whole; else what
    it is."""
    source = split.encoded(row) if _from_files(split) else None  # type: ignore[attr-defined]
    if isinstance(source, str):
        try:
            with open(source, "rb") as file:
                start = file.read(len(_START))
                source = start + file.read() if start == _START else start
        except OSError:
            return "unreadable"
    if not isinstance(source, bytes):
        return "decoded already"
    if not source.startswith(_START):
        return "not JPEG"
    if not source.rstrip(b"\0").endswith(_END):
        return "JPEG with something after its end, or without one"
    limit = split.decode.get("max_pixels") or MAX_PIXELS  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_unlimited(io.BytesIO(source)) as image:
                return _kind(image, limit) or Jpeg(source, image.width * image.height)
    except Exception:  # damaged headers raise nearly anything; `load` says what is wrong
        return "damaged JPEG"


def _kind(image: Any, max_pixels: int) -> str | None:
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return f"{image.format} in {image.mode}"
    components = [component[0] for component in getattr(image, "layer", [])]
    if image.mode == "RGB" and (image.info.get("adobe_transform", 1) != 1 or components == _RGB_COMPONENTS):
        return "JPEG in RGB without YCbCr"
    if image.width * image.height > max_pixels:
        return "too large"
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # metadata that is damaged beside an image that is not
        turned = True
    return "turned by EXIF" if turned else None


def pack(items: list[Jpeg | Ready]) -> Packed:
    """A batch for `Decoder`."""
    jpegs = [(place, item) for place, item in enumerate(items) if isinstance(item, Jpeg)]
    ready = [(place, item) for place, item in enumerate(items) if isinstance(item, Ready)]
    raw = bytearray(b"".join(item.raw for _, item in jpegs))
    return Packed(
        torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8),
        [len(item.raw) for _, item in jpegs],
        [item.pixels for _, item in jpegs],
        [place for place, _ in jpegs],
        torch.stack([item.item for _, item in ready]) if ready else None,
        [place for place, _ in ready],
        [item.kind for _, item in ready],
    )


# ---- where the model runs -------------------------------------------------------------------------------------------


class Decoded(NamedTuple):
    """`batch` is on the device, without the places in `failures`, (place, reason); `on_cpu` counts kinds."""

    batch: Any
    failures: list[tuple[int, str]]
    on_cpu: Counter[str]


class Decoder:
    """Turns what `pack` gives into batches for `Backbone.encode`, on the device."""

    def __init__(self, backbone: Any, device: torch.device) -> None:
        """`UserError` when torchvision cannot decode there, or the backbone's steps cannot be done there."""
        from PIL import Image

        self.backbone, self.device = backbone, device
        sample = io.BytesIO()
        Image.new("RGB", (16, 16)).save(sample, "JPEG")
        try:
            (image,) = decode_jpegs([torch.frombuffer(bytearray(sample.getvalue()), dtype=torch.uint8)], device)
        except Exception as error:  # a build without it, or a version that has dropped it
            first = str(error).strip().partition("\n")[0]
            raise UserError(
                f"decode=gpu: this torchvision does not decode JPEGs on {device} ({first}): use decode=pil."
            ) from error
        backbone.preprocess_decoded(image)

    @torch.inference_mode()
    def decode(self, packed: Packed, split: Split, rows: list[int]) -> Decoded:
        """`rows`: of the split, one for each place of the batch."""
        places: dict[int, torch.Tensor] = {}
        failures: list[tuple[int, str]] = []
        on_cpu = Counter(packed.kinds)
        if packed.ready is not None:
            there = packed.ready.to(self.device, non_blocking=True)
            places.update(zip(packed.ready_places, there, strict=True))
        for chosen, files in _pieces(packed):
            for place, image in zip(chosen, self._images(files), strict=True):
                if image is None:
                    try:
                        image = self._by_pil(split, rows[place])
                    except UserError:
                        raise
                    except ItemError as error:
                        failures.append((place, str(error)))
                        continue
                    except Exception as error:  # decoders raise nearly anything on a damaged file
                        failures.append((place, f"{type(error).__name__}: {error}"))
                        continue
                    on_cpu["JPEG that the GPU cannot decode"] += 1
                places[place] = self.backbone.preprocess_decoded(image)
        batch = self.backbone.collate([places[place] for place in sorted(places)]) if places else None
        return Decoded(batch, failures, on_cpu)

    def _images(self, files: list[torch.Tensor]) -> list[torch.Tensor | None]:
        """uint8 (3, H, W) each, None for those that cannot be decoded; one that cannot spoils a whole call."""
        try:
            return list(decode_jpegs(files, self.device))
        except RuntimeError:
            if len(files) == 1:
                return [None]
        return [image for file in files for image in self._images([file])]

    def _by_pil(self, split: Split, row: int) -> torch.Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        return pil_to_tensor(split.load(row).convert("RGB")).to(self.device)


def decode_jpegs(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """JPEG files, uint8 on the CPU -> RGB, uint8 (3, H, W) each on the device. RuntimeError if one cannot be read."""
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 0.29, in favour of torchcodec
        return decode_jpeg(files, mode=ImageReadMode.RGB, device=device)


def _pieces(packed: Packed) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
    """The batch's JPEGs, as many together as are small enough: their places, and their bytes."""
    chosen: list[int] = []
    files: list[torch.Tensor] = []
    pixels = 0
    for place, file, size in zip(
        packed.jpeg_places, packed.raw.split(packed.lengths) if packed.lengths else (), packed.pixels, strict=True
    ):
        if files and pixels + size > _PIXELS_AT_ONCE:
            yield chosen, files
            chosen, files, pixels = [], [], 0
        chosen.append(place)
        files.append(file)
        pixels += size
    if files:
        yield chosen, files
