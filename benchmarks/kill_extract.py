"""Kill an extraction at random moments, with `kill -9`, and compare its cache with that of an uninterrupted run.

    python benchmarks/kill_extract.py --kills 20

With 1 and with 3 workers: the digits are extracted by a backbone that is made slow; all workers are killed at a random
moment, anywhere in the time that an uninterrupted run takes, and started again. Caches that get finished in between are
compared and extraction begins anew, until there have been `--kills` kills; the last one may finish. Features, labels
and ids must be equal to the bit, and nothing may be left beside the cache.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from alfm import extract
from alfm.backbones.pixels import Pixels
from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.cache.verify import verify


class SlowPixels(Pixels):
    """Pixels that take their time."""

    def __init__(self, name: str, size: int | None, delay: float) -> None:
        super().__init__(name, size)
        self.delay = delay

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """After a pause, as the pixels do."""
        time.sleep(self.delay)
        return super().encode(batch)


def words(delay: float) -> list[str]:
    """The command line: parts of three batches."""
    model = ["model._target_=kill_extract.SlowPixels", f"+model.delay={delay}"]
    return ["dataset=digits", "batch_size=20", "part_size=60", "threads=1", "num_workers=0", *model]


def start(features: Path, delay: float) -> int:
    """Fork one worker that runs the command, and give its process id. Killing one that imports torch shows little."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.environ["FEATURE_CACHE_DIR"] = str(features)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            status = extract.main(words(delay))
        finally:
            os._exit(status)
    return pid


def running(pids: list[int]) -> list[int]:
    """Those that have not ended yet; `SystemExit` when one ended with a failure."""
    alive = []
    for pid in pids:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            alive.append(pid)
        elif os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"a worker failed with status {os.waitstatus_to_exitcode(status)}")
    return alive


def wait(pids: list[int], seconds: float = 300) -> list[int]:
    """Wait until all have ended or time is up; those still running."""
    deadline = time.monotonic() + seconds
    while (pids := running(pids)) and time.monotonic() < deadline:
        time.sleep(0.002)
    return pids


def kill(pids: list[int]) -> None:
    """kill -9 each."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def same(one: Path, two: Path) -> None:
    """`SystemExit` unless both are sound and hold the same, and nothing lies beside them."""
    first, second = open_cache(one), open_cache(two)
    equal = first.splits == second.splits and not verify(one).problems and not verify(two).problems
    for name in first.splits:
        equal &= np.array_equal(first.features(name), second.features(name))
        equal &= np.array_equal(first.labels(name), second.labels(name))
        equal &= first.ids(name) == second.ids(name)
    beside = [path.name for path in one.parent.iterdir()]
    if not equal or beside != [one.name]:
        raise SystemExit(f"{one} differs from {two}, or there is more beside it: {beside}")


def torment(scratch: Path, reference: Path, workers: int, kills: int, delay: float) -> str:
    """`kills` kills of `workers` workers; what happened, in a sentence."""
    rng = random.Random(workers)
    features = scratch / f"{workers}-workers"
    target = features / "digits" / "pixels.h5"
    killed = resumed = finished = 0
    began = time.monotonic()
    if left := wait([start(features, delay) for _ in range(workers)]):
        kill(left)
        raise SystemExit("the uninterrupted run did not end")
    longest = time.monotonic() - began
    same(target, reference)
    shutil.rmtree(features)
    while killed < kills:
        folder = PartsFolder(target)
        resumed += folder.path.is_dir() and bool(folder.done())
        pids = [start(features, delay) for _ in range(workers)]
        left = wait(pids, rng.uniform(0.0, longest))
        kill(left)
        killed += bool(left)
        if not left:
            same(target, reference)
            finished += 1
            shutil.rmtree(features)
    left = wait([start(features, delay) for _ in range(workers)])
    if left:
        kill(left)
        raise SystemExit("the last run did not end")
    same(target, reference)
    return f"{workers} workers: {killed} kills, {resumed} resumed with parts done, {finished + 2} caches, all equal"


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds of a batch")
    parser.add_argument("--smoke", action="store_true", help="two kills, to see that it works")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.kills = 2
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["FEATURE_CACHE_DIR"] = str(scratch / "whole")
        if extract.main(words(0.0)) != 0:  # in this process: imports what the forked ones then have
            raise SystemExit("the uninterrupted run failed")
        reference = scratch / "whole" / "digits" / "pixels.h5"
        for workers in (1, 3):
            print(torment(scratch, reference, workers, arguments.kills, arguments.delay), flush=True)


if __name__ == "__main__":
    sys.exit(main())
