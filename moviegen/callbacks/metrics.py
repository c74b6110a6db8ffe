"""Metrics during training: generated clips of fixed prompts, scored by the registry that `moviegen eval score` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import numpy as np
from moviegen_eval.metrics.accumulate import SampleScores
from moviegen_eval.metrics.registry import ENTRIES, MetricSet, open_metrics
from moviegen_eval.metrics.sample import Clip, Sample

from moviegen.callbacks.ema import EMA
from moviegen.parallel.trainer import data_parallel, sampling_precision
from moviegen.pixels import to_uint8
from moviegen.tasks.codec_task import CodecTask
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig, sample_clips


class Metrics(L.Callback):
    """At validation, log `metrics/<output>` of single-clip metrics, merged over all processes.

    A generator makes a clip of each prompt, every process its share; a codec reconstructs one validation batch a
    process, and metrics against a reference see the source. Distances of sets need more clips than a validation makes:
    they stay with `moviegen eval score`.

    Args:
        names: of the registry, or "free" for all that need no weights; what lacks its inputs here is left out.
        weights: name in `moviegen/weights.json` -> path.
        prompts: of a generator.
        sampler: how a generator samples; required for one.
        every: run at each so manieth validation.
    """

    def __init__(
        self,
        names: list[str],
        weights: dict[str, str] | None = None,
        prompts: list[str] | None = None,
        sampler: SamplerConfig | None = None,
        every: int = 1,
    ):
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.metrics = open_metrics(names, weights)
        if not self.metrics.samples:
            raise ValueError(f"none of the metrics {', '.join(names)} scores single clips here")
        self.prompts, self.sampler, self.every = prompts or [], sampler, every
        self.validations = 0

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        if (self.validations - 1) % self.every:
            return
        ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
        if ema is not None:
            ema.swap_in(pl_module)
        if isinstance(pl_module, FlowTask):
            numbers, samples = self._generated(trainer, pl_module)
        else:
            assert isinstance(pl_module, CodecTask)
            numbers, samples = self._reconstructed(trainer, pl_module)
        for output, value in scored(self.metrics, numbers, samples, pl_module.device).items():
            pl_module.log(f"metrics/{output}", value, sync_dist=False, rank_zero_only=True)

    def _generated(self, trainer: L.Trainer, task: FlowTask) -> tuple[list[int], list[Sample]]:
        """This process' share of the prompts; shares are equally long, so that no process waits for another."""
        if self.sampler is None or not self.prompts:
            raise ValueError(
                "metrics of a generator need callbacks.metrics.prompts and callbacks.metrics.sampler"
            )
        rank, world = data_parallel(trainer)
        share = -(-len(self.prompts) // world)
        numbers = [(rank + world * turn) % len(self.prompts) for turn in range(share)]
        texts = [self.prompts[number] for number in numbers]
        with sampling_precision(trainer):
            frames = sample_clips(task, texts, self.sampler)
        rate = float(self.sampler.frame_rate)
        return numbers, [
            Sample(text, Clip(to_uint8(clip), rate)) for text, clip in zip(texts, frames, strict=True)
        ]

    def _reconstructed(self, trainer: L.Trainer, task: CodecTask) -> tuple[list[int], list[Sample]]:
        """One validation batch of this process, numbered by its clips' keys."""
        loader: Any = trainer.val_dataloaders
        batch = next(iter(loader)).to(task.device)
        rate = float(batch.video().frame_rate[0]) or 1.0
        samples = []
        for both in task.sample_videos(batch).values():
            wide = to_uint8(both)
            source, copy = np.split(wide, 2, axis=2)
            samples.append(Sample("", Clip(copy, rate), reference=Clip(source, rate)))
        return batch.keys.tolist(), samples


def scored(
    metrics: MetricSet, numbers: Sequence[int], samples: Sequence[Sample], device: Any = "cpu"
) -> Mapping[str, float]:
    """Means over all processes' samples of every output that applies; a sample of several processes counts once."""
    outputs = [output.name for name in metrics.samples for output in ENTRIES[name].outputs]
    rows: list[dict[str, float]] = []
    for sample in samples:
        row: dict[str, float] = {}
        for name, metric in metrics.samples.items():
            if all(sample.has(need) for need in ENTRIES[name].needs):
                row |= metric.scores(sample)
        rows.append(row)
    state = SampleScores(outputs).to(device)
    state.update(numbers, numbers, rows)
    return {name: float(value) for name, value in state.compute().items()}
