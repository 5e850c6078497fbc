"""What more labels would bring, from a measured curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from alfm.errors import UserError
from alfm.stopping.palm import Palm, fit_palm

LEAST_POINTS = 6
NOT_YET = "not yet"


@dataclass(frozen=True)
class Outlook:
    """What `more` labels would bring: `gain` in accuracy, between `low` and `high`.

    not_yet: why that cannot be said, or None; the numbers may be there all the same (NaN without a curve). round_size:
    labels of a round, which is what a curve's b counts. level: of the interval. curve: fitted to the points; draws: to
    those of resampled items.
    """

    more: float
    gain: float = np.nan
    low: float = np.nan
    high: float = np.nan
    not_yet: str | None = None
    round_size: float = np.nan
    level: float = 0.9
    curve: Palm | None = field(default=None, compare=False)
    draws: Palm | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """For people: "100 more labels: +1.8 points (0.9 to 2.6)", or "not yet: ..."."""
        if self.not_yet is not None:
            return f"{NOT_YET}: {self.not_yet}"
        low, gain, high = (100 * value for value in (self.low, self.gain, self.high))
        return f"{self.more:g} more labels: {gain:+.1f} points ({low:.1f} to {high:.1f})"

    def reach(self, target: float) -> tuple[float, float, float] | None:
        """Labels, in all, until `target` is reached, with an interval whose ends may be infinite.

        None: not reachable, or nothing can be said.
        """
        if self.curve is None or self.draws is None:
            return None
        found = float(self.curve.reach(target)[0] * self.round_size)
        tail = (1 - self.level) / 2
        ends = np.quantile(self.draws.reach(target), [tail, 1 - tail], method="nearest") * self.round_size
        return (found, float(ends[0]), float(ends[1])) if np.isfinite(found) else None


def outlook(
    labels: Sequence[int] | np.ndarray,
    right: np.ndarray,
    more: float,
    *,
    level: float = 0.9,
    draws: int = 100,
    seed: int = 0,
) -> Outlook:
    """What `more` labels would bring, by a PALM curve through what audited items say of each model so far.

    labels: how many each model was trained on, ascending (T,). right: (T, m), does each model predict each item of a
    random labelled sample rightly? The same items for all models, so that what is compared is paired; a column with NaN
    (trained on meanwhile) is left out. The interval is that of resampled items, `draws` times; 0: no interval.

    "Not yet" below six models, and where the interval is wider than the gain. Raises UserError for arrays that do not
    fit.
    """
    labels, right = np.asarray(labels, np.float64), np.asarray(right, np.float64)
    if labels.ndim != 1 or right.ndim != 2 or len(labels) != len(right) or (np.diff(labels) <= 0).any():
        raise UserError(
            f"outlook labels= {labels.shape} must ascend, with a row of right= {right.shape} for each of them."
        )
    right = right[:, ~np.isnan(right).any(0)]
    if len(labels) < LEAST_POINTS:
        return Outlook(more, not_yet=f"{len(labels)} of {LEAST_POINTS} models that a forecast needs")
    if right.shape[1] < 2:
        return Outlook(more, not_yet="no two audited items are left")
    size = (labels[-1] - labels[0]) / (len(labels) - 1)
    b, ahead = labels / size, (labels[-1] + more) / size
    items = right.shape[1]
    counts = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), draws)
    curve, resampled = fit_palm(b, np.stack([right.mean(1), *(counts @ right.T / items)])).split(1)
    gain = float(curve(ahead)[0] - curve(b[-1])[0])
    if not draws:
        return Outlook(more, gain, not_yet="no item was drawn again", round_size=size, level=level, curve=curve)
    tail = (1 - level) / 2
    low, high = np.quantile(resampled(ahead) - resampled(b[-1]), [tail, 1 - tail]).tolist()
    wide = high - low > gain
    why = f"the forecast gain of {100 * gain:.1f} points lies between {100 * low:.1f} and {100 * high:.1f}"
    return Outlook(more, gain, low, high, why if wide else None, size, level, curve, resampled)
