"""Weighted mixture of sample sets: each step draws one set, so all samples of a step share one bucket.

Movie Gen trains its autoencoder and its generator on images and videos together (3.1.1, 3.2.2): with weights
1 : 3 one step in four is an image step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from moviegen.data.order import epoch_order, permuted

BLOCK = 1000  # steps in which each set gets exactly its share


def shares(weights: Sequence[float]) -> np.ndarray:
    """Steps each set gets in a block: int64 [len(weights)], at least one, summing to BLOCK.

    What raising rare sets to one takes beyond BLOCK comes off the others, in proportion to their weights.
    """
    if not weights or min(weights) <= 0:
        raise ValueError(f"weights of a mixture must be positive, got {list(weights)}")
    if len(weights) > BLOCK:
        raise ValueError(f"a mixture holds at most {BLOCK} sets, got {len(weights)}")
    exact = np.asarray(weights, np.float64) * (BLOCK / np.sum(weights))
    counts = np.maximum(1, np.floor(exact).astype(np.int64))
    while (missing := BLOCK - counts.sum()) > 0:
        counts[np.argmax(exact - counts)] += 1
    for _ in range(-missing):
        counts[np.argmax((counts - 1) / exact)] -= 1  # never one that has its one step
    return counts


class Mixture:
    """The samples of every training step, a pure function of (seed, step) whatever the ranks and workers.

    Args:
        sizes: samples in each set.
        weights: how often each set is drawn, any positive scale; kept to one step in 1000.
        batch_size: samples of a step over all ranks, for all sets or for each.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], batch_size: int | Sequence[int], seed: int
    ):
        self.sizes, self.seed = list(sizes), seed
        self.batch_sizes = [batch_size] * len(sizes) if isinstance(batch_size, int) else list(batch_size)
        self.counts = shares(weights)
        self._block = lru_cache(maxsize=4)(self._drawn_in_block)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_block"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._block = lru_cache(maxsize=4)(self._drawn_in_block)

    def _drawn_in_block(self, block: int) -> np.ndarray:
        places = permuted(np.arange(BLOCK), BLOCK, (self.seed, 0, block))
        return np.repeat(np.arange(len(self.counts)), self.counts)[places]

    def draw(self, step: int) -> tuple[int, int]:
        """The set that `step` draws, and how many earlier steps drew it."""
        block, offset = divmod(step, BLOCK)
        drawn = self._block(block)
        source = int(drawn[offset])
        return source, block * int(self.counts[source]) + int((drawn[:offset] == source).sum())

    def at(self, step: int) -> tuple[int, np.ndarray]:
        """The set of `step` and its samples in it, int64 [its batch size]."""
        source, earlier = self.draw(step)
        entropy, count = (self.seed, 1 + source), self.batch_sizes[source]
        return source, epoch_order(earlier * count, count, self.sizes[source], entropy)
