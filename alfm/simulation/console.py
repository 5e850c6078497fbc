"""What a person watching simulated rounds sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alfm import devices
from alfm.results.pool_words import pool_words
from alfm.simulation.cached_task import Simulation
from alfm.simulation.index_sets import Sets
from alfm.simulation.loop import Round


def announce(
    task: Simulation, names: dict[str, str], budgets: Sequence[int], seeds: Sequence[int], validation: int = 0
) -> None:
    """Say what is run on what, and what was left out of it. validation: labels that are paid for besides."""
    start, labels = names["init_strategy"], min(sum(budgets) + validation, task.pool.N)
    print(
        f"{names['query_strategy']} from {'an' if start[0] in 'aeiou' else 'a'} {start} start, "
        f"{names['classifier']} head, on {devices.of(task.pool.device).label}: "
        f"pool {task.pool.N} x {task.pool.D}, {task.num_classes} classes, test {task.test.N}; "
        f"{len(budgets)} rounds to {labels} labels, seeds {', '.join(map(str, seeds))}",
        flush=True,
    )
    if validation:
        print(f"Validation: {validation} of these labels, drawn at random for each seed and not trained on")
    for remark in task.cache.remarks:
        print(f"note: {remark}")
    if task.sets is not None:
        print(f"Index sets: {_sets(task.sets)}")
        for name, count in task.sets.absent.items():
            print(
                f"Left out: {count} items of {task.sets.files[name]} that the cache does not hold or has no label for"
            )
        if task.in_no_set:
            print(f"Left out of the pool: {task.in_no_set} items in no index set")
    options = {"pool": asdict(task.pool_options), "oracle": asdict(task.oracle_options)}
    if words := pool_words(options, [task.about.get("pool", {})]):
        print(f"Pool: {words}")
    for split, count in zip(("pool", "test split"), task.left_out, strict=True):
        if count:
            print(f"Left out of the {split}: {count} items without a label")


def _sets(sets: Sets) -> str:
    """For example "50 labelled to begin with, 100 for validation (a cost besides, not charged), 850 to pick from"."""
    words = {
        "labelled": "labelled to begin with",
        "validation": "for validation (a cost besides, not charged)",
        "unlabelled": "to pick from",
    }
    return ", ".join(f"{count} {words[name]}" for name, count in sets.sizes.items())


class RoundsBar:
    """A live bar over rounds, for `on_round`."""

    def __init__(self, name: str, rounds: int) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        self.name, self.rounds = name, rounds
        self.task: Any = None

    def __enter__(self) -> RoundsBar:
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
