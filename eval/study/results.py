"""What an analysis holds: plain frozen values, from which every table and page is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from moviegen_eval.study.davidson import Ranking
from moviegen_eval.study.raters import Alpha, RaterRow, SideBias
from moviegen_eval.study.rates import Counts, NetWinRate, TieHalfWinRate
from moviegen_eval.study.significance import SIGNIFICANT
from moviegen_eval.study.table import LeftOut

SMALL = 30  # items below which a slice is greyed


@dataclass(frozen=True)
class Rate:
    """Counts with their net win rate, and the sign test over prompts; the other scale by `tie_half`."""

    counts: Counts
    net: NetWinRate
    p: float
    p_holm: float  # over the axes of one pair of arms
    p_holm_all: float  # over all axes and all pairs of the study

    @property
    def tie_half(self) -> TieHalfWinRate:
        """The same on the scale where 50 is a tie."""
        return self.net.tie_half()


@dataclass(frozen=True)
class PairResult:
    """One axis of one pair of arms, from the side of the first; its own rate is that of the majority of raters."""

    axis: str
    first: str
    second: str
    n_items: int  # items with votes on this axis
    n_prompts: int  # different prompts among them: what the interval resamples
    n_votes: int
    splits: int  # items whose raters gave no leading answer; they count as ties
    majority: Rate  # one outcome an item
    pooled: Rate  # one outcome a vote
    verdict: str  # ours, of the majority: significant after Holm, moderate (interval alone), on par
    sigma: float | None  # the paper's, of this axis
    paper_verdict: str | None  # the paper's rule, of the majority

    @property
    def wins(self) -> int:
        """Items that the first arm won by majority."""
        return self.majority.counts.wins

    @property
    def ties(self) -> int:
        """Items without a winner by majority."""
        return self.majority.counts.ties

    @property
    def losses(self) -> int:
        """Items that the second arm won by majority."""
        return self.majority.counts.losses

    @property
    def net(self) -> NetWinRate:
        """The net win rate by majority."""
        return self.majority.net

    @property
    def p(self) -> float:
        """The sign test's p by majority."""
        return self.majority.p

    @property
    def p_holm(self) -> float:
        """The same after Holm across axes."""
        return self.majority.p_holm

    @property
    def significant(self) -> bool:
        """Whether it stays significant after Holm."""
        return self.verdict == SIGNIFICANT


@dataclass(frozen=True)
class SliceResult:
    """A result on the items that carry one tag, or one of each of two tags; by majority."""

    axis: str
    first: str
    second: str
    tags: tuple[tuple[str, str], ...]  # (tag, value), one or two
    counts: Counts
    n_items: int
    n_prompts: int
    n_votes: int
    net: NetWinRate
    p: float
    p_holm: float  # over the values of the same tags, of this axis and pair

    @property
    def small(self) -> bool:
        """Whether it holds too few items to be read: below 30 it is greyed."""
        return self.n_items < SMALL


@dataclass(frozen=True)
class Analysis:
    """Everything that a study's votes say."""

    study: str  # id
    title: str
    digest: str
    level: int | None  # of toyworld, as the study says
    seed: int
    resamples: int
    axes: tuple[str, ...]
    arms: tuple[str, ...]
    n_read: int  # votes of the log, before any rule
    n_votes: int  # valid ones, gold items not counted
    n_gold: int  # valid votes on gold items
    dates: (
        tuple[str, str] | None
    )  # days (UTC) of the first and the last valid vote; None where no time is known
    results: tuple[PairResult, ...]
    slices: tuple[SliceResult, ...]
    rankings: tuple[Ranking, ...]  # of each axis, from three arms on
    alphas: dict[str, Alpha | None]  # of each axis
    raters: tuple[RaterRow, ...]  # excluded ones too
    side: SideBias  # of all valid votes
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    sources: dict[str, int]  # valid votes by source: page, csv, simulated, ...
    items: tuple[str, ...]  # ids, gold items too
    item_counts: np.ndarray = field(
        compare=False
    )  # valid votes for arm_a, tie, arm_b. int64 [items, axes, 3]

    def result(self, axis: str, first: str, second: str) -> PairResult:
        """One result. Raises KeyError where the study has no votes for it (in this order of arms)."""
        for result in self.results:
            if (result.axis, result.first, result.second) == (axis, first, second):
                return result
        raise KeyError(f"no result of {first} against {second} on {axis}")

    def item(self, item: str, axis: str) -> Counts:
        """The valid votes of one item on one axis: wins are those for its arm_a."""
        return Counts(*self.item_counts[self.items.index(item), self.axes.index(axis)].tolist())

    @property
    def simulated(self) -> bool:
        """Whether any counted vote comes from simulated raters."""
        return self.sources.get("simulated", 0) > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json; left out votes as reason and count, and no counts of items."""
        values = _plain({f.name: getattr(self, f.name) for f in fields(self) if f.name != "item_counts"})
        values["left_out"] = [{"reason": out.reason, "count": out.count} for out in self.left_out]
        return values


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _plain(value._asdict())  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
