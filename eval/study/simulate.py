"""Simulated raters with known preferences: to prove the statistics, to plan a study, and for demonstrations.

A vote's odds are Davidson's: win : tie : loss = exp(z / 2) : ties : exp(-z / 2), where z is the difference of the two
arms' strengths plus an effect of the prompt. Every simulated vote says so in its source.
"""

from __future__ import annotations

import binascii
import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import Column, VoteTable

GOLD_CLARITY = 6.0  # z of a gold item with a winner; one whose answer is tie gets this as odds of a tie
START = np.datetime64("2026-01-01T00:00:00", "us")


@dataclass(frozen=True)
class Simulation:
    """Who votes, and how. Raters are named r000, r001, ...; careless ones come first, then those with a side."""

    strengths: dict[str, float] = field(default_factory=dict)  # of arms, on every axis; 0 where none is given
    prompt_sd: float = 1.0  # of the effect of a prompt on z, drawn for each prompt, pair and axis
    ties: float = 1.0  # odds of a tie where both arms are equal: 1 makes it a third of the votes
    raters: int = 24
    careless: int = 0  # raters who answer anything and barely watch
    sided: int = 0  # raters who prefer one side
    side: float = 2.0  # added to z for the video on the left, by those raters

    def __post_init__(self) -> None:
        for name, least in (("prompt_sd", 0), ("ties", 0), ("raters", 1), ("careless", 0), ("sided", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"simulate: {name} is {getattr(self, name)}; expected {least} or more")
        if self.careless + self.sided > self.raters:
            raise ValueError(
                f"simulate: {self.careless} careless and {self.sided} sided are more than {self.raters} raters"
            )


def simulate(study: Study, simulation: Simulation, seed: int) -> VoteTable:
    """The votes of a whole study: each item and axis by as many raters as the axis asks for, gold items by all.

    Raises ValueError where an axis asks for more raters than there are, or a strength names no arm.
    """
    _check(study, simulation)
    rng = np.random.default_rng(seed)
    item, axis, rater = _assignment(study, simulation, rng)
    shown_left = rng.choice(np.array([1, -1], np.int8), size=len(item))
    z, ties = _preferences(study, simulation, rng, item, axis)
    sided = (rater >= simulation.careless) & (rater < simulation.careless + simulation.sided)
    z = z + simulation.side * sided * shown_left
    answer = _answers(z, ties, rater < simulation.careless, rng)
    watched = rng.uniform(4.0, 8.0, size=(len(item), 2))
    watched[rater < simulation.careless] /= 8
    return _table(study, simulation, rng, (item, axis, rater, answer, shown_left, watched.round(1)))


def true_net(z: float, prompt_sd: float, ties: float, raters: int) -> tuple[float, float]:
    """The net win rates that such raters tend to: pooled, and by majority of `raters`; prompts integrated out."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(96)
    pooled = majority = 0.0
    for effect, weight in zip(nodes, weights / weights.sum(), strict=True):
        odds = np.array(
            [math.exp((z + prompt_sd * effect) / 2), ties, math.exp(-(z + prompt_sd * effect) / 2)]
        )
        shares = odds / odds.sum()
        pooled += weight * (shares[0] - shares[2])
        for wins, tied in product(range(raters + 1), repeat=2):
            losses = raters - wins - tied
            if losses < 0 or max(wins, losses) <= tied or wins == losses:
                continue
            ways = math.factorial(raters) / math.prod(map(math.factorial, (wins, tied, losses)))
            share = ways * shares[0] ** wins * shares[1] ** tied * shares[2] ** losses
            majority += weight * share * (1 if wins > losses else -1)
    return 100 * pooled, 100 * majority


def _check(study: Study, simulation: Simulation) -> None:
    for axis in study.axes:
        if axis.raters > simulation.raters:
            raise ValueError(
                f"simulate: axis {axis.key!r} needs {axis.raters} raters, there are {simulation.raters}"
            )
    unknown = sorted(simulation.strengths.keys() - {arm.name for arm in study.arms})
    if unknown:
        arms = ", ".join(arm.name for arm in study.arms)
        raise ValueError(f"simulate: strengths.{unknown[0]} names no arm of the study; its arms: {arms}")


def _assignment(
    study: Study, simulation: Simulation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item, axis and rater of every vote; no rater twice on one item and axis."""
    gold = np.array([item.gold is not None for item in study.items])
    plain, parts = np.flatnonzero(~gold), []
    for number, axis in enumerate(study.axes):
        for items in np.array_split(plain, max(1, len(plain) * simulation.raters // 4_000_000)):
            order = rng.random((len(items), simulation.raters)).argsort(axis=1)[:, : axis.raters]
            parts.append((np.repeat(items, axis.raters), np.full(order.size, number), order.ravel()))
    for position, item in enumerate(np.flatnonzero(gold)):
        everybody = np.arange(simulation.raters)
        axis_number = position % len(study.axes)
        parts.append((np.full(len(everybody), item), np.full(len(everybody), axis_number), everybody))
    item, axis, rater = (np.concatenate(columns).astype(np.int32) for columns in zip(*parts, strict=True))
    return item, axis, rater


def _preferences(
    study: Study, simulation: Simulation, rng: np.random.Generator, item: np.ndarray, axis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """z from the side of arm_a, and the odds of a tie, for each vote. float64 [N] each."""
    names: dict[tuple[str, str, str], int] = {}
    size = len(study.items)
    strength, sign, group = np.zeros(size), np.ones(size), np.zeros(size, np.int64)
    ties, gold = np.full(size, simulation.ties), np.zeros(size, bool)
    for row, one in enumerate(study.items):
        if one.gold is None:
            get = simulation.strengths.get
            strength[row] = get(one.arm_a, 0.0) - get(one.arm_b, 0.0)
            sign[row] = 1 if one.arm_a < one.arm_b else -1
            low, high = sorted((one.arm_a, one.arm_b))
            group[row] = names.setdefault((one.cluster, low, high), len(names))
        else:
            gold[row] = True
            strength[row] = {"a": GOLD_CLARITY, "tie": 0.0, "b": -GOLD_CLARITY}[one.gold]
            ties[row] = math.exp(GOLD_CLARITY / 2) if one.gold == "tie" else 0.1
    effects = rng.normal(0.0, simulation.prompt_sd, size=(max(1, len(names)), len(study.axes)))
    z = strength[item] + np.where(gold[item], 0.0, sign[item] * effects[group[item], axis])
    return z, ties[item]


def _answers(z: np.ndarray, ties: np.ndarray, careless: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    odds = np.stack([np.exp(z / 2), ties, np.exp(-z / 2)], axis=1)
    odds[careless] = 1.0
    ends = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return (1 - (rng.random(len(z))[:, None] > ends[:, :2]).sum(axis=1)).astype(np.int8)


def _table(study: Study, simulation: Simulation, rng: np.random.Generator, columns: tuple) -> VoteTable:
    item, axis, rater, answer, shown_left, watched = columns
    size, none = len(item), np.zeros(len(item), np.int32)
    return VoteTable(
        study=Column((study.digest,), none),
        item=Column(tuple(one.id for one in study.items), item),
        axis=Column(tuple(one.key for one in study.axes), axis),
        rater=Column(tuple(f"r{number:03d}" for number in range(simulation.raters)), rater),
        source=Column(("simulated",), none),
        reason=Column(("",), none),
        details=Column(("",), none),
        answer=answer,
        shown_left=shown_left,
        watch_seconds=watched,
        time=START + np.arange(size) * np.timedelta64(1_000_000, "us"),
        id=np.frombuffer(binascii.hexlify(rng.bytes(16 * size)), "S32"),
        undoes=np.zeros(size, "S32"),
    )
