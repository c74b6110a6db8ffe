"""Published rows (published.csv) as jobs, layouts and hardware of the planner, and the step time each reports."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from moviegen.parallel.mesh import MeshConfig
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout
from moviegen.plan.shapes import Passes, Transformer
from moviegen.plan.steptime import step_time

HERE = Path(__file__).resolve().parent
HARDWARE = HERE.parents[1] / "conf" / "hardware"
GPT = {"ffn_matrices": 2, "causal": True, "tied": True, "eager": Passes(18, 2), "fused": Passes(13, 2)}
LLAMA = {"kv_heads": 8, "causal": True, "vocabulary": 128_256}


def _mpt(layers: int, dim: int, heads: int) -> Transformer:
    return Transformer(layers, dim, 4 * dim, heads, vocabulary=50_368, **GPT)


MODELS = {  # layers, width, feed-forward width, heads
    "llama_8b": Transformer(32, 4096, 14_336, 32, **LLAMA),
    "llama_70b": Transformer(80, 8192, 28_672, 64, **LLAMA),
    "llama_405b": Transformer(126, 16_384, 53_248, 128, **LLAMA),
    "gpt_175b": Transformer(96, 12_288, 49_152, 96, vocabulary=131_072, **GPT),
    "gpt_175b_51k": Transformer(96, 12_288, 49_152, 128, vocabulary=51_200, **GPT),
    "gpt_462b": Transformer(112, 18_432, 73_728, 128, vocabulary=131_072, **GPT),  # widths that give 462e9
    "gpt_530b": Transformer(105, 20_480, 81_920, 128, vocabulary=51_200, **GPT),
    "mpt_3b": _mpt(32, 2560, 32),
    "mpt_7b": _mpt(32, 4096, 32),
    "mpt_13b": _mpt(40, 5120, 40),
    "mpt_30b": _mpt(48, 7168, 64),
    "mpt_70b": _mpt(80, 8192, 64),
    # two kinds of blocks, 20 and 40; a token meets 12 dim^2 weights in each (arXiv 2412.03603)
    "hunyuan_13b": Transformer(60, 3072, 12_288, 24, ffn_matrices=2, eager=Passes(56, 2)),
    "seaweed_7b": Transformer(
        36, 3584, 14_336, 28, ffn_matrices=3
    ),  # no widths are published: these give 7e9
}


@dataclass(frozen=True)
class Row:
    """One published figure.

    Args:
        seconds: of one step, from what was published.
        assumed: names of what the source does not say and we filled in.
    """

    name: str
    source: str
    device: str
    hardware: Hardware
    job: Job
    layout: Layout
    seconds: float
    fit: bool
    assumed: str

    def predicted(self, shares: dict[str, float] | None = None) -> float:
        """Seconds of a step by the planner, with the profile's constants or others."""
        return step_time(self.job, self.layout, replace(self.hardware, **(shares or {}))).seconds

    def error(self, shares: dict[str, float] | None = None) -> float:
        """Predicted over published step time, minus one."""
        return self.predicted(shares) / self.seconds - 1


def profile(name: str) -> Hardware:
    """A profile of conf/hardware."""
    node: dict[str, Any] = yaml.safe_load((HARDWARE / f"{name}.yaml").read_text(encoding="utf-8"))
    node.pop("_target_")
    return Hardware(**node)


def rows(path: Path = HERE / "published.csv") -> list[Row]:
    """All rows of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(record) for record in csv.DictReader(file)]


def _row(record: dict[str, str]) -> Row:
    number = {key: int(record[key]) for key in ("dp_replicate", "dp_shard", "cp", "tp", "pipeline", "chunks")}
    mesh = MeshConfig(number["dp_replicate"], number["dp_shard"], number["cp"], number["tp"])
    job = Job(
        MODELS[record["model"]],
        int(record["batch"]),
        int(record["tokens"]),
        training=record["training"] == "1",
    )
    layout = Layout(
        mesh,
        context=record["context"] or "all_gather",  # type: ignore[arg-type]
        checkpointing=record["checkpointing"],  # type: ignore[arg-type]
        micro_batch=_micro_batch(job, mesh, number["pipeline"]),
        pipeline=number["pipeline"],
        chunks=number["chunks"],
        overlapped=record["overlapped"] == "1",
        sharded_weights=record["sharded_weights"] == "1",
        recomputed=float(record["recomputed"]),
    )
    assert layout.devices == int(record["gpus"]), record["id"]
    changes: dict[str, Any] = {"compiled": record["compiled"] == "1", "attention_kernel": record["kernel"]}
    changes |= {key: float(record[key]) for key in ("memory_gb_s", "network_gb_s") if record[key]}
    hardware = replace(profile(record["hardware"]), **changes)
    seconds = _seconds(float(record["measured"]), record["unit"], job, layout, hardware)
    names = record["id"], record["source"], record["hardware"]
    return Row(*names, hardware, job, layout, seconds, record["fit"] == "1", record["assumed"])


def _micro_batch(job: Job, mesh: MeshConfig, pipeline: int) -> int:
    """One sample at a time in a pipeline; else all that a device has, since accumulation is not published by row."""
    return 1 if pipeline > 1 else max(1, job.batch // mesh.dp)


def _seconds(value: float, unit: str, job: Job, layout: Layout, hardware: Hardware) -> float:
    """Seconds of one step that a published figure means."""
    if unit == "seconds":
        return value
    if unit == "seconds of 50":
        return value / 50
    if unit == "tokens/s/GPU":
        return job.batch * job.tokens / (value * layout.devices)
    # utilization as PaLM defines it and these sources count it: all scores, also those a causal kernel leaves out
    full = replace(job, model=replace(job.model, causal=False))
    if unit == "TFLOP/s/GPU full":
        return full.flops / (value * 1e12 * layout.devices)
    assert unit == "% MFU full", unit
    return full.flops / (value / 100 * hardware.peak_tflops * 1e12 * layout.devices)


def of(device: str, table: Iterable[Row]) -> list[Row]:
    """Rows of one kind of hardware."""
    return [row for row in table if row.device == device]
