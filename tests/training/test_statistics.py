"""Intervals against scipy, closed forms and their own promise: 95 % coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from omnibody.training.statistics import Z95, mcnemar, mean_interval, paired_difference, wilson

COUNTS = [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (93, 100), (1, 300), (600, 640)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_wilson_equals_scipy(k: int, n: int) -> None:
    ours, theirs = wilson(k, n), stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert ours.value == k / n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), COUNTS[2:])
def test_wilson_limits_solve_the_score_equation(k: int, n: int) -> None:
    """The limits are where |k/n - p| is exactly z standard errors of p (closed form); the Wald limits are not."""

    def score(p: float) -> float:
        return abs(k / n - p) / math.sqrt(p * (1 - p) / n)

    ours = wilson(k, n)
    for limit in (ours.low, ours.high):
        if 0 < limit < 1:
            assert score(limit) == pytest.approx(Z95, rel=1e-9)
    wald = k / n + Z95 * math.sqrt(k / n * (1 - k / n) / n)
    if 0 < wald < 1:
        assert score(wald) != pytest.approx(Z95, rel=1e-3)


def test_mcnemar_equals_the_binomial_tail() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 * 0.5**6)
    assert mcnemar(2, 8) == pytest.approx(2 * sum(math.comb(10, k) for k in range(3)) / 2**10)
    assert mcnemar(2, 8) == mcnemar(8, 2)


def _outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_paired_difference_is_antisymmetric_and_never_of_zero_width() -> None:
    for counts in itertools.product([0, 3, 40], repeat=4):
        if not sum(counts):
            continue
        a, b = _outcomes(*counts)
        ab, ba = paired_difference(a, b).difference, paired_difference(b, a).difference
        assert ab.value == pytest.approx((counts[1] - counts[2]) / sum(counts))
        assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))
        assert -1 <= ab.low <= ab.value <= ab.high <= 1
    certain = paired_difference([True] * 20, [True] * 20).difference
    assert certain.low < 0 < certain.high


def test_pairing_narrows_the_interval_when_outcomes_agree() -> None:
    a, b = _outcomes(50, 6, 2, 42)
    paired = paired_difference(a, b).difference
    shuffled = paired_difference(a, list(np.random.default_rng(0).permutation(b))).difference
    assert shuffled.value == pytest.approx(paired.value)
    assert paired.high - paired.low < 0.7 * (shuffled.high - shuffled.low)


@pytest.mark.parametrize("p", [(0.7, 0.1, 0.05, 0.15), (0.9, 0.05, 0.02, 0.03), (0.3, 0.3, 0.1, 0.3)])
def test_paired_interval_covers_the_truth_in_95_percent(p: tuple[float, ...]) -> None:
    """2000 draws of 60 episodes: a true coverage of .95 falls below .93 with probability < 1e-4.

    Negative control: the interval of half the width covers less than that.
    """
    rng, truth, hits, half_hits = np.random.default_rng(1), p[1] - p[2], 0, 0
    for counts in rng.multinomial(60, p, size=2000):
        result = paired_difference(*_outcomes(*counts)).difference
        hits += result.low <= truth <= result.high
        half_hits += abs(truth - result.value) <= (result.high - result.low) / 4
    assert hits / 2000 > 0.93
    assert half_hits / 2000 < 0.85


def test_mean_interval() -> None:
    """One cell is its Wilson interval; K equal cells narrow it by sqrt(K); the coverage is 95 %."""
    one, single = mean_interval([wilson(7, 20)]), wilson(7, 20)
    assert (one.value, one.low, one.high) == pytest.approx((single.value, single.low, single.high))
    four = mean_interval([wilson(7, 20)] * 4)
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2)
    rng, rates, hits = np.random.default_rng(2), np.array([0.2, 0.6, 0.95, 0.99]), 0
    for draw in rng.binomial(40, rates, size=(2000, 4)):
        interval = mean_interval([wilson(int(k), 40) for k in draw])
        hits += interval.low <= rates.mean() <= interval.high
    assert 0.93 < hits / 2000


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="came 5 of 4"):
        wilson(5, 4)
    with pytest.raises(ValueError, match="came 1, 2"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="came none"):
        mean_interval([])
