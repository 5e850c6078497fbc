"""Who may import whom: each part of the package imports from the parts above it in the table, and nothing else.

Imports inside functions and those for type checkers count.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import alfm

ROOT = Path(alfm.__file__).parent

MAY_IMPORT = {
    "version": "",
    "errors": "",
    "files": "",
    "streams": "",
    "commands": "",
    "moved": "",
    "cores": "",
    "lazy": "",
    "options": "errors",
    "devices": "errors",
    "threads": "devices",
    "host_ops": "devices",
    "fused": "devices host_ops streams",
    # items and their features on disk
    "datasets": "commands errors lazy options streams",
    "backbones": "datasets errors lazy options",
    "cache": "commands datasets errors files options streams",
    "extraction": "backbones cache commands cores datasets devices errors files options streams threads version",
    # the maths
    "features": "devices errors files host_ops lazy streams threads version",
    "geometry": "devices errors features fused host_ops streams threads",
    "heads": "devices errors features files fused geometry lazy options streams threads",
    "posteriors": "devices errors features fused heads host_ops options streams threads",
    "acquisition": "devices fused host_ops",
    "metrics": "devices errors",
    "stopping": "errors lazy options",
    "callbacks": "errors options",
    # runs as they lie on disk, and what they say
    "results": "cache datasets devices errors files metrics version",
    "report": "commands errors files metrics results",
    # what picks, and what plays it through
    "strategies": "acquisition devices errors features fused geometry heads host_ops lazy metrics options posteriors "
    "results streams threads",
    "learner": "devices errors features heads options strategies streams threads",
    "config": "backbones callbacks commands cores datasets errors heads options stopping strategies",
    "simulation": "cache callbacks config datasets devices errors features files geometry heads learner metrics "
    "options results stopping strategies streams threads",
    "labelling": "cache commands config datasets devices errors features files geometry heads learner options "
    "results stopping strategies streams",
    "one_shot": "acquisition config devices errors features heads options posteriors strategies streams",
    "engines": "cache config errors files",
    "testing": "backbones cache config datasets errors features heads posteriors simulation strategies",
    # commands
    "extract": "config engines",
    "al_train": "config engines",
    "label": "config engines",
    "select": "config engines",
    "predict": "config engines",
    "probe": "cache config errors heads metrics options report results simulation version",
}
"""Part -> what it may import. What a command does from start to end stands in BESIDES."""

BESIDES = {
    ("alfm.report.__main__", "config"),  # a command: it looks for the user's folders
    ("alfm.extraction.session", "config"),  # a command: from a cell to a cache
    ("alfm.extraction.ray_actors", "config"),  # its workers elsewhere
    ("alfm.labelling.new_items", "backbones"),  # a command: what is new is embedded as the pool was
    ("alfm.labelling.new_items", "extraction"),
    ("alfm.simulation.session", "commands"),  # a command: from a cell to a run folder and its tables
    ("alfm.simulation.session", "report"),
    # a command: from run folders to verdicts
    *(("alfm.stopping.__main__", part) for part in ("config", "heads", "report", "results", "simulation")),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        words = ["alfm", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """The modules of this package that a module names in an import statement, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: write imports in full"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in MODULES else str(node.module) for full in inside}
    return {module for module in found if module in MODULES} - {name}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "alfm"


def test_the_table_is_whole_and_has_no_circle() -> None:
    assert set(MAY_IMPORT) >= {part(module) for module in MODULES} - {"alfm"}
    table = {name: set(others.split()) for name, others in MAY_IMPORT.items()}
    assert not {other for others in table.values() for other in others} - set(table)
    TopologicalSorter(table).prepare()  # CycleError


@pytest.mark.parametrize("name", sorted({part(module) for module in MODULES} - {"alfm"}))
def test_a_part_imports_what_it_may(name: str) -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if part(module) == name
        for other in imported(module)
        if part(other) not in (name, *MAY_IMPORT[name].split()) and (module, part(other)) not in BESIDES
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        graph[module] |= imported(module)
    TopologicalSorter(graph).prepare()  # CycleError names the circle
