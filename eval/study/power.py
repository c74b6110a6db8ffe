"""Planning: how exact a study of n prompts is, and how many prompts an effect needs.

The standard error of a net win rate is sqrt((1 - ties - net^2) / n); planning takes it at net 0, where it is largest.
Outcomes are one a prompt (the majority of its raters): more raters a prompt change its ties, not n.
"""

from __future__ import annotations

import math

from scipy.stats import norm
from statsmodels.stats.power import normal_sample_size_one_tail

LEVEL = 0.05


def standard_error(num_prompts: int, ties: float, net: float = 0.0) -> float:
    """Of a net win rate, in its own points (0 to 100). `ties` is a share, `net` in points."""
    _check(ties=ties, num_prompts=num_prompts)
    variance = 1 - ties - (net / 100) ** 2
    if variance < 0:
        raise ValueError(
            f"net {net:g} cannot be where {ties:.0%} of the outcomes are ties; at most {100 * (1 - ties):g}"
        )
    return 100 * math.sqrt(variance / num_prompts)


def half_width(num_prompts: int, ties: float, net: float = 0.0) -> float:
    """Of the 95 % interval, in points."""
    return float(norm.ppf(1 - LEVEL / 2)) * standard_error(num_prompts, ties, net)


def detectable(num_prompts: int, ties: float, power: float = 0.8, num_tests: int = 1) -> float:
    """The net win rate that a two-sided 5 % test calls significant with this power.

    `num_tests`: axes that share the 5 %; Holm's first step, as Bonferroni, asks for 5 % / num_tests.
    """
    _check(power=power, num_tests=num_tests)
    return _reach(power, num_tests) * standard_error(num_prompts, ties)


def prompts_needed(net: float, ties: float, power: float = 0.8, num_tests: int = 1) -> int:
    """Prompts from which on `detectable` is `net` or less."""
    _check(power=power, num_tests=num_tests, ties=ties)
    if not 0 < abs(net) <= 100 * (1 - ties) + 1e-9:
        raise ValueError(
            f"net is {net:g}; expected a net win rate from above 0 to {100 * (1 - ties):g} points"
        )
    spread = 100 * math.sqrt(1 - ties)
    found = normal_sample_size_one_tail(abs(net), power, LEVEL / num_tests / 2, std_null=spread)
    return max(2, math.ceil(float(found) - 1e-9))


def _reach(power: float, num_tests: int) -> float:
    return float(norm.ppf(1 - LEVEL / num_tests / 2) + norm.ppf(power))


def _check(ties: float = 0.0, num_prompts: int = 1, power: float = 0.8, num_tests: int = 1) -> None:
    if not 0 <= ties < 1:
        raise ValueError(f"ties is {ties}; expected a share from 0 to below 1")
    if num_prompts < 1:
        raise ValueError(f"the number of prompts is {num_prompts}; expected 1 or more")
    if not 0 < power < 1:
        raise ValueError(f"power is {power}; expected between 0 and 1")
    if num_tests < 1:
        raise ValueError(f"num_tests is {num_tests}; expected 1 or more")
