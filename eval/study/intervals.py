"""Bootstrap over prompts: the votes on one prompt are alike, and resampling votes covers 84 % instead of 95 %.

A rate is a sum of signs over a sum of counts; whole prompts are drawn with replacement. All randomness comes from
a seed and the names of what is computed, so the order of votes and of computations changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from moviegen_eval.stats import Interval
from scipy.special import ndtr, stdtrit
from statsmodels.stats.proportion import proportion_confint

CHUNK = 8_000_000  # draws held at a time


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each thing that is computed."""
    words = "\0".join((str(seed), *names)).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words).digest()[:16], "big"))


def cluster_weights(num_clusters: int, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each resample draws each cluster, float64 [some of `count`, clusters] at a time."""
    rows = max(1, min(count, CHUNK // num_clusters))
    for start in range(0, count, rows):
        some = min(rows, count - start)
        picks = rng.integers(0, num_clusters, size=(some, num_clusters))
        picks += np.arange(some)[:, None] * num_clusters
        drawn = np.bincount(picks.ravel(), minlength=some * num_clusters)
        yield drawn.reshape(some, num_clusters).astype(np.float64)


def resampled(values_CK: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sums of each column over `count` resamples of the rows. float64 [count, K]."""
    values_CK = np.asarray(values_CK, dtype=np.float64)
    return np.concatenate([w_BC @ values_CK for w_BC in cluster_weights(len(values_CK), count, rng)])


def net_intervals(
    signs_CK: np.ndarray, votes_CK: np.ndarray, count: int, seed: int, *names: str
) -> list[Interval | None]:
    """95 % intervals of 100 * sum(signs) / sum(votes) for each column, over resamples of clusters.

    Columns whose votes lie in the same clusters share their resamples.

    Args:
        signs_CK: sum of signs (+1 win, -1 loss) in each cluster. [clusters, columns]
        votes_CK: number of votes in each cluster; clusters without votes are not drawn. [clusters, columns]

    None for a column without votes. Percentiles are moved outwards as Student's interval asks (see `stats`). Where
    all prompts have the same rate, of which a bootstrap makes a point, Clopper and Pearson's bound stands in: other
    prompts have at most this share, and may all be won, or all be lost.
    """
    found: list[Interval | None] = [None] * votes_CK.shape[1]
    groups: dict[bytes, list[int]] = {}
    for column in range(votes_CK.shape[1]):
        groups.setdefault((votes_CK[:, column] > 0).tobytes(), []).append(column)
    for mask, columns in groups.items():
        rows = np.frombuffer(mask, dtype=bool)
        if not rows.any():
            continue
        signs, votes = signs_CK[rows][:, columns], votes_CK[rows][:, columns]
        rng = rng_for(seed, *names, hashlib.sha256(mask).hexdigest())
        sums = resampled(np.concatenate([signs, votes], axis=1), count, rng)
        rates = 100.0 * sums[:, : len(columns)] / sums[:, len(columns) :]
        for position, column in enumerate(columns):
            found[column] = _interval(signs[:, position], votes[:, position], rates[:, position])
    return found


def _interval(signs_C: np.ndarray, votes_C: np.ndarray, rates_B: np.ndarray) -> Interval:
    clusters = len(signs_C)
    value = 100.0 * signs_C.sum() / votes_C.sum()
    if (signs_C * votes_C[0] == signs_C[0] * votes_C).all():
        bounds = np.asarray(proportion_confint(clusters, clusters, alpha=0.05, method="beta"))
        same = float(bounds[0])
        return Interval(same * value - 100 * (1 - same), same * value + 100 * (1 - same))
    tail = float(ndtr(-math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, 0.975)))
    low, high = np.quantile(rates_B, (tail, 1 - tail))
    return Interval(float(min(low, value)), float(max(high, value)))
