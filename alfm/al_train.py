"""Stage 2: `python -m alfm.al_train`, active-learning rounds on a feature cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Lt, MinLen

from alfm.commands import command
from alfm.config.build import build
from alfm.config.hydra import run_hydra
from alfm.config.paths import paths
from alfm.errors import UserError
from alfm.extract import cache_path
from alfm.options import Device, Labels, Means, Name, PathName, Rounds, Seed, checked, read, shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from alfm.simulation.cached_task import Simulation
    from alfm.simulation.loop import Round

ABOUT = """Run active-learning rounds on cached features: which items would each query strategy have labelled, and how
good is the classifier after each round? Every setting is one of Hydra's: key=value, group=option, -m for sweeps."""


_Label = Annotated[int, Ge(-(2**63)), Lt(2**63)]


@dataclass(frozen=True)
@checked
class Splits:
    pool: Name
    test: Name
    unlabelled: Annotated[
        _Label | Sequence[_Label] | Literal["ask"] | None, Means("a whole number, a list of them, ask or null")
    ]


@dataclass(frozen=True)
@checked
class Iterations:
    n: Rounds
    exp: bool


@dataclass(frozen=True)
@checked
class Budget:
    init: Labels
    step: Labels
    per_class: bool


_SEEDS = Means("a list of whole numbers that are not negative, such as seeds=[1,10,100],")


@dataclass(frozen=True)
@checked
class Settings:
    """The settings of conf/al_train.yaml beside its groups: what each may be."""

    cache: PathName | None
    splits: Splits
    seeds: Annotated[Seed | Annotated[Sequence[Seed], MinLen(1)], _SEEDS]
    iterations: Iterations
    budget: Budget
    train_views: bool
    warm_start: bool
    device: Device
    memory: Literal["auto", "device", "host", "file"]
    keep_geometry: bool
    force: bool

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds={shown(self.seeds)}: give different ones, a seed twice is the same run twice.")


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (a mistake or a failed job) or 2 (a wrong command line)."""
    return run_hydra(
        "al_train", al_train, sort_key=lambda cfg: str(cfg.cache or cache_path(cfg)), about=ABOUT, argv=argv
    )


def al_train(cfg: DictConfig) -> None:
    """Run one configuration: all its seeds, all its rounds; prints where the results are."""
    from omegaconf import OmegaConf

    from alfm import devices
    from alfm.cache.checked import remember
    from alfm.config.parts import KINDS
    from alfm.report.terminal import print_summary
    from alfm.results.environment import environment_of
    from alfm.results.load import load_runs
    from alfm.results.run_folder import RunFolder
    from alfm.simulation.replicates import budgets_of, run_replicates

    given = read(Settings, cfg)
    built = {group: build(cfg.get(group), kind, group) for group, kind in KINDS.items()}
    names = {group: _choice(group) for group in built}
    path = find_cache(cfg).absolute()
    splits, budget, rounds = given.splits, given.budget, given.iterations
    task = _open(
        path,
        given.device,
        given.memory,
        splits.pool,
        splits.test,
        given.train_views,
        given.keep_geometry,
        tuple(splits.unlabelled) if isinstance(splits.unlabelled, list) else splits.unlabelled,
    )
    budgets = budgets_of(task.num_classes, rounds.n, budget.init, budget.step, budget.per_class, rounds.exp)
    seeds = [given.seeds] if isinstance(given.seeds, int) else list(given.seeds)
    device = devices.of(task.pool.device).label
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = RunFolder.open(
        paths().logs,
        dataset=path.parent.name,
        model=path.stem,
        **names,
        config=plain,
        cache_fingerprint=task.cache.fingerprint,
        force=given.force,
        environment=environment_of(device, task.cache.path, task.cache.fingerprint, seeds),
        behaviour=task.behaviour(**built) | _unsaid_tolerance(plain["classifier"]),
    )
    with folder:
        remember(task.cache, paths().logs)
        finished = folder.completed_seeds()
        waiting = [seed for seed in seeds if seed not in finished]
        if not waiting:
            print(f"Already done: {folder.path} (force=true runs it again)")
        else:
            _announce(task, names, budgets, waiting, device)
            with _Progress(names["query_strategy"], len(budgets)) as progress:
                for _ in run_replicates(
                    task, **built, budgets=budgets, seeds=seeds, folder=folder, warm_start=given.warm_start,
                    on_round=progress,
                ):  # fmt: skip
                    pass
            early = {why for why in folder.completed_seeds().values() if "exhausted" in why}
            for why in early:
                print(f"Ended early: {why}.")
    print_summary(load_runs(folder.path))
    print(f"Results: {folder.path}")
    print(f"Next: {command('report', str(paths().logs))}")


def find_cache(cfg: DictConfig) -> Path:
    """The cache that a configuration means; UserError, with the command that makes it, when it is not there."""
    if cfg.cache is not None:
        return Path(cfg.cache).expanduser()
    path = cache_path(cfg)
    if not path.exists():
        raise UserError(
            f"There is no feature cache {path}: make it with python -m alfm.extract dataset={_choice('dataset')} "
            f"model={_choice('model')} (and the same dataset. and model. settings), or name a file with cache=PATH."
        )
    return path


def _unsaid_tolerance(node: Any) -> dict[str, int]:
    """The behaviour number of a config that leaves a logistic head's tolerance open: it was 2.5e-5 once."""
    if not isinstance(node, dict):
        return {}
    if node.get("_target_") == "alfm.heads.logistic.Logistic" and "tolerance" not in node:
        return {"logistic_tolerance": 1}
    return next(filter(None, map(_unsaid_tolerance, node.values())), {})


def _choice(group: str) -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices[group])


_loaded: dict[tuple[Any, ...], Simulation] = {}
"""The last cache, so that a sweep over strategies reads each once."""


def _open(path: Path, *how: Any) -> Simulation:
    """`Simulation(path, *how)`; the last one again when neither the file nor the rest changed."""
    from alfm.simulation.cached_task import Simulation

    stamp = path.stat() if path.exists() else None  # a missing file is the cache reader's to explain
    key = (path, stamp and (stamp.st_mtime_ns, stamp.st_size), *how)
    if key not in _loaded:
        _loaded.clear()  # before the next one is read: two may not fit
        _loaded[key] = Simulation(path, *how)
    return _loaded[key]


def _announce(task: Simulation, names: dict[str, str], budgets: list[int], seeds: list[int], device: str) -> None:
    start = names["init_strategy"]
    print(
        f"{names['query_strategy']} from {'an' if start[0] in 'aeiou' else 'a'} {start} start, "
        f"{names['classifier']} head, on {device}: "
        f"pool {task.pool.N} x {task.pool.D}, {task.num_classes} classes, test {task.test.N}; "
        f"{len(budgets)} rounds to {min(sum(budgets), task.pool.N)} labels, seeds {', '.join(map(str, seeds))}",
        flush=True,
    )
    for remark in task.cache.remarks:
        print(f"note: {remark}")
    for split, count in zip(("pool", "test split"), task.left_out, strict=True):
        if count:
            print(f"Left out of the {split}: {count} items without a label")


class _Progress:
    """A live bar over rounds."""

    def __init__(self, name: str, rounds: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        self.name, self.rounds = name, rounds
        self.task: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()  # a failed run would leave it drawing into the next job's output

    def __call__(self, made: Round, seeds: Any) -> None:
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=self.rounds, status="")
        accuracy = sum(m["accuracy"] for m in made.metrics) / len(made.metrics)
        status = f"{made.num_labeled} labels, accuracy {accuracy:.3f}"
        self.bar.update(self.task, completed=made.round, status=status)
        if made.ended:
            self.bar.stop()
            self.task = None


if __name__ == "__main__":
    # torch's threads shall not spin while replicates run side by side on all cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
