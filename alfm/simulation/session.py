"""Stage 2, one configuration from start to end: from a cell to a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from alfm import devices
from alfm.cache.checked import remember
from alfm.callbacks.base import Run
from alfm.commands import command
from alfm.config.build import build
from alfm.config.cell import Cell
from alfm.config.parts import KINDS, callbacks_of, called, node_of, rules_of
from alfm.config.paths import cache_path, paths
from alfm.errors import UserError
from alfm.options import options_of, plain, read
from alfm.report.terminal import print_summary
from alfm.results.environment import environment_of
from alfm.results.load import load_runs
from alfm.results.run_folder import RunFolder
from alfm.results.verdicts import unjudged
from alfm.simulation.budgets import budgets_of
from alfm.simulation.cached_task import Simulation
from alfm.simulation.console import RoundsBar, announce
from alfm.simulation.index_sets import write_sets
from alfm.simulation.loop import Round
from alfm.simulation.replay import replayed_verdicts
from alfm.simulation.replicates import run_replicates
from alfm.simulation.settings import Held, Settings, Stopping
from alfm.simulation.told import Telling
from alfm.simulation.transfer import Original
from alfm.simulation.tuning import Reused, reused_of, tuned
from alfm.simulation.validation import Validation, validation_set
from alfm.simulation.watch import Watching
from alfm.strategies.base import Strategy
from alfm.strategies.given_rows import GivenRows
from alfm.strategies.random import Random
from alfm.strategies.replay import Replay


class Training:
    """Runs configurations, one after the other, in one process; keeps the last cache, so that a sweep reads each once.

    A session of an engine: see `alfm.engines.base.Session`.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[Any, ...], Simulation] = {}
        """At most one: the file, as it was, and how it was read -> what was read."""

    def key(self, cell: Cell) -> str:
        """Cells on the same cache have the same. Raises UserError where a data set or a model has no name."""
        cfg = cell.cfg()
        return str(cfg.cache or cache_path(cfg))

    def run(self, cell: Cell) -> None:
        """All seeds and rounds of a cell of conf/al_train.yaml; says where the results are. Raises UserError."""
        cfg = cell.cfg()
        strategy = build(cfg.query_strategy, Strategy, "query_strategy")
        original = Original.of(strategy) if isinstance(strategy, Replay) else None
        if original is not None:
            cell = original.adopted(cell)
            cfg = cell.cfg()
        given = read(Settings, cfg)
        names = {group: str(cell.choices[group]) for group in KINDS}
        built = {group: called(build(cfg.get(group), kind, group), names[group]) for group, kind in KINDS.items()}
        watching = watching_of(cfg.stopping, given.stopping)
        callbacks = callbacks_of(cfg.get("callback") or OmegaConf.create())
        task = self.task(find_cache(cell).absolute(), given)
        budget, rounds = given.budget, given.iterations
        budgets = budgets_of(
            task.num_classes, rounds.n, budget.init, budget.step, budget.per_class, rounds.exp, budget.unit,
            budget.schedule, task.pool.N,
        )  # fmt: skip
        seeds = [given.seeds] if isinstance(given.seeds, int) else list(given.seeds)
        if task.initial is not None and original is None:
            chosen = any(word.lstrip("+").startswith("init_strategy=") for word in cell.words)
            built["init_strategy"] = task.given_start(names["init_strategy"] if chosen else Random.name)
            names["init_strategy"] = GivenRows.name
            budgets = task.given_budgets(budgets, budget.schedule is not None)
        validation = validation_of(given.validation, task, budgets[0])
        reused = reused_of(given.tune, len(budgets), built["classifier"])
        config = _with_choices(_with_sets(cell.config, given, task), reused)
        parts: dict[tuple[int, ...], list[int]] = {tuple(budgets): seeds}
        if original is not None:
            bound, validation = original.bound(built["query_strategy"], task)
            parts = original.budgets(seeds, len(budgets))
            names["query_strategy"], names["init_strategy"] = original.named(
                task, built["classifier"], names["classifier"], bound, seeds
            )
            built |= {"query_strategy": bound, "init_strategy": bound}
            node = {**config["query_strategy"], "path": str(original.folder), "of": original.node}
            config = {**config, "query_strategy": node}
        with _run_folder(config, task, names, built, seeds, given.force) as folder:
            if given.tune.active:
                built["classifier"] = tuned(given.tune, built["classifier"], task, seeds, folder.path, reused)
            remember(task.cache, paths().logs)
            finished = folder.completed_seeds()
            waiting = [seed for seed in seeds if seed not in finished]
            if not waiting:
                print(f"Already done: {folder.path} (force=true runs it again)")
            else:
                longest = max(parts, key=len)
                budgets = list(longest)
                announce(task, names, budgets, waiting, 0 if validation is None else validation.size)
                run = Run(
                    folder.path, task.cache.path.parent.name, task.cache.path.stem, **names, rounds=len(budgets),
                    config=config,
                )  # fmt: skip
                tell = Telling(callbacks, run, task.cache_rows)
                with RoundsBar(names["query_strategy"], len(budgets)) as bar:
                    for labels, group in parts.items():
                        for _ in run_replicates(
                            task, **built, budgets=labels, seeds=group, folder=folder, warm_start=given.warm_start,
                            on_round=partial(_both, tell, bar), watching=watching, validation=validation,
                        ):  # fmt: skip
                            pass
                _write_sets(folder, task)
                for why in {why for why in folder.completed_seeds().values() if "exhausted" in why}:
                    print(f"Ended early: {why}.")
            if watching and (missing := unjudged(folder.verdicts(), watching.options, folder.completed_seeds())):
                print(f"Watching finished seeds once more, heads alone: {', '.join(map(str, missing))}", flush=True)
                classifier, warm = built["classifier"], given.warm_start
                folder.keep(replayed_verdicts(task, classifier, watching, folder.state, missing, warm, validation))
        print_summary(load_runs(folder.path))
        print(f"Results: {folder.path}")
        print(f"Next: {command('report', str(paths().logs))}")

    def task(self, path: Path, given: Settings) -> Simulation:
        """The cache as a task; the last one again when neither the file nor the way of reading it changed."""
        splits = given.splits
        unlabelled = tuple(splits.unlabelled) if isinstance(splits.unlabelled, list) else splits.unlabelled
        how = (given.device, given.memory, splits.pool, splits.test, given.train_views, given.keep_geometry, unlabelled)
        sets = given.index_sets
        files = [path, *(sets.files().values() if sets.given else ())]
        files += [] if given.oracle.confusion is None else [Path(given.oracle.confusion).expanduser()]
        key = (path, *map(_stamp, files), *how, sets, given.pool, given.oracle)
        if key not in self._loaded:
            self._loaded.clear()  # before the next one is read: two may not fit
            task = Simulation(path, *how, index_sets=sets, pool=given.pool, oracle=given.oracle)
            if task.pool.large or not task.pool.resident:
                print(f"{task.pool.held}.")
            self._loaded[key] = task
        return self._loaded[key]


def _both(tell: Telling, bar: RoundsBar, made: Round, seeds: Sequence[int]) -> None:
    bar(made, seeds)
    tell(made, seeds)


def watching_of(node: Any, given: Stopping) -> Watching | None:
    """What a config's `stopping` asks for; None without rules. Raises UserError."""
    rules = rules_of(node, list(options_of(Stopping)))
    if not rules and given.mode == "stop":
        raise UserError("stopping.mode=stop: name a rule that says when, such as stopping=kappa_pairs.")
    return Watching(rules, given.mode == "stop", given.sample, given.audit) if rules else None


def validation_of(given: Held, task: Simulation, initial: int = 0) -> Validation | None:
    """What `validation.` asks for; None for nothing. Raises UserError where it cannot be."""
    held = validation_set(given.size, given.unit, task.num_classes, task.pool.N, initial)
    if held is not None and task.held_out is not None:
        raise UserError(f"validation.size={given.size:g}: index_sets name a validation set already; leave one out.")
    return held


def _stamp(path: Path) -> tuple[int, int] | None:
    """By which a file is known to be what it was; None where it is missing, which its reader explains."""
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None


def _with_sets(config: dict[str, Any], given: Settings, task: Simulation) -> dict[str, Any]:
    """A cell's configuration with what is in the files of its index sets, and the files from whatever folder."""
    if task.sets is None:
        return config
    made = {**config, "index_sets": {**asdict(given.index_sets.absolute()), **task.sets.described()}}
    if task.initial is not None:  # what a query strategy would have begun with is not asked
        made["init_strategy"] = plain(node_of("init_strategy", Random.name))
    return made


def _with_choices(config: dict[str, Any], reused: Reused | None) -> dict[str, Any]:
    """A cell's configuration with what another run's choices are, wherever that one lies."""
    if reused is None:
        return config
    return {**config, "tune": {**config["tune"], "seed": reused.seed, "choices": reused.digest}}


def _write_sets(folder: RunFolder, task: Simulation) -> None:
    """What each replicate of a run began with, beside its picks, for others to begin with."""
    state, dataset = folder.state, task.cache.path.absolute().parent.name
    held = task.sets.validation if task.sets is not None else None
    held = np.empty(0, np.int64) if held is None else held
    for seed, rows in state.rows.items():
        write_sets(folder.path, dataset, task.items, task.cache_rows, held, seed, state.picks[seed], rows[0])


def _run_folder(
    config: dict[str, Any],
    task: Simulation,
    names: dict[str, str],
    built: dict[str, Any],
    seeds: Sequence[int],
    force: bool,
) -> RunFolder:
    path, fingerprint = task.cache.path, task.cache.fingerprint
    return RunFolder.open(
        paths().logs,
        dataset=path.parent.name,
        model=path.stem,
        **names,
        config=config,
        cache_fingerprint=fingerprint,
        force=force,
        environment=environment_of(devices.of(task.pool.device).label, path, fingerprint, seeds),
        about=task.about,
        behaviour=task.behaviour(**built) | _unsaid_tolerance(config["classifier"]),
    )


def find_cache(cell: Cell) -> Path:
    """The cache that a configuration means; UserError, with the command that makes it, when it is not there."""
    cfg = cell.cfg()
    if cfg.cache is not None:
        return Path(cfg.cache).expanduser()
    path = cache_path(cfg)
    if not path.exists():
        raise UserError(
            f"There is no feature cache {path}: make it with python -m alfm.extract dataset={cell.choices['dataset']} "
            f"model={cell.choices['model']} (and the same dataset. and model. settings), or name a file with "
            "cache=PATH."
        )
    return path


def _unsaid_tolerance(node: Any) -> dict[str, int]:
    """The behaviour number of a config that leaves a logistic head's tolerance open: it was 2.5e-5 once."""
    if not isinstance(node, dict):
        return {}
    if node.get("_target_") == "alfm.heads.logistic.Logistic" and "tolerance" not in node:
        return {"logistic_tolerance": 1}
    return next(filter(None, map(_unsaid_tolerance, node.values())), {})
