"""Milliseconds of one core that an image costs before it reaches the model, and the cores that a GPU needs then.

    python benchmarks/decoding.py --json benchmarks/results/decoding.json
    python benchmarks/decoding.py --photographs FOLDER

CPU seconds of one thread per image, the median of `--repeats` passes over `--images` JPEGs (noise of natural
statistics, quality 88, or the photographs of a folder as they are), ways interleaved. The ways: as `alfm.extract` reads
(PIL, then the model's transform); the same with `dataset.decode_size` at the model's size (which matters where half the
image or less is no smaller than that); torchvision's decoder and its transforms of uint8 tensors; and what is left for
the cores with decode=gpu, reading the file and looking at its header.

Cores = images per second of a GPU's forward pass alone x milliseconds / 1000. The images per second are not measured
here: `CEILINGS` are figures of another machine, compiled bfloat16 on an RTX PRO 6000.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CEILINGS = {"ViT-L/14": 1189, "ViT-H/14": 598, "ViT-g/14": 384}
"""Images per second at 224 pixels, forward pass alone; not measured here."""
WAYS = ("PIL", "PIL, decode_size", "torchvision", "left with decode=gpu")


def measured(root: Path, arch: str, side: int, repeats: int) -> dict[str, Any]:
    """Milliseconds per image of each way, for a timm model of `side` pixels with random weights."""
    import torch
    from torchvision.transforms import v2

    from alfm.backbones.timm_model import Timm
    from alfm.datasets.folder import folder
    from alfm.extraction import decoding

    torch.set_num_threads(1)
    backbone = Timm(arch=arch, pretrained=False, input_size=side, crop_pct=0.875, kwargs={"img_size": side})
    backbone.load(torch.device("cpu"))
    whole, reduced = (folder(str(root), **more).splits["train"] for more in ({}, {"decode_size": side}))
    rows = range(len(whole))
    resize, crop, *_ = backbone.transform.transforms
    on_tensors = v2.Compose([v2.Resize(resize.size, resize.interpolation, antialias=True), v2.CenterCrop(crop.size)])
    files = [Path(whole.path(row)) for row in rows]

    def torchvision(row: int) -> Any:
        raw = torch.frombuffer(bytearray(files[row].read_bytes()), dtype=torch.uint8)
        return on_tensors(decoding.decode_jpegs([raw], torch.device("cpu"))[0])

    ways: dict[str, Callable[[int], Any]] = {
        "PIL": lambda row: backbone.preprocess(whole.load(row)),
        "PIL, decode_size": lambda row: backbone.preprocess(reduced.load(row)),
        "torchvision": torchvision,
        "left with decode=gpu": lambda row: decoding.read(whole, row, backbone),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.process_time()
            for row in rows:
                way(row)
            if repeat:  # the first pass warms up
                seconds[name].append((time.process_time() - began) / len(rows))
    return {
        "kilobytes": statistics.mean(file.stat().st_size for file in files) / 1000,
        "milliseconds": {name: 1000 * statistics.median(each) for name, each in seconds.items()},
        "all_repeats": seconds,
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_tiny_patch16_224", help="timm model; its transform is what counts")
    parser.add_argument("--side", type=int, default=224, help="pixels that the model sees")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEGs, in place of generated ones")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.images, arguments.repeats = 4, 1
    from extract import photographs
    from machine import describe, save, table

    result: dict[str, Any] = {"machine": describe("cpu"), "side": arguments.side, "ceilings": CEILINGS, "sizes": {}}
    with tempfile.TemporaryDirectory() as scratch:
        roots = {"photographs": arguments.photographs} if arguments.photographs else {}
        for width, height in () if roots else ((500, 375), (1024, 768)):
            roots[f"{width} x {height}"] = root = Path(scratch, f"{width}")
            photographs(root, arguments.images, width, height)
        for name, root in roots.items():
            result["sizes"][name] = measured(root, arguments.arch, arguments.side, arguments.repeats)
    rows = [
        [f"{name}, {found['kilobytes']:.0f} kB", *(found["milliseconds"][way] for way in WAYS)]
        for name, found in result["sizes"].items()
    ]
    table("Milliseconds of one core per image", ["images", *WAYS], rows)
    first, found = next(iter(result["sizes"].items()))
    result["cores"] = {
        model: {way: rate * found["milliseconds"][way] / 1000 for way in WAYS} for model, rate in CEILINGS.items()
    }
    rows = [[model, str(CEILINGS[model]), *(cores[way] for way in WAYS)] for model, cores in result["cores"].items()]
    table(f"Cores a GPU needs ({first})", ["model", "images/s, not measured here", *WAYS], rows)
    if arguments.json:
        save(arguments.json, result)


if __name__ == "__main__":
    main()
