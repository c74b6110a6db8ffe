"""Time the sound codec against diffusers' AutoencoderOobleck: python experiments/speed/audio/run.py --help

Writes numbers.json into the folder of this file (or --out). Both are random, mono, and shorten 1920 and 2048 times; the
peer's width is searched so that its FLOPs per second of sound come nearest to ours. Names of figures:
audio/<our size>/<encode|decode>_<seconds>s_<dtype>_<device>/... The real-time factor of the whole generator (features,
sampling, decoding) is audio/<model>/real_time.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the harness

from convolutions import Convolution, Recorder
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from harness import Contestant, figures, machine, race
from hydra import compose, initialize_config_dir
from moviegen_eval.numbers import Figure, write_numbers
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from moviegen.codec.audio import AudioAutoencoder
from moviegen.conditioning.video import Seen, VideoFeatures
from moviegen.modelfile import load_task
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.long_sound import SoundSampler, sample_sound

HERE = Path(__file__).parent
RATE = 48_000
SECONDS = 0.1  # of each convolution in one reading of the ceiling


def our_codec(size: str) -> AudioAutoencoder:
    """One of ours, by the name of its config in conf/codec/ without `audio_`."""
    with initialize_config_dir(str(HERE.parents[2] / "conf" / "codec"), version_base=None):
        node: Any = OmegaConf.to_container(compose(f"audio_{size}"))
    return AudioAutoencoder(**{key: value for key, value in node.items() if key != "_target_"}).eval()


def our_sampler() -> SoundSampler:
    """That of the toy model's figures."""
    with initialize_config_dir(str(HERE.parents[2] / "conf" / "sampler"), version_base=None):
        node: Any = OmegaConf.to_container(compose("sound_toy"))
    return SoundSampler(**{key: value for key, value in node.items() if key != "_target_"})


def peer_codec(width: int, latent_channels: int) -> AutoencoderOobleck:
    """Stable Audio's codec, mono, at a width; its own is 128."""
    return AutoencoderOobleck(
        encoder_hidden_size=width,
        downsampling_ratios=[2, 4, 4, 8, 8],
        channel_multiples=[1, 2, 4, 8, 16],
        decoder_channels=width,
        decoder_input_channels=latent_channels,
        audio_channels=1,
        sampling_rate=RATE,
    ).eval()


@torch.no_grad()
def flops_of(run: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def calls(codec: Any, sound: torch.Tensor) -> dict[str, Any]:
    """Encode and decode of mono sounds [B, N]."""
    if isinstance(codec, AudioAutoencoder):
        with torch.no_grad():
            latent = codec.posterior(sound).mean
        return {"encode": lambda: codec.posterior(sound).mean, "decode": lambda: codec.reconstruct(latent)}
    whole = sound[:, None, : sound.shape[1] // 2048 * 2048]
    # its encoder leaves half of its width, which is not what its decoder takes but at its own widths
    shape = (len(whole), codec.config.decoder_input_channels, whole.shape[2] // 2048)
    coded = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(whole)
    return {
        "encode": lambda: codec.encode(whole).latent_dist.mode(),
        "decode": lambda: codec.decode(coded).sample,
    }


def equal_peer(ours: AudioAutoencoder, operation: str, sound: torch.Tensor) -> tuple[AutoencoderOobleck, int]:
    """The peer whose FLOPs per second of sound are nearest to ours, of widths in steps of 4."""

    def flops(width: int) -> float:
        return flops_of(calls(peer_codec(width, ours.latent_channels), sound)[operation])

    wanted, widths = flops_of(calls(ours, sound)[operation]), range(8, 261, 4)
    above = min(bisect.bisect_left(widths, wanted, key=flops), len(widths) - 1)
    misses = {width: abs(flops(width) / wanted - 1) for width in widths[max(above - 1, 0) : above + 1]}
    width = min(misses, key=lambda one: misses[one])
    print(f"peer of width {width}: FLOPs differ by {misses[width]:.1%}")
    return peer_codec(width, ours.latent_channels), width


class Ceiling1d:
    """Best FLOP/s over the one-dimensional convolutions with the most work; each call is one reading."""

    def __init__(self, runs: list[Any], dtype: torch.dtype):
        seen: dict[Convolution, int] = {}
        for run in runs:
            with Recorder() as recorder, torch.no_grad():
                run()
            by_work = sorted(recorder.seen, key=lambda c: -c.flops * recorder.seen[c])
            seen |= dict.fromkeys(by_work[:3], 1)
        self.cases = [(c, torch.randn(c.x, dtype=dtype), torch.randn(c.weight, dtype=dtype)) for c in seen]

    @torch.no_grad()
    def __call__(self) -> float:
        return max(self._rate(*case) for case in self.cases)

    @staticmethod
    def _rate(case: Convolution, x: torch.Tensor, weight: torch.Tensor) -> float:
        torch.nn.functional.conv1d(x, weight, stride=case.stride, padding=case.padding)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            torch.nn.functional.conv1d(x, weight, stride=case.stride, padding=case.padding)
            count += 1
        return count * case.flops / (time.perf_counter() - start)


def compare(size: str, operation: str, seconds: float, dtype: torch.dtype, num_rounds: int) -> list[Figure]:
    """Ours and the peer of equal FLOPs, in turns with the ceiling."""
    sound = 0.1 * torch.randn(1, round(seconds * RATE))
    ours = our_codec(size)
    peer, width = equal_peer(ours, operation, sound)
    sound = sound.to(dtype)
    runs = {
        name: calls(codec.to(dtype), sound)[operation]
        for name, codec in ((size, ours), (f"oobleck_{width}", peer))
    }
    contestants = [Contestant(name, run, seconds, flops_of(run)) for name, run in runs.items()]
    rounds = race(contestants, Ceiling1d(list(runs.values()), dtype), num_rounds)
    case = f"{operation}_{seconds:g}s_{str(dtype).removeprefix('torch.')}_cpu"
    return figures(f"audio/{size}/{case}", contestants[0], contestants[1:], rounds, "s")


def real_time(model: str, seconds: float, num_rounds: int) -> Figure:
    """Seconds of sound that the whole generator makes a second: pictures to waveform, guidance and all steps."""
    task = load_task(model)
    assert isinstance(task, FlowTask)
    eyes = next(n for n, c in task.conditioners.named().items() if isinstance(c, VideoFeatures))
    words = task.conditioners.named()["text"].features(["a ball bounces"])
    config = SoundSampler(
        num_steps=8, window=100, hop=50
    )  # as conf/sampler/sound_toy.yaml: 32 calls of the network
    pictures, rate = torch.zeros(1, 3, round(8 * seconds), 64, 64), torch.tensor([8.0])
    speeds = []
    for _ in range(num_rounds + 1):
        start = time.perf_counter()
        with torch.no_grad():
            words = task.conditioners.named()["text"].features(["a ball bounces"])
            inputs = {"text": words, eyes: Seen(pictures, rate)}
            latent = sample_sound(
                task, inputs, torch.zeros(1, dtype=torch.int64), round(25 * seconds), config
            )
            task.codec.decode(latent)
        speeds.append(seconds / (time.perf_counter() - start))
    speeds = sorted(speeds[1:])
    name = f"audio/{Path(model).name}/real_time"
    return Figure(name, speeds[len(speeds) // 2], speeds[0], speeds[-1], num_rounds, "s of sound per s", True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ours", nargs="+", default=["paper", "toy"], help="names in conf/codec/, without audio_"
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--model", default="experiments/toy/weights/audio", help="a sound generator; empty: none"
    )
    parser.add_argument("--model-seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: list[Figure] = []
    for size in options.ours:
        for operation in ("encode", "decode"):
            dtype = getattr(torch, options.dtype)
            found += compare(size, operation, options.seconds, dtype, options.rounds)
    if options.model:
        found.append(real_time(options.model, options.model_seconds, options.rounds))
    for figure in found:
        print(f"{figure.name:80s} {figure.value:12.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    write_numbers(options.out / "numbers.json", found)
    print(machine())


if __name__ == "__main__":
    main()
