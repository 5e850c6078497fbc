"""How good the model is: the share that it gets right of the items that it was not trained on, from an audit.

The audit's labels are those of the first items in one random order of the pool (see `alfm.labelling.window`). For each
model the sample is that order without what the model was trained on and what cannot be told, as far as the audit goes
and up to the first item whose label is not known: a uniform sample of the rest, whether an item still is in the audit
or was picked since and is trained on by later models.

The model is that of a round: fitted on the labels that were there when the last batch was made, or on all of them where
that batch is answered in full. In the middle of a batch the answers so far are those that were easy, and a model after
every label would spend the error of the advice on thousands of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.labelling.estimates import Estimate, Interval, advice_interval, ppi_plus_plus, price
from alfm.labelling.rounds import TrainingSet
from alfm.labelling.state import State

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner


@dataclass(frozen=True)
class AuditReport:
    """What is known of one model; printed, sentences.

    model: which one of the learner's, from 1 on, 0 for none; trained: on how many labels; N: items that it was not
    trained on and that may be told; m: how many of them the audit has looked at, all in all; right: how many of those
    the model gets right; skipped: how many others among them cannot be told; open: labels that the audit waits for;
    volunteered: labels trained on that neither strategy nor audit asked for, which may have been chosen.
    estimate: the share of N that is right, with the interval for one look, None without a label; advice: the interval
    for deciding when to stop, which holds over all looks and all models.
    """

    model: int
    trained: int
    N: int
    m: int
    right: int
    skipped: int
    open: int
    estimate: Estimate | None
    advice: Interval | None
    volunteered: int = 0

    @property
    def value(self) -> float | None:
        """The share of N that is right, as far as is known."""
        return None if self.estimate is None else self.estimate.value

    @property
    def look(self) -> Interval | None:
        """Its interval for one look."""
        return None if self.estimate is None else self.estimate.interval

    @property
    def method(self) -> str | None:
        """Wilson or PPI++."""
        return None if self.estimate is None else self.estimate.method

    @property
    def off(self) -> float:
        """By how much volunteered labels may have moved the rest away from what the audit sees, at most."""
        if self.value is None:
            return 0.0
        return min(self.volunteered / self.N * max(self.value, 1 - self.value), 1.0)

    def __str__(self) -> str:
        said = []
        if not self.model:
            said.append("No estimate: there is no model yet.")
        elif self.estimate is None or self.advice is None:
            said.append(f"No estimate: no audit label yet for any of the {self.N} items not trained on.")
        else:
            how = "" if self.estimate.method == "Wilson" else ", sharpened by the model's confidences (PPI++)"
            said += [
                f"If you stop now, about {self.estimate.value:.0%} of the {self.N} items that the model was not "
                f"trained on will be right: {self.estimate.interval} at one look ({self.m} audit "
                f"label{'s' * (self.m > 1)}, {self.right} predicted rightly{how}).",
                f"For deciding when to stop: {self.advice}, which holds however often you look.",
            ]
        if self.skipped:
            said.append(f"This is about items that can be told: {self.skipped} of the audit could not.")
        if self.off >= 0.005:
            said.append(
                f"{self.volunteered} labels were of items that neither the strategy nor the audit asked for: if they "
                f"were chosen for being easy or hard, all this is off by up to {100 * self.off:.0f} points."
            )
        if self.open:
            said.append(f"The audit waits for {self.open} label{'s' * (self.open > 1)}.")
        if self.open and not self.m:
            cost = price(0.05, 0.8, self.N)
            said.append(
                f"If 80% are right, +-5 points cost about {cost.one_look} audit labels for one look, and {cost.advice} "
                "for advice that holds however often you look."
            )
        return " ".join(said)


class Sample(NamedTuple):
    """What the audit has looked at of the items that one model was not trained on.

    rows: int64 (m,) in the order drawn; targets: int64 (m,), their classes as heads number them, -1 for one that they
    do not know; rest: int64 (N,), rows of all those items; skipped: how many before the last of m cannot be told.
    """

    rows: np.ndarray
    targets: np.ndarray
    rest: np.ndarray
    skipped: int


def estimate(learner: ActiveLearner, level: float = 0.95) -> AuditReport:
    """How good the learner's model is, as far as the audit's labels tell. Fits it where that was not done yet."""
    with learner.still() as state:
        open_ = sum(state.wanted(item) for item in state.window.items)
        training, rounds = learner.training_set(), model_rounds(state)
        sample = sample_of(state, rounds[-1]) if rounds else None
        own = [one for one in state.training if rounds and one.round <= rounds[-1] and one.item in state.volunteered]
    if sample is None:
        return AuditReport(0, 0, len(state.items), 0, 0, 0, open_, None, None)
    training = training.before(rounds[-1] + 1)  # the answers to a batch that is open are fitted when it is not
    classes, sure = seen(learner.features, heads_by_round(learner, training)[rounds[-1]])
    right = classes[sample.rows] == sample.targets
    m, N, trained = len(right), len(sample.rest), len(training.rows)
    return AuditReport(
        len(rounds), trained, N, m, int(right.sum()), sample.skipped, open_,
        ppi_plus_plus(right, sure[sample.rows], sure[sample.rest], level) if m else None,
        advice_interval(right, N, len(rounds), 1 - level) if m else None, len(own),
    )  # fmt: skip


def model_rounds(state: State) -> list[int]:
    """Rounds that brought labels to train on and are over, ascending: one model each."""
    over = state.round - 1 if state.open_items() else state.round
    return sorted({one.round for one in state.training if one.round <= over})


def heads_by_round(learner: ActiveLearner, training: TrainingSet) -> Mapping[int, LinearHead]:
    """Each round's head, fitted on what was told in it and before."""
    return dict(zip((round for round, _, _ in training.by_round()), learner.heads(training), strict=True))


def sample_of(state: State, round: int) -> Sample:
    """The audit's part of what is not trained on up to this round."""
    numbers = {name: number for number, name in enumerate(state.training_classes)}
    # what was trained on once and has no label now is neither in a model nor asked about
    gone = state.once_trained - {one.item for one in state.training if one.round > round}
    rest = np.ones(len(state.items), bool)
    rest[[state.rows[item] for item in (*gone, *state.all_skipped)]] = False
    rows: list[int] = []
    targets: list[int] = []
    skipped = 0
    for item in state.window.order:
        if len(rows) == state.window.size:
            break
        if item in gone:
            continue
        if state.skipped(item):
            skipped += 1
            continue
        label = state.label_of(item)
        if label is None:
            break
        rows.append(state.rows[item])
        targets.append(numbers.get(label, -1))
    return Sample(np.array(rows, np.int64), np.array(targets, np.int64), np.flatnonzero(rest), skipped)


_SEEN: WeakKeyDictionary[LinearHead, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


def seen(features: Features, head: LinearHead) -> tuple[np.ndarray, np.ndarray]:
    """The head's class of every item, int64 (N,), and how sure it is, float32 (N,); kept while it is the newest."""
    found = _SEEN.get(head)
    if found is None or len(found[0]) != features.N:
        classes, sure, _ = head.map(features, lambda phi, logits, rows, r: sureness(logits))
        found = classes[0].cpu().numpy(), sure[0].cpu().numpy()
        _SEEN.clear()
        _SEEN[head] = found
    return found


def sureness(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The class (b,), how sure the head is (b,), and its largest probability (b,), from logits (b, C).

    Sure: sqrt(p1 - p2). Of several functions of the probabilities it went best with being right, early and late in a
    run, without being calibrated; the estimate is right on average with any.
    """
    top = torch.softmax(logits.double(), 1).topk(2, 1)
    first, second = top.values.unbind(1)
    return top.indices[:, 0], (first - second).sqrt().float(), first.float()
