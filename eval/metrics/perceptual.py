"""LPIPS and DISTS: torchmetrics' networks, their backbones by local path so that nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from moviegen_eval.metrics.base import in_batches
from torch import Tensor, nn
from torchmetrics.functional.image import dists, lpips
from torchvision.models import vgg


class Lpips:
    """Mean over frames of LPIPS with the AlexNet (Zhang et al. 2018, v0.1), the figure that papers print.

    Args:
        backbone: torchvision's AlexNet weights; None leaves it random, for tests.
    """

    name = "lpips"
    unit = "distance"
    higher_is_better = False

    def __init__(self, backbone: str | Path | None):
        self.net = lpips._NoTrainLpips(net="alex", pnet_rand=True).eval()
        if backbone is not None:
            load_backbone(self.net.net, backbone)

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """LPIPS of one clip: uint8 [T, H, W, 3] both."""
        return float(self.frames(source, reconstruction).mean())

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """LPIPS of each frame, float64 [T]: uint8 [T, H, W, 3] both."""
        return in_batches(lambda a, b: self.net(a / 127.5 - 1, b / 127.5 - 1), source, reconstruction)


class DistsNet(dists.DISTSNetwork):
    """torchmetrics' DISTS without its constructor, which would fetch the backbone."""

    # where each stage of VGG-16's features begins; its max pooling becomes an L2 pooling
    STAGES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))

    def __init__(self) -> None:
        nn.Module.__init__(self)
        features = vgg.make_layers(vgg.cfgs["D"])
        self.chns = [3, 64, 128, 256, 512, 512]
        for index, (start, stop) in enumerate(self.STAGES):
            stage = nn.Sequential()
            for place in range(start, stop):
                pools = index > 0 and place == start
                stage.add_module(
                    str(place), dists.L2pooling(channels=self.chns[index]) if pools else features[place]
                )
            setattr(self, f"stage{index + 1}", stage)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, -1, 1, 1))
        heads = torch.load(dists._PATH_WEIGHT_DISTS, map_location="cpu", weights_only=True)
        self.alpha, self.beta = (nn.Parameter(heads[name]) for name in ("alpha", "beta"))
        self.requires_grad_(False).eval()


class Dists:
    """Mean over frames of DISTS (Ding et al. 2020).

    Args:
        backbone: torchvision's VGG-16 weights; None leaves it random, for tests.
    """

    name = "dists"
    unit = "distance"
    higher_is_better = False

    def __init__(self, backbone: str | Path | None):
        self.net = DistsNet()
        if backbone is not None:
            load_backbone(self.net, backbone)

    def score(self, source: np.ndarray, reconstruction: np.ndarray) -> float:
        """DISTS of one clip: uint8 [T, H, W, 3] both."""
        return float(self.frames(source, reconstruction).mean())

    def frames(self, source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """DISTS of each frame, float64 [T]: uint8 [T, H, W, 3] both."""
        return in_batches(lambda a, b: self.net(a / 255, b / 255), source, reconstruction)


def load_backbone(net: nn.Module, path: str | Path) -> None:
    """Copy `features.<n>.*` of a torchvision file into modules that keep n as the last part of their name.

    Raises ValueError where the file is no such state, or lacks a layer.
    """
    state = read_state(path)
    own: dict[str, Tensor] = {}
    for name, value in net.state_dict().items():
        parts = name.split(".")
        if len(parts) == 3 and parts[1].isdigit() and parts[2] in ("weight", "bias"):
            given = state.get(f"features.{parts[1]}.{parts[2]}")
            if given is None or given.shape != value.shape:
                raise ValueError(f"{path}: features.{parts[1]}.{parts[2]} is absent or of another shape")
            own[name] = given
    assert own
    net.load_state_dict(own, strict=False)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file; nothing else is unpickled. Raises ValueError for another kind of file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        raise ValueError(f"{path}: holds no plain tensors ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return state
