"""Three lamps that say whether it may be time to stop: predictions, advice against a target, what more would bring.

None stops anything. The first needs no label beyond those trained on and says nothing about how good the model is; the
second and third need an audit. All of it follows from the journal: each round's model is fitted again where it is not
at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from alfm.features.features import Features
from alfm.heads.linear import LinearHead
from alfm.labelling.audit import heads_by_round, model_rounds, sample_of
from alfm.labelling.disputed import out_of_fold
from alfm.labelling.estimates import Interval, advice_interval, price
from alfm.labelling.rounds import TrainingSet
from alfm.stopping.agreement import kappa
from alfm.stopping.learning_curve import outlook
from alfm.streams import stream

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner

LOOKED_AT = 1000
"""Items of the pool on which successive models are compared."""
IN_A_ROW, AGREED = 3, 0.99
"""Mean kappa of so many pairs of successive models from which on predictions count as stable (1409.5165)."""
CALIBRATED_FROM = 10
"""Labels of every class from which on a mean confidence is told: below, it misses by 30 points and more."""
FORECAST_FROM = 6
"""Models that a learning curve needs."""
MORE = 100
PAUSE = 300.0
"""Seconds without an act after which somebody had stopped labelling."""
QUICKEST = 0.1
"""Seconds from label to label below which a script or a file told them, and nobody's time is known."""


class Outlook(Protocol):
    """What a forecast says. gain: of accuracy, up to high; not_yet: why that cannot be said; text: all of it."""

    @property
    def high(self) -> float: ...
    @property
    def not_yet(self) -> str | None: ...
    @property
    def text(self) -> str: ...


Forecast = Callable[[Sequence[int], np.ndarray, float], Outlook]
"""labels (T,) that each model was trained on, right (T, m) on the same audit items, more: how many -> what these bring.
"""


@dataclass(frozen=True)
class Lamp:
    """on: does it say that one may stop? None: it cannot say yet. first: the model that lit it first, or None."""

    name: Literal["stable", "advice", "gain"]
    on: bool | None
    text: str
    first: int | None = None

    @property
    def sentence(self) -> str:
        """What it sees, and whether it ever was lit."""
        ever = "" if self.on is None else f" First lit at model {self.first}." if self.first else " Never lit so far."
        return f"{self.text}{ever}"

    def __str__(self) -> str:
        state = {True: "on", False: "off", None: "not yet"}[self.on]
        return f"{self.name}: {state}. {self.sentence}"


class _Models(NamedTuple):
    """A learner's T models, one each. labels: trained on; looked: (T, n), the classes that they give the items looked
    at; rests: how many items were not trained on; right: bool (m,) of its own audit sample; paired: bool (T, m), of the
    newest one's."""

    labels: list[int]
    looked: np.ndarray
    rests: list[int]
    right: list[np.ndarray]
    paired: np.ndarray


def lamps(
    learner: ActiveLearner, target: float = 0.9, forecast: Forecast = outlook, worth: float = 0.01
) -> tuple[Lamp, Lamp, Lamp]:
    """stable, advice, gain. target: the share that shall be right; worth: what 100 labels have to bring, 0.01: a point.

    forecast: what the curve promises that the audit has measured, of every model on the same items.
    """
    with learner.still() as state:
        training, rounds, items, seed = learner.training_set(), model_rounds(state), state.items, state.settings["seed"]
        samples = [sample_of(state, round) for round in rounds]
        pace = seconds_each([one["time"] for one in learner.acts if one["act"] in ("label", "skip")])
    if not samples:
        no = "There is no model yet."
        return Lamp("stable", None, no), Lamp("advice", None, no), Lamp("gain", None, no)
    training = training.before(rounds[-1] + 1)
    looked = stream(seed, 0, "lamps").permutation(len(items))[:LOOKED_AT]
    looked = looked[np.isin(looked, samples[-1].rest)]  # others were labelled meanwhile
    heads = heads_by_round(learner, training)

    def classes(round: int, rows: np.ndarray) -> np.ndarray:
        return _logits(learner.features, heads[round], rows).argmax(1)

    models = _Models(
        [sum(one <= round for one in training.rounds) for round in rounds],
        np.stack([classes(round, looked) for round in rounds]),
        [len(one.rest) for one in samples],
        [classes(round, one.rows) == one.targets for round, one in zip(rounds, samples, strict=True)],
        np.stack([classes(round, samples[-1].rows) == samples[-1].targets for round in rounds]),
    )
    stable = _stable(models)
    if confidence := _mean_confidence(learner, training, heads[rounds[-1]], looked, seed):
        stable = Lamp(stable.name, stable.on, f"{stable.text} {confidence}", stable.first)
    return stable, _advice(models, target), _gain(models, forecast, worth, pace)


def _stable(models: _Models) -> Lamp:
    pairs = list(zip(models.looked[:-1], models.looked[1:], strict=True))
    if len(pairs) < IN_A_ROW or not models.looked.shape[1]:
        return Lamp("stable", None, f"{len(pairs)} of {IN_A_ROW} pairs of successive models to compare.")
    kappas = [kappa(one, other) for one, other in pairs]
    means = np.convolve(kappas, np.full(IN_A_ROW, 1 / IN_A_ROW), "valid")
    agreed = float((pairs[-1][0] == pairs[-1][1]).mean())
    text = (
        f"The last two models agree on {agreed:.1%} of {models.looked.shape[1]} items; mean kappa of the last "
        f"{IN_A_ROW} pairs {means[-1]:.3f}, of {AGREED:g} wanted."
    )
    return Lamp("stable", bool(means[-1] >= AGREED), text, _first(means >= AGREED, IN_A_ROW + 1))


def _advice(models: _Models, target: float) -> Lamp:
    if not len(models.right[-1]):
        return Lamp("advice", None, f"No audit label yet; the target is {target:.0%}.")
    numbered = enumerate(zip(models.right, models.rests, strict=True), 1)
    found = [advice_interval(right, N, k) for k, (right, N) in numbered]
    now = found[-1]
    text = f"{now} of the rest are right, however often one looks; the target is {target:.0%}."
    if now.low < target:
        text += f" {_missing(now, models.right[-1], models.rests[-1], len(found), target)}"
    return Lamp("advice", now.low >= target, text, _first([one.low >= target for one in found], 1))


def _missing(now: Interval, right: np.ndarray, N: int, model: int, target: float) -> str:
    if now.high < target:
        return "It is not reached."
    share = float(right.mean())
    if share <= target:
        return "It is not shown; the model may not be there yet."
    m = price(share - target, share, N, model).advice
    return f"If {share:.0%} are right, about {m} audit labels in all would show it."


def _gain(models: _Models, forecast: Forecast, worth: float, pace: float | None) -> Lamp:
    cost = "" if pace is None else f" Their price: about {_minutes(MORE * pace)} at the pace so far."
    if not models.paired.shape[1]:
        return Lamp("gain", None, f"No audit label yet, so there is no curve.{cost}")
    more = np.flatnonzero(np.diff(models.labels, prepend=-1) > 0)  # a round of skips has brought none
    if len(more) < FORECAST_FROM:
        return Lamp("gain", None, f"{len(more)} of {FORECAST_FROM} models that a forecast needs.{cost}")
    labels, right = np.array(models.labels)[more].tolist(), models.paired[more].astype(np.float64)
    now = forecast(labels, right, MORE)
    if not now.high < worth and now.not_yet is not None:  # unsure how little would be an answer
        return Lamp("gain", None, f"{now.text}, of {100 * worth:g} wanted.{cost}")
    before = [forecast(labels[:T], right[:T], MORE) for T in range(FORECAST_FROM, len(more))]
    lit = [bool(one.high < worth) for one in (*before, now)]
    first = next((int(more[FORECAST_FROM - 1 + index]) + 1 for index, one in enumerate(lit) if one), None)
    return Lamp("gain", lit[-1], f"{now.not_yet or now.text}, of {100 * worth:g} wanted.{cost}", first)


def seconds_each(times: Sequence[str]) -> float | None:
    """Median seconds from one label to the next, pauses left out; None below ten, or from a file. times: as in acts."""
    stamps = sorted(datetime.fromisoformat(time).timestamp() for time in times)
    gaps = np.diff(stamps)
    gaps = gaps[gaps < PAUSE]
    found = float(np.median(gaps)) if len(gaps) >= 10 else 0.0
    return found if found >= QUICKEST else None


def _mean_confidence(
    learner: ActiveLearner, training: TrainingSet, head: LinearHead, looked: np.ndarray, seed: int
) -> str | None:
    """A sentence on how sure the model is of the items looked at; None while it would mislead."""
    counts = np.bincount(training.targets, minlength=training.num_classes)
    if len(counts) < 2 or counts.min() < CALIBRATED_FROM or not len(looked):
        return None
    targets = torch.tensor(training.targets)
    held, judged = out_of_fold(
        learner.features, torch.tensor(training.rows), targets, training.num_classes, learner.classifier, seed
    )
    sharpness = calibration(np.log(held[judged].clip(1e-300)), targets.numpy()[judged])
    mean = float(softmax(sharpness * _logits(learner.features, head, looked), axis=1).max(1).mean())
    return f"Mean confidence {mean:.0%}: a trend, which says nothing of how many are right."


def calibration(logits: np.ndarray, targets: np.ndarray) -> float:
    """What to multiply logits (n, C) with so that the labels (n,) are likeliest: 1 / temperature (Guo et al. 2017)."""

    def loss(log: float) -> float:
        return -float(log_softmax(np.exp(log) * logits, axis=1)[np.arange(len(targets)), targets].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def _logits(features: Features, head: LinearHead, rows: np.ndarray) -> np.ndarray:
    """float64 (n, C) of these rows."""
    index = torch.from_numpy(rows).to(features.device)
    phi = features.vectors(head.spaces[0]).rows(index, plain=True)
    return head.logits(phi, 0).double().cpu().numpy()


def _first(lit: Sequence[bool] | np.ndarray, start: int) -> int | None:
    """The number of the first that is lit, counted from start."""
    found = np.flatnonzero(lit)
    return int(found[0]) + start if len(found) else None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
