"""Noise that belongs to samples, not to ranks: losses do not depend on how a batch is split over processes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor


class SampleRng:
    """One stream of random numbers per sample, keyed by (seed, step, sample key); keys [B] int64, all 64 bits count.

    They are hashed together; torch's engine takes 32 bits of the result, so that two samples of a step have the same
    noise with a chance of 2^-32. Another engine would change every noise that shipped figures were measured with.
    """

    def __init__(self, seed: int, step: int, keys: Tensor):
        states = (
            np.random.SeedSequence((seed, step, key % 2**64)).generate_state(2, np.uint64)
            for key in keys.tolist()
        )
        self.generators = [torch.Generator().manual_seed(int(state[0]) >> 1) for state in states]

    def part(self, rows: Sequence[int]) -> SampleRng:
        """The streams of some samples, which go on where they are."""
        found = copy(self)
        found.generators = [self.generators[row] for row in rows]
        return found

    def randn(self, *shape: int) -> Tensor:
        """Standard normal noise [B, *shape]."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def rand(self, *shape: int) -> Tensor:
        """Uniform noise [B, *shape] in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators])
