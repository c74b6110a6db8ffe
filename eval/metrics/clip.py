"""CLIP (open-clip) from a local folder: text alignment, frame consistency, and how an edit moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_eval.metrics.base import as_frames
from moviegen_eval.metrics.sample import Clip, Sample
from torch import Tensor

CONFIG = "open_clip_config.json"
MAX_FRAMES = 16
PREPROCESSING = (
    f"{MAX_FRAMES} frames at even times, bicubic to the model's size with antialiasing, center crop"
)


class ClipModel:
    """An open-clip model as `save_pretrained` writes it: a folder with `open_clip_config.json` and its weights.

    Args:
        weights: the weights file in that folder.
    """

    def __init__(self, weights: str | Path):
        import open_clip

        folder = Path(weights).parent
        if not (folder / CONFIG).is_file():
            raise ValueError(
                f"{folder}: has no {CONFIG}; save the model with open_clip's push or save functions"
            )
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            name = f"local-dir:{folder.resolve()}"
            self.net: Any = open_clip.create_model(name, pretrained_image=False).eval()
            self.tokenizer: Any = open_clip.get_tokenizer(name)
        except (RuntimeError, OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{folder}: is no open-clip model ({str(error).splitlines()[0]})") from error
        cfg = config.get("preprocess_cfg", {})
        self.mean = torch.tensor(cfg.get("mean", (0.48145466, 0.4578275, 0.40821073))).view(1, 3, 1, 1)
        self.std = torch.tensor(cfg.get("std", (0.26862954, 0.26130258, 0.27577711))).view(1, 3, 1, 1)
        size = config["model_cfg"]["vision_cfg"].get("image_size", 224)
        self.size = size if isinstance(size, int) else size[0]

    @torch.no_grad()
    def images(self, frames: np.ndarray) -> Tensor:
        """Unit vectors [N, D] of up to MAX_FRAMES frames at even times, of uint8 [T, H, W, 3]."""
        picked = np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().astype(int)
        pixels = as_frames(frames[picked]) / 255
        height, width = pixels.shape[-2:]
        scale = self.size / min(height, width)
        sides = (max(self.size, round(height * scale)), max(self.size, round(width * scale)))
        pixels = F.interpolate(pixels, sides, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (sides[0] - self.size) // 2, (sides[1] - self.size) // 2
        pixels = pixels[..., top : top + self.size, left : left + self.size]
        return F.normalize(self.net.encode_image((pixels - self.mean) / self.std).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Unit vectors [N, D] of texts; what is longer than the model's context is cut, as open-clip does."""
        return F.normalize(self.net.encode_text(self.tokenizer(texts)).float(), dim=-1)


class ClipScores:
    """`clip_text`: mean over frames of cos(frame, prompt). `clip_frames`: mean cos of neighboring frames.

    The second is highest for a still picture: read it beside `motion`. Values depend on the model's name.
    """

    def __init__(self, weights: str | Path):
        self.model = ClipModel(weights)

    def scores(self, sample: Sample) -> Mapping[str, float]:
        images = self.model.images(sample.clip.frames)
        scores = {"clip_text": float((images @ self.model.texts([sample.text])[0]).mean())}
        if len(images) > 1:
            scores["clip_frames"] = float((images[1:] * images[:-1]).sum(-1).mean())
        return scores


class EditScores:
    """`edit_direction`: cos of how the clip moved and how the caption moved. `edit_text`: cos(result, its caption).

    With CLIP in place of ViCLIP: not to be compared with the values that papers print for ViCLIP.
    """

    def __init__(self, weights: str | Path):
        self.model = ClipModel(weights)

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.source is not None
        assert sample.source_text is not None
        assert sample.target_text is not None
        before, after = (
            F.normalize(self.model.images(clip.frames).mean(0), dim=0)
            for clip in (sample.source, sample.clip)
        )
        texts = self.model.texts([sample.source_text, sample.target_text])
        direction = F.cosine_similarity(after - before, texts[1] - texts[0], dim=0)
        return {"edit_direction": float(direction), "edit_text": float(after @ texts[1])}


class ClipFeatures:
    """Image features of a clip's frames, for distances of sets."""

    def __init__(self, weights: str | Path):
        self.model = ClipModel(weights)

    def features(self, clip: Clip) -> np.ndarray:
        return self.model.images(clip.frames).numpy()
