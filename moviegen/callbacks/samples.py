"""Samples during validation: fixed prompts and seeds, written as mp4 files, or PNG if of one frame, and sent to W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import WandbLogger

from moviegen.callbacks.ema import EMA
from moviegen.media import write_clip
from moviegen.parallel.trainer import is_sharded, sampling_precision
from moviegen.pixels import to_uint8
from moviegen.tasks.codec_task import CodecTask
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.limits import check_prompts, check_sampler
from moviegen.tasks.sampling import SamplerConfig, sample_clips
from moviegen.types import Batch


class Samples(L.Callback):
    """At validation, a generator makes clips of `prompts`; a codec reconstructs `num_clips` validation clips.

    Args:
        folder: samples go to folder/step-NNNNNN/.
        sampler: how a generator samples; required for one.
    """

    def __init__(
        self,
        folder: str,
        prompts: list[str] | None = None,
        sampler: SamplerConfig | None = None,
        num_clips: int = 4,
    ):
        self.folder, self.prompts, self.sampler, self.num_clips = (
            Path(folder),
            prompts or [],
            sampler,
            num_clips,
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse prompts and sizes that the model cannot make now, not at the first validation."""
        if isinstance(pl_module, FlowTask) and self.prompts and self.sampler and trainer.is_global_zero:
            check_sampler(pl_module, self.sampler)
            texts = {f"{number:02d}": text for number, text in enumerate(self.prompts)}
            check_prompts(pl_module, texts, self.sampler)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not (trainer.is_global_zero or is_sharded(trainer)):
            return
        ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
        if ema is not None:
            ema.swap_in(pl_module)
        if isinstance(pl_module, FlowTask):
            with sampling_precision(trainer):
                clips, frame_rate = self._generated(pl_module)
        else:
            assert isinstance(pl_module, CodecTask)
            clips, frame_rate = self._reconstructed(trainer, pl_module)
        if not trainer.is_global_zero:  # it lent its shards
            return
        folder = self.folder / f"step-{trainer.global_step:06d}"
        paths = []
        for name, frames in clips.items():
            paths.append(write_clip(folder / name, to_uint8(frames), frame_rate))
        stills = [str(path) for path in paths if path.suffix == ".png"]
        videos = [str(path) for path in paths if path.suffix != ".png"]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and videos:
                logger.log_video("samples", videos, step=trainer.global_step)
            if isinstance(logger, WandbLogger) and stills:
                logger.log_image("samples", stills, step=trainer.global_step)

    def _generated(self, task: FlowTask) -> tuple[dict[str, torch.Tensor], float]:
        if self.sampler is None:
            raise ValueError("sample videos of a generator need callbacks.samples.sampler")
        if not self.prompts:
            return {}, self.sampler.frame_rate
        frames = sample_clips(task, self.prompts, self.sampler)
        return {f"{i:02d}": clip for i, clip in enumerate(frames)}, self.sampler.frame_rate

    def _reconstructed(self, trainer: L.Trainer, task: CodecTask) -> tuple[dict[str, torch.Tensor], float]:
        loader: Any = trainer.val_dataloaders
        batch: Batch = next(iter(loader)).to(task.device)
        with torch.no_grad():
            clips = task.sample_videos(batch)
        first = dict(list(clips.items())[: self.num_clips])
        return first, float(batch.video().frame_rate[0]) or 1.0
