"""Intervals against published numbers, float64 references and exact probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binomtest, hypergeom

from alfm.labelling.estimates import (
    ConfidenceSequence,
    Interval,
    advice_interval,
    ppi_plus_plus,
    price,
    spent,
    wilson,
)

# -- one look --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("correct", "m"), [(81, 263), (15, 148), (0, 20), (1, 29), (29, 29), (80, 100)])
def test_wilson_is_wilsons(correct: int, m: int) -> None:
    low, high = binomtest(correct, m).proportion_ci(0.95, method="wilson")
    assert wilson(correct, m).low == pytest.approx(low, abs=1e-12)
    assert wilson(correct, m).high == pytest.approx(high, abs=1e-12)


def test_wilson_has_the_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for sample, ends in published.items():
        interval = wilson(*sample)
        assert (round(interval.low, 4), round(interval.high, 4)) == ends


def test_wilson_closes_as_the_sample_becomes_the_population() -> None:
    assert wilson(160, 200, population=200) == Interval(0.8, 0.8)
    widths = [wilson(0.8 * m, m, population=200).width for m in (50, 100, 150, 199)]
    assert widths == sorted(widths, reverse=True)
    assert wilson(80, 100, population=10**9).width == pytest.approx(wilson(80, 100).width)
    for m in (1, 5, 199):  # what was seen is seen
        assert wilson(m, m, population=200).low >= m / 200
        assert wilson(0, m, population=200).high <= 1 - m / 200
    assert wilson(0, 0) == wilson(0, 0, population=10) == Interval(0, 1)


@pytest.mark.parametrize("numbers", [(3, 2), (-1, 2), (1, 2, 1.0), (5, 10, 0.95, 9)])
def test_no_sample_has_such_numbers(numbers: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="right ones"):
        wilson(*numbers)


# -- with confidences ------------------------------------------------------------------------------------------------


def population(N: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Right or not, and confidences that say something of it but are far from calibrated."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(4, 1, N)
    return rng.random(N) < chance, 0.1 + 0.2 * chance


def plain_ppi(c: list[float], f: list[float], pool: list[float], z: float) -> tuple[float, float, float]:
    """value, low, high: one item at a time."""
    m, N, middle = len(c), len(pool), sum(pool) / len(pool)
    rest = []
    for i in range(m):
        others = [j for j in range(m) if j % 10 != i % 10]
        mean = sum(f[j] for j in others) / len(others)
        cov = sum((f[j] - mean) * c[j] for j in others)
        rest.append(c[i] - max(cov / sum((f[j] - mean) ** 2 for j in others), 0) * (f[i] - middle))
    theta, share = sum(rest) / m, sum(c) / m
    left = sum((r - theta) ** 2 for r in rest) / m / (share * (1 - share))
    size = m / left * (N - 1) / (N - m)
    # the roots of (theta - p)^2 = z^2 p (1 - p) / size
    a, b = 1 + z * z / size, 2 * theta + z * z / size
    root = math.sqrt(b * b - 4 * a * theta * theta)
    return theta, (b - root) / (2 * a), (b + root) / (2 * a)


def test_ppi_against_plain_loops() -> None:
    right, confidence = population()
    drawn = np.random.default_rng(1).permutation(3000)[:120]
    found = ppi_plus_plus(right[drawn], confidence[drawn], confidence)
    expected = plain_ppi(
        right[drawn].astype(float).tolist(), confidence[drawn].tolist(), confidence.tolist(), 1.959963985
    )
    assert found.method == "PPI++" and found.weight > 1  # the confidences are five times too narrow
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(expected, abs=1e-9)


def test_ppi_is_unbiased_narrower_and_holds() -> None:
    right, confidence = population()
    truth, rng = right.mean(), np.random.default_rng(2)
    drawn = [rng.permutation(3000)[:100] for _ in range(1500)]
    found = [ppi_plus_plus(right[d], confidence[d], confidence) for d in drawn]
    plain = [wilson(right[d].sum(), 100, population=3000) for d in drawn]
    assert abs(np.mean([one.value for one in found]) - truth) < 0.003
    assert np.mean([truth in one.interval for one in found]) > 0.93
    assert np.mean([one.interval.width for one in found]) < 0.96 * np.mean([one.width for one in plain])


def test_ppi_leaves_it_to_wilson_where_it_cannot_help() -> None:
    right, confidence = population()
    noise = np.random.default_rng(3).random(3000)
    few, many = np.arange(49), np.arange(100)
    for c, f, pool in [
        (right[few], confidence[few], confidence),
        (right[many], np.full(100, 0.5), np.full(3000, 0.5)),
        (right[many], -confidence[many], -confidence),  # surer where it is wrong: no weight
        (np.ones(100, bool), confidence[many], confidence),
        (np.zeros(100, bool), confidence[many], confidence),
    ]:
        found = ppi_plus_plus(c, f, pool)
        assert found.method == "Wilson" and found.weight == 0 and found.value == c.mean()
        assert found.interval == wilson(c.sum(), len(c), population=3000) and found.interval.width > 0.01
    quiet = [abs(np.corrcoef(right[d], noise[d])[0, 1]) < 98**-0.5 for d in np.arange(3000).reshape(30, 100)]
    used = [ppi_plus_plus(right[d], noise[d], noise).method for d in np.arange(3000).reshape(30, 100)]
    assert 0 < sum(quiet) and all(method == "Wilson" for method, q in zip(used, quiet, strict=True) if q)


def test_ppi_does_not_collapse_where_nearly_all_are_right() -> None:
    """One wrong of 100, and the confidences know it: the normal interval would be a point at 1."""
    c = np.arange(100) > 0
    pool = np.concatenate([c.astype(float), np.ones(2900)])
    found = ppi_plus_plus(c, c.astype(float), pool)
    assert found.interval.low < 0.999 and 0.99 <= found.interval.high <= 1
    assert math.isnan(ppi_plus_plus(c[:0], pool[:0], pool).value)


# -- all looks -------------------------------------------------------------------------------------------------------


def stays(N: int, S: int, t: int, alpha: float) -> list[int]:
    """Every K whose prior-posterior ratio is below 1 / alpha, from the two probabilities themselves."""
    prior, kept = betabinom.logpmf(np.arange(N + 1), N, 1, 1), []
    for K in range(S, N - (t - S) + 1):
        posterior = betabinom.logpmf(K - S, N - t, 1 + S, 1 + t - S) if t < N else 0.0
        if prior[K] - posterior < -math.log(alpha):
            kept.append(K)
    return kept


@pytest.mark.parametrize("N", [1, 2, 7, 24])
@pytest.mark.parametrize("alpha", [0.4999, 0.0501, 0.0011])  # no ties
def test_the_sequence_is_the_prior_posterior_ratio(N: int, alpha: float) -> None:
    sequence = ConfidenceSequence(N, alpha)
    for t in range(N + 1):
        for S in range(t + 1):
            kept = stays(N, S, t, alpha)
            assert kept == list(range(kept[0], kept[-1] + 1))
            assert sequence.interval(S, t) == Interval(kept[0] / N, kept[-1] / N)


@pytest.mark.parametrize("K", [0, 1, 13, 20, 32, 40])
def test_the_sequence_is_left_at_most_so_often(K: int) -> None:
    """The exact probability that any of all looks excludes the truth, by following every count of right answers."""
    N, alpha = 40, 0.1
    sequence, inside = ConfidenceSequence(N, alpha), {0: 1.0}
    for t in range(N):
        after: dict[int, float] = {}
        for S, chance in inside.items():
            right = (K - S) / (N - t)
            for step, p in ((1, right), (0, 1 - right)):
                if p > 0 and K / N in sequence.interval(S + step, t + 1):
                    after[S + step] = after.get(S + step, 0.0) + chance * p
        inside = after
    assert 1 - sum(inside.values()) <= alpha


def test_a_million_items_to_the_last_one() -> None:
    N, alpha, t, S = 10**6, 0.05, 1000, 800
    interval = ConfidenceSequence(N, alpha).interval(S, t)
    for end, step in ((round(interval.low * N), -1), (round(interval.high * N), 1)):
        for K, inside in ((end, True), (end + step, False)):
            assert (hypergeom.logpmf(S, N, K, t) + math.log(t + 1) > math.log(alpha)) == inside


def test_what_a_look_excluded_stays_excluded() -> None:
    c = np.random.default_rng(0).random(300) < 0.7
    sequence = ConfidenceSequence(2000)
    each = [sequence.interval(c[:t].sum(), t) for t in range(1, 301)]
    low, high = sequence.looks(np.cumsum(c), np.arange(1, 301))
    assert (low == [i.low for i in each]).all() and (high == [i.high for i in each]).all()
    assert sequence.over(c) == Interval(max(i.low for i in each), min(i.high for i in each))
    assert sequence.over(c[:0]) == Interval(0, 1)
    backwards = np.arange(300) >= 150  # all wrong, then all right: no sample in random order
    assert sequence.over(backwards).width > 0
    everything = np.random.default_rng(1).permutation(np.arange(50) < 30)
    assert ConfidenceSequence(50).over(everything) == Interval(0.6, 0.6)


def test_the_error_is_spent_once_over_all_models() -> None:
    assert sum(spent(k, 0.05) for k in range(1, 10**5)) == pytest.approx(0.05, abs=1e-6)
    c = np.arange(200) % 5 > 0
    first, tenth = advice_interval(c, 5000), advice_interval(c, 5000, model=10)
    assert first == ConfidenceSequence(5000, spent(1)).over(c)
    assert tenth.low < first.low and first.high < tenth.high


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_prices_are_those_stated() -> None:
    """+-5 points at 10,000 items, at 0.9, 0.8 and 0.6: labels for one look, and for the sequence."""
    stated = {0.9: (140, 430), 0.8: (245, 720), 0.6: (370, 1050)}
    for accuracy, (look, sequence) in stated.items():
        found = price(0.05, accuracy, 10_000)
        assert found.one_look == pytest.approx(look, rel=0.05)
        assert found.sequence == pytest.approx(sequence, rel=0.04)
        assert found.sequence < found.advice < price(0.05, accuracy, 10_000, model=10).advice
    assert price(0.05, 0.8, 60).sequence <= 60  # nothing costs more than everything


def test_a_price_is_what_its_interval_costs() -> None:
    cost = price(0.05, 0.8, 3000, model=3)
    sequence = ConfidenceSequence(3000, spent(3))
    for m, interval in (
        (cost.one_look, lambda m: wilson(0.8 * m, m, population=3000)),
        (cost.advice, lambda m: sequence.interval(0.8 * m, m)),
    ):
        assert interval(m).width <= 0.1 < interval(m - 1).width
