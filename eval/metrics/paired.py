"""Full-reference metrics behind the registry's interface."""

from __future__ import annotations

from collections.abc import Mapping

from moviegen_eval.metrics.base import Metric
from moviegen_eval.metrics.sample import Sample


class Paired:
    """A full-reference metric of the clip against the sample's reference; of unlike lengths the common part."""

    def __init__(self, metric: Metric):
        self.metric = metric

    def scores(self, sample: Sample) -> Mapping[str, float]:
        """Raises ValueError where the two sizes differ: a resize would be scored, not the system."""
        assert sample.reference is not None
        made, wanted = sample.clip.frames, sample.reference.frames
        if made.shape[1:] != wanted.shape[1:]:
            sizes = [f"{frames.shape[2]}x{frames.shape[1]}" for frames in (made, wanted)]
            raise ValueError(f"the clip is {sizes[0]} but its reference {sizes[1]}")
        num = min(len(made), len(wanted))
        return {self.metric.name: self.metric.score(wanted[:num], made[:num])}
