"""Finetuning an open-clip model on long captions: its text tower learns to read 256 tokens, not 77 (paper 3.1.3)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.conditioning.clip import clip_config, load_clip, new_clip, token_counts
from moviegen.conditioning.text import CutCaptions
from moviegen.fields import TEXT, VIDEO, Field
from moviegen.tasks.base import OptimizerFactory, Schedule, Task
from moviegen.types import Batch

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's pixels
MAX_SCALE = math.log(100)  # of the logits, as in CLIP


class ContrastiveTask(Task):
    """Tell which caption belongs to which picture of the batch, both ways round (symmetric cross-entropy).

    The picture is the middle frame of a clip, shrunk to the image tower's size. Negatives are the samples of the
    same process.

    Args:
        clip: folder of an open-clip model to start from; None for a new one of `sizes`.
        sizes: architecture of a new model, as `model_cfg` in open_clip_config.json.
        context_length: tokens that the text tower reads; learned positions are stretched to it.
        train_images: also train the image tower, which otherwise stays as it was loaded.
    """

    def __init__(
        self,
        clip: str | None = None,
        sizes: dict[str, Any] | None = None,
        context_length: int = 256,
        train_images: bool = False,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        import open_clip

        super().__init__(optimizer, schedule, seed)
        if (clip is None) == (sizes is None):
            raise ValueError(
                f"give one of clip (a folder) and sizes (of a new model), got {clip} and {sizes}"
            )
        self.config = clip_config(Path(clip)) if clip else dict(sizes or {})
        model = load_clip(Path(clip), context_length) if clip else new_clip(self.config, context_length)
        self.clip = model.requires_grad_(True)
        self.clip.visual.requires_grad_(train_images)
        self.tokenize = open_clip.SimpleTokenizer(context_length=context_length)
        self.cut = CutCaptions(clip or "of a new open-clip model", context_length)

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": VIDEO, "text": TEXT}

    def pictures(self, batch: Batch) -> Tensor:
        """Middle frames [B, 3, H, W] as the image tower takes them."""
        frames = batch.video().frames
        middle = frames[:, :, frames.shape[2] // 2] * 0.5 + 0.5
        size = self.clip.visual.image_size
        resized = F.interpolate(middle, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (resized.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (resized - mean) / std

    def logits(self, batch: Batch) -> Tensor:
        """Scaled cosines [B, B] of pictures (rows) and captions; warns of captions that are cut."""
        self.cut.note(token_counts(self.tokenize, batch.inputs["text"]))
        tokens = self.tokenize(batch.inputs["text"]).to(batch.video().frames.device)
        pictures = self.clip.encode_image(self.pictures(batch), normalize=True)
        captions = self.clip.encode_text(tokens, normalize=True)
        return self.clip.logit_scale.clamp(max=MAX_SCALE).exp() * pictures @ captions.T

    def losses(self, batch: Batch) -> Tensor:
        """Mean of both cross-entropies of each sample, [B]."""
        logits, own = self.logits(batch), torch.arange(len(batch), device=batch.video().frames.device)
        return (
            F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")
        ) / 2

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        return self.mean_loss(self.losses(batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self.log("val/loss", self.losses(batch).mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)
