"""What a metric of the registry is given: a generated clip, its prompt, and whatever it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Clip:
    """A decoded clip."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    frame_rate: float  # frames per second
    audio: np.ndarray | None = None  # float32 [C, N]
    sample_rate_hz: int | None = None


@dataclass(frozen=True)
class Sample:
    """A generated clip with what it was asked for. A metric that needs a field which is None is never called."""

    text: str
    clip: Clip
    reference: Clip | None = None  # the same content, for metrics of fidelity
    source: Clip | None = None  # of an edit: the clip before it
    source_text: str | None = None  # of an edit: the caption before it
    target_text: str | None = None  # of an edit: the caption after it
    spec: dict[str, Any] | None = None  # of toyworld: what the oracle should see
    face: np.ndarray | None = None  # uint8 [H, W, 3]: the person to be kept, cropped to the face
    others: tuple[dict[str, Any], ...] | None = None  # of toyworld: the specs of the other prompts

    def has(self, need: str) -> bool:
        """Whether one of NEEDS is there."""
        if need == "audio":
            return self.clip.audio is not None
        if need == "reference_audio":
            return self.reference is not None and self.reference.audio is not None
        return getattr(self, need) is not None


NEEDS = {
    "reference": "reference clip of the same prompt",
    "source": "source clip of an edit",
    "source_text": "caption of an edit's source",
    "target_text": "caption of an edit's result",
    "spec": "toyworld spec",
    "others": "other prompt with a toyworld spec",
    "face": "picture of the person's face",
    "audio": "sound",
    "reference_audio": "sound of the reference clip",
}


class SampleMetric(Protocol):
    """A metric of single samples."""

    def scores(self, sample: Sample) -> Mapping[str, float]:
        """Score one sample: output name -> value. An output that does not apply is left out."""
        ...


class Extractor(Protocol):
    """What turns a clip into rows of features."""

    def features(self, clip: Clip) -> np.ndarray:
        """Features float32 [N, D] of a clip; N may be 0 where the clip is too short."""
        ...
