"""Our autoencoders and the public ones, with random weights, behind two functions: encode and decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
)
from torch import Tensor, nn

from moviegen.codec.layers import lay_out_for_inference
from moviegen.codec.tae import TemporalAutoencoder


@dataclass(frozen=True)
class Codec:
    """A codec on the bench: frames [B, 3, T, H, W] -> latents -> frames; `num_frames` are its natural lengths."""

    name: str
    module: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    num_frames: tuple[int, ...]


class Wan888(AutoencoderKLWan):
    """Wan's autoencoder with all three temporal downsamplings on: 8x8x8, as ours. Chunks are of 8 frames, not 4."""

    chunk = 8

    def __init__(self, **settings: Any):
        super().__init__(temperal_downsample=[True, True, True], scale_factor_temporal=8, **settings)

    def _encode(self, x: Tensor) -> Tensor:
        self.clear_cache()
        chunks = [x[:, :, :1], *x[:, :, 1:].split(self.chunk, dim=2)]
        coded = []
        for chunk in chunks:
            self._enc_conv_idx = [0]
            coded.append(self.encoder(chunk, feat_cache=self._enc_feat_map, feat_idx=self._enc_conv_idx))
        moments = self.quant_conv(torch.cat(coded, dim=2))
        self.clear_cache()
        return moments

    def unclamped(self, z: Tensor) -> Tensor:
        """Decoded frames as the network gives them; `decode` clamps them to [-1, 1]."""
        self.clear_cache()
        x, decoded = self.post_quant_conv(z), []
        for index in range(z.shape[2]):
            step = {"feat_cache": self._feat_map, "feat_idx": [0], "first_chunk": index == 0}
            decoded.append(self.decoder(x[:, :, index : index + 1], **step))
        self.clear_cache()
        return torch.cat(decoded, dim=2)


OURS, CAUSAL = (8, 16, 32, 64, 128, 256), (9, 17, 33, 65, 129, 257)  # natural lengths


def ours(name: str, num_frames: tuple[int, ...] = OURS, **settings: Any) -> Codec:
    """One of our autoencoders, by the keys of its config."""
    module = TemporalAutoencoder(**settings).eval()
    lay_out_for_inference(module)  # as load_codec does
    return Codec(name, module, lambda x: module.posterior(x).mean, module.reconstruct, num_frames)


def public(name: str, module: Any, num_frames: tuple[int, ...]) -> Codec:
    """One of diffusers' video autoencoders."""
    module = module.eval()
    return Codec(
        name,
        module,
        lambda x: module.encode(x).latent_dist.mode(),
        lambda z: module.decode(z).sample,
        num_frames,
    )


def frame_wise(name: str, module: Any, num_frames: tuple[int, ...]) -> Codec:
    """An image autoencoder, frame by frame."""
    module = module.eval()

    def over_frames(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return run(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)

    return Codec(
        name,
        module,
        lambda x: over_frames(lambda frames: module.encode(frames).latent_dist.mode(), x),
        lambda z: over_frames(lambda frames: module.decode(frames).sample, z),
        num_frames,
    )


LDM = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
BUILDERS: dict[str, Callable[[], Codec]] = {
    "wan": lambda: public("wan", AutoencoderKLWan(), CAUSAL),
    "wan_8x8x8": lambda: public("wan_8x8x8", Wan888(), CAUSAL),
    "wan_8x8x8_third": lambda: public("wan_8x8x8_third", Wan888(base_dim=32), CAUSAL),
    "hunyuan": lambda: public("hunyuan", AutoencoderKLHunyuanVideo(), CAUSAL),
    "cogvideox": lambda: public("cogvideox", AutoencoderKLCogVideoX(), CAUSAL),
    "ltx": lambda: public("ltx", AutoencoderKLLTXVideo(), CAUSAL),
    "kl": lambda: frame_wise(
        "kl",
        AutoencoderKL(
            down_block_types=LDM[0],
            up_block_types=LDM[1],
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
        ),
        OURS,
    ),
}
