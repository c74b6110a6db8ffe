"""Sound autoencoder after the Descript codec, with a variational bottleneck: 48 kHz to 25 latents a second (paper 6).

Legend: B batch, C latent channels, N samples, L latent frames. Sounds are mono inside; the channels of a stereo sound
are coded one by one, and their latents stand side by side on the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.codec.base import LatentStats
from moviegen.codec.tae import Posterior
from moviegen.types import AudioClip, Grid, Latent

LEAST_SCALE = 1e-4  # of the posterior, so that its logarithm is finite
INITIAL_SCALE = 0.05  # a new encoder starts almost deterministic, or its noise would drown the first steps


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned a for each channel: periodic, so that tones are easy (Ziyin et al. 2020)."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.to(x.dtype)
        return x + (alpha * x).sin().square() / (alpha + 1e-9)


class ResidualUnit(nn.Module):
    """A dilated convolution of 7 taps and one of 1, each behind a snake; the length is kept."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            Snake(channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            Snake(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class EncoderBlock(nn.Module):
    """Residual units, then twice the channels at 1/rate of the length."""

    def __init__(self, channels: int, rate: int, dilations: tuple[int, ...]):
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(channels, dilation) for dilation in dilations))
        self.snake = Snake(channels)
        self.down = nn.Conv1d(channels, 2 * channels, 2 * rate, rate, padding=math.ceil(rate / 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.snake(self.units(x)))


class DecoderBlock(nn.Module):
    """Half the channels at `rate` times the length, then residual units."""

    def __init__(self, channels: int, rate: int, dilations: tuple[int, ...]):
        super().__init__()
        self.snake = Snake(channels)
        self.up = nn.ConvTranspose1d(
            channels,
            channels // 2,
            2 * rate,
            rate,
            padding=math.ceil(rate / 2),
            output_padding=rate % 2,
        )
        self.units = nn.Sequential(*(ResidualUnit(channels // 2, dilation) for dilation in dilations))

    def forward(self, x: Tensor) -> Tensor:
        return self.units(self.up(self.snake(x)))


class SoundEncoder(nn.Module):
    """Folded samples [B, fold, N / fold] -> [B, width, L]."""

    def __init__(
        self, channels: int, rates: tuple[int, ...], width: int, fold: int, dilations: tuple[int, ...]
    ):
        super().__init__()
        self.conv_in = nn.Conv1d(fold, channels, 7, padding=3)
        self.blocks = nn.ModuleList(
            EncoderBlock(channels * 2**level, rate, dilations) for level, rate in enumerate(rates)
        )
        last = channels * 2 ** len(rates)
        self.snake = Snake(last)
        self.conv_out = nn.Conv1d(last, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in self.blocks:
            h = block(h)
        return self.conv_out(self.snake(h))


class SoundDecoder(nn.Module):
    """[B, width, L] -> folded samples [B, fold, N / fold] in (-1, 1)."""

    def __init__(
        self, channels: int, rates: tuple[int, ...], width: int, fold: int, dilations: tuple[int, ...]
    ):
        super().__init__()
        self.conv_in = nn.Conv1d(width, channels, 7, padding=3)
        self.blocks = nn.ModuleList(
            DecoderBlock(channels // 2**level, rate, dilations) for level, rate in enumerate(rates)
        )
        last = channels // 2 ** len(rates)
        self.snake = Snake(last)
        self.conv_out = nn.Conv1d(last, fold, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in self.blocks:
            h = block(h)
        return self.conv_out(self.snake(h))


class AudioAutoencoder(nn.Module):
    """The sound codec of the generator (paper 6: Descript's codec without quantization, variational).

    With the defaults it has the layers of Meta's public DACVAE, whose weights `codec.dacvae` reads.

    Args:
        encoder_dim: width after the first layer; doubles with each rate.
        encoder_rates: how much each block of the encoder shortens; `fold` times their product is the hop.
        latent_dim: width between the networks and the bottleneck.
        decoder_dim: width of the decoder's first layer; halves with each rate.
        decoder_rates: of the decoder, coarsest first; the same hop.
        latent_channels: 128 in the paper.
        sample_rate_hz: 48,000 in the paper.
        dilations: of the residual units of each block.
        fold: so many samples become channels before the first layer. Ours, as of the video codec; 1 in Descript's.
        linear: add a learned linear transform of each hop beside encoder and decoder. Ours, as of the video codec.
    """

    def __init__(  # noqa: PLR0913 (settings, given by name from a config)
        self,
        encoder_dim: int = 64,
        encoder_rates: tuple[int, ...] = (2, 8, 10, 12),
        latent_dim: int = 1024,
        decoder_dim: int = 1536,
        decoder_rates: tuple[int, ...] = (12, 10, 8, 2),
        latent_channels: int = 128,
        sample_rate_hz: int = 48_000,
        dilations: tuple[int, ...] = (1, 3, 9),
        fold: int = 1,
        linear: bool = False,
    ):
        super().__init__()
        if math.prod(encoder_rates) != math.prod(decoder_rates):
            raise ValueError(
                f"encoder_rates {list(encoder_rates)} shorten {math.prod(encoder_rates)} times, decoder_rates "
                f"{list(decoder_rates)} lengthen {math.prod(decoder_rates)} times; both must be alike"
            )
        if decoder_dim % 2 ** len(decoder_rates):
            raise ValueError(
                f"decoder_dim {decoder_dim} cannot be halved {len(decoder_rates)} times; "
                f"give a multiple of {2 ** len(decoder_rates)}"
            )
        self.encoder = SoundEncoder(encoder_dim, encoder_rates, latent_dim, fold, dilations)
        self.in_proj = nn.Conv1d(latent_dim, 2 * latent_channels, 1)
        self.out_proj = nn.Conv1d(latent_channels, latent_dim, 1)
        self.decoder = SoundDecoder(decoder_dim, decoder_rates, latent_dim, fold, dilations)
        self.latent_channels, self.sample_rate_hz, self.fold = latent_channels, sample_rate_hz, fold
        self.hop = fold * math.prod(encoder_rates)
        self.stats = LatentStats(latent_channels)
        self.linear = HopTransform(latent_channels, self.hop) if linear else None
        bias = self.in_proj.get_parameter("bias")
        nn.init.constant_(bias[latent_channels:], math.log(math.expm1(INITIAL_SCALE)))
        nn.init.constant_(self.in_proj.weight[latent_channels:], 0.0)
        if linear:
            nn.init.zeros_(self.in_proj.weight)
            nn.init.zeros_(self.decoder.conv_out.weight)
            nn.init.zeros_(self.decoder.conv_out.get_parameter("bias"))

    @property
    def latent_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight

    def num_latents(self, num_samples: int) -> int:
        """Latent frames of a sound; a rest shorter than a hop has one of its own."""
        return math.ceil(num_samples / self.hop)

    def grid(self, frames: int, height: int = 1, width: int = 1) -> Grid:  # noqa: ARG002 (as of video codecs)
        """The latent's size of a sound of so many latent frames: it has no height and no width."""
        return Grid(frames, 1, 1)

    def posterior(self, samples: Tensor) -> Posterior:
        """Mono sounds [B, N] in [-1, 1] -> a Gaussian over unnormalised latents [B, C, L].

        Sounds are filled up to a multiple of the hop by reflection, or by zeros where they are too short for that.
        """
        missing = -samples.shape[1] % self.hop
        if missing:
            mode = "reflect" if missing < samples.shape[1] else "constant"
            samples = F.pad(samples[:, None], (0, missing), mode=mode)[:, 0]
        folded = samples.unflatten(1, (-1, self.fold)).transpose(1, 2)
        mean, scale = self.in_proj(self.encoder(folded)).float().chunk(2, dim=1)
        if self.linear is not None:
            mean = mean + self.linear.encode(samples).float()
        return Posterior(mean, 2 * (F.softplus(scale) + LEAST_SCALE).log())

    def reconstruct(self, latent: Tensor, num_samples: int | None = None) -> Tensor:
        """Unnormalised latents [B, C, L] -> mono sounds [B, L * hop], or their first `num_samples`."""
        folded = self.decoder(self.out_proj(latent)).float()
        samples = folded.transpose(1, 2).flatten(1)
        if self.linear is None:
            return samples.tanh()[:, :num_samples]
        return (samples + self.linear.decode(latent).float())[:, :num_samples]

    def encode(self, clip: AudioClip) -> Latent:
        """Normalised posterior mean [B, channels * C, L, 1, 1] of sounds [B, channels, N].

        Raises ValueError for another sample rate than the codec's.
        """
        if clip.sample_rate_hz != self.sample_rate_hz:
            raise ValueError(
                f"sound has {clip.sample_rate_hz} samples a second, this codec takes {self.sample_rate_hz}; resample it"
            )
        batch, channels = clip.samples.shape[:2]
        values = self.stats.normalize(self.posterior(clip.samples.flatten(0, 1)).mean)
        values = values.reshape(batch, channels * self.latent_channels, -1, 1, 1)
        return Latent(values, torch.full((batch,), self.latent_rate_hz, device=values.device))

    def decode(self, latent: Latent, num_frames: int | None = None) -> AudioClip:
        """The sounds [B, channels, N] of normalised latents, values clamped to [-1, 1]; N is `num_frames` samples."""
        batch, channels = len(latent.values), latent.values.shape[1] // self.latent_channels
        values = latent.values.reshape(batch * channels, self.latent_channels, -1)
        samples = self.reconstruct(self.stats.denormalize(values), num_frames)
        return AudioClip(samples.clamp(-1, 1).unflatten(0, (batch, channels)), self.sample_rate_hz)


class HopTransform(nn.Module):
    """A linear transform of each hop to latent channels and back: overlapped by half a hop on either side.

    Ours: what principal components can do is learned in seconds, and the layers add what is not linear.
    """

    def __init__(self, latent_channels: int, hop: int):
        super().__init__()
        self.hop, self.margin = hop, hop // 2
        size = hop + 2 * self.margin
        self.analysis = nn.Parameter(torch.randn(latent_channels, 1, size) / size**0.5)
        self.synthesis = nn.Parameter(torch.randn(latent_channels, 1, size) / latent_channels**0.5 * 0.1)

    @torch.no_grad()
    def fit(self, sounds: Tensor) -> None:
        """Start from the principal components of hops of mono sounds [B, N], so scaled that latents have unit spread.

        Components that hardly occur keep a hundredth of the first one's scale. The overlaps start at zero.
        """
        hops = sounds[:, : sounds.shape[1] // self.hop * self.hop].reshape(-1, self.hop).double()
        powers, components = torch.linalg.eigh(hops.T @ hops / len(hops))
        count = min(len(self.analysis), self.hop)
        powers, components = powers.flip(0)[:count], components.flip(1)[:, :count].T
        scale = powers.clamp_min(0).sqrt().clamp_min(0.01 * float(powers[0].clamp_min(1e-12)) ** 0.5)[:, None]
        middle = slice(self.margin, self.margin + self.hop)
        for matrix, values in ((self.analysis, components / scale), (self.synthesis, components * scale)):
            matrix.zero_()
            matrix[:count, 0, middle] = values.to(matrix)

    def encode(self, samples: Tensor) -> Tensor:
        """[B, N] -> [B, C, N / hop]."""
        windows = F.pad(samples, (self.margin, self.margin)).unfold(1, self.analysis.shape[2], self.hop)
        return (windows @ self.analysis[:, 0].T).transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, L] -> [B, L * hop]."""
        windows = latent.transpose(1, 2) @ self.synthesis[:, 0]  # [B, L, size]
        length, size = latent.shape[2] * self.hop, self.synthesis.shape[2]
        added = F.fold(
            windows.transpose(1, 2), (1, length + size - self.hop), (1, size), stride=(1, self.hop)
        )
        return added[:, 0, 0, self.margin : self.margin + length]


def in_windows(run: Callable[[Tensor], Tensor], x: Tensor, window: int, margin: int, scale: float) -> Tensor:
    """`run` over windows of the last axis of x, each with `margin` places on either side that are then cut off.

    Memory stays that of a window. Where the margin covers what an output sees, this equals `run(x)`.

    Args:
        run: gives `scale` places for each of x.
    """
    length, parts = x.shape[-1], []
    for start in range(0, length, window):
        stop = min(start + window, length)
        low, high = max(0, start - margin), min(length, stop + margin)
        part = run(x[..., low:high])
        first = round((start - low) * scale)
        parts.append(part[..., first : first + math.ceil((stop - start) * scale)])
    return torch.cat(parts, dim=-1)


@torch.no_grad()
def encode_long(codec: AudioAutoencoder, clip: AudioClip, window: int = 250, margin: int = 16) -> Latent:
    """As `codec.encode`, `window` latent frames at a time (10 s of the paper's codec)."""

    def run(samples: Tensor) -> Tensor:
        return codec.encode(AudioClip(samples, clip.sample_rate_hz)).values[..., 0, 0]

    values = in_windows(run, clip.samples, window * codec.hop, margin * codec.hop, 1 / codec.hop)
    return Latent(values[..., None, None], torch.full((len(values),), codec.latent_rate_hz))


@torch.no_grad()
def decode_long(
    codec: AudioAutoencoder,
    latent: Latent,
    num_samples: int | None = None,
    window: int = 250,
    margin: int = 16,
) -> AudioClip:
    """As `codec.decode`, `window` latent frames at a time."""

    def run(values: Tensor) -> Tensor:
        return codec.decode(Latent(values[..., None, None], latent.frame_rate)).samples

    samples = in_windows(run, latent.values[..., 0, 0], window, margin, codec.hop)
    return AudioClip(samples[..., :num_samples], codec.sample_rate_hz)
