"""Intervals for success rates (one rate, a paired difference, a mean over cells) and for means of other figures.

Closed forms, no randomness. The three of success rates are one family: Wilson limits of single rates, combined by the
square-and-add rule ("method of variance estimates recovery", Zou & Donner, Statistics in Medicine 27:1693, 2008), so
that a mean over one cell is that cell's Wilson interval, and a rate of 0 or 1 never gets an interval of zero width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Z95 = 1.959963984540054  # two-sided 95 % point of the standard normal


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Success rate of ``a`` minus that of ``b`` on the same ``n`` episodes.

    ``only_a`` and ``only_b`` count the episodes that one alone solved; ``p`` is McNemar's exact two-sided p-value.
    """

    n: int
    difference: Interval
    p: float
    only_a: int
    only_b: int


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's 95 % score interval of a rate (Wilson, JASA 22:209, 1927); (0, 1) around NaN without trials."""
    if not 0 <= successes <= trials:
        raise ValueError(f"wilson: wanted 0 <= successes <= trials, came {successes} of {trials}")
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    rate, z2 = successes / trials, Z95**2
    centre = (successes + z2 / 2) / (trials + z2)
    half = Z95 / (trials + z2) * math.sqrt(trials * rate * (1 - rate) + z2 / 4)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(rate, low, high)


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> Paired:
    """Compare two policies on the same episodes: ``a[i]`` and ``b[i]`` say whether each solved episode ``i``.

    The interval is Newcombe's for paired proportions (his method 10, without continuity correction, Statistics in
    Medicine 17:2635, 1998): the two Wilson intervals combined with the correlation phi of the outcomes.
    """
    if len(a) != len(b) or not a:
        raise ValueError(
            f"paired_difference: wanted two equally long, non-empty outcome lists, came {len(a)}, {len(b)}"
        )
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_a, only_b, n = int((first & ~second).sum()), int((~first & second).sum()), len(a)
    one, two = wilson(both + only_a, n), wilson(both + only_b, n)
    margins = math.sqrt(one.value * (1 - one.value) * two.value * (1 - two.value)) * n**2
    phi = (both * neither - only_a * only_b) / margins if margins > 0 else 0.0
    difference = one.value - two.value
    low = difference - _square_and_add(one.value - one.low, two.high - two.value, phi)
    high = difference + _square_and_add(one.high - one.value, two.value - two.low, phi)
    return Paired(n, Interval(difference, low, high), mcnemar(only_a, only_b), only_a, only_b)


def _square_and_add(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of "both solve equally often", from the discordant counts; 1 when there are none."""
    discordant = only_a + only_b
    return float(stats.binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def estimate(values: np.ndarray) -> Interval:
    """Mean of independent values (n,) with Student's 95 % limits; they are NaN for fewer than two values."""
    if len(values) < 2:
        return Interval(float(values.mean()) if len(values) else math.nan, math.nan, math.nan)
    mean, half = float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def mean_interval(estimates: Sequence[Interval]) -> Interval:
    """Unweighted mean of independent estimates, e.g. of the success rates of several cells."""
    if not estimates:
        raise ValueError("mean_interval: wanted at least one estimate, came none")
    value = sum(e.value for e in estimates) / len(estimates)
    below = math.sqrt(sum((e.value - e.low) ** 2 for e in estimates)) / len(estimates)
    above = math.sqrt(sum((e.high - e.value) ** 2 for e in estimates)) / len(estimates)
    return Interval(value, value - below, value + above)
