"""Intervals and chance levels. All intervals are 95 %; all randomness comes from an explicit seed.

Means get a percentile bootstrap over clips; proportions get Wilson's score interval, which does not collapse
at 0 and 1 as a bootstrap does. Several clips of one prompt count as one observation (see `prompt_share`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """Bounds of a 95 % interval."""

    low: float
    high: float


def bootstrap_mean(values: Sequence[float] | np.ndarray, count: int, seed: int) -> Interval | None:
    """Percentile bootstrap of the mean over `count` resamples; None below two values.

    The percentiles are moved outwards so that for normal values the interval is as wide as Student's: plain
    percentiles cover 0.73 instead of 0.95 at n = 3. No percentile reaches beyond the smallest and the largest
    value, so below about six values the interval is still too narrow: read it with n.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size < 2:
        return None
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, values_N.size, size=(count, values_N.size))
    reach = math.sqrt(values_N.size / (values_N.size - 1)) * stdtrit(values_N.size - 1, 0.975)
    means = values_N[picks].mean(axis=1)
    low, high = np.quantile(means, (ndtr(-reach), ndtr(reach)))
    # Resampled means are rounded differently from the mean itself, which must not fall outside.
    center = values_N.mean()
    return Interval(float(min(low, center)), float(max(high, center)))


def wilson(successes: float, trials: int) -> Interval | None:
    """Wilson's score interval of a proportion; None without trials. `successes` may be a sum of shares."""
    if trials == 0:
        return None
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..{trials}, got {successes}")
    share, z2 = successes / trials, Z_95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Interval(max(0.0, min(center - half, share)), min(1.0, max(center + half, share)))


class Share(NamedTuple):
    """A proportion over prompts, its interval, and the number of prompts."""

    value: float
    interval: Interval
    num_prompts: int


def prompt_share(prompts: Sequence[str], correct: Sequence[bool]) -> Share | None:
    """Share of correct clips, averaged within each prompt first; None without clips.

    The interval takes the prompts as the observations: clips of one prompt (several seeds) are alike, and
    counting them as independent would make the interval too narrow.
    """
    by_prompt: dict[str, list[bool]] = {}
    for prompt, right in zip(prompts, correct, strict=True):
        by_prompt.setdefault(prompt, []).append(bool(right))
    if not by_prompt:
        return None
    total = sum(sum(answers) / len(answers) for answers in by_prompt.values())
    interval = wilson(total, len(by_prompt))
    assert interval is not None
    return Share(total / len(by_prompt), interval, len(by_prompt))


def derangement(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation of 0..size-1 without a fixed point (Sattolo's one-cycle shuffle).

    Raises ValueError below two elements, for which none exists.
    """
    if size < 2:
        raise ValueError(f"a shuffle without fixed points needs at least 2 elements, got {size}")
    order = np.arange(size)
    for last in range(size - 1, 0, -1):
        other = int(rng.integers(0, last))
        order[last], order[other] = order[other], order[last]
    return order


def student_mean(values: Sequence[float] | np.ndarray) -> Interval | None:
    """Student's interval of the mean, for the few values (seeds) that a bootstrap is too narrow for; None below two."""
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.size < 2:
        return None
    half = stdtrit(values_N.size - 1, 0.975) * values_N.std(ddof=1) / math.sqrt(values_N.size)
    return Interval(float(values_N.mean() - half), float(values_N.mean() + half))
