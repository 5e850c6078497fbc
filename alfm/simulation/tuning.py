"""From the settings `tune.` to a classifier that chooses its options, and from its choices to a run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from alfm.errors import UserError
from alfm.heads.base import Classifier
from alfm.heads.trials import Trials
from alfm.heads.tuned import Choice, Grid, Search, Tuned, space_of
from alfm.results.run_folder import read_config, read_state
from alfm.results.tuning_file import JOURNAL, Tuning, digest, keep_tuning, read_tuning
from alfm.simulation.cached_task import Simulation
from alfm.simulation.settings import Tune


class Reused:
    """Each round's choices of one seed of a finished run."""

    def __init__(self, folder: Path, seed: int | None, rounds: int, classifier: Classifier) -> None:
        """Raises UserError for a run that was not tuned, has no such seed, fewer rounds, or another kind of head."""
        where = f"tune.from={folder}"
        if not (folder / "config.yaml").exists():
            raise UserError(f"{where}: there is no run; give the folder of one that was made with tune=true.")
        state, stored = read_state(folder), read_tuning(folder)
        finished = list(state.finished)
        if not stored:
            raise UserError(f"{where}: this run was not tuned; give one that was made with tune=true.")
        if not finished:
            raise UserError(f"{where}: no seed of this run is finished; start it again to let it end.")
        self.seed = finished[0] if seed is None else seed
        if self.seed not in finished:
            have = ", ".join(map(str, finished))
            raise UserError(f"{where} tune.seed={self.seed}: this run has no such finished seed, it has {have}.")
        self.name = folder.name
        self.config: Mapping[str, Any] = read_config(folder)
        self.rounds = {one.round: one for one in stored if one.seed == self.seed}
        for name in next(iter(self.rounds.values())).options if self.rounds else ():
            if not _has(classifier, name):
                raise UserError(
                    f"{where}: it chose {name}, which {type(classifier).__name__} does not have; add "
                    f"classifier={self.config['run']['classifier']}, or take a run with the same head."
                )
        last = max((int(row["round"]) for row in state.rows[self.seed]), default=0)
        if last < rounds:
            raise UserError(f"{where}: it ends with round {last} and {rounds} are asked for; set iterations.n={last}.")

    @property
    def digest(self) -> str:
        return digest(self.rounds.values())

    def __call__(self, seed: int, round: int) -> Choice:
        before = [number for number in self.rounds if number <= round]  # nothing is chosen while nobody has answered
        one = self.rounds[max(before) if before else min(self.rounds)]
        return Choice(
            seed, round, one.options, one.score, one.default, f"as chosen for seed {self.seed} of {self.name}"
        )


def reused_of(tune: Tune, rounds: int, classifier: Classifier) -> Reused | None:
    """What `tune.from` names; None where it names nothing. Raises UserError."""
    return None if tune.from_ is None else Reused(Path(tune.from_).expanduser(), tune.seed, rounds, classifier)


def _has(classifier: object, name: str) -> bool:
    """Has it this option? A dotted name is one of the classifier inside it."""
    outer, _, inner = name.partition(".")
    known = dataclasses.is_dataclass(classifier) and outer in {one.name for one in dataclasses.fields(classifier)}
    return known and (not inner or _has(getattr(classifier, outer), inner))


def tuned(
    tune: Tune,
    classifier: Classifier,
    task: Simulation,
    seeds: Iterable[int],
    folder: Path | None = None,
    reused: Reused | None = None,
) -> Tuned:
    """The classifier, choosing for seeds as the settings say; what a run's folder holds of it is taken as it is.

    Raises UserError for a classifier or a space that gives no choice.
    """
    stored = {} if folder is None else {one.key: Choice(**vars(one)) for one in read_tuning(folder)}
    space = tune.space
    for name, values in (space_of(classifier, task.num_classes) if space is None else space).items():
        if len(values) < 2:
            raise UserError(f"tune.space.{name}: give two values or more to choose from.")

    def known(seed: int, round: int) -> Choice | None:
        return stored.get((seed, round)) or (None if reused is None else reused(seed, round))

    search: Search = Grid()
    if tune.by == "optuna":
        search = Trials(tune.trials, None if folder is None else folder / JOURNAL)
    made = Tuned(classifier, search, tune.folds, space, known)
    if task.held_out is not None:
        features, labels = task.held_out
        x = features.gather(torch.arange(features.N, device=features.device))
        made.held_out = x, labels
        for seed in seeds if task.annotator is not None else ():
            said = task.held_answers(seed).to(x.device)
            made.judge_on(seed, x[said >= 0], said[said >= 0])
    return made


def keep_choices(folder: Path, classifier: Classifier, seeds: Iterable[int], round: int) -> None:
    """Store what was chosen for seeds in a round, where something was."""
    if isinstance(classifier, Tuned):
        found = [classifier.choices.get((seed, round)) for seed in seeds]  # none where nobody answered
        keep_tuning(folder, [Tuning(**vars(one)) for one in found if one is not None])
