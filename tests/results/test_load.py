from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alfm.errors import UserError
from alfm.metrics import METRICS
from alfm.results import load_picks, load_stops
from alfm.results.run_folder import RunFolder
from alfm.results.verdicts import NEVER, Verdict

PICKS = {1: [7, 3, 9, 0], 10: [5, 6, 2, 8]}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.open(
        tmp_path, dataset="d", model="m", query_strategy="margins", init_strategy="random", classifier="logistic",
        config={"seeds": [1, 10]}, cache_fingerprint="c",
    )  # fmt: skip
    cost = dict.fromkeys(("fit_seconds", "query_seconds", "eval_seconds", "num_filled", "peak_memory_bytes"), 0)
    for number, (before, after) in enumerate([(0, 1), (1, 4)], 1):
        about = {**dict.fromkeys(METRICS, 0.5), **cost, "num_replicates": 2, "round": number, "num_labeled": after}
        made.append([{**about, "seed": s} for s in PICKS], {s: np.array(p[before:after]) for s, p in PICKS.items()})
    return made


def test_picks_in_order_with_their_rounds(folder: RunFolder) -> None:
    table = load_picks(folder.path)
    for seed, picks in PICKS.items():
        own = table[table["seed"] == seed]
        assert own["row"].tolist() == picks and own["place"].tolist() == [1, 2, 3, 4]
        assert own["round"].tolist() == [1, 2, 2, 2]
    assert set(table["query_strategy"]) == {"margins"} and set(table["path"]) == {str(folder.path)}


def test_what_rules_said(folder: RunFolder) -> None:
    assert len(load_stops(folder.path)) == 0 and "reason" in load_stops(folder.path)
    folder.keep(
        [Verdict(1, "kappa_pairs", "{}", 2, 4, 0, "kappa 1"), Verdict(10, "kappa_pairs", "{}", None, None, 0, NEVER)]
    )
    table = load_stops([folder.path]).set_index("seed")
    assert table.loc[1, ["rule", "round", "labels", "reason", "model"]].tolist() == [
        "kappa_pairs",
        2,
        4,
        "kappa 1",
        "m",
    ]
    assert np.isnan(table.loc[10, "round"]) and table.loc[10, "reason"] == NEVER


def test_no_run_there(tmp_path: Path) -> None:
    for load in (load_picks, load_stops):
        with pytest.raises(UserError, match="holds no run"):
            load(tmp_path)
