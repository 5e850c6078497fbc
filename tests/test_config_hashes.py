"""A run's folder is found by the hash of its configuration: hashes of every config, as runs that exist have them.

`config_hashes.json` was written once. A new config gets a line there; a line that is there never changes, or runs that
are finished would be run again. Where a mend changes picks, that is `Simulation.behaviour`'s to say; an option that
comes later is named in `LATER_OPTIONS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from alfm.al_train import main
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.results.run_folder import RunFolder, run_hash

KNOWN: dict[str, str] = json.loads(Path(__file__).with_name("config_hashes.json").read_text())
SETTINGS = (
    "budget.init=2",
    "budget.per_class=false",
    "budget.step=3",
    "iterations.exp=true",
    "iterations.n=5",
    "splits.pool=test splits.test=train",
    "splits.unlabelled=null",
    "train_views=false",
    "warm_start=false",
)
OF_NO_MATTER = (
    "dataset=cifar10 model=dinov3_vit_S16 seeds=[7] memory=file keep_geometry=true force=true "
    "stopping=[kappa_pairs,forecast] stopping.kappa_pairs.threshold=0.5 stopping.sample=7"
)
ENDING = "stopping=kappa_pairs stopping.mode=stop"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hashes") / "points.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            file[f"{split}/features"] = rng.normal(size=(12, 4)).astype(np.float32)
            file[f"{split}/labels"] = np.arange(12) % 3
    return path


def everything() -> Iterator[str]:
    """Every config that enters a hash, each beside the defaults of the others."""
    for group in ("query_strategy", "init_strategy", "classifier"):
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            if path.stem != "replay":  # has the hash of what it replays
                yield f"{group}={path.stem}"
    for path in sorted((conf_dir() / "query_strategy" / "posterior").glob("*.yaml")):
        yield f"query_strategy=bald query_strategy/posterior={path.stem}"
    yield from SETTINGS


def hashes(cache: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The hash of the folder that `al_train` opens for each line of overrides."""
    found: dict[str, str] = {}

    def opened(log_dir, *, config, behaviour, **_):
        found[line] = run_hash(config, "a cache", behaviour=behaviour)[:16]
        raise UserError("far enough")

    monkeypatch.setattr(RunFolder, "open", opened)
    for line in lines:
        path = ["init_strategy.path=rows.txt"] if line == "init_strategy=index_file" else []
        assert main([*line.split(), *path, f"cache={cache}", "device=cpu"]) == 1
    return found


def test_every_config_has_the_hash_it_had(cache, monkeypatch):
    lines = list(everything())
    found = hashes(cache, lines, monkeypatch)
    assert not set(lines) - set(KNOWN), "new configs: give them a line in config_hashes.json"
    assert found == KNOWN


def test_what_changes_no_pick_does_not_enter_the_hash(cache, monkeypatch):
    assert hashes(cache, [OF_NO_MATTER], monkeypatch) == {OF_NO_MATTER: KNOWN["query_strategy=uherding"]}


def test_options_that_came_later_enter_it_where_they_are_used(cache, monkeypatch):
    used = ["classifier.averaging=5", "classifier.mixup=0.4", "classifier.views=random"]
    lines = [f"classifier=dropout {option}" for option in used]
    assert len({*hashes(cache, lines, monkeypatch).values(), KNOWN["classifier=dropout"]}) == len(used) + 1


def test_rules_that_may_end_replicates_make_another_run(cache, monkeypatch):
    lines = [ENDING, f"{ENDING} stopping.kappa_pairs.threshold=0.5", f"{ENDING} stopping.sample=7"]
    found = hashes(cache, lines, monkeypatch)
    assert len({*found.values(), KNOWN["query_strategy=uherding"]}) == 4
