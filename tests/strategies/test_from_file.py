"""What docs/speed.md says of pools beyond memory: every strategy picks from a file what it picks from memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies.factory import Rows, clusters
from strategies.test_properties import QUERIES, SMALL

from alfm.config.parts import from_config
from alfm.features.features import Features
from alfm.heads.logistic import Logistic
from alfm.simulation.task import Task
from alfm.strategies.ask import ask
from alfm.strategies.query import Query

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
N, CLASSES, SEEDS = 300, 4, (1, 2)
# so small that this pool is a large one
LARGE: dict[str, dict[str, Any]] = {
    "alfamix": {"cluster_up_to": 50},
    "clue": {"cluster_up_to": 100},
    "cluster_margin": {"exact_up_to": 100},
    "dropquery": {"cluster_up_to": 50},
    "maxherding": {"exact_up_to": 100, "sample": 80},
    "probcover": {"exact_up_to": 100},
    "typiclust": {"cluster_up_to": 100},
    "uherding": {"exact_up_to": 100, "sample": 80},
}


def pool_of(memory: str) -> tuple[Features, list[Any]]:
    x, y = clusters(N, 12, CLASSES)
    stored = x.astype(np.float16)
    pool = Features(Rows(stored) if memory == "file" else stored, block_rows=64)
    assert (pool.raw.matrix is None) == (memory == "file")
    rows = torch.from_numpy(np.stack([np.random.default_rng(seed).permutation(N)[:20] for seed in SEEDS]))
    targets = torch.from_numpy(y)[rows]
    available = torch.ones(len(SEEDS), N, dtype=torch.bool).scatter_(1, rows, False)
    head = Logistic().fit(pool, rows, targets, CLASSES, SEEDS, 2)
    labels = torch.from_numpy(y)
    task = Task(pool, labels, Features(x[:40].astype(np.float32)), labels[:40], CLASSES)
    return pool, [rows, targets, available, CLASSES, list(SEEDS), 2, head, Logistic(), {}, task]


@pytest.fixture(scope="module")
def pools() -> list[tuple[Features, list[Any]]]:
    return [pool_of("device"), pool_of("file")]


@pytest.mark.parametrize("name", QUERIES)
def test_picks_are_those_from_memory(name: str, pools: list[tuple[Features, list[Any]]]) -> None:
    picks = []
    for pool, (*seen, _, task) in pools:
        built = from_config("query_strategy", name, **SMALL.get(name, {}), **LARGE.get(name, {}))
        picks.append(ask(built, Query(pool, *seen, {}, task if built.oracle else None), 6)[0].tolist())
    assert picks[0] == picks[1]


def test_the_page_says_of_every_strategy_what_it_does_beyond_memory() -> None:
    text = PAGE.read_text(encoding="utf-8").split("Beyond memory", 1)[1]
    rows = [line for line in text.split("\n\n")[1].splitlines()[2:] if line.startswith("|")]
    named = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[2])]
    assert set(QUERIES) <= set(named), set(QUERIES) - set(named)
