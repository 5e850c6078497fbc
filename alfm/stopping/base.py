"""What a stopping rule is: told what a round has shown, it answers with a reason to stop, or None.

    rule = KappaPairs()
    reason = rule.update(predictions=model.predict(stop_set), answers=labels)

Arrays in, a sentence out: no pool, no learner and no test labels. A round is one fitted model; whatever it shows may be
told to every rule, which looks at what it needs. A stop set is a random sample of the unlabelled pool.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from alfm.errors import UserError

Array = np.ndarray


@dataclass
class Shown:
    """What one round has shown, checked. See `Rule.update`; None where it was not told."""

    predictions: Array | None = None
    probabilities: Array | None = None
    batch: Array | None = None
    answers: Array | None = None
    gains: Array | None = None
    audit: Array | None = None
    seconds: float | None = None
    paid: int | None = None


@dataclass(kw_only=True)
class Rule(ABC):
    """Options are given by name only, and held against their types and ranges: none can be taken for another.

    needs: what every update must be told; from_second: what every update but the first must, since before the first
    model nothing predicted. round, labelled, items: how many updates and answers so far, and items in the stop set.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    from_second: ClassVar[tuple[str, ...]] = ()
    round: int = field(default=0, init=False, repr=False)
    labelled: int = field(default=0, init=False, repr=False)
    items: int | None = field(default=None, init=False, repr=False)

    def update(
        self,
        *,
        predictions: Any = None,
        probabilities: Any = None,
        batch: Any = None,
        answers: Any = None,
        gains: Any = None,
        audit: Any = None,
        seconds: float | None = None,
        paid: int | None = None,
    ) -> str | None:
        """What one more round has shown -> why to stop here, or None.

        predictions: class of each item of the stop set by the new model, whole numbers (n,): the same items in the
        same order every time, negative for an item that was labelled meanwhile and is left out from then on.
        probabilities: the new model's (m, C) of items without a label, such as those of the stop set. batch: the
        (B, C) that the model BEFORE gave to the items labelled since. answers: their labels, whole numbers (B,).
        gains: what the next pick would add to the coverage of the pool, a number; the first time several, of picks in
        order from the very first on. audit: was each item of a random labelled sample predicted rightly? 0 or 1 (m,),
        the same items every time, NaN for one that was trained on. seconds: how long the round took. paid: labels
        paid for so far, where these are more than the answers: some were not given, or are not trained on.

        Raises UserError for an argument that is missing, or that cannot be what its name says.
        """
        told = {
            "predictions": predictions, "probabilities": probabilities, "batch": batch, "answers": answers,
            "gains": gains, "audit": audit, "seconds": seconds, "paid": paid,
        }  # fmt: skip
        name = type(self).__name__
        for needed in (*self.needs, *(self.from_second if self.round else ())):
            if told[needed] is None:
                raise UserError(f"{name}.update needs {needed}= in every round, and was told none.")
        shown = _checked(told, name)
        if shown.predictions is not None:
            self.items = len(shown.predictions) if self.items is None else self.items
            if len(shown.predictions) != self.items:
                raise UserError(
                    f"{name}.update predictions= has {len(shown.predictions)} items and had {self.items}: give the "
                    "same items every time, negative numbers for those that were labelled meanwhile."
                )
        self.round += 1
        self.labelled += 0 if shown.answers is None else len(shown.answers)
        return self._look(shown)

    @abstractmethod
    def _look(self, shown: Shown) -> str | None:
        """One round more; `round` and `labelled` count it already."""


def _checked(told: Mapping[str, Any], rule: str) -> Shown:
    """As arrays; UserError for what is no such thing."""
    shown = Shown(
        predictions=_classes(told["predictions"], f"{rule}.update predictions="),
        probabilities=_probabilities(told["probabilities"], f"{rule}.update probabilities="),
        batch=_probabilities(told["batch"], f"{rule}.update batch="),
        answers=_classes(told["answers"], f"{rule}.update answers="),
        gains=_numbers(told["gains"], f"{rule}.update gains="),
        audit=_numbers(told["audit"], f"{rule}.update audit="),
        seconds=None if told["seconds"] is None else float(told["seconds"]),
        paid=None if told["paid"] is None else int(told["paid"]),
    )
    if shown.batch is not None and shown.answers is not None and len(shown.batch) != len(shown.answers):
        raise UserError(
            f"{rule}.update batch= has {len(shown.batch)} items and answers= {len(shown.answers)}: give both."
        )
    if shown.audit is not None and not np.isin(shown.audit[~np.isnan(shown.audit)], (0, 1)).all():
        raise UserError(f"{rule}.update audit=: give 1 for an item predicted rightly, 0 for one that was not, or NaN.")
    return shown


def _classes(given: Any, what: str) -> Array | None:
    if given is None:
        return None
    array = np.asarray(given)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise UserError(f"{what} an array of class numbers (n,) is needed, not {array.dtype} {array.shape}.")
    return array.astype(np.int64)


def _probabilities(given: Any, what: str) -> Array | None:
    if given is None:
        return None
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise UserError(f"{what} probabilities (m, C) of two classes or more are needed, not {array.shape}.")
    if not ((array >= 0).all() and np.allclose(array.sum(1), 1, atol=1e-3)):  # NaN is refused too
        raise UserError(f"{what} each row must be probabilities that sum to 1; take the softmax of logits.")
    return array


def _numbers(given: Any, what: str) -> Array | None:
    if given is None:
        return None
    array = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if array.ndim != 1:
        raise UserError(f"{what} numbers (k,) are needed, not {array.shape}.")
    return array


def entropy(probabilities: Array) -> Array:
    """Nats of each row, (m, C) -> (m,); 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probabilities > 0, probabilities * np.log(probabilities), 0.0)
    return -terms.sum(1) + 0.0  # no minus zero


def confidence(probabilities: Array) -> Array:
    """Largest probability of each row, (m, C) -> (m,)."""
    return probabilities.max(1)
