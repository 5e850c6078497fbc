"""How many of a population are right, from a uniform sample of it: intervals, and what they cost.

A population is the N items that a model was not trained on, the sample m of them drawn without replacement, and
`correct` says of each whether the model is right. `wilson` and `ppi_plus_plus` hold for one look at one model;
`ConfidenceSequence` holds for all looks at one model, and `advice_interval` for all looks at all models of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammaln, ndtri

FEWEST = 50
"""Audit labels from which on confidences are used: with fewer, what weighs them is mostly noise."""
FOLDS = 10
"""Parts of an audit, each of whose weights comes from the others."""


@dataclass(frozen=True)
class Interval:
    """low and high, shares of the population within [0, 1]."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def __contains__(self, share: float) -> bool:
        return self.low <= share <= self.high

    def __str__(self) -> str:
        return f"{100 * self.low:.0f} to {100 * self.high:.0f}%"


@dataclass(frozen=True)
class Estimate:
    """A share with its interval and the method that was used. weight: of the confidences, 0 for Wilson."""

    value: float
    interval: Interval
    method: Literal["Wilson", "PPI++"]
    weight: float = 0.0


def wilson(correct: float, m: float, level: float = 0.95, population: int | None = None) -> Interval:
    """Score interval (Wilson 1927) of `correct` right ones of m; both may be broken. (0, 1) without a sample.

    population: the N items of which m were drawn without replacement; the interval closes as m nears N. Raises
    ValueError for numbers that no sample has.
    """
    if not 0 <= correct <= m or not 0 < level < 1 or (population is not None and m > population):
        raise ValueError(f"{correct} right ones of {m} (of {population}) at level {level}")
    if m == 0:
        return Interval(0.0, 1.0)
    if m == population:
        return Interval(correct / m, correct / m)
    size = m if population is None else m * (population - 1) / (population - m)
    interval = _score(correct / m, size, level)
    if population is None:
        return interval
    # What was seen is seen: so many are right, and so many are not.
    return Interval(max(interval.low, correct / population), min(interval.high, 1 - (m - correct) / population))


def ppi_plus_plus(
    correct: np.ndarray, confidence: np.ndarray, pool_confidence: np.ndarray, level: float = 0.95
) -> Estimate:
    """The share that is right, sharpened by how sure the model is of each item (PPI++, Angelopoulos et al. 2023).

    correct: bool (m,); confidence: float (m,), of the same items in the order drawn, larger where the model is surer;
    pool_confidence: float (N,), of the whole population, those m among them. theta = mean(c - w f) + w mean_N(f): right
    on average whatever the confidences are worth, since both means of f are over one population. The weight w >= 0 of
    each tenth of the sample comes from the other nine, so that no label chooses its own.

    The population is finite and its mean of f known, so that all that varies is mean(c - w f). Its variance beside
    that of mean(c) says how many labels without confidences would do as well; the interval is Wilson's for so many,
    which does not collapse where (nearly) all answers are right, as the normal one does. Wilson's own is the answer
    below 50 labels, where |corr(c, f)| < 1 / sqrt(m - 2) (no gain to be had: 2505.20178), and where nothing is gained.
    """
    c, f, pool = (np.asarray(given, np.float64) for given in (correct, confidence, pool_confidence))
    m, N = len(c), len(pool)
    if len(f) != m or m > N:
        raise ValueError(f"{m} answers, {len(f)} confidences, {N} items")
    right = float(c.sum())
    plain = Estimate(right / m if m else math.nan, wilson(right, m, level, N), "Wilson")
    if m < FEWEST or m == N or not np.ptp(c) or not np.ptp(f):
        return plain
    deviation_c, deviation_f = c - c.mean(), f - f.mean()
    correlation = deviation_c @ deviation_f / math.sqrt((deviation_c @ deviation_c) * (deviation_f @ deviation_f))
    if abs(correlation) < 1 / math.sqrt(m - 2):
        return plain
    weight = _weights(c, f)
    rest = c - weight * (f - pool.mean())
    left = float(rest.var() / c.var())  # of the variance
    if left >= 1:
        return plain
    size = m / max(left, 1 / m) * (N - 1) / (N - m)
    value = float(np.clip(rest.mean(), right / N, 1 - (m - right) / N))
    return Estimate(value, _score(value, size, level), "PPI++", float(weight.mean()))


class ConfidenceSequence:
    """Intervals of which, with probability 1 - alpha, none is ever left, however often one looks at a growing sample.

    Prior-posterior ratio for sampling without replacement (Waudby-Smith & Ramdas 2020, 2006.04347) with a uniform
    prior on how many of N are right: K stays while P(S right of t | K of N) > alpha / (t + 1), a martingale's bound.
    P is hypergeometric and log-concave in K, so each end is found by bisection. N up to 10^6 and beyond.
    """

    def __init__(self, N: int, alpha: float = 0.05) -> None:
        if N < 1 or not 0 < alpha < 1:
            raise ValueError(f"a sequence for {N} items at alpha {alpha}")
        self.N, self.alpha = N, alpha

    def interval(self, correct: float, m: float) -> Interval:
        """At one look, `correct` right ones of m; both may be broken."""
        low, high = self.looks(np.array([correct]), np.array([m]))
        return Interval(float(low[0]), float(high[0]))

    def over(self, correct: np.ndarray) -> Interval:
        """After all of a sample, bool (m,) in the order drawn: what no look so far excludes."""
        if not len(correct):
            return Interval(0.0, 1.0)
        low, high = self.looks(np.cumsum(correct), np.arange(1, len(correct) + 1))
        if low.max() > high.min():  # a miss, at most once in 1 / alpha: the last look says most
            return Interval(float(low[-1]), float(high[-1]))
        return Interval(float(low.max()), float(high.min()))

    def looks(self, correct: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """low and high, float64 (k,): what each look says by itself, `correct` (k,) right ones of m (k,)."""
        S, t = np.asarray(correct, np.float64), np.asarray(m, np.float64)
        if ((S < 0) | (S > t) | (t > self.N)).any():
            raise ValueError(f"{S} right ones of {t} of {self.N}")
        limit = math.log(self.alpha) - np.log(t + 1) + _log_choose(self.N, t)
        least, most = np.ceil(S), np.floor(self.N - (t - S))
        peak = np.clip(np.round(self.N * S / np.maximum(t, 1)), least, most)

        def stays(K: np.ndarray) -> np.ndarray:
            return _log_choose(K, S) + _log_choose(self.N - K, t - S) > limit

        return _last(peak, least, stays) / self.N, _last(peak, most, stays) / self.N


def advice_interval(correct: np.ndarray, N: int, model: int = 1, alpha: float = 0.05) -> Interval:
    """For advice: with probability 1 - alpha no interval of a whole run is ever wrong, over audit sizes and models.

    correct: bool (m,), the model-th model's answers in the order drawn; N: items it was not trained on. The model-th
    spends 6 alpha / (pi^2 model^2) of the error, alpha in all.
    """
    return ConfidenceSequence(N, spent(model, alpha)).over(correct)


def spent(model: int, alpha: float = 0.05) -> float:
    """The model-th model's share of the error, 1 for the first: they sum to alpha however many there are."""
    return 6 * alpha / (math.pi * model) ** 2


@dataclass(frozen=True)
class Price:
    """Audit labels that a width costs: for one look at one model, for all looks at one model, and for advice, which
    holds for all looks at all models."""

    one_look: int
    sequence: int
    advice: int


def price(half_width: float, accuracy: float, N: int, model: int = 1, level: float = 0.95) -> Price:
    """Labels for an interval of +- half_width where `accuracy` of N are right, from the very intervals that are used.

    model: which one of a run the advice is about. Confidences may make a look cheaper; how much is known afterwards.
    """
    if not 0 < half_width < 1 or not 0 <= accuracy <= 1 or N < 1:
        raise ValueError(f"+-{half_width} at {accuracy} of {N} items")

    def fewest(interval: Callable[[float, float], Interval]) -> int:
        return _fewest(N, lambda m: interval(accuracy * m, m).width <= 2 * half_width)

    alpha = 1 - level
    return Price(
        fewest(lambda correct, m: wilson(correct, m, level, N)),
        fewest(ConfidenceSequence(N, alpha).interval),
        fewest(ConfidenceSequence(N, spent(model, alpha)).interval),
    )


def _score(share: float, size: float, level: float) -> Interval:
    """The p with (share - p)^2 <= z^2 p (1 - p) / size."""
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2) / (1 + z2 / size) * math.sqrt(share * (1 - share) / size + z2 / (4 * size * size))
    low = 0.0 if share == 0 else max(centre - half, 0.0)  # exact where rounding would leave a speck
    return Interval(low, 1.0 if share == 1 else min(centre + half, 1.0))


def _weights(c: np.ndarray, f: np.ndarray) -> np.ndarray:
    """float64 (m,): each item's weight cov(c, f) / var(f) of the folds that it is not in, or 0 where that is less.

    Above, it is bounded by sd(c) / sd(f) of itself: confidences need not be calibrated, nor be probabilities.
    """
    fold = np.arange(len(c)) % FOLDS
    f = f - f.mean()  # sums of squares below then lose no digits
    parts = [np.bincount(fold, values, FOLDS) for values in (np.ones(len(c)), f, c, f * f, f * c)]
    n, sum_f, sum_c, sum_ff, sum_fc = (part.sum() - part for part in parts)  # over the others
    spread = sum_ff - sum_f**2 / n
    weights = np.divide(sum_fc - sum_f * sum_c / n, spread, out=np.zeros(FOLDS), where=spread > 1e-12 * sum_ff)
    return np.maximum(weights, 0.0)[fold]


def _log_choose(n: np.ndarray | float, k: np.ndarray | float) -> np.ndarray:
    return gammaln(np.add(n, 1)) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n, k) + 1)


def _last(start: np.ndarray, end: np.ndarray, stays: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The last whole number from start (which stays) towards end that stays; all float64 (k,)."""
    good, bad = start.copy(), end.copy()
    there = stays(bad)
    good[there] = bad[there]
    while (open_ := np.abs(bad - good) > 1).any():
        middle = np.where(open_, np.trunc((good + bad) / 2), good)
        kept = stays(middle)
        good, bad = np.where(open_ & kept, middle, good), np.where(open_ & ~kept, middle, bad)
    return good


def _fewest(N: int, narrow: Callable[[int], bool]) -> int:
    """The smallest m whose interval is narrow, N at the latest."""
    low, high = 0, N
    while high - low > 1:
        m = (low + high) // 2
        low, high = (low, m) if narrow(m) else (m, high)
    return high
