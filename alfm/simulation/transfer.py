"""Replays of finished runs: their picks, seed by seed and round by round, with whatever else is asked for.

Whatever is not asked for is as it was: `query_strategy=replay query_strategy.path=RUN` alone is the run again, with
`classifier=` another head learns from its picks, and with `model=` or `cache=` another backbone's features of the same
items do, matched by id. The cold start, the budget and the pool are always those of the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfm.config.cell import Cell
from alfm.config.typed_again import OF_THE_ORIGINAL, without_findings
from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.results.run_folder import State, read_config, read_state
from alfm.simulation.cached_task import Simulation
from alfm.simulation.loop import learners_of
from alfm.simulation.validation import Validation
from alfm.strategies.random import Random
from alfm.strategies.replay import Replay

_OWN = ("query_strategy", "device", "memory", "keep_geometry", "force", "stopping", "callback", "run", "paths")
"""Settings that are the replay's, not the run's."""
_FIXED = (*OF_THE_ORIGINAL, "iterations.exp")
"""Settings that say which items are picked."""
_DATA = ("cache", "dataset", "model")


@dataclass(frozen=True)
class Repeated(Validation):
    """The items whose labels a run has paid for to validate on: each seed's pool rows int64 (V,)."""

    own: Mapping[int, np.ndarray]

    def rows(self, seeds: Sequence[int], N: int, given: Tensor | None = None) -> Tensor:
        return torch.from_numpy(np.stack([self.own[seed] for seed in seeds]))


@dataclass(frozen=True)
class Original:
    """A run that is replayed."""

    folder: Path
    config: Mapping[str, Any]
    state: State

    @classmethod
    def of(cls, strategy: Replay) -> Original:
        """UserError: no such run, a damaged one, none of whose seeds is finished."""
        folder = Path(strategy.path).expanduser().absolute()
        folder = folder.parent if folder.name == "picks.npz" else folder
        if not (folder / "config.yaml").exists():
            raise UserError(
                f"query_strategy.path={strategy.path} is no run's folder (no config.yaml in it): give one that "
                "python -m alfm.al_train wrote."
            )
        found = cls(folder, read_config(folder), read_state(folder))
        if not found.state.finished:
            raise UserError(f"{folder} has no finished seed: run it to its end, then replay it.")
        return found

    @property
    def names(self) -> dict[str, str]:
        """Its dataset, model, strategies and classifier."""
        return {key: str(value) for key, value in self.config["run"].items() if isinstance(value, str)}

    @cached_property
    def node(self) -> dict[str, Any]:
        """What the replay's configuration says of it; in place of its path this enters the hash."""
        kept = {key: self.config.get(key) for key in ("query_strategy", "init_strategy", "classifier")}
        return {**{key: self.names[key] for key in ("dataset", "model")}, **kept, "run": self.folder.name}

    def adopted(self, cell: Cell) -> Cell:
        """The cell with all that nobody has typed as it was in the run. UserError for what a replay cannot change."""
        typed = [word.lstrip("+").partition("=")[0] for word in cell.words if "=" in word]
        for key in typed:
            for fixed in _FIXED:
                if key == fixed or key.startswith((f"{fixed}.", f"{fixed}/")):
                    raise UserError(f"{key}=: a replay has the {fixed} of the run in {self.folder}; leave it out.")
        config, choices = dict(cell.config), dict(cell.choices)
        for key, value in without_findings(self.config).items():
            if key in _OWN or key in _DATA or key == "seeds" or key in typed:
                continue
            config[key] = _overridden(value, cell.config.get(key), [one for one in typed if one.startswith(f"{key}.")])
        if "classifier" not in typed:
            choices["classifier"] = self.names["classifier"]
        choices["init_strategy"] = self.names["init_strategy"]
        if not any(one.partition(".")[0] in _DATA for one in typed):
            config["cache"] = self._cache()
        if "seeds" not in typed:
            config["seeds"] = [seed for seed in self.state.rows if seed in self.state.finished]
        return replace(cell, config=config, choices=choices)

    def _cache(self) -> str:
        try:
            return str(json.loads((self.folder / "environment.json").read_text())["sessions"][-1]["cache"])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise UserError(f"{self.folder} does not say where its cache lies: name it with cache=PATH.") from None

    def budgets(self, seeds: Sequence[int], rounds: int) -> dict[tuple[int, ...], list[int]]:
        """Labels of each round, `rounds` at most -> the seeds that have them. UserError for an unfinished seed, and for
        more rounds than were planned."""
        if rounds > (planned := self._planned(rounds)):
            raise UserError(f"iterations.n={rounds}: the run in {self.folder} has {planned} rounds; leave it out.")
        found: dict[tuple[int, ...], list[int]] = {}
        for seed in seeds:
            if seed not in self.state.finished:
                whole = ", ".join(map(str, self.state.finished))
                raise UserError(f"{self.folder} has no finished seed {seed} (it has {whole}): leave seeds= out.")
            counts = [int(row["num_labeled"]) for row in self.state.rows[seed]][:rounds]
            found.setdefault(tuple(np.diff(counts, prepend=self._held(seed)).tolist()), []).append(seed)
        return found

    def _planned(self, otherwise: int) -> int:
        budget, iterations = self.config.get("budget") or {}, self.config.get("iterations") or {}
        listed = budget.get("schedule")
        return len(listed) if listed else int(iterations.get("n", otherwise))

    def bound(self, strategy: Replay, task: Simulation) -> tuple[Replay, Validation | None]:
        """The strategy with the run's picks as rows of a task's pool, and the validation labels that it paid for.
        UserError that names items which are not there."""
        rounds: dict[int, list[np.ndarray]] = {}
        validation: dict[int, np.ndarray] = {}
        for seed in self.state.finished:
            picks, rows = self.state.picks[seed], self.state.rows[seed]
            own = self._rows(strategy, task, picks)
            if (own < 0).any():
                absent = task.numbers.names_of_run(picks[own < 0], self.folder)
                more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
                raise UserError(
                    f"{self.folder} has picked {', '.join(absent[:3])}{more}, which the pool of {task.cache.path} does "
                    "not hold with a label: replay it on a cache of the same items."
                )
            parts = np.split(own, [self._held(seed), *(int(row["num_labeled"]) for row in rows[:-1])])
            validation[seed], rounds[seed] = parts[0], parts[1:]
        sizes = {len(own) for own in validation.values()}
        return strategy.bound(rounds), Repeated(max(sizes), validation) if max(sizes) else None

    def _held(self, seed: int) -> int:
        """How many validation labels stand first among a seed's picks."""
        return int(self.state.rows[seed][0].get("num_validation", 0))

    def _rows(self, strategy: Replay, task: Simulation, picks: np.ndarray) -> np.ndarray:
        if strategy.rows == "cache":
            return task.numbers.of_cache(picks, f"{self.folder}/picks.npz")
        return task.numbers.of_run(picks, self.folder, "query_strategy.rows")

    def named(self, task: Simulation, classifier: Classifier, head: str, bound: Replay, seeds: Sequence[int]) -> Any:
        """What the replay's strategy and cold start are called: (name, name).

        The cold start keeps its name where this cache's own would be the same items, and is then compared with runs
        that were begun here; elsewhere it is "replayed", and there picks at random are called so, since they depend on
        no model: they are what others are compared with.
        """
        same = task.cache.fingerprint == self.names["cache_fingerprint"]
        if not same and self.names["init_strategy"] == "random":
            same = _starts_as(task, classifier, bound, seeds)
        start = self.names["init_strategy"] if same else "replayed"
        strategy, model = self.names["query_strategy"], task.cache.path.stem
        if strategy == "random" and not same:
            return strategy, start
        with_ = self.names["model"] if self.names["model"] != model else ""
        with_ = with_ or (f"a {self.names['classifier']} head" if self.names["classifier"] != head else "")
        return f"{strategy}, picked with {with_}" if with_ else f"{strategy}, replayed", start


def _overridden(before: Any, now: Any, typed: Sequence[str]) -> Any:
    """A run's setting with what was typed of it, by dotted names whose first part is the setting's."""
    if not typed or not isinstance(before, Mapping):
        return before
    changed = json.loads(json.dumps(before))
    for dotted in typed:
        *parents, last = dotted.split(".")[1:]
        place, given = changed, now
        for key in parents:
            place, given = place.setdefault(key, {}), given[key]
        place[last] = given[last]
    return changed


def _starts_as(task: Simulation, classifier: Classifier, bound: Replay, seeds: Sequence[int]) -> bool:
    """Would seeds that begin at random begin here with the items that are replayed?"""
    assert bound._rounds is not None
    first = [bound._rounds[seed][0] for seed in seeds]
    if len({len(own) for own in first}) > 1 or len(first[0]) > task.pool.N:
        return False
    own = learners_of(task, classifier, Random(), Random(), seeds).ask(len(first[0]))
    return all(set(a.tolist()) == set(b.tolist()) for a, b in zip(own, first, strict=True))
