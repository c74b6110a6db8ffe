"""Metrics that tables of video editing print, by path: ViCLIP's direction and output similarity, and PickScore."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_eval.metrics.base import as_frames
from moviegen_eval.metrics.identity import load_script
from moviegen_eval.metrics.sample import Sample
from torch import Tensor

VICLIP_FRAMES, VICLIP_SIZE = 8, 224  # InternVid's ViCLIP
PICKED_FRAMES = 16  # of PickScore, at even times; TGVE takes all
CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ViCLIP's
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def even_frames(frames: np.ndarray, count: int) -> Tensor:
    """Up to `count` frames at even times of uint8 [T, H, W, 3], as float [N, 3, H, W] in 0..1."""
    picked = np.linspace(0, len(frames) - 1, min(len(frames), count)).round().astype(int)
    return as_frames(frames[picked]) / 255


def _normalized(pixels: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Frames at the size of a model, the middle of the longer side, normalized by channel."""
    height, width = pixels.shape[-2:]
    scale = size / min(height, width)
    sides = (max(size, round(height * scale)), max(size, round(width * scale)))
    pixels = F.interpolate(pixels, sides, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (sides[0] - size) // 2, (sides[1] - size) // 2
    pixels = pixels[..., top : top + size, left : left + size]
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class ViclipScores:
    """`viclip_direction`: cos of how the video moved and how its caption moved. `viclip_text`: cos(video, its caption).

    8 frames at even times; a shorter video repeats its last. Papers differ in how they sample.

    Args:
        weights: TorchScript of a ViCLIP with the methods `video` (float [N, 8, 3, 224, 224] to [N, D]) and `text`
            (CLIP's tokens int64 [N, L] to [N, D]), and the attribute `context_length`.
    """

    def __init__(self, weights: str | Path):
        import open_clip

        self.net: Any = load_script(weights)
        if not all(hasattr(self.net, name) for name in ("video", "text", "context_length")):
            raise ValueError(
                f"{weights}: has no methods video and text and no context_length; export ViCLIP so"
            )
        self.tokens = open_clip.SimpleTokenizer(context_length=int(self.net.context_length))

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.source is not None
        assert sample.source_text is not None
        assert sample.target_text is not None
        before, after = (self._video(clip.frames) for clip in (sample.source, sample.clip))
        with torch.no_grad():
            said = F.normalize(
                self.net.text(self.tokens([sample.source_text, sample.target_text])).float(), dim=-1
            )
        direction = F.cosine_similarity(after - before, said[1] - said[0], dim=0)
        return {"viclip_direction": float(direction), "viclip_text": float(after @ said[1])}

    @torch.no_grad()
    def _video(self, frames: np.ndarray) -> Tensor:
        pixels = _normalized(even_frames(frames, VICLIP_FRAMES), VICLIP_SIZE, CHANNEL_MEAN, CHANNEL_STD)
        missing = VICLIP_FRAMES - len(pixels)
        pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)]) if missing else pixels
        return F.normalize(self.net.video(pixels[None]).float()[0], dim=0)


class PickScore:
    """`pickscore`: mean over frames of logit scale times cos(frame, caption after the edit), about 20 (TGVE's table).

    Args:
        weights: weights in the folder of a transformers CLIP model (PickScore_v1), with its config.json.
    """

    def __init__(self, weights: str | Path):
        import open_clip
        from transformers import CLIPModel

        folder = Path(weights).parent
        try:
            options: dict[str, Any] = {
                "local_files_only": True,
                "trust_remote_code": False,
                "use_safetensors": True,
            }
            self.net: Any = CLIPModel.from_pretrained(folder, **options).eval()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder}: is no CLIP model of transformers ({str(error).splitlines()[0]})"
            ) from error
        config = self.net.config
        self.size = config.vision_config.image_size
        self.tokens = open_clip.SimpleTokenizer(context_length=config.text_config.max_position_embeddings)

    @torch.no_grad()
    def scores(self, sample: Sample) -> Mapping[str, float]:
        pixels = _normalized(even_frames(sample.clip.frames, PICKED_FRAMES), self.size, CLIP_MEAN, CLIP_STD)
        vision = self.net.vision_model(pixel_values=pixels).pooler_output
        text = self.net.text_model(input_ids=self.tokens([sample.target_text or sample.text])).pooler_output
        images = F.normalize(self.net.visual_projection(vision).float(), dim=-1)
        words = F.normalize(self.net.text_projection(text).float(), dim=-1)
        return {"pickscore": float(self.net.logit_scale.exp() * (images @ words[0]).mean())}
