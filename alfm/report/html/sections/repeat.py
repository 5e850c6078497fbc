"""What it takes to repeat the runs: commands, versions, fingerprints, as they lie in the run folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alfm.report.cells import Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.parts import Chapter, Section
from alfm.results.run_folder import read_config

Command = Callable[[Path, Mapping[str, Any]], str]
"""A run's folder and configuration -> what to type to have it again."""


def chapter(knowns: Sequence[Known], command: Command, report: str) -> Chapter:
    """report: the command that wrote this page."""
    folders = list(dict.fromkeys(folder for one in knowns for folder in one.folders))
    configs = {folder: read_config(folder) for folder in folders if (folder / "config.yaml").exists()}
    sections = []
    if configs:
        rows = [[TableCell(command(folder, config))] for folder, config in configs.items()]
        commands = Table("Commands", ["to type, one for each run"], rows)
        sections.append(Section("repeat-commands", "Commands", ["A finished run is not repeated."], [commands]))
        rows = [
            [
                TableCell(folder.name), TableCell(config["run"]["dataset"]), TableCell(config["run"]["model"]),
                TableCell(config["run"]["hash"]), TableCell(config["run"]["cache_fingerprint"]),
            ]
            for folder, config in configs.items()
        ]  # fmt: skip
        table = Table("Fingerprints", ["run", "data set", "model", "hash", "fingerprint of the cache"], rows, words=5)
        sections.append(Section("repeat-fingerprints", "Fingerprints", [], [table]))
    if found := list(_environments(folders)):
        sections.append(_versions(found))
    return Chapter("repeat", "How to repeat it", sections, [f"This page: {report}"])


def _environments(folders: Iterable[Path]) -> Iterable[dict[str, Any]]:
    for folder in folders:
        try:
            yield from json.loads((folder / "environment.json").read_text(encoding="utf-8"))["sessions"]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # of another version, or deleted
            continue


def _versions(found: Sequence[Mapping[str, Any]]) -> Section:
    """Each environment once, and how many sessions of runs had it."""
    counts: dict[str, int] = {}
    for one in found:
        versions = one.get("versions", {})
        words = {
            **(versions if isinstance(versions, Mapping) else {}),
            **{key: one.get(key) for key in ("device", "accelerator", "threads", "machine", "git_commit")},
        }
        text = ", ".join(f"{key} {value}" for key, value in words.items() if value is not None)
        counts[text] = counts.get(text, 0) + 1
    rows = [[TableCell(text), TableCell(count)] for text, count in counts.items()]
    table = Table("Versions and machines", ["environment", "times a run was begun or went on"], rows)
    return Section("repeat-versions", "Versions", [], [table])
