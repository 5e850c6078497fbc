"""The page's time from a key to the next item on the screen, in headless Chromium: the median is to be at most 50 ms.

    python benchmarks/label_page.py                      # scikit-learn's digits, as pictures
    python benchmarks/label_page.py --items 50000 --dim 768 --classes 100    # texts, random features

Serves the page with `python -m alfm.label`, answers `--labels` items with keys, `--pause` seconds apart, and reads the
times that the page itself measured: from the key event's time stamp to the message that follows the frame in which the
next item was painted. The model is refitted after every label meanwhile. Writes JSON with `--json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
MEASURED = "performance.getEntriesByName('key to next item').map((one) => one.duration)"


def digits(scratch: Path) -> list[str]:
    """The digits' cache; the words of the command that labels them."""
    command = [sys.executable, "-m", "alfm.extract", "dataset=digits", "model=pixels"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=scratch)
    return [f"cache={scratch}/features/digits/pixels.h5", "labels_in_cache=ignore"]


def texts(scratch: Path, items: int, dim: int, classes: int) -> list[str]:
    """A cache of random features and a table of texts; the same."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=items)
    features = rng.normal(size=(items, dim)) + 3 * rng.normal(size=(classes, dim))[labels]
    names = [f"{row:06}" for row in range(items)]
    with h5py.File(scratch / "texts.h5", "w") as file:
        file["train/features"], file["train/labels"] = features.astype(np.float16), np.full(items, -1)
        file["train/ids"] = names
    with (scratch / "texts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text"])
        table.writerows(
            [name, f"This is note {name}, of kind {label}. " * 20] for name, label in zip(names, labels, strict=True)
        )
    known = ",".join(f"kind{number}" for number in range(classes))
    return [f"cache={scratch}/texts.h5", f"items={scratch}/texts.csv", f"classes=[{known}]"]


def serve(scratch: Path, words: list[str]) -> tuple[subprocess.Popen[str], str]:
    """The command, running, and the address that it printed."""
    command = [sys.executable, "-m", "alfm.label", f"state={scratch}/state", "port=0", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=scratch)
    assert running.stdout is not None
    for line in running.stdout:
        if "http://" in line:
            return running, "http://" + line.split("http://")[1].split()[0]
    raise SystemExit("the page did not start")


def answer(url: str, labels: int, pause: float) -> list[float]:
    """Milliseconds from key to next item, one for each label."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(url)
        for number in range(labels):
            page.wait_for_selector("#name:not(:empty)", timeout=120_000)
            page.keyboard.press(str(number % 9 + 1))
            time.sleep(pause)
        times: list[float] = page.evaluate(MEASURED)
        browser.close()
    return times


def main() -> None:
    """Prints the median and the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.3)
    parser.add_argument("--items", type=int, default=0, help="texts with random features instead of the digits")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given, rest = parser.parse_known_args()  # the rest goes to the command: query_strategy=margins n=40
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        words = texts(scratch, given.items, given.dim, given.classes) if given.items else digits(scratch)
        running, url = serve(scratch, [*words, *rest])
        try:
            times = answer(url, given.labels, given.pause)
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(30)
    figures: dict[str, Any] = {
        "machine": machine.describe("cpu"), "labels": len(times), "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1), "words": sys.argv[1:],
    }  # fmt: skip
    print(f"{figures['labels']} labels: median {figures['median_ms']} ms, 95 % within {figures['p95_ms']} ms")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
