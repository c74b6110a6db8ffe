"""Which sample comes when: permutations that are computed, never stored.

The order of a data set is a pure function of (seed, epoch), so a run can start at any step in no time, on any
number of ranks and workers, and two runs of one seed agree on every machine and library version.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8
SORTED = 4096  # sets up to this size are sorted by hash, which is faster than walking


def permuted(positions: np.ndarray, size: int, entropy: tuple[int, ...]) -> np.ndarray:
    """Where `positions` (int64, each in [0, size)) go under the permutation that `entropy` names.

    Large sets: a keyed Feistel network on the next even number of bits; what falls outside goes round again.
    """
    keys = np.random.SeedSequence(entropy).generate_state(ROUNDS, np.uint64)
    if size <= SORTED:
        return np.argsort(_mixed(_mixed(np.arange(size, dtype=np.uint64) + keys[0]) + keys[1]))[positions]
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    values = _feistel(positions.astype(np.uint64), half, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << half) | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers (the finalizer of SplitMix64); multiplication wraps around."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def epoch_order(first: int, count: int, size: int, entropy: tuple[int, ...]) -> np.ndarray:
    """Samples number `first` to `first + count` (int64 [count]) of an endless run over `size` samples.

    Each epoch visits every sample once, in an order of its own.
    """
    positions = np.arange(first, first + count)
    epochs, places = positions // size, positions % size
    samples = np.empty(count, np.int64)
    for epoch in range(first // size, (first + count - 1) // size + 1):
        here = epochs == epoch
        samples[here] = permuted(places[here], size, (*entropy, epoch))
    return samples
