"""Throughput and memory of the extraction, measured from its own pieces.

    python benchmarks/extract.py --arch vit_tiny_patch16_224 --images 512
    python benchmarks/extract.py --arch vit_small_patch14_dinov2 --device cuda --images 20000
    python benchmarks/extract.py --arch vit_large_patch14_dinov2 --device cuda --images 20000 --decode gpu --compile
    python benchmarks/extract.py --memory 20000,200000

Items/s of (a) the whole pipeline, from the first file opened to the finished cache, (b) reading and decoding alone with
the same worker processes, (c) the forward pass alone on a batch that is already on the device; interleaved, `--repeats`
times, medians reported. `share` is the whole divided by the slower of the two others: the goal is 0.9. On a CPU both
compete for the same cores: `ceiling` is what is left when their times add up on the cores they share.

`--memory` extracts tiny generated images and prints the peak memory after computing and after finalising, each count in
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def photographs(folder: Path, count: int, width: int = 500, height: int = 500) -> None:
    """`count` JPEGs of natural statistics (noise with a 1/f spectrum), about 60 kB each, in two class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / height
    for index in range(count):
        spectrum = (rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))) / frequency
        image = np.fft.irfft2(spectrum, s=(height, width)).transpose(1, 2, 0)
        image = np.clip(128 + 48 * image / image.std(), 0, 255).astype(np.uint8)
        path = folder / "ab"[index % 2] / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=88)


# ---- throughput -----------------------------------------------------------------------------------------------------


def throughput(arguments: argparse.Namespace) -> dict[str, Any]:
    """Items/s of the whole, of decoding alone and of the forward pass alone."""
    from alfm import devices
    from alfm.backbones.timm_model import Timm
    from alfm.cache.parts import PartsFolder
    from alfm.datasets.folder import folder
    from alfm.devices import choose_device
    from alfm.extraction.agreement import first_batch
    from alfm.extraction.decoding import Decoder
    from alfm.extraction.encoding import Encoder, choose_batch_size, choose_precision
    from alfm.extraction.loading import Items, load, tasks_of
    from alfm.extraction.plan import Plan, available_cores, choose_num_workers, choose_part_size, choose_threads
    from alfm.extraction.runner import Runner, use_threads

    with tempfile.TemporaryDirectory() as scratch:
        photographs(Path(scratch, "photographs"), arguments.images)
        splits = folder(str(Path(scratch, "photographs"))).splits
        device = choose_device(arguments.device)
        backbone = Timm(arch=arguments.arch, pretrained=False)
        backbone.load(device)
        encoder = Encoder(backbone, device, choose_precision("auto", device))
        batch_size = arguments.batch_size or choose_batch_size(encoder, lambda n: first_batch(splits, backbone, n))
        threads = choose_threads("auto")
        use_threads(device, threads)
        workers = choose_num_workers(arguments.num_workers, device.type, max(arguments.images, 2000), 1)
        settings = {
            "splits": [[name, len(split)] for name, split in splits.items()],
            "batch_size": batch_size,
            "part_size": choose_part_size("auto", batch_size, arguments.images),
            "views": 1,
            "view_splits": [],
            "seed": None,
            "dtype": "float16",
            "threads": threads,
            "decode": arguments.decode,
        }
        if arguments.compile:
            encoder.compile()
        plan = Plan(settings, {}, "benchmark")
        items = Items(splits, backbone, plan)
        tasks = [task for part in range(len(plan.parts)) for task in tasks_of(part, plan)]
        batch = first_batch(splits, backbone, batch_size)

        def whole(number: int) -> float:
            with PartsFolder(Path(scratch, f"cache-{number}.h5")) as folder:
                folder.create_manifest(plan.manifest())
                began = time.perf_counter()
                Runner(plan, folder, items, encoder, workers).run()
                return arguments.images / (time.perf_counter() - began)

        def decode() -> float:
            decoder = Decoder(backbone, device) if arguments.decode == "gpu" else None
            began = time.perf_counter()
            rows = 0
            for loaded in load(items, tasks, workers, device):
                if decoder:
                    decoder.decode(loaded.batch, splits[loaded.task.split], loaded.rows)
                rows += len(loaded.rows)
            devices.of(device).finish()
            return rows / (time.perf_counter() - began)

        def forward() -> float:
            on_device = encoder.start(batch, batch_size).batch
            passes = max(1, arguments.images // batch_size)
            began = time.perf_counter()
            for _ in range(passes):
                last = encoder.start(on_device, batch_size)
            encoder.finish(last)
            return passes * batch_size / (time.perf_counter() - began)

        forward()  # warms up
        rates: dict[str, list[float]] = {"whole": [], "decode": [], "forward": []}
        for number in range(arguments.repeats):
            rates["whole"].append(whole(number))
            rates["decode"].append(decode())
            rates["forward"].append(forward())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    slower = min(medians["decode"], medians["forward"])
    # one item costs 1/forward seconds of all cores and 1/decode seconds of the readers' share of them
    used = min(1.0, max(1, workers) / available_cores())
    both = 1 / (1 / medians["forward"] + used / medians["decode"])
    return {
        "arch": arguments.arch,
        "images": arguments.images,
        "batch_size": batch_size,
        "num_workers": workers,
        "threads": threads,
        "precision": encoder.precision,
        "decode": arguments.decode,
        "compile": arguments.compile,
        "items_per_second": medians,
        "all_repeats": rates,
        "share": medians["whole"] / slower,
        "ceiling": min(1.0, both / slower) if device.type == "cpu" else None,
    }


# ---- memory ---------------------------------------------------------------------------------------------------------


@dataclass
class Generated:
    """`count` images of 16 x 16 that exist nowhere."""

    count: int

    def __post_init__(self) -> None:
        self.labels = np.arange(self.count, dtype=np.int64) % 10
        self.ids = [f"{row:08d}" for row in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> Any:
        """Noise, the same for the same index."""
        from PIL import Image

        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def peak_memory(count: int) -> dict[str, Any]:
    """Peak resident memory of this process before, after computing, after finalising; in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (count,))


def _peak_memory(count: int) -> dict[str, Any]:
    import torch

    from alfm.backbones.pixels import Pixels
    from alfm.cache.parts import PartsFolder
    from alfm.extraction.encoding import Encoder
    from alfm.extraction.loading import Items
    from alfm.extraction.plan import Plan
    from alfm.extraction.runner import Runner

    torch.set_num_threads(1)
    settings = {"splits": [["train", count]], "batch_size": 256, "part_size": 4096, "views": 1, "dtype": "float16"}
    plan = Plan(settings | {"view_splits": [], "seed": None}, {}, "benchmark")
    backbone = Pixels()
    items = Items({"train": Generated(count)}, backbone, plan)
    before = _peak()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, PartsFolder(Path(scratch, "cache.h5")) as folder:
        folder.create_manifest(plan.manifest())
        runner = Runner(plan, folder, items, Encoder(backbone, torch.device("cpu"), "float32"), num_workers=0)
        runner.compute(range(len(plan.parts)))
        computed = _peak()
        runner.finalise()
        merged = _peak()
        size = folder.target.stat().st_size
    return {
        "images": count,
        "cache_mib": size / 2**20,
        "before_mib": before,
        "computed_mib": computed,
        "finalised_mib": merged,
        "seconds": time.perf_counter() - began,
    }


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# ---- the table ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_tiny_patch16_224", help="timm model, random weights")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--decode", default="pil", choices=["pil", "gpu"], help="as in alfm.extract")
    parser.add_argument("--compile", action="store_true", help="as in alfm.extract")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--num-workers", default="auto", type=lambda text: text if text == "auto" else int(text))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", help="measure memory instead, for these counts of images: 20000,200000")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.images, arguments.batch_size, arguments.arch, arguments.repeats = 16, 8, "test_vit", 1
        arguments.memory = arguments.memory and "1000,2000"
    from machine import describe, table

    result: dict[str, Any] = {"machine": describe(arguments.device)}
    if arguments.memory:
        result["memory"] = found = [peak_memory(int(count)) for count in arguments.memory.split(",")]
        rows = [[f"{row['images']:,}", *(float(row[key]) for key in list(row)[1:])] for row in found]
        table("Memory", ["images", "cache MiB", "peak MiB: before", "computed", "finalised", "seconds"], rows)
    else:
        result["throughput"] = found = throughput(arguments)
        rows = [[name, rate] for name, rate in found["items_per_second"].items()]
        rows.append(["whole / slower of the two", found["share"]])
        if found["ceiling"] is not None:
            rows.append(["the most a CPU can reach", found["ceiling"]])
        table(f"{found['arch']}, batch {found['batch_size']}, {found['num_workers']} readers", ["", "items/s"], rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as alfm.extract does
    main()
