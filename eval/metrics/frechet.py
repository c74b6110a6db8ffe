"""Distances of two sets of features: Frechet (FID, FVD) and the polynomial kernel's MMD, whose bias is none.

The Frechet distance falls as the number of samples grows: figures of different n must never be compared.
"""

from __future__ import annotations

import math

import numpy as np
from moviegen_eval.stats import Z_95, Interval


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

    within = [
        (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)) for x, k in ((a, kernel(a, a)), (b, kernel(b, b)))
    ]
    return float(sum(within) - 2 * kernel(a, b).mean())


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
