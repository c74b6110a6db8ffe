"""ST-LPIPS, a perceptual distance that small shifts do not upset (Ghildyal and Liu 2022, arXiv 2207.13686).

The weights (BSD-2) come inside the wheel `stlpips-pytorch`, of which only those two files are used; the networks are
written here. Its figures are not those of LPIPS and are never called so. The VGG net serves as a training loss, the
AlexNet as a judge, so that no model is judged by what it was trained on.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Net = Literal["alex", "vgg"]

# Per slice its convolutions: number in the file, channels in and out, kernel, padding. The end of each slice is
# compared. Where a net halves the grid, it pools with stride one and blurs with stride two.
ALEX = (
    ((0, 3, 64, 11, 2),),
    ((5, 64, 192, 5, 2),),
    ((9, 192, 384, 3, 1),),
    ((11, 384, 256, 3, 1),),
    ((13, 256, 256, 3, 1),),
)
VGG = (
    ((0, 3, 64, 3, 1), (2, 64, 64, 3, 1)),
    ((6, 64, 128, 3, 1), (8, 128, 128, 3, 1)),
    ((12, 128, 256, 3, 1), (14, 256, 256, 3, 1), (16, 256, 256, 3, 1)),
    ((20, 256, 512, 3, 1), (22, 512, 512, 3, 1), (24, 512, 512, 3, 1)),
    ((28, 512, 512, 3, 1), (30, 512, 512, 3, 1), (32, 512, 512, 3, 1)),
)
SLICES = {"alex": ALEX, "vgg": VGG}
SHA256 = {
    "alex": "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "vgg": "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
}
SMALLEST_SIDE = 32  # pixels: below it the last slices have no room


class Blur(nn.Module):
    """Binomial blur of width 3 and stride 2 with reflected edges, channel by channel: [N, C, H, W] -> about half."""

    def __init__(self, channels: int):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(row, row) / 16
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])  # type: ignore[arg-type]


class STLPIPS(nn.Module):
    """Perceptual distance of frames; frozen.

    Args:
        net: "vgg" to train with, "alex" to judge with.
        weights: the file to load; None takes the wheel's.
        pretrained: False leaves random weights, for tests.

    Raises:
        FileNotFoundError: the wheel is not installed.
        ValueError: the file is not the one whose sha256 is known.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net = "vgg", weights: str | None = None, pretrained: bool = True):
        super().__init__()
        if net not in SLICES:
            raise ValueError(f"net must be one of {sorted(SLICES)}, got {net!r}")
        self.net = net
        self.slices = nn.ModuleList(_slice(net, index) for index in range(5))
        widths = [convolutions[-1][2] for convolutions in SLICES[net]]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        if pretrained:
            self.load_state_dict(_renamed(net, read_weights(net, weights)))
        self.requires_grad_(False).eval()

    def features(self, frames: Tensor) -> list[Tensor]:
        """Unit vectors at every site of five layers, of frames [N, 3, H, W] in [-1, 1]."""
        if min(frames.shape[-2:]) < SMALLEST_SIDE:
            size = f"{frames.shape[-1]}x{frames.shape[-2]}"
            raise ValueError(f"ST-LPIPS needs frames of at least {SMALLEST_SIDE} pixels, got {size}")
        x, found = (frames - self.shift) / self.scale, []
        for layers in self.slices:
            x = layers(x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, frames: Tensor, targets: Tensor) -> Tensor:
        """Distance of each frame to its target, both [N, 3, H, W] in [-1, 1] -> [N]; gradients reach `frames`."""
        with torch.no_grad():
            wanted = self.features(targets)
        distance = torch.zeros(len(frames), device=frames.device)
        for head, given, want in zip(self.heads, self.features(frames), wanted, strict=True):
            distance = distance + head((given - want).square()).flatten(1).mean(1)
        return distance


def _slice(net: Net, index: int) -> nn.Sequential:
    """The layers of one slice; the order of blur, pooling and activation is each net's own."""
    layers: list[nn.Module] = []
    convolutions = SLICES[net][index]
    if net == "vgg" and index > 0:
        layers += [nn.MaxPool2d(2, stride=1), Blur(convolutions[0][1])]
    if net == "alex" and index in (1, 2):
        layers += [nn.MaxPool2d(3, stride=1), Blur(convolutions[0][1])]
    for _, c_in, c_out, kernel, padding in convolutions:
        layers.append(nn.Conv2d(c_in, c_out, kernel, padding=padding))
        if net == "alex" and index == 0:
            layers.append(Blur(c_out))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _renamed(net: Net, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under this module's names; blur kernels are constants and are left out."""
    state = {"shift": given["scaling_layer.shift"], "scale": given["scaling_layer.scale"]}
    for index, convolutions in enumerate(SLICES[net]):
        state[f"heads.{index}.weight"] = given[f"lin{index}.model.1.weight"]
        places = [i for i, layer in enumerate(_slice(net, index)) if isinstance(layer, nn.Conv2d)]
        for place, (number, *_) in zip(places, convolutions, strict=True):
            for part in ("weight", "bias"):
                state[f"slices.{index}.{place}.{part}"] = given[f"net.slice{index + 1}.{number}.{part}"]
    return state


def weights_path(net: Net) -> Path:
    """Where the wheel keeps a net's weights; raises FileNotFoundError, saying what to install."""
    spec = find_spec("stlpips_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("ST-LPIPS weights are missing: pip install stlpips-pytorch (64 MB)")
    return Path(spec.submodule_search_locations[0]) / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"


def read_weights(net: Net, path: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file after its checksum was compared; nothing but tensors is unpickled."""
    file = Path(path) if path else weights_path(net)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256[net]:
        raise ValueError(f"{file} is not the ST-LPIPS file of {net}: sha256 {found}, expected {SHA256[net]}")
    return torch.load(file, map_location="cpu", weights_only=True)
