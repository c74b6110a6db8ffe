"""The public autoencoders of diffusers behind our seam (`LatentCodec`), to be judged beside ours or to train on.

Weights come from a local folder in safetensors, or are random from a config; nothing is fetched. A causal codec
encodes 1 + n frames: clips of other lengths are filled up with their last frame, and the surplus is dropped on decode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from moviegen.codec.base import LatentStats
from moviegen.types import Grid, Latent, VideoClip
from moviegen.weights import check_weight

Kind = Literal["wan", "hunyuan_video", "cogvideox", "ltx_video", "kl"]


class Family(NamedTuple):
    """A class of diffusers, and the n of the 1 + n * k frames that it encodes and decodes without loss."""

    name: str
    period: int | None  # None: the codec's own temporal factor; 0: an image codec, frame by frame


FAMILIES: dict[Kind, Family] = {
    "wan": Family("AutoencoderKLWan", None),
    "hunyuan_video": Family("AutoencoderKLHunyuanVideo", None),
    # It works in batches of 8 frames, 2 latents: 5 frames would come back as 8.
    "cogvideox": Family("AutoencoderKLCogVideoX", 8),
    "ltx_video": Family("AutoencoderKLLTXVideo", None),
    "kl": Family("AutoencoderKL", 0),
}


@dataclass(frozen=True)
class Factors:
    """Pixels of a latent cell's side, frames of a latent frame."""

    spatial: int
    temporal: int


class DiffusersCodec(nn.Module):
    """One of diffusers' autoencoders as a frozen `LatentCodec`.

    Args:
        kind: which; see FAMILIES.
        path: a local folder with config.json and safetensors weights, or the model folder that holds it as `vae`.
        config: instead of a path, settings for random weights; {} takes the class's own.

    Attributes:
        weights: of each file that was read, what is to be recorded of it (`weights.check_weight`).

    Raises:
        ValueError: neither or both of path and config, a folder that is none of this class, files whose checksum is
            not the manifest's, or no diffusers.
    """

    causal = True  # 1 + n frames; latents are no equal cut of time

    def __init__(
        self, kind: Kind = "wan", path: str | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if (path is None) == (config is None):
            raise ValueError(f"codec {kind}: give either path (a local folder) or config (random weights)")
        cls, self.kind = _autoencoder_class(kind), kind
        self.random = path is None
        folder = None if path is None else _folder(Path(path))
        self.weights = [] if folder is None else _checked(kind, folder)
        self.model = _random(cls, dict(config or {})) if folder is None else _load(cls, folder)
        found = self.model.config
        self.latent_channels = int(found.get("z_dim") or found["latent_channels"])
        factors = _factors(kind, self.model)
        self.spatial_factor, self.temporal_factor = factors.spatial, factors.temporal
        period = FAMILIES[kind].period
        self.period = factors.temporal if period is None else period
        self.causal = self.period > 0
        self.stats = _stats(self.model, self.latent_channels)
        self.requires_grad_(False).eval()

    def grid(self, num_frames: int, height: int, width: int) -> Grid:
        """Latent size of a clip; raises ValueError where height or width is not a multiple of the factor."""
        if height % self.spatial_factor or width % self.spatial_factor:
            raise ValueError(f"{height}x{width} pixels: both must be multiples of {self.spatial_factor}")
        latent_frames = num_frames
        if self.causal:
            latent_frames = 1 + (self.padded(num_frames) - 1) // self.temporal_factor
        return Grid(latent_frames, height // self.spatial_factor, width // self.spatial_factor)

    def padded(self, num_frames: int) -> int:
        """The next length that the codec encodes without loss."""
        return 1 + math.ceil((num_frames - 1) / self.period) * self.period if self.causal else num_frames

    @torch.no_grad()
    def encode(self, clip: VideoClip) -> Latent:
        """Normalised posterior mean of a clip [B, 3, T, H, W]: latents [B, C, t, h, w] of size `grid`."""
        frames = clip.frames
        batch, _, num_frames = frames.shape[:3]
        self.grid(*frames.shape[2:])
        extra = self.padded(num_frames) - num_frames
        if extra:
            frames = torch.cat([frames, frames[:, :, -1:].expand(-1, -1, extra, -1, -1)], dim=2)
        x = frames.to(self._dtype)
        if not self.causal:
            x = x.transpose(1, 2).flatten(0, 1)
        raw = self.model.encode(x).latent_dist.mode().float()
        if not self.causal:
            raw = raw.unflatten(0, (batch, num_frames)).transpose(1, 2)
        return Latent(self.stats.normalize(raw), clip.frame_rate)

    @torch.no_grad()
    def decode(self, latent: Latent, num_frames: int | None = None) -> VideoClip:
        """The clip of a normalised latent, values clamped to [-1, 1]; frames past `num_frames` are dropped."""
        raw = self.stats.denormalize(latent.values.float()).to(self._dtype)
        batch, _, latent_frames = raw.shape[:3]
        if self.causal:
            frames = self.model.decode(raw, **self._decode_extra(batch)).sample
        else:
            frames = self.model.decode(raw.transpose(1, 2).flatten(0, 1)).sample
            frames = frames.unflatten(0, (batch, latent_frames)).transpose(1, 2)
        return VideoClip(frames.float().clamp(-1, 1)[:, :, :num_frames], latent.frame_rate)

    def _decode_extra(self, batch: int) -> dict[str, Tensor]:
        """LTX decoders that take a noise level are asked to decode a clean latent."""
        if not self.model.config.get("timestep_conditioning"):
            return {}
        return {"temb": torch.zeros(batch, device=self.stats.mean.device, dtype=self._dtype)}

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def _autoencoder_class(kind: str) -> Any:
    if kind not in FAMILIES:
        raise ValueError(f"codec kind must be one of {', '.join(FAMILIES)}, got {kind!r}")
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(f"codec {kind} needs diffusers: pip install -e .[codecs] ({error})") from error
    return getattr(diffusers, FAMILIES[kind].name)


def _random(cls: Any, config: dict[str, Any]) -> Any:
    try:
        return cls(**config)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{cls.__name__} cannot be built from this config: {_line(error)}") from error


def _folder(path: Path) -> Path:
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file():
        raise ValueError(f"{path} is no local folder of an autoencoder: there is no config.json in it")
    return folder


def _checked(kind: Kind, folder: Path) -> list[dict[str, str]]:
    """A folder's weights held against the manifest."""
    return [check_weight(f"{kind}_vae", file) for file in sorted(folder.glob("*.safetensors"))]


def _load(cls: Any, folder: Path) -> Any:
    """A local folder's model in float32; never the hub, and never pickled weights."""
    config = cls.load_config(folder, local_files_only=True)
    if config.get("_class_name") != cls.__name__:
        raise ValueError(f"{folder} holds {config.get('_class_name')}, not {cls.__name__}")
    try:
        return cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be loaded as {cls.__name__}: {_line(error)}") from error


def _factors(kind: Kind, model: Any) -> Factors:
    config = model.config
    if kind == "wan":
        spatial = 2 ** (len(config["dim_mult"]) - 1) * (config.get("patch_size") or 1)
        return Factors(spatial, 2 ** sum(config["temperal_downsample"]))
    if kind == "ltx_video":
        return Factors(model.spatial_compression_ratio, model.temporal_compression_ratio)
    if kind == "hunyuan_video":
        return Factors(config["spatial_compression_ratio"], config["temporal_compression_ratio"])
    spatial = 2 ** (len(config["block_out_channels"]) - 1)
    return Factors(spatial, int(config["temporal_compression_ratio"]) if kind == "cogvideox" else 1)


def _stats(model: Any, channels: int) -> LatentStats:
    """The normalisation that each family's pipeline applies: (latent - mean) / std * scaling_factor."""
    config, stats = model.config, LatentStats(channels)
    buffers = dict(model.named_buffers(recurse=False))  # LTX keeps them beside the weights
    mean = buffers.get("latents_mean", config.get("latents_mean"))
    std = buffers.get("latents_std", config.get("latents_std"))
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    stats.mean.copy_(torch.full((channels,), shift) if mean is None else _vector(mean, channels))
    stats.scale.copy_((torch.ones(channels) if std is None else _vector(std, channels)) / scale)
    return stats


def _vector(values: Any, channels: int) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float32).flatten()
    if len(vector) != channels:
        raise ValueError(f"latents_mean and latents_std have {len(vector)} values for {channels} channels")
    return vector


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
