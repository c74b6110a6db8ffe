"""Judges of sound: of its waveform folded by periods, and of its complex spectrum in bands (Descript audio codec).

Each gives scores and the features of its layers, for feature matching. Sounds are mono, [B, N], and judged as they are:
Descript takes their mean off and scales their peak to 0.8 first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from moviegen.codec.audio_losses import _window

BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))  # of the spectrum, Descript's
Judged = tuple[Tensor, list[Tensor]]  # scores [B, S], features of the layers


def _conv(c_in: int, c_out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(c_in, c_out, kernel, stride, padding))


class PeriodDiscriminator(nn.Module):
    """Every `period`-th sample side by side (HiFi-GAN): [B, N] -> a picture [B, 1, N / period, period].

    Args:
        channels: width of the first layer; four times as wide with each, up to 32 times.
    """

    def __init__(self, period: int, channels: int = 32):
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
        strides = [3, 3, 3, 3, 1]
        self.layers = nn.ModuleList(
            _conv(widths[i], widths[i + 1], (5, 1), (stride, 1)) for i, stride in enumerate(strides)
        )
        self.out = _conv(widths[-1], 1, (3, 1))

    def forward(self, sound: Tensor) -> Judged:
        sound = F.pad(sound[:, None], (0, -sound.shape[1] % self.period), mode="reflect")
        h, features = sound.unflatten(2, (-1, self.period)), []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.1)
            features.append(h)
        return self.out(h).flatten(1), features


class SpectrumDiscriminator(nn.Module):
    """The complex spectrum at one window, each of five bands through a stack of its own.

    Args:
        channels: of all layers; 32 in Descript's codec.
    """

    def __init__(self, window: int, channels: int = 32):
        super().__init__()
        self.window = window
        bins = window // 2 + 1
        self.edges = [(int(low * bins), int(high * bins)) for low, high in BANDS]
        self.bands = nn.ModuleList(self._stack(channels) for _ in BANDS)
        self.out = _conv(channels, 1, (3, 3))

    @staticmethod
    def _stack(channels: int) -> nn.ModuleList:
        layers = [_conv(2, channels, (3, 9))]
        layers += [_conv(channels, channels, (3, 9), (1, 2)) for _ in range(3)]
        return nn.ModuleList([*layers, _conv(channels, channels, (3, 3))])

    def forward(self, sound: Tensor) -> Judged:
        weights = _window(self.window, sound.device)
        spectrum = torch.stft(
            sound.float(), self.window, self.window // 4, window=weights, return_complex=True
        )
        picture = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, T, bins]
        ends, features = [], []
        for (low, high), stack in zip(self.edges, self.bands, strict=True):
            h = picture[..., low:high]
            for layer in stack:  # type: ignore[attr-defined] (a ModuleList)
                h = F.leaky_relu(layer(h), 0.1)
                features.append(h)
            ends.append(h)
        return self.out(torch.cat(ends, dim=3)).flatten(1), features


class AudioDiscriminator(nn.Module):
    """All judges together: scores [B, S] of sounds [B, N], at least half as long as the longest window.

    Args:
        periods, windows: one judge each; Descript's are the defaults.
        channels: width of the judges.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        windows: Sequence[int] = (2048, 1024, 512),
        channels: int = 32,
    ):
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, channels) for period in periods),
                *(SpectrumDiscriminator(window, channels) for window in windows),
            ]
        )

    def judge(self, sound: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Scores [B, S] of each judge, and the features of all their layers."""
        judged = [judge(sound) for judge in self.judges]
        return [scores for scores, _ in judged], [feature for _, features in judged for feature in features]

    def forward(self, sound: Tensor) -> Tensor:
        return torch.cat(self.judge(sound)[0], dim=1)
