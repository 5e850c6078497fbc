"""Runs as data frames: their rounds, their picks, and what stopping rules said of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.results.conditions import condition_columns, plain
from alfm.results.rounds_file import Row, columns
from alfm.results.run_folder import NAMES, read_config, read_state
from alfm.results.run_hash import given_labels, hashed_config
from alfm.results.tuning_file import read_tuning
from alfm.results.verdicts import Verdict, read_verdicts

if TYPE_CHECKING:
    import pandas as pd


def load_runs(paths: str | Path | Iterable[str | Path], *, finished_only: bool = True) -> pd.DataFrame:
    """Rounds of every run found at `paths` (run folders, or folders that hold some at any depth).

    Returns a DataFrame with the columns of `rounds.csv` and dataset, model, query_strategy, init_strategy, classifier,
    budget (as planned, in words), cache (its fingerprint), `conditions.condition_columns`, run (the folder's name),
    path, pool (what was made of the cache's items, see `pool_words`), finished (bool), added (bool: a sweep was given
    it, for others to be compared with), `initial`: the `start_fingerprint` of the first round's picks, and `picked`:
    the `picks_fingerprints` up to each round. Replicates that are not finished are left out unless
    `finished_only=False`, and so is a copy of one: the same hash, seed and picks in another folder. A metric that a run
    did not measure is NaN; one that only runs of another version have is a column more.

    Raises UserError for a path that does not exist or holds no run, and for a damaged run folder.
    """
    import pandas as pd

    given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    known: set[tuple[object, ...]] = set()
    frames = [_frame(folder, finished_only, known) for folder in run_folders(given)]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise UserError(f"no finished run in {', '.join(map(str, given))}; start al_train again to continue them")
    return pd.concat(frames, ignore_index=True)


def load_tuning(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """What was chosen in every round of the runs at `paths` whose heads were tuned.

    Returns a DataFrame with a row per seed, round and option: dataset, model, query_strategy, init_strategy,
    classifier, run, path, seed, round, option, value, score, default, reason (see `tuning_file.Tuning`); without rows
    where no run was tuned. Raises UserError as `load_runs` does.
    """
    import pandas as pd

    found = []
    for folder, about in _abouts(paths):
        for one in read_tuning(folder):
            for option, value in one.options.items():
                place = {"seed": one.seed, "round": one.round, "option": option, "value": value}
                said = {"score": one.score, "default": one.default, "reason": one.reason}
                found.append({**about, **place, **said})
    order = [*NAMES, "run", "path", "seed", "round", "option", "value", "score", "default", "reason"]
    return pd.DataFrame(found, columns=order)


def load_picks(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Every item that the runs at `paths` have picked, in order, those of unfinished replicates with them.

    Columns: dataset, model, query_strategy, init_strategy, classifier, run, path, seed, round, place (from 1 on: the
    how many-th item of its seed), row (of the cache's split). UserError as `load_runs`.
    """
    import pandas as pd

    frames = []
    for folder, about in _abouts(paths):
        state = read_state(folder)
        for seed, picks in state.picks.items():
            counts = [int(row["num_labeled"]) for row in state.rows[seed]]
            rounds = np.array([int(row["round"]) for row in state.rows[seed]])
            place = np.arange(1, len(picks) + 1)
            at = rounds[np.searchsorted(counts, place)]
            frames.append(pd.DataFrame({**about, "seed": seed, "round": at, "place": place, "row": picks}))
    return pd.concat(frames, ignore_index=True)


def load_stops(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """What stopping rules have said of the seeds of the runs at `paths`; no rows where none has watched.

    Columns: dataset, model, query_strategy, init_strategy, classifier, run, path, and those of
    `alfm.results.verdicts.Verdict`: seed, rule, options, round and labels (NaN where a rule never fired), charged,
    reason. UserError as `load_runs`, and for a table that cannot be read.
    """
    import pandas as pd

    rows = [{**about, **asdict(one)} for folder, about in _abouts(paths) for one in read_verdicts(folder)]
    order = [*NAMES, "run", "path", *(field.name for field in fields(Verdict))]
    return pd.DataFrame(rows, columns=order).astype({"round": "float64", "labels": "float64"})


def _abouts(paths: str | Path | Iterable[str | Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Run folders, and what their runs are called."""
    given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    for folder in run_folders(given):
        run = read_config(folder)["run"]
        yield folder, {**{name: str(run[name]) for name in NAMES}, "run": folder.name, "path": str(folder)}


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Every folder with a table of rounds, once, however often it is named."""
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; give a folder that `python -m alfm.al_train` wrote")
        found = sorted(file.parent for file in path.rglob("rounds.csv"))
        if not found:
            raise UserError(f"{path} holds no run (no rounds.csv in it or below); give LOG_DIR or a run's folder")
        folders.update(dict.fromkeys(folder.resolve() for folder in found))
    return list(folders)


def _frame(folder: Path, finished_only: bool, known: set[tuple[object, ...]]) -> pd.DataFrame:
    """One run's rows, without replicates that are `known` from another folder; those that are not become so."""
    import pandas as pd

    state, config = read_state(folder), read_config(folder)
    run = config["run"]
    cache = str(run["cache_fingerprint"])
    names = {name: str(run[name]) for name in NAMES}
    chosen: list[int] = []
    starts: dict[int, str] = {}
    picked: list[str] = []
    for seed, rows in state.rows.items():
        if finished_only and seed not in state.finished:
            continue
        counts = [int(row["num_labeled"]) for row in rows]
        marks = picks_fingerprints(state.picks[seed], counts, cache)
        identity = (*names.values(), str(run["hash"]), seed, marks[-1], seed in state.finished)
        if identity in known:
            continue
        known.add(identity)
        chosen.append(seed)
        starts[seed] = start_fingerprint(state.picks[seed][: counts[0]], cache)
        picked += marks
    order = list(columns(state.columns))
    frame = pd.DataFrame([row for seed in chosen for row in state.rows[seed]]).reindex(columns=order)
    longest = max((state.rows[seed] for seed in chosen), key=len, default=[])
    return frame.assign(
        **names,
        budget=budget_text(config, longest) if chosen else "",
        cache=cache,
        **condition_columns(hashed_config(config), run.get("behaviour")),
        run=folder.name,
        path=str(folder),
        pool=json.dumps(run["pool"], sort_keys=True) if "pool" in run else "",
        added=bool(config.get("reference_added")),
        finished=frame["seed"].isin(state.finished.keys()),
        initial=frame["seed"].map(starts),
        picked=picked,
    )


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


def budget_text(config: Mapping[str, Any], longest: Sequence[Row]) -> str:
    """The budget that was planned, so that a run stopped early stays beside the others; else what was spent."""
    try:
        budget, iterations = plain(config["budget"]), plain(config["iterations"])
        unit = budget.get("unit") or ("class" if budget["per_class"] else "labels")
        per = {"class": " labels per class", "share": " % of the pool"}.get(unit, " labels")
        if listed := budget.get("schedule"):
            return f"{', '.join(_amount(one, unit) for one in listed)}{per}, {len(listed)} rounds"
        grows = ", doubling" if iterations["exp"] else ""
        first, each = (_amount(budget[key], unit) for key in ("init", "step"))
        first = f"{count} given" if (count := given_labels(config)) else first
        return f"{first} + {each}{per} a round{grows}, {iterations['n']} rounds"
    except (KeyError, TypeError):
        return f"{longest[0]['num_labeled']} to {longest[-1]['num_labeled']} labels in {len(longest)} rounds"


def _amount(value: Any, unit: str) -> str:
    return f"{100 * value:g}" if unit == "share" else str(value)
