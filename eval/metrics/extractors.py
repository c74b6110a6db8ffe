"""Features for rFID and rFVD, from weights by local path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_eval.metrics.base import as_frames
from moviegen_eval.metrics.perceptual import read_state
from torch import Tensor, nn
from torchvision.models import inception

FVD_FRAMES = 16  # of a clip, consecutive (StyleGAN-V: fvd2048_16f)


def _branch_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _BlockA(inception.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return [self.branch1x1(x), five, double, self.branch_pool(_branch_pool(x))]


class _BlockC(inception.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        single, double = self.branch7x7_1(x), self.branch7x7dbl_1(x)
        single = self.branch7x7_3(self.branch7x7_2(single))
        for layer in (self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4, self.branch7x7dbl_5):
            double = layer(double)
        return [self.branch1x1(x), single, double, self.branch_pool(_branch_pool(x))]


class _BlockE(inception.InceptionE):
    largest = False  # the last block of the original graph pools by the largest value

    def _forward(self, x: Tensor) -> list[Tensor]:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        single = torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1)
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.largest else _branch_pool(x)
        return [self.branch1x1(x), single, double, self.branch_pool(pooled)]


class _LastBlock(_BlockE):
    largest = True


class InceptionFid:
    """The Inception-v3 of FID (2015-12-05 graph, as ported by pytorch-fid): features [N, 2048] of frames.

    Args:
        weights: the port's file; None leaves it random, for tests.
    """

    def __init__(self, weights: str | Path | None):
        self.net = inception.inception_v3(
            weights=None, num_classes=1008, aux_logits=False, init_weights=False
        )
        for name, channels in (("5b", 32), ("5c", 64), ("5d", 64)):
            setattr(self.net, f"Mixed_{name}", _BlockA((192, 256, 288)["bcd".index(name[1])], channels))
        for name, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(self.net, f"Mixed_{name}", _BlockC(768, channels))
        self.net.Mixed_7b, self.net.Mixed_7c = _BlockE(1280), _LastBlock(2048)
        if weights is not None:
            try:
                self.net.load_state_dict(read_state(weights))
            except RuntimeError as error:
                raise ValueError(
                    f"{weights}: is not FID's Inception ({str(error).splitlines()[0]})"
                ) from error
        self.net.fc = nn.Identity()  # type: ignore[assignment]
        self.net.eval()

    @torch.no_grad()
    def features(self, clip: np.ndarray, batch: int = 16) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float32 [T, 2048]; frames are resized to 299x299, bilinear."""
        parts = []
        for start in range(0, len(clip), batch):
            frames = F.interpolate(as_frames(clip[start : start + batch]), (299, 299), mode="bilinear")
            parts.append(self.net(frames / 127.5 - 1))
        return torch.cat(parts).numpy()


class I3dFvd:
    """The I3D of FVD in StyleGAN-V's TorchScript: features [N, 400] of 16 consecutive frames each."""

    def __init__(self, weights: str | Path):
        try:
            self.net = torch.jit.load(str(weights), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{weights}: is no TorchScript file ({str(error).splitlines()[0]})") from error

    @torch.no_grad()
    def features(self, clip: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float32 [T // 16, 400]; the file itself rescales and resizes to 224x224."""
        parts = []
        for start in range(0, len(clip) - FVD_FRAMES + 1, FVD_FRAMES):
            x = as_frames(clip[start : start + FVD_FRAMES]).transpose(0, 1)[None]
            parts.append(self.net(x, rescale=True, resize=True, return_features=True).flatten(1))
        return torch.cat(parts).numpy() if parts else np.empty((0, 400), np.float32)
