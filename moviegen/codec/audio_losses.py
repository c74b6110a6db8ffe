"""Distances between sounds: spectra at several scales, mel bands, waveforms (after the Descript audio codec; paper 6).

All take mono sounds [B, N] and give [B]. Ours are means over scales and layers where Descript's are sums, of magnitudes
scaled to full scale and of mel bands that are not librosa's: Descript's weights do not carry over as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.codec.tae import Posterior

FLOOR = 1e-5  # magnitudes below are alike: -100 dB


@functools.cache
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


def magnitudes(sound: Tensor, window: int, hop: int | None = None) -> Tensor:
    """Magnitude spectrum [B, window / 2 + 1, T] with a Hann window; full scale is about 1 for a tone."""
    weights = _window(window, sound.device)
    pad = "reflect" if sound.shape[1] > window // 2 else "constant"
    spectrum = torch.stft(
        sound.float(), window, hop or window // 4, window=weights, pad_mode=pad, return_complex=True
    )
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() * (2 / weights.sum())


@functools.cache
def mel_filters(num_bands: int, window: int, sample_rate_hz: int, device: torch.device) -> Tensor:
    """Triangles [num_bands, window / 2 + 1] whose centers are even on the mel scale from 0 Hz to half the rate."""
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate_hz / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, 1, num_bands + 2, dtype=torch.float64) * top / 2595) - 1)
    bins = torch.linspace(0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp_min(0)
    return (triangles / triangles.sum(1, keepdim=True).clamp_min(1)).float().to(device)


def _log_distance(a: Tensor, b: Tensor) -> Tensor:
    difference = a.clamp_min(FLOOR).log10() - b.clamp_min(FLOOR).log10()
    return difference.abs().flatten(1).mean(1)


def stft_distance(decoded: Tensor, sound: Tensor, windows: Sequence[int] = (2048, 512)) -> Tensor:
    """Mean over scales of the L1 distances of magnitudes and of their log10 (Descript's windows; it only logs it)."""
    total = torch.zeros(len(sound), device=sound.device)
    for window in windows:
        ours, theirs = magnitudes(decoded, window), magnitudes(sound, window)
        total = total + (ours - theirs).abs().flatten(1).mean(1) + _log_distance(ours, theirs)
    return total / len(windows)


# Windows and bands of Descript's mel loss.
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


def mel_distance(
    decoded: Tensor,
    sound: Tensor,
    sample_rate_hz: int,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
) -> Tensor:
    """Mean over scales (window, bands) of the L1 distance of log10 mel magnitudes."""
    total = torch.zeros(len(sound), device=sound.device)
    for window, bands in scales:
        filters = mel_filters(bands, window, sample_rate_hz, sound.device)
        ours, theirs = (filters @ magnitudes(one, window) for one in (decoded, sound))
        total = total + _log_distance(ours, theirs)
    return total / len(scales)


def si_sdr(decoded: Tensor, sound: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019); a silent sound has none and gives NaN."""
    ours, theirs = (one.double() - one.double().mean(1, keepdim=True) for one in (decoded, sound))
    power = theirs.square().sum(1)
    scale = (ours * theirs).sum(1) / power
    target = scale[:, None] * theirs
    noise = (ours - target).square().sum(1)
    ratio = 10 * torch.log10(target.square().sum(1) / noise.clamp_min(1e-30))
    return torch.where(power > 0, ratio, torch.nan).float()


@dataclass(frozen=True)
class AudioLossWeights:
    """Weights of the terms of the sound codec's loss; a term of weight 0 is not computed.

    Args:
        mel: distance of log mel spectra, mean over scales; Descript's codec has 15 times the sum over its seven.
        stft: distance of magnitude spectra. Ours: Descript's codec is not trained on one.
        waveform: mean absolute error of the samples; Descript's codec is not trained on one.
        snr: negative logarithm of the signal-to-noise ratio of the samples: the error counts in proportion to how
            loud a sound is. Ours.
        kl: mean over latent elements; unknown in the paper.
    """

    mel: float = 15.0
    stft: float = 1.0
    waveform: float = 0.0
    snr: float = 0.0
    kl: float = 1e-4


@dataclass(frozen=True)
class AudioLosses:
    """Per-sample terms, each [B], and their weighted sum."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class AudioObjective:
    """The terms that need no discriminator.

    Args:
        mel_scales, stft_windows: sizes in samples (and mel bands).
        snr_floor: power that counts as noise anyway, so that silence asks for nothing.
    """

    weights: AudioLossWeights = AudioLossWeights()
    sample_rate_hz: int = 48_000
    mel_scales: tuple[tuple[int, int], ...] = MEL_SCALES
    stft_windows: tuple[int, ...] = (2048, 512)
    snr_floor: float = 1e-6

    def to(self, device: torch.device) -> None:
        """Nothing lies on a device."""

    def __call__(self, decoded: Tensor, sound: Tensor, posterior: Posterior) -> AudioLosses:
        """Losses of reconstructions of sounds, both [B, N], coded through a posterior."""
        weights, terms = self.weights, {"kl": posterior.kl()}
        if weights.mel:
            terms["mel"] = mel_distance(decoded, sound, self.sample_rate_hz, self.mel_scales)
        if weights.stft:
            terms["stft"] = stft_distance(decoded, sound, self.stft_windows)
        if weights.waveform:
            terms["waveform"] = (decoded - sound).abs().mean(1)
        if weights.snr:
            noise = (decoded - sound).square().mean(1) + self.snr_floor
            terms["snr"] = (noise / (sound.square().mean(1) + self.snr_floor)).log10()
        weighted = [getattr(weights, name) * term for name, term in terms.items()]
        return AudioLosses(torch.stack(weighted).sum(0), terms)


def feature_distance(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Feature matching: mean over layers of the L1 distance of a discriminator's features, [B, ...] each -> [B]."""
    pairs = zip(real, fake, strict=True)
    return torch.stack(
        [F.l1_loss(f, r.detach(), reduction="none").flatten(1).mean(1) for r, f in pairs]
    ).mean(0)
