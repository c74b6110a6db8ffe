"""Image towers: pictures -> tokens, with the image side of an open-clip model (MetaCLIP) or a small new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.conditioning.clip import CONFIG, clip_config, load_visual

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures, in [0, 1]; MetaCLIP's too
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TowerSizes:
    """A vision transformer of open-clip's, with random weights."""

    image_size: int = 32  # pixels
    patch_size: int = 8
    width: int = 96
    layers: int = 2
    heads: int = 3
    mlp_ratio: float = 4.0


class VisionTower(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] -> one token for each patch [N, L, width].

    Args:
        folder: of an open-clip model with safetensors weights, read when the tower is built.
        sizes: of a new tower, where no folder is given.
        trainable: whether training changes it; the paper freezes it in the first stage only (4.3).
    """

    def __init__(self, folder: str | None = None, sizes: TowerSizes | None = None, trainable: bool = True):
        super().__init__()
        if (folder is None) == (sizes is None):
            raise ValueError(
                "a vision tower needs the folder of an open-clip model, or sizes: one of the two"
            )
        self.visual, mean, std = _new(sizes) if sizes is not None else _loaded(Path(str(folder)))
        self.visual.output_tokens = True
        self.visual.proj = None  # of the pooled token, which nobody reads
        self.trainable = trainable
        self.requires_grad_(trainable)
        self.mean, self.std = mean, std

    @property
    def image_size(self) -> int:
        """Side of the pictures that it reads, in pixels."""
        return int(self.visual.image_size[0])

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return int(self.visual.conv1.out_channels)

    def forward(self, pictures: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        if tuple(pictures.shape[-2:]) != size:
            pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        normal = ((pictures + 1) / 2 - mean) / std
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            return self.visual(normal.to(self.visual.conv1.weight.dtype))[1]


def _new(sizes: TowerSizes) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    from open_clip.transformer import VisionTransformer

    if sizes.image_size % sizes.patch_size or sizes.width % sizes.heads:
        raise ValueError(f"a tower needs whole patches and heads of one width, not {sizes}")
    return VisionTransformer(**vars(sizes), output_dim=sizes.width), (0.5,) * 3, (0.5,) * 3


def _loaded(folder: Path) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"vision tower {folder}: there is no {CONFIG}; give a local open-clip model folder")
    if not isinstance(clip_config(folder)["vision_cfg"].get("layers"), int):
        raise ValueError(f"vision tower {folder}: its image tower is no vision transformer")
    return load_visual(folder), *picture_levels(folder)


def picture_levels(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by channel of the pictures in [0, 1] that an open-clip model reads, as stated or CLIP's."""
    stated: Mapping[str, Any] = (
        json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("preprocess_cfg") or {}
    )
    mean, std = (tuple(stated.get(name) or usual) for name, usual in (("mean", CLIP_MEAN), ("std", CLIP_STD)))
    return mean, std
