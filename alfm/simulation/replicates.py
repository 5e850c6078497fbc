"""Replicates of one run: resuming, and a row for every seed and round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.results.run_folder import RunFolder
from alfm.results.verdicts import Verdict
from alfm.simulation.cached_task import Simulation
from alfm.simulation.loop import Round, learners_of, play
from alfm.simulation.replay import seconds_of
from alfm.simulation.tuning import keep_choices
from alfm.simulation.validation import Validation
from alfm.simulation.watch import Watch, Watching
from alfm.strategies.base import Strategy


def run_replicates(
    task: Simulation,
    classifier: Classifier,
    init_strategy: Strategy,
    query_strategy: Strategy,
    budgets: Sequence[int],
    seeds: Sequence[int],
    folder: RunFolder | None = None,
    warm_start: bool = True,
    on_round: Callable[[Round, Sequence[int]], None] | None = None,
    watching: Watching | None = None,
    on_verdicts: Callable[[list[Verdict]], None] | None = None,
    validation: Validation | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of every seed and round, new ones as they are made.

    classifier: where it chooses its options itself, its choices are stored with the round. validation: see `play`.
    Replicates that stand at the same round run side by side. With a `folder`, finished seeds are not run again,
    interrupted ones go on where they were, and every round is stored before it is yielded. watching: stopping rules,
    whose verdicts are kept in the folder, and told to `on_verdicts`, when replicates have ended.
    """
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"seeds must be a list of different whole numbers, none negative; got {list(seeds)}.")
    groups: dict[int, list[int]] = {}
    picked: dict[int, np.ndarray] = {seed: np.empty(0, np.int64) for seed in seeds}
    took: dict[int, list[float]] = {}
    for seed in seeds:
        rows: list[Any] = []
        if folder is not None:
            picked[seed], rows = folder.progress(seed)
            yield from rows
        took[seed] = seconds_of(rows)
        if folder is None or seed not in folder.completed_seeds():
            groups.setdefault(len(rows), []).append(seed)
    init_strategy, query_strategy = init_strategy.in_pool(task.numbers), query_strategy.in_pool(task.numbers)
    for group in groups.values():
        done = np.stack([task.numbers.of_cache(picked[seed], "picks.npz") for seed in group])
        if (done < 0).any():
            assert folder is not None
            raise UserError(f"{folder.path}/picks.npz names items that are not in the pool: run again with force=true.")
        learners = learners_of(task, classifier, init_strategy, query_strategy, group, warm_start)
        watch = Watch(watching, task, group, [took[seed] for seed in group]) if watching is not None else None
        for made in play(learners, task, budgets, done, watch, validation):
            own = [group[r] for r in made.replicates]
            new = [_row(made, i, seed, len(own)) for i, seed in enumerate(own)]
            if folder is not None:
                keep_choices(folder.path, classifier, own, made.round)
                folder.append(new, {seed: task.cache_rows[made.picks[i]] for i, seed in enumerate(own)})
            if on_round is not None:
                on_round(made, own)
            yield from new
        if folder is not None:
            for why in dict.fromkeys(filter(None, learners.ended)):
                folder.finish([seed for seed, own in zip(group, learners.ended, strict=True) if own == why], why)
            if watch is not None:
                folder.keep(watch.verdicts())
        if watch is not None and on_verdicts is not None:
            on_verdicts(watch.verdicts())


def _row(made: Round, replicate: int, seed: int, replicates: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "round": made.round,
        "num_labeled": made.num_labeled,
        **made.metrics[replicate],
        "fit_seconds": made.fit_seconds,
        "query_seconds": made.query_seconds,
        "eval_seconds": made.eval_seconds,
        "num_replicates": replicates,
        "num_filled": made.num_filled[replicate],
        "peak_memory_bytes": made.peak_memory_bytes,
        "num_abstained": made.num_abstained[replicate],
        "num_classes": made.num_classes[replicate],
        "num_validation": made.num_validation[replicate],
    }
