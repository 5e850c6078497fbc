"""What stopping rules say of finished runs: heads fitted again on the stored picks, nothing asked or measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.results.rounds_file import Row
from alfm.results.run_folder import State
from alfm.results.verdicts import Verdict
from alfm.simulation.cached_task import Simulation
from alfm.simulation.loop import learners_of, play
from alfm.simulation.validation import Validation
from alfm.simulation.watch import Watch, Watching
from alfm.strategies.random import Random


def replayed_verdicts(
    task: Simulation,
    classifier: Classifier,
    watching: Watching,
    state: State,
    seeds: Sequence[int],
    warm_start: bool = True,
    validation: Validation | None = None,
) -> Iterator[Verdict]:
    """Of finished seeds of a run folder's state. Those with the same budgets are fitted side by side.

    Raises UserError for picks that the pool does not have.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    paid = 0 if validation is None else validation.size
    for seed in seeds:
        groups.setdefault(tuple(int(row["num_labeled"]) for row in state.rows[seed]), []).append(seed)
    for counts, group in groups.items():
        picks = np.stack([task.numbers.of_cache(state.picks[seed], "picks.npz") for seed in group])
        if (picks < 0).any():
            raise UserError("picks.npz names items that are not in the pool: run again with force=true")
        learners = learners_of(task, classifier, Random(), Random(), group, warm_start)  # nobody asks them
        seconds = [seconds_of(state.rows[seed]) for seed in group]
        watch = Watch(replace(watching, ends=False), task, group, seconds)
        for _ in play(learners, task, np.diff(counts, prepend=paid).tolist(), picks, watch, validation):
            raise AssertionError("a replay makes no round")
        yield from watch.verdicts(ended=state.finished)


def seconds_of(rows: Sequence[Row] | Sequence[Mapping[str, float]]) -> list[float]:
    """How long each stored round took."""
    return [float(row["fit_seconds"] + row["query_seconds"] + row["eval_seconds"]) for row in rows]
