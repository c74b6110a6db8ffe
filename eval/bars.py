"""The figures to reach: each bar beside what was reached, said plainly when it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moviegen_eval.numbers import Figure


@dataclass(frozen=True)
class Bar:
    """A figure's target and outcome; `value` is None when the figure was not measured."""

    name: str
    target: float | None  # None when the figure it is to beat was not measured
    target_name: str  # "0.97", or the name of the figure to beat
    value: float | None
    reached: bool
    why: str  # empty when reached


def check_bars(
    bars: Mapping[str, float | str], figures: Sequence[Figure], reasons: Mapping[str, str]
) -> list[Bar]:
    """Hold every bar against its figure.

    A number is reached at equality; another figure (a baseline) must be beaten. The value counts, not the
    bounds of its interval. `reasons` holds, by figure name, what was observed when a figure fell short.
    """
    values = {figure.name: figure for figure in figures}
    checked = []
    for name, wanted in bars.items():
        figure = values.get(name)
        other = values.get(wanted) if isinstance(wanted, str) else None
        target = other.value if other else None if isinstance(wanted, str) else float(wanted)
        reached = False
        if figure is None:
            why = "not measured: no input for this figure"
        elif target is None:
            why = f"{wanted} was not measured"
        else:
            ahead = figure.value - target if figure.higher_is_better else target - figure.value
            reached = ahead > 0 if isinstance(wanted, str) else ahead >= 0
            why = "" if reached else reasons.get(name, "")
        value = figure.value if figure else None
        checked.append(Bar(name, target, str(wanted), value, reached, why))
    return checked


def outcome(bar: Bar) -> str:
    """One line for a bar: `reached: 0.984 against 0.97`, or `not reached: ...` with the reason."""
    if bar.value is None or bar.target is None:
        return f"not reached: {bar.why}"
    against = "" if bar.target_name == f"{bar.target:g}" else f" ({bar.target_name})"
    line = f"{bar.value:.4g} against {bar.target:.4g}{against}"
    if bar.reached:
        return f"reached: {line}"
    return f"not reached: {line}" + (f"; {bar.why}" if bar.why else "")
