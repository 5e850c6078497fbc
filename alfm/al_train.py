"""Stage 2: `python -m alfm.al_train`, active-learning rounds on a feature cache."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.errors import UserError
from alfm.extract import cache_path
from alfm.settings import build, paths, run_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from alfm.experiment import Simulation
    from alfm.loop import Round

ABOUT = """Run active-learning rounds on cached features: which items would each query strategy have labelled, and how
good is the classifier after each round? Every setting is one of Hydra's: key=value, group=option, -m for sweeps."""


def main() -> None:
    """Entry point; the exit status is 0, 1 (a mistake or a failed job) or 2 (a wrong command line)."""
    sys.exit(run_hydra("al_train", al_train, sort_key=lambda cfg: str(cfg.cache or cache_path(cfg)), about=ABOUT))


def al_train(cfg: DictConfig) -> None:
    """Run one configuration: all its seeds, all its rounds; prints where the results are."""
    from omegaconf import OmegaConf
    from rich.console import Console

    from alfm.environment import environment_of
    from alfm.experiment import budgets_of, run_replicates
    from alfm.report import print_summary
    from alfm.results import RunFolder, load_runs

    console = Console()
    names = {group: _choice(group) for group in ("query_strategy", "init_strategy", "classifier")}
    path = find_cache(cfg).absolute()
    task = _open(str(path), cfg.device, cfg.memory, cfg.splits.pool, cfg.splits.test)
    budgets = budgets_of(
        task.num_classes, cfg.iterations.n, cfg.budget.init, cfg.budget.step, cfg.budget.per_class, cfg.iterations.exp
    )
    built = {group: build(cfg[group]) for group in names}
    seeds = [int(seed) for seed in cfg.seeds]
    device = str(task.pool.device)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = RunFolder.open(
        paths().logs,
        dataset=path.parent.name,
        model=path.stem,
        **names,
        config=plain,
        cache_fingerprint=task.cache.fingerprint,
        force=cfg.force,
        environment=environment_of(device, task.cache.path, task.cache.fingerprint, seeds),
    )
    with folder:
        finished = folder.completed_seeds()
        waiting = [seed for seed in seeds if seed not in finished]
        if not waiting:
            console.print(f"Already done: {folder.path} (force=true runs it again)")
        else:
            _announce(console, task, names, budgets, waiting, device)
            rounds = run_replicates(
                task, **built, budgets=budgets, seeds=seeds, folder=folder, warm_start=cfg.warm_start,
                on_round=_Progress(console, names["query_strategy"], len(budgets)),
            )  # fmt: skip
            for _ in rounds:
                pass
            early = {why for why in folder.completed_seeds().values() if "exhausted" in why}
            for why in early:
                console.print(f"Ended early: {why}.")
    print_summary(load_runs(folder.path))
    console.print(f"Results: {folder.path}", soft_wrap=True)
    console.print(f"Next: python -m alfm.report {paths().logs}", soft_wrap=True)


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


def _choice(group: str) -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices[group])


@lru_cache(maxsize=1)
def _open(path: str, device: str, memory: Any, pool_split: str, test_split: str) -> Simulation:
    """The last cache stays loaded, so that a sweep over strategies reads it once."""
    from alfm.experiment import Simulation

    return Simulation(path, device, memory, pool_split, test_split)


def _announce(
    console: Any, task: Simulation, names: dict[str, str], budgets: list[int], seeds: list[int], device: str
) -> None:
    console.print(
        f"{names['query_strategy']} from a {names['init_strategy']} start, {names['classifier']} head, on {device}: "
        f"pool {task.pool.N} x {task.pool.D}, {task.num_classes} classes, test {task.test.N}; "
        f"{len(budgets)} rounds to {min(sum(budgets), task.pool.N)} labels, seeds {', '.join(map(str, seeds))}"
    )
    for split, count in zip(("pool", "test split"), task.left_out, strict=True):
        if count:
            console.print(f"Left out of the {split}: {count} items without a label")


class _Progress:
    """A live bar over rounds."""

    def __init__(self, console: Any, name: str, rounds: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.name, self.rounds = name, rounds
        self.task: Any = None

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
    main()
