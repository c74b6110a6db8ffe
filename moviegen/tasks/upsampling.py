"""From a video of low resolution to one of high resolution, streamed (paper 3.1.5).

Each frame is interpolated, encoded alone, and given back when no window reaches it any more. Windows run along time (14
frames, 4 shared) and over space; where they overlap their velocities are averaged in every step (multi-diffusion).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.flow.guidance import guided, nested_guidance
from moviegen.flow.streams import streamed_euler
from moviegen.flow.windows import Axis, Part, averaged
from moviegen.rng import SampleRng
from moviegen.tasks.solving import SolverConfig
from moviegen.tasks.upsample_task import LOW, UpsampleTask
from moviegen.types import Grid, Latent, VideoClip


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig(SolverConfig):
    """How to integrate and how to cut. Paper 3.1.5: 20 steps, windows of 14 frames, 4 of them shared.

    Args:
        window, overlap: frames of a window, and those it shares with the next.
        tile, tile_overlap: pixels of a window's sides, and those it shares with its neighbour; null for whole frames.
        noise: standard deviation of the noise that sampling starts from; below 1 there is less invented detail.
    """

    num_steps: int = 20
    schedule: str = "linear"
    guidance: float = 1.0
    window: int = 14
    overlap: int = 4
    tile: int | None = None
    tile_overlap: int = 0
    noise: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver != "euler":
            raise ValueError(f"an upsampler is integrated by euler, frame by frame, not by {self.solver!r}")
        if self.noise < 0:
            raise ValueError(f"noise must be at least 0, got {self.noise}")
        for what, size, shared in (
            ("window", self.window, self.overlap),
            ("tile", self.tile, self.tile_overlap),
        ):
            if size is not None and not 0 <= shared < size:
                raise ValueError(f"a {what} of {size} can share 0 to {size - 1} with the next, not {shared}")


def cells(limit: BackboneConfig, factor: int) -> list[int]:
    """Height and width of a token, in pixels, of a codec that makes pictures `factor` times smaller."""
    return [factor * p for p in limit.patch[1:]]


def windows(config: UpsamplerConfig, limit: BackboneConfig, factor: int, size: tuple[int, int]) -> list[Axis]:
    """Windows over height and width of pictures of `size`, in tokens. Raises as `Upsampler`."""
    spans = []
    for dim, (name, extent, cell) in enumerate(
        zip(("height", "width"), size, cells(limit, factor), strict=True)
    ):
        tile, shared, tokens = config.tile, config.tile_overlap, -(-extent // cell)
        if tile is not None and (tile % cell or shared % cell):
            raise ValueError(f"tile={tile} and tile_overlap={shared} must be multiples of {cell} pixels")
        side = tokens if tile is None else min(tokens, tile // cell)
        most = getattr(limit, f"max_{name}")
        if side > most:
            raise ValueError(
                f"windows of {side * cell} pixels in {name}; the model knows {most * cell}: set tile"
            )
        spans.append(Axis(2 + dim, side, max(1, side - shared // cell)))
    if config.window > limit.max_frames:
        raise ValueError(f"window={config.window} frames; the model knows {limit.max_frames}")
    return spans


class Upsampler:
    """An `UpsampleTask` at work on one video.

    Args:
        size: height and width of what comes out, any.
        length: frames of the video.
        text: collated inputs of the other conditions, by name, of one sample.

    Raises:
        ValueError: a window or tile larger than the model knows positions for, or of no whole number of tokens.
    """

    def __init__(
        self,
        task: UpsampleTask,
        config: UpsamplerConfig,
        size: tuple[int, int],
        length: int,
        text: dict[str, object] | None = None,
    ) -> None:
        self.task, self.config, self.size, self.length = task.eval(), config, size, length
        self.text = text or {}
        self.patch: tuple[int, int, int] = task.backbone.config.patch
        self.cell = cells(task.backbone.config, task.codec.spatial_factor)
        self.axes = windows(config, task.backbone.config, task.codec.spatial_factor, size)
        self.grid = Grid(1, *(-(-n // c) for n, c in zip(size, self.cell, strict=True)))
        self.lows: dict[
            int, Tensor
        ] = {}  # latents [1, C, 1, H, W] of frames that windows still reach, padded
        self.null = torch.ones(1, dtype=torch.bool)

    @torch.no_grad()
    def __call__(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames [3, H, W] in [-1, 1] for those of low resolution [3, h, w], which come one by one."""
        config = self.config
        hop = config.window - config.overlap
        stream = streamed_euler(
            self._velocity, self._noise(frames), config.times(), self.length, config.window, hop
        )
        for index, tokens in enumerate(stream):
            yield self._decoded(tokens, self.lows.pop(index))

    def _noise(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Noise of each frame as tokens [1, 1, h, w, C], once the frame is encoded."""
        channels, key = self.task.codec.latent_channels, torch.zeros(1, dtype=torch.int64)
        for index, frame in enumerate(frames):
            latent = self._encoded(frame)
            self.lows[index] = self.task.low.padded(latent)
            noise = SampleRng(self.config.seed, index, key).randn(channels, *latent.shape[2:])
            yield self._as_grid(patchify(noise.to(latent), self.patch)[0])

    def _as_grid(self, tokens: Tensor) -> Tensor:
        tokens = tokens * self.config.noise
        return tokens.unflatten(1, (1, self.grid.height, self.grid.width))

    def _encoded(self, frame: Tensor) -> Tensor:
        """The latent [1, C, 1, H, W] of one frame, interpolated, and padded to whole tokens."""
        large = F.interpolate(frame[None], self.size, mode="bilinear", align_corners=False)
        rest = [-n % c for n, c in zip(self.size, self.cell, strict=True)]
        large = F.pad(large, (0, rest[1], 0, rest[0]), mode="replicate")[:, :, None]
        return self.task.codec.encode(VideoClip(large.to(self.task.device), large.new_zeros(1))).values

    def _decoded(self, tokens: Tensor, low: Tensor) -> Tensor:
        values = unpatchify(tokens.flatten(1, 3), self.grid, self.patch)
        latent = Latent(self.task.sharpened(values, low), low.new_zeros(1))
        return self.task.codec.decode(latent).frames[0, :, 0, : self.size[0], : self.size[1]]

    def _velocity(self, x: Tensor, t: Tensor, span: slice) -> Tensor:
        """dx/dt of a window of all of the picture, [1, T, h, w, C]."""
        lows = torch.cat([self.lows[index] for index in range(span.start, span.stop)], dim=2)
        margin, (_, ph, pw) = self.task.low.margin, self.patch

        def tile(x: Tensor, t: Tensor, part: Part) -> Tensor:
            rows, columns = part
            around = lows[
                ...,
                rows.start * ph : rows.stop * ph + 2 * margin,
                columns.start * pw : columns.stop * pw + 2 * margin,
            ]
            grid = Grid(*x.shape[1:4])
            inputs = {**self.text, LOW: self.task.low.tokens(around)}
            flat = x.flatten(1, 3)

            def one(flat: Tensor, t: Tensor, drop: frozenset[str]) -> Tensor:
                conditions = self.task.conditions(inputs, grid, dict.fromkeys(drop, self.null))
                return self.task.path.velocity(self.task.backbone(flat, t, conditions).float(), t)

            velocity = guided(one, nested_guidance({"text": self.config.guidance}), self.config.interval)
            return velocity(flat, t).unflatten(1, x.shape[1:4])

        return averaged(tile, self.axes)(x, t)
