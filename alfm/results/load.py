"""Finished runs as one data frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.results.conditions import condition_columns, plain
from alfm.results.run_folder import _NAMES, COLUMNS, Row, _read_state, hashed_config, read_config

if TYPE_CHECKING:
    import pandas as pd


def load_runs(paths: str | Path | Iterable[str | Path], *, finished_only: bool = True) -> pd.DataFrame:
    """Rounds of every run found at `paths` (run folders, or folders that hold some at any depth).

    Returns a DataFrame with `COLUMNS` and dataset, model, query_strategy, init_strategy, classifier, budget (as
    planned, in words), cache (its fingerprint), `conditions.condition_columns`, run (the folder's name), path,
    finished (bool), `initial`: the `start_fingerprint` of the first round's picks, and `picked`: the
    `picks_fingerprints` up to each round. Replicates that are not finished are left out unless `finished_only=False`,
    and so is a copy of one: the same hash, seed and picks in another folder.

    Raises UserError for a path that does not exist or holds no run, and for a damaged run folder.
    """
    import pandas as pd

    given = [paths] if isinstance(paths, str | Path) else list(paths)
    folders: dict[Path, None] = {}
    for path in map(Path, given):
        if not path.exists():
            raise UserError(f"{path} does not exist; give a folder that `python -m alfm.al_train` wrote")
        found = sorted(file.parent for file in path.rglob("rounds.csv"))
        if not found:
            raise UserError(f"{path} holds no run (no rounds.csv in it or below); give LOG_DIR or a run's folder")
        folders.update(dict.fromkeys(folder.resolve() for folder in found))
    frames = []
    known: set[tuple[object, ...]] = set()
    for folder in folders:
        rows, picks, finished, _ = _read_state(folder)
        config = read_config(folder)
        run = config["run"]
        cache = str(run["cache_fingerprint"])
        picked = {
            seed: picks_fingerprints(picks[seed], [int(row["num_labeled"]) for row in own], cache)
            for seed, own in rows.items()
            if own and (seed in finished or not finished_only)
        }
        names = {name: str(run[name]) for name in _NAMES}
        identity = {
            seed: (*names.values(), str(run["hash"]), seed, own[-1], seed in finished) for seed, own in picked.items()
        }
        chosen = [seed for seed, one in identity.items() if one not in known]
        known.update(identity.values())
        if not chosen:
            continue
        frame = pd.DataFrame([row for seed in chosen for row in rows[seed]], columns=list(COLUMNS))
        for name, value in names.items():
            frame[name] = value
        frame["budget"] = _budget_text(config, max((rows[seed] for seed in chosen), key=len))
        frame["cache"] = cache
        for name, text in condition_columns(hashed_config(config), run.get("behaviour")).items():
            frame[name] = text
        frame["run"], frame["path"] = folder.name, str(folder)
        frame["finished"] = frame["seed"].isin(finished.keys())
        start = {seed: start_fingerprint(picks[seed][: int(rows[seed][0]["num_labeled"])], cache) for seed in chosen}
        frame["initial"] = frame["seed"].map(start)
        frame["picked"] = [one for seed in chosen for one in picked[seed]]
        frames.append(frame)
    if not frames:
        raise UserError(f"no finished run in {', '.join(map(str, given))}; start al_train again to continue them")
    return pd.concat(frames, ignore_index=True)


def start_fingerprint(picks: np.ndarray, cache_fingerprint: str) -> str:
    """Equal for replicates that began with the same items of the same cache, in whatever order. `picks` int64 (n,)."""
    return hashlib.sha256(np.sort(picks).tobytes() + cache_fingerprint.encode()).hexdigest()[:16]


def picks_fingerprints(picks: np.ndarray, num_labeled: Sequence[int], cache_fingerprint: str) -> list[str]:
    """One per round, equal for replicates that picked the same items of the same cache in every round so far.

    `picks` int64 (n,) in the order picked; `num_labeled`: how many of them up to each round. Within a round the order
    does not count.
    """
    digest = hashlib.sha256(cache_fingerprint.encode())
    found, before = [], 0
    for count in num_labeled:
        digest.update(np.sort(picks[before:count]).tobytes() + b"|")
        found.append(digest.hexdigest()[:16])
        before = count
    return found


def _budget_text(config: Mapping[str, Any], longest: Sequence[Row]) -> str:
    """The budget that was planned, so that a run stopped early stays beside the others; else what was spent."""
    try:
        budget, iterations = plain(config["budget"]), plain(config["iterations"])
        per = " per class" if budget["per_class"] else ""
        grows = ", doubling" if iterations["exp"] else ""
        return f"{budget['init']} + {budget['step']} labels{per} a round{grows}, {iterations['n']} rounds"
    except (KeyError, TypeError):
        return f"{longest[0]['num_labeled']} to {longest[-1]['num_labeled']} labels in {len(longest)} rounds"
