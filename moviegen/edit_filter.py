"""Which edited clips back-translation keeps: automatic edit metrics with bounds (paper 5; its thresholds are unknown).

A measure sees the clip, what the model made of it, and the captions of both where they are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.conditioning.clip import clip_config, load_clip
from moviegen.conditioning.vision import picture_levels

STEP = 24 / 127.5  # a pixel has changed where a channel differs by more than 24 levels of 255


@dataclass(frozen=True)
class Bounds:
    """What a score must lie within; None for no bound."""

    low: float | None = None
    high: float | None = None

    def outside(self, value: float) -> str | None:
        """Why a score is out of bounds; None where it is not."""
        if self.low is not None and value < self.low:
            return "too low"
        return "too high" if self.high is not None and value > self.high else None


class Measure:
    """Base class."""

    def scores(self, before: Tensor, after: Tensor, captions: tuple[str, str | None]) -> dict[str, float]:
        """Scores by name of frames [3, T, H, W] in [-1, 1] before and after an edit."""
        raise NotImplementedError


class PixelChange(Measure):
    """`changed`: share of pixels that differ. `flicker`: how much the difference itself changes from frame to frame."""

    def scores(self, before: Tensor, after: Tensor, captions: tuple[str, str | None]) -> dict[str, float]:  # noqa: ARG002
        difference = after - before
        changed = (difference.abs().amax(dim=0) > STEP).float().mean()
        steps = difference.diff(dim=1).abs()
        return {"changed": float(changed), "flicker": float(steps.mean()) if steps.numel() else 0.0}


class ClipChange(Measure):
    """`direction`: cosine of how the clip moved and how its caption moved; `text`: of the result and its caption.

    CLIP, of a local open-clip folder, on 8 frames, scaled and cropped to the middle square as the judge's
    (eval/metrics/clip.py). Without a caption of the result there are no scores.
    """

    def __init__(self, folder: str, num_frames: int = 8) -> None:
        import open_clip

        path = Path(folder)
        config = clip_config(path)
        length = int(config["text_cfg"].get("context_length", 77))
        self.clip = load_clip(path, length).eval().requires_grad_(False)
        size = config["vision_cfg"].get("image_size", 224)
        self.size, self.num_frames = (size if isinstance(size, int) else size[0]), num_frames
        self.mean, self.std = (torch.tensor(level).view(3, 1, 1) for level in picture_levels(path))
        try:
            self.tokens: Any = open_clip.get_tokenizer(f"local-dir:{path.resolve()}")
        except (OSError, ImportError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder}: the tokenizer of its config cannot be loaded ({reason})") from error

    @torch.no_grad()
    def scores(self, before: Tensor, after: Tensor, captions: tuple[str, str | None]) -> dict[str, float]:
        if captions[1] is None:
            return {}
        old, new = self._images(before), self._images(after)
        said = F.normalize(self.clip.encode_text(self.tokens([captions[0], captions[1]])).float(), dim=-1)
        direction = F.cosine_similarity(new - old, said[1] - said[0], dim=0)
        return {"direction": float(direction), "text": float(F.normalize(new, dim=0) @ said[1])}

    def _images(self, frames: Tensor) -> Tensor:
        picked = torch.linspace(0, frames.shape[1] - 1, min(self.num_frames, frames.shape[1])).round().long()
        height, width = frames.shape[-2:]
        scale = self.size / min(height, width)
        sides = (max(self.size, round(height * scale)), max(self.size, round(width * scale)))
        pixels = F.interpolate(frames[:, picked].transpose(0, 1), sides, mode="bicubic", antialias=True)
        top, left = (sides[0] - self.size) // 2, (sides[1] - self.size) // 2
        pixels = pixels[..., top : top + self.size, left : left + self.size]
        vectors = self.clip.encode_image((pixels.clamp(-1, 1) / 2 + 0.5 - self.mean) / self.std)
        return F.normalize(F.normalize(vectors.float(), dim=-1).mean(0), dim=0)


@dataclass(frozen=True)
class EditFilter:
    """Measures, and the bounds that scores must keep; a score that is not there has none."""

    measures: Sequence[Measure]
    bounds: Mapping[str, Bounds]

    def judge(
        self, before: Tensor, after: Tensor, captions: tuple[str, str | None]
    ) -> tuple[dict[str, float], str | None]:
        """The scores of one edit, and the first rule that it breaks: "changed too low"; None where it is kept."""
        scores: dict[str, float] = {}
        for measure in self.measures:
            scores |= measure.scores(before, after, captions)
        for name, bound in self.bounds.items():
            if name in scores and (why := bound.outside(scores[name])):
                return scores, f"{name} {why}"
        return scores, None
