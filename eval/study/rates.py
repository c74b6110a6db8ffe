"""The two scales of preference, as types that do not mix: net win rate, and the win rate where 50 is a tie.

Movie Gen prints the first for generation (section 3.5) and the second for editing (section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen_eval.stats import Interval


@dataclass(frozen=True)
class Counts:
    """Wins, ties and losses of the first of two arms."""

    wins: int
    ties: int
    losses: int

    @property
    def total(self) -> int:
        """All of them: ties count in every denominator."""
        return self.wins + self.ties + self.losses

    def net(self) -> float:
        """100 (wins - losses) / total; raises ValueError without votes."""
        if not self.total:
            raise ValueError("no votes, so there is no win rate")
        return 100.0 * (self.wins - self.losses) / self.total

    def tie_half(self) -> float:
        """100 (wins + ties / 2) / total; raises ValueError without votes."""
        return 50.0 + self.net() / 2

    def __str__(self) -> str:
        return f"{self.wins}-{self.ties}-{self.losses}"


@dataclass(frozen=True)
class _Rate:
    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        least, most = self.bounds()
        if not least <= self.low <= self.value <= self.high <= most:
            raise ValueError(
                f"{type(self).__name__}: {self.low} <= {self.value} <= {self.high} in {least}..{most}"
            )

    @staticmethod
    def bounds() -> tuple[float, float]:
        raise NotImplementedError

    def _same(self, other: object) -> _Rate:
        if type(other) is not type(self):
            raise TypeError(f"a {type(self).__name__} does not compare with a {type(other).__name__}")
        assert isinstance(other, _Rate)
        return other

    def __lt__(self, other: object) -> bool:
        return self.value < self._same(other).value

    def __gt__(self, other: object) -> bool:
        return self.value > self._same(other).value

    def __sub__(self, other: object) -> float:
        return self.value - self._same(other).value


@dataclass(frozen=True)
class NetWinRate(_Rate):
    """Win % minus loss %, -100 to 100, 0 where both are equal, with its 95 % interval."""

    @staticmethod
    def bounds() -> tuple[float, float]:
        return -100.0, 100.0

    def tie_half(self) -> TieHalfWinRate:
        """The same result on the other scale."""
        return TieHalfWinRate(*(50 + end / 2 for end in (self.value, self.low, self.high)))

    def flipped(self) -> NetWinRate:
        """From the side of the other arm."""
        return NetWinRate(-self.value, -self.high, -self.low)

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class TieHalfWinRate(_Rate):
    """Win % plus half of tie %, 0 to 100, 50 where both are equal, with its 95 % interval."""

    @staticmethod
    def bounds() -> tuple[float, float]:
        return 0.0, 100.0

    def net(self) -> NetWinRate:
        """The same result on the other scale."""
        return NetWinRate(*(2 * end - 100 for end in (self.value, self.low, self.high)))

    def __str__(self) -> str:
        return f"{self.value:.1f} % (50 = tie) [{self.low:.1f}, {self.high:.1f}]"


def net_win_rate(counts: Counts, interval: Interval) -> NetWinRate:
    """The net win rate of counts; rounding never leaves the value outside its interval."""
    value = counts.net()
    return NetWinRate(value, max(-100.0, min(interval.low, value)), min(100.0, max(interval.high, value)))
