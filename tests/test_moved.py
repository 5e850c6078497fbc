"""Every public name of the release before can be imported from where it was, and says where it is now."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from alfm.moved import MOVED

BEFORE: dict[str, list[str]] = json.loads((Path(__file__).parent / "names_of_0_1_0.json").read_text())
GONE: dict[str, tuple[str, ...] | None] = {
    "alfm.acquisition": (
        "BLOCK",
        "MAX_ELEMENTS",  # sizes of blocks are what `alfm.devices` offers
        "top2",
        "mean_entropy",
        "mean_least_confidence",
        "mean_margin_uncertainty",  # nothing used them
    ),  # fmt: skip
    "alfm.loop": ("peak_memory",),
    "alfm.strategies.bait": ("PIECE",),
    "alfm.strategies.vaal": ("NUMBERS",),
    "alfm.geometry.steps": ("BATCH",),  # how many bounds a step refreshes depends on the replicates
    "alfm.geometry.closer": ("listed", "states"),  # take a query and keep what they make in it
    "alfm.strategies.sampled": ("on_samples",),  # a strategy around a strategy now
    "alfm.strategies.uherding": ("calibration_errors",),  # alfm.metrics.calibration_error
    "alfm.posteriors.base": ("block_rows",),  # what a walk loads at a time is its own affair
    "alfm.strategies.catalogue": None,  # wrote a table of the README
    "alfm.extract": ["extract"],  # took what Hydra had composed, and looked into Hydra's own state besides
    "alfm.al_train": ["al_train"],
}
"""Module -> its names that are gone for good, None for all of them."""


def is_gone(module: str, name: str) -> bool:
    return module in GONE and (GONE[module] is None or name in GONE[module])


@pytest.mark.parametrize("module", [name for name in BEFORE if GONE.get(name, ()) is not None])
def test_what_could_be_imported_still_can(module: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = importlib.import_module(module)
        for name in BEFORE[module]:
            if is_gone(module, name):
                continue
            here, told = name in vars(found), len(said)
            value = getattr(found, name)
            if here or len(said) == told:
                continue  # where it was, or given on by the package's face
            old, _, new = str(said[-1].message).removesuffix(" now").partition(" is ")
            place, _, there = new.rpartition(".")
            assert old == f"{module}.{name}" and said[-1].category is DeprecationWarning
            assert vars(importlib.import_module(place))[there] is value


def test_the_changelog_lists_what_is_gone() -> None:
    changes = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    for module, names in GONE.items():
        assert f"{module.rpartition('.')[2]}" in changes
        for name in names or ():
            assert f"`{name}`" in changes or f"`{module}.{name}`" in changes, f"{module}.{name}"


@pytest.mark.parametrize("module", [name for name in MOVED if name in BEFORE])
def test_a_module_that_is_gone_says_so(module: str) -> None:
    if importlib.util.find_spec(module).origin is not None:
        pytest.skip("still there")
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=f"{module} is no more"):
        importlib.import_module(module)


@pytest.mark.parametrize("module", ["alfm.pool", "alfm.strategies.base", "alfm.report"])
def test_reloading_works_and_a_name_that_never_was_is_an_error(module: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = importlib.import_module(module)
        before = dict(vars(found))
        found = importlib.reload(found)
    with pytest.raises(ImportError, match="cannot import name 'Puul'"):
        exec(f"from {module} import Puul")
    assert found.__name__ == module and not hasattr(found, "_private")
    vars(found).update(before)  # its classes are again those that everybody else has


def test_what_was_pickled_before_can_be_read() -> None:
    from alfm.features.spaces import Unit

    stored = pickle.dumps(Unit(), protocol=0)
    before = stored.replace(b"alfm.features.spaces", b"alfm.spaces")
    assert before != stored
    with pytest.warns(DeprecationWarning, match="alfm.spaces.Unit is alfm.features.spaces.Unit now"):
        assert type(pickle.loads(before)) is Unit


@pytest.mark.parametrize("module", ["alfm.report", "alfm.cache", "alfm.extract"])
def test_commands_run_without_a_warning(module: str) -> None:
    run = [sys.executable, "-W", "error::DeprecationWarning:alfm", "-m", module, "--help"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
