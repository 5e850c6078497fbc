"""Stopping rules over the replicates of one run: what each round shows, as arrays, and what the rules say to it.

A rule sees a stop set, a random sample of the pool that stays the same while its items are labelled one by one; the
batches; and, where it asks for one, an audit: random items whose labels are looked up and charged. Watching draws from
streams of its own and changes no pick.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfm.devices import full_precision
from alfm.heads.linear import LinearHead
from alfm.learner import Learner
from alfm.results.verdicts import ENDED, NEVER, STOPPED, Verdict, options_text
from alfm.simulation.task import Task
from alfm.stopping.base import Rule
from alfm.streams import stream
from alfm.threads import side_by_side

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Watching:
    """Rules by name, before their first round. ends: does a replicate end at the first that says so? sample, audit: how
    many items the stop set and an audit have."""

    rules: Mapping[str, Rule]
    ends: bool = False
    sample: int = 1000
    audit: int = 200

    @property
    def needs(self) -> set[str]:
        """What some rule looks at, by the names of `Rule.update`."""
        return {name for rule in self.rules.values() for name in (*rule.needs, *rule.from_second)}

    @cached_property
    def options(self) -> dict[str, str]:
        """What a rule's verdicts depend on, its options and the size of what it looks at: see `Verdict.options`."""
        return {name: options_text(self._options(rule)) for name, rule in self.rules.items()}

    def _options(self, rule: Rule) -> dict[str, Any]:
        found = {one.name: getattr(rule, one.name) for one in fields(rule) if one.init}
        if {"predictions", "probabilities", "gains"} & set(rule.needs):
            found["sample"] = self.sample
        if "audit" in rule.needs:
            found["audit"] = self.audit
        return found


class Watch:
    """A `Stop` (see `alfm.simulation.loop`) over some replicates: asked after every fit, it tells all rules.

    Replayed rounds are told like others, so that a run that was interrupted ends up with the same verdicts.
    """

    def __init__(
        self, watching: Watching, task: Task, seeds: Sequence[int], seconds: Sequence[Sequence[float]] | None = None
    ) -> None:
        """seconds: how long the first rounds of each seed took where that is known, by default what passes here."""
        self.watching, self.task, self.seeds = watching, task, list(seeds)
        self._stored = [[] for _ in seeds] if seconds is None else [list(own) for own in seconds]
        self._replicates = [_Replicate(watching, task, seed) for seed in seeds]
        self._before: tuple[LinearHead | None, list[int]] = None, []
        self._clock = time.monotonic()
        self._ended: dict[int, str] = {}

    @full_precision()
    def __call__(self, learner: Learner) -> dict[int, str]:
        """Which of the replicates that go on shall end here, and why; none of them unless rules may end any."""
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        going = learner.going
        jobs = [partial(self._told, learner, r, passed) for r in going]
        for r, said in zip(going, side_by_side(jobs, learner.pool.device), strict=True):
            if said and self.watching.ends:
                self._ended[r] = f"{STOPPED}{said[0]}: {self._replicates[r].reasons[said[0]]}"
        self._before = learner.head, list(learner.fitted)
        return self._ended

    def _told(self, learner: Learner, r: int, passed: float) -> list[str]:
        replicate, stored = self._replicates[r], self._stored[r]
        seconds = stored[replicate.rounds] if replicate.rounds < len(stored) else passed
        return replicate.told(learner, r, *self._before, seconds)

    def verdicts(self, ended: Mapping[int, str] | None = None) -> list[Verdict]:
        """One for every seed and rule; ended: why seeds were ended, where that is not what was said here."""
        why = {self.seeds[r]: text for r, text in self._ended.items()} if ended is None else ended
        return [
            verdict
            for replicate in self._replicates
            for verdict in replicate.verdicts(why.get(replicate.seed, "").startswith(STOPPED))
        ]


class _Replicate:
    """The rules of one replicate, what they look at, and where each fired first."""

    def __init__(self, watching: Watching, task: Task, seed: int) -> None:
        N, needs = task.pool.N, watching.needs
        self.watching, self.task, self.seed = watching, task, seed
        self.rules = {name: deepcopy(rule) for name, rule in watching.rules.items()}
        self.rounds = self.labelled = 0
        self.fired: dict[str, tuple[int, int, int]] = {}  # rule -> round, labels paid for, labels charged besides
        self.reasons: dict[str, str] = {}
        device = task.pool.device
        sample = {"predictions", "probabilities", "gains"} & needs
        self.stop_set = _drawn(seed, "stop set", N, watching.sample if sample else 0, device)
        self.audit = _drawn(seed, "stopping audit", N, watching.audit if "audit" in needs else 0, device)
        self.audited = task.answers([seed])[0][self.audit.cpu()].numpy()
        self.coverage = _Coverage(task.pool.unit.rows(self.stop_set, plain=True)) if "gains" in needs else None

    def told(
        self, learner: Learner, r: int, head: LinearHead | None, fitted: Sequence[int], seconds: float
    ) -> list[str]:
        """One round more of replicate r; head: the one before, of replicates `fitted`. Rules that fired first here.

        Where nobody answered there is no new model, and rules that look at models hear nothing of the round.
        """
        news = learner.counts[r] > self.labelled
        unpaid = learner.available[r][self.audit].cpu().numpy()
        shown = self._shown(learner, r, head, fitted, unpaid) if news else {"answers": _NONE}
        self.rounds += 1
        self.labelled = learner.counts[r]
        paid = learner.pool.N - learner.left[r]
        new = []
        for name, rule in self.rules.items():
            if name in self.fired or not (news or {*rule.needs, *rule.from_second} <= {"seconds", "answers"}):
                continue
            reason = rule.update(seconds=seconds, paid=paid, **shown)
            if reason is not None:
                new.append(name)
                charged = int(unpaid.sum()) if "audit" in rule.needs else 0
                self.fired[name], self.reasons[name] = (self.rounds, paid, charged), reason
        return new

    def _shown(
        self, learner: Learner, r: int, head: LinearHead | None, fitted: Sequence[int], unpaid: np.ndarray
    ) -> dict[str, Any]:
        """What a round with new labels shows, by the names of `Rule.update`; unpaid (audit,): not labelled before."""
        rows = learner.rows[r, self.labelled : learner.counts[r]]
        answers = learner.targets[r, self.labelled : learner.counts[r]]
        free = learner.available[r]
        assert learner.head is not None
        shown: dict[str, Any] = {"answers": answers.cpu().numpy()}
        if head is not None and r in fitted and "batch" in self.watching.needs:
            shown["batch"] = self._probabilities(head, fitted.index(r), rows)
        if len(self.stop_set):
            left = free[self.stop_set].cpu().numpy()
            probabilities = self._probabilities(learner.head, learner.fitted.index(r), self.stop_set)
            shown["predictions"] = np.where(left, probabilities.argmax(1), -1)
            shown["probabilities"] = probabilities[left]
        if len(self.audit):
            predicted = self._probabilities(learner.head, learner.fitted.index(r), self.audit).argmax(1)
            shown["audit"] = np.where(unpaid & (self.audited >= 0), predicted == self.audited, np.nan)
        if self.coverage is not None:
            shown["gains"] = self.coverage.gains(self.task.pool.unit.rows(rows, plain=True), free[self.stop_set])
        return shown

    def _probabilities(self, head: LinearHead, r: int, rows: Tensor) -> np.ndarray:
        """Softmax of pool rows, float64 (m, C)."""
        logits = head.forward(self.task.pool.gather(rows, plain=True), r)
        return logits.double().softmax(1).cpu().numpy()

    def verdicts(self, ended: bool) -> Iterable[Verdict]:
        """ended: by a rule, so that the others had no chance."""
        for name in self.rules:
            round_, labels, charged = self.fired.get(name, (None, None, 0))
            reason = self.reasons.get(name, ENDED if ended else NEVER)
            yield Verdict(self.seed, name, self.watching.options[name], round_, labels, charged, reason)


class _Coverage:
    """How well labelled items cover the stop set, by MaxHerding's similarity exp(-|u - v|^2) of unit features."""

    def __init__(self, points: Tensor) -> None:
        """points: unit features of the stop set (S, D)."""
        self.points = points
        self.among = self._similarity(points)
        self.nearest = torch.zeros(len(points), dtype=points.dtype, device=points.device)
        self.begun = False

    def gains(self, labelled: Tensor, free: Tensor) -> np.ndarray:
        """labelled: unit features of the new labels (B, D); free (S,): which of the stop set may be picked.

        What the best of those would add now; the first time, before it, what the best of all would have added to
        nothing.
        """
        first = [] if self.begun else [float(self.among.mean(1).max())]
        self.begun = True
        self.nearest = torch.maximum(self.nearest, self._similarity(labelled).max(0).values)
        added = (self.among - self.nearest).clamp_min(0).mean(1)
        return np.array([*first, float(added[free].max()) if bool(free.any()) else 0.0])

    def _similarity(self, points: Tensor) -> Tensor:
        return (2 * (points @ self.points.T) - 2).exp_()


def _drawn(seed: int, purpose: str, N: int, size: int, device: torch.device) -> Tensor:
    """So many of N rows, int64, without replacement."""
    rows = stream(seed, 0, purpose).choice(N, min(size, N), replace=False)
    return torch.from_numpy(rows.astype(np.int64)).to(device)
