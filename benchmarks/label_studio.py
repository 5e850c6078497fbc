"""What Label Studio's own SDK makes of our import, and what we make of its exports.

Images, texts and recordings, each with items that are labelled, skipped, untouched, begun (a draft), annotated by two
people, and labelled anew by one. In a virtual environment of its own, which is made in a temporary folder: the SDK's
validator takes our configuration, tasks and predictions; its converter turns a project with those annotations into raw
JSON, JSON_MIN and CSV, and each is read back.

    python benchmarks/label_studio.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
import wave
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alfm.cache import open_cache
from alfm.cache.writer import CacheWriter
from alfm.labelling.items import Items
from alfm.labelling.label_files import read
from alfm.labelling.status import Item
from alfm.labelling.written.asked import Asked
from alfm.labelling.written.label_studio import Server, write_config, write_tasks

CLASSES = ["cat", 'a "dog" & co', "two\nlines", "=cmd()", "Möwe"]
HAPPENS = ["labelled", "skipped", "untouched", "draft", "by two", "anew", "labelled", "labelled", "labelled"]
"""To each item in turn; the answers go round the classes."""

SDK = """
import json, sys
from pathlib import Path
from label_studio_sdk import __version__
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
config, tasks = (folder / "config.xml").read_text(), json.loads((folder / "tasks.json").read_text())
interface = LabelInterface(config)
interface.validate()
wrong = [task["data"] for task in tasks if not interface.validate_task({"data": task["data"]})]
wrong += [fault for task in tasks for one in task["predictions"]
          for fault in interface.validate_prediction(one, return_errors=True)]
project = json.loads((folder / "project.json").read_text())
wrong += [one for task in project for one in task["annotations"] if not interface.validate_annotation(one)]
converter = Converter(config, str(folder), download_resources=False)
for form in ("JSON", "JSON_MIN", "CSV"):
    converter.convert(str(folder / "project.json"), str(folder / form), form, is_dir=False)
print(json.dumps({"version": __version__, "tasks": len(tasks), "wrong": wrong,
                  "choices": list(interface.get_control("label").labels)}))
"""


def pool(folder: Path, kind: str) -> Items:
    """A cache of as many items as things happen, and what it was made of."""
    root = folder / "my pool"
    root.mkdir(parents=True)
    names = [f"{number} {what}" for number, what in enumerate(HAPPENS)]
    config: dict[str, Any]
    if kind == "text":
        (folder / "texts.csv").write_text("id,text\n" + "".join(f'{name},"{name}, ""so"""\n' for name in names))
        config = {"_target_": "alfm.datasets.table.table", "path": str(folder / "texts.csv"), "column": "text"}
        config |= {"modality": "text", "id_column": "id"}
    else:
        names = [f"{name}.{'png' if kind == 'image' else 'wav'}" for name in names]
        for name in names:
            if kind == "image":
                Image.new("RGB", (8, 8)).save(root / name)
            else:
                with wave.open(str(root / name), "wb") as file:
                    file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
                    file.writeframes(bytes(800))
        config = {"_target_": "alfm.datasets.folder.folder", "root": str(root), "modality": kind}
    said = {"dataset": "x", "dataset_fingerprint": "x", "model": "x", "model_fingerprint": "x", "modality": kind}
    with CacheWriter(folder / "pool.h5", said | {"dataset_config": json.dumps(config)}) as writer:
        writer.add_split("train", len(names), (2,), np.dtype("float16"), True)
        writer.append("train", np.ones((len(names), 2), np.float16), np.full(len(names), -1), names)
        writer.finish()
    return Items.open([open_cache(folder / "pool.h5")], ["train"])


def project(tasks: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[tuple[str, str], str | None]]:
    """The tasks as a server holds them once people have worked on them, in another order and with its own numbers, and
    what must be read: (item, annotator) -> class, None for a skip."""
    kind = next(key for key in tasks[0]["data"] if key != "alfm_id")
    wanted: dict[tuple[str, str], str | None] = {}

    def annotation(label: str, by: int, day: int, cancelled: bool = False) -> dict[str, Any]:
        result = {"id": "r", "from_name": "label", "to_name": kind, "type": "choices", "value": {"choices": [label]}}
        at = f"2026-01-{day:02}T10:00:00.000000Z"
        return {
            "id": 100 * day + by, "completed_by": by, "result": [] if cancelled else [result], "lead_time": 1.5,
            "was_cancelled": cancelled, "ground_truth": False, "created_at": at, "updated_at": at,
        }  # fmt: skip

    held = []
    for number, (task, what) in enumerate(zip(tasks, HAPPENS, strict=True)):
        item, label, other = task["data"]["alfm_id"], CLASSES[number % 5], CLASSES[(number + 1) % 5]
        drafts = [{"id": 1, "result": annotation(label, 1, 1)["result"]}] if what == "draft" else []
        made = {
            "labelled": [annotation(label, 1, 1)],
            "skipped": [annotation(label, 1, 1, cancelled=True)],
            "by two": [annotation(label, 1, 1), annotation(other, 2, 2)],
            "anew": [annotation(other, 1, 3), annotation(label, 1, 1)],
        }.get(what, [])
        if what in ("labelled", "by two"):
            wanted[item, "1"] = label
        if what == "skipped":
            wanted[item, "1"] = None
        if what in ("by two", "anew"):
            wanted[item, "2" if what == "by two" else "1"] = other
        held.append({**task, "id": 5000 - number, "annotations": made, "drafts": drafts})
    return held[::-1], wanted


def check(folder: Path, kind: str, python: str) -> str:
    """One modality from our import to our reading; a row of the table. Raises AssertionError."""
    items = pool(folder, kind)
    asked = Asked(
        [Item(row, item, None, None, CLASSES[row % 5], 0.5) for row, item in enumerate(items.ids)], 1, "", CLASSES
    )
    server = Server([path for row in range(items.N) if (path := items.path(row))], None)
    write_tasks(folder / "tasks.json", asked, items, server, "alfm round 1")
    write_config(folder / "config.xml", CLASSES, items)
    held, wanted = project(json.loads((folder / "tasks.json").read_text()))
    (folder / "project.json").write_text(json.dumps(held))
    run = subprocess.run([python, "-c", SDK, str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert not said["wrong"], said["wrong"]
    assert said["choices"] == CLASSES, said["choices"]
    labels = {key: label for key, label in wanted.items() if label is not None}
    for form, must in {"JSON": wanted, "JSON_MIN": labels, "CSV": labels}.items():
        path = folder / form / f"result.{form.split('_')[0].lower()}"
        found = read(path, items, CLASSES)
        assert {(act.item, act.annotator): act.label for act in found.acts} == must, (form, found)
        assert not found.listed, found.listed
    count = len(labels)
    return f"| {kind} | {said['version']} | {said['tasks']} | {count} labels, 1 skip | {count} | {count} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="an interpreter that has label-studio-sdk, in place of a new environment")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        python = given.python
        if python is None:
            venv.create(Path(name) / "venv", with_pip=True)
            python = str(Path(name) / "venv" / "bin" / "python")
            subprocess.run([python, "-m", "pip", "install", "-qqq", "label-studio-sdk"], check=True)
        print("| items | SDK | tasks accepted | read from JSON | from JSON_MIN | from CSV |\n|---|---|---|---|---|---|")
        for kind in ("image", "text", "audio"):
            print(check(Path(name) / kind, kind, python), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
