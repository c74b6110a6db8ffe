"""Distances of two sets of features: Frechet (FID, FVD) and unbiased kernel distances (KID, KVD, KAD).

The Frechet distance falls as the number of samples grows: figures of different n must never be compared. The kernel
distances have no such bias; they may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from moviegen_eval.stats import Z_95, Interval

MIN_SAMPLES = 2048  # below it a Frechet distance says more about n than about the samples


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of features [N, D] and [M, D], N and M at least 2.

    The root's trace is the nuclear norm of the product of the centered sets, so no D x D root is taken.
    """
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 samples of each, got {len(a)} and {len(b)}")
    center_a, center_b = (x.mean(0, dtype=np.float64) for x in (a, b))
    spread_a, spread_b = _spread(a, center_a), _spread(b, center_b)
    root = np.linalg.svd(spread_a @ spread_b.T, compute_uv=False).sum()
    total = np.square(center_a - center_b).sum() + np.square(spread_a).sum() + np.square(spread_b).sum()
    return max(0.0, float(total - 2 * root))


def _spread(x: np.ndarray, center: np.ndarray) -> np.ndarray:
    """S with S^T S the covariance, of at most D rows."""
    rows = (x - center) / math.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows


def polynomial_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased MMD^2 with the kernel (x y / D + 1)^3 (KID) of features [N, D] and [M, D]; may be negative."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    return _mmd(a, b, kernel)


def gaussian_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased MMD^2 with a Gaussian kernel (KAD) of features [N, D] and [M, D]; b is the reference.

    The bandwidth is the median distance between samples of the reference, so it does not move with the system.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    between = _squared_distances(b, b)[np.triu_indices(len(b), 1)]
    width = float(np.median(between)) if between.size else 1.0

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-_squared_distances(x, y) / (2 * max(width, 1e-12)))

    return _mmd(a, b, kernel)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.clip(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0, None)


def _mmd(a: np.ndarray, b: np.ndarray, kernel: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a kernel distance needs at least 2 samples of each, got {len(a)} and {len(b)}")
    within = [
        (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)) for x, k in ((a, kernel(a, a)), (b, kernel(b, b)))
    ]
    return float(sum(within) - 2 * kernel(a, b).mean())


def bootstrap_sets(
    distance: Callable[[np.ndarray, np.ndarray], float],
    sides: tuple[np.ndarray, np.ndarray],
    owners: tuple[np.ndarray, np.ndarray],
    paired: bool,
    count: int,
    seed: int,
) -> Interval | None:
    """A 95 % interval of a distance of sets, resampling whole prompts; None below three prompts.

    Resampling with replacement adds a bias of its own, so only the spread is taken: value +- 1.96 standard deviations.

    Args:
        sides: features [N, D] and [M, D].
        owners: the prompt that each row comes from, [N] and [M].
        paired: draw the same prompts on both sides; else each side for itself.
    """
    prompts = [np.unique(side) for side in owners]
    if min(len(side) for side in prompts) < 3 or count < 2:
        return None
    rows = [
        [np.flatnonzero(owner == prompt) for prompt in own]
        for owner, own in zip(owners, prompts, strict=True)
    ]
    if paired and not np.array_equal(prompts[0], prompts[1]):
        raise ValueError("paired sets must come from the same prompts")
    rng, values = np.random.default_rng(seed), []
    for _ in range(count):
        picks = [rng.integers(0, len(own), len(own)) for own in prompts]
        if paired:
            picks[1] = picks[0]
        drawn = [
            side[np.concatenate([members[i] for i in pick])]
            for side, members, pick in zip(sides, rows, picks, strict=True)
        ]
        values.append(distance(drawn[0], drawn[1]))
    value, half = distance(*sides), Z_95 * float(np.std(values, ddof=1))
    return Interval(value - half, value + half)


def bootstrap_distance(
    a: np.ndarray, b: np.ndarray, groups: np.ndarray, count: int, seed: int
) -> Interval | None:
    """A 95 % interval of the Frechet distance of paired features, resampling whole clips; None below two clips.

    Resampling adds a bias of its own, so only the spread is taken: value +- 1.96 standard deviations, above 0.

    Args:
        groups: the clip that each row of a and b comes from, [N].
    """
    clips = np.unique(groups)
    if len(clips) < 2 or count < 2:
        return None
    rows, rng = [np.flatnonzero(groups == clip) for clip in clips], np.random.default_rng(seed)
    values = []
    for _ in range(count):
        picked = np.concatenate([rows[i] for i in rng.integers(0, len(clips), len(clips))])
        values.append(frechet_distance(a[picked], b[picked]))
    value, half = frechet_distance(a, b), Z_95 * float(np.std(values, ddof=1))
    return Interval(max(0.0, value - half), value + half)
