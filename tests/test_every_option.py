"""Every option of every config, fed null, NaN, infinity, -1, 0, huge numbers, a word, a list and a mapping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

WORKERS = 2
SECONDS = 600
"""At most, on a machine that is busy with other things; alone it takes under two minutes."""
HERE = Path(__file__).resolve().parent


def tiny(folder: Path) -> None:
    """A cache of 40 points of 3 classes in 8 dimensions, 12 photographs, a table of texts, a list of rows."""
    rng = np.random.default_rng(0)
    (folder / "tiny").mkdir(parents=True)
    with h5py.File(folder / "tiny" / "points.h5", "w") as file:
        for split, count in (("train", 40), ("test", 20)):
            labels = np.arange(count) % 3
            file[f"{split}/features"] = (rng.normal(size=(count, 8)) + 2 * np.eye(8)[labels]).astype(np.float32)
            file[f"{split}/labels"] = labels
    for index in range(12):
        path = folder / "photos" / ("train" if index < 8 else "test") / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
    lines = [f"the text {index},{'ab'[index % 2]}" for index in range(12)]
    (folder / "table.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (folder / "rows.txt").write_text("\n".join(map(str, range(20))) + "\n")


def test_every_option_of_every_config_runs_or_is_refused_in_one_sentence(tmp_path, capsys):
    tiny(tmp_path)
    folders = {
        name: str(tmp_path / name) for name in ("DATASET_DIR", "MODEL_CACHE_DIR", "FEATURE_CACHE_DIR", "LOG_DIR")
    }
    env = os.environ | folders | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parent)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "option_probe.py"), str(tmp_path), str(part), str(WORKERS)],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for part in range(WORKERS)
    ]  # fmt: skip
    try:
        answers = [worker.communicate(timeout=SECONDS) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, err) in zip(workers, answers, strict=True):
        assert worker.returncode == 0 and "Traceback" not in err, err[-3000:]
    found = [json.loads(out) for out, _ in answers]
    failures = [failure for one in found for failure in one["failures"]]
    counts = {key: sum(one[key] for one in found) for key in ("inputs", "runs", "sentences")}
    with capsys.disabled():
        print(f"\nevery option: {counts['inputs']} inputs, {counts['runs']} runs, {counts['sentences']} sentences")
    assert not failures, f"{len(failures)} of {counts['inputs']}:\n" + "\n".join(failures[:60])
    assert counts["inputs"] == counts["runs"] + counts["sentences"] and counts["runs"] > 500
