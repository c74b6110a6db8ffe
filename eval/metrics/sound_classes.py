"""What a sound is of, by a classifier given by path (PaSST, PANNs).

Posteriors of single sounds, and how unlike those of two sounds are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from moviegen_eval.metrics.audio import AudioEmbedder
from moviegen_eval.metrics.sample import Clip, Sample
from moviegen_eval.metrics.sound import kl_divergence, softmax


class SoundClasses(AudioEmbedder):
    """Posteriors float32 [1, K] of a clip: softmax of the classifier's logits, mean over its whole windows.

    The script is as `AudioEmbedder` takes it and gives logits [N, K]; a sound shorter than its window has no row.
    """

    def features(self, clip: Clip) -> np.ndarray:
        logits = super().features(clip)
        return softmax(logits).mean(axis=0, keepdims=True).astype(np.float32) if len(logits) else logits


class ClassKl:
    """`audio_kl`: KL(reference || made) of the posteriors of two sounds, in nats.

    Raises ValueError where either sound is shorter than a window of the classifier.
    """

    def __init__(self, weights: str):
        self.classes = SoundClasses(weights)

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.reference is not None
        sides = [self.classes.features(clip) for clip in (sample.reference, sample.clip)]
        if short := [name for name, rows in zip(("reference", "clip"), sides, strict=True) if not len(rows)]:
            window = self.classes.num / self.classes.rate_hz
            raise ValueError(
                f"sound of the {short[0]} is shorter than the classifier's window of {window:g} s"
            )
        return {"audio_kl": kl_divergence(*sides)}
