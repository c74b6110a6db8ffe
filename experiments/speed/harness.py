"""Speed side by side: contestants and the machine's ceiling take turns in every round, in one process.

A round is one run of every contestant and one reading of the ceiling. Rounds in which the ceiling moved away from its
median are dropped, since a neighbour ran. What is compared is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from moviegen_eval.numbers import Figure

MOVED = 0.10  # a ceiling this far from its median spoils its round


@dataclass(frozen=True)
class Contestant:
    """Something to time: `run` does `work` useful units (pixels, tokens) in `flops` counted operations."""

    name: str
    run: Callable[[], object]
    work: float
    flops: float


@dataclass(frozen=True)
class Round:
    """Seconds of each contestant, and the ceiling in FLOP/s that was measured beside them."""

    seconds: dict[str, float]
    ceiling: float


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, on a GPU until it has finished."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def race(
    contestants: Sequence[Contestant], ceiling: Callable[[], float], num_rounds: int, warmup: int = 1
) -> list[Round]:
    """Run the rounds, in turning order; those with a ceiling that moved are left out.

    Args:
        ceiling: one reading of the best FLOP/s that the machine gives now.
    """
    for contestant in contestants:
        for _ in range(warmup):
            contestant.run()
    rounds = []
    for index in range(num_rounds):
        turn = index % len(contestants)
        order = [*contestants[turn:], *contestants[:turn]]
        before = ceiling()
        seconds = {contestant.name: timed(contestant.run) for contestant in order}
        rounds.append(Round(seconds, max(before, ceiling())))
    middle = median(r.ceiling for r in rounds)
    kept = [r for r in rounds if abs(r.ceiling / middle - 1) <= MOVED]
    if len(kept) < num_rounds:
        print(
            f"{num_rounds - len(kept)} of {num_rounds} rounds dropped: their ceiling moved by over {MOVED:.0%}"
        )
    if not kept:
        raise RuntimeError("no round had a steady ceiling: something else runs on this machine")
    return kept


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return median(values), min(values), max(values)


def figures(
    name: str, ours: Contestant, peers: Sequence[Contestant], rounds: Sequence[Round], unit: str
) -> list[Figure]:
    """Speed, FLOPs per unit of work and share of the ceiling of all; the ratio of ours to each peer.

    The low and high of a figure are the lowest and highest of the rounds.
    """
    found: list[Figure] = []

    def add(path: str, values: Sequence[float], in_unit: str, higher: bool = True) -> None:
        found.append(Figure(f"{name}/{path}", *spread(values), len(values), in_unit, higher))

    for contestant in (ours, *peers):
        is_ours, own = contestant is ours, contestant.name
        prefix = "" if is_ours else f"{own}_"
        seconds = [r.seconds[own] for r in rounds]
        add(f"{prefix}speed", [contestant.work / s for s in seconds], f"{unit}/s")
        add(f"{prefix}flops_per_{unit}", [contestant.flops / contestant.work], f"FLOP/{unit}", False)
        shares = [contestant.flops / s / r.ceiling for s, r in zip(seconds, rounds, strict=True)]
        add(f"{prefix}share_of_ceiling", shares, "share")
        if not is_ours:
            ratios = [(ours.work / r.seconds[ours.name]) / (contestant.work / r.seconds[own]) for r in rounds]
            add(f"ratio_to_{own}", ratios, "ratio")
    add("ceiling", [r.ceiling / 1e9 for r in rounds], "GFLOP/s")
    return found


def machine() -> str:
    """The hardware and the versions, in one line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.system()}"
