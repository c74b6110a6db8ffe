"""Train the timed pair from scratch for the same time on the same clips: python .../equal_time.py --help

One thread each. The clock is the processor time spent on training steps: neither judging, nor reading clips, nor what
else the machine does counts. Each run's curve is kept in curves/, so that a broken-off comparison goes on; the summary
goes to equal_time_<name of ours>.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.data.module import ShardData, Source
from moviegen.fields import VIDEO
from moviegen.runfolder import write_json

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from contestants import Wan888
from run import our_settings

HERE = Path(__file__).parent
KL = 1e-4  # mean over latent elements, as in conf/task/codec_video.yaml


class Ours(nn.Module):
    """Our codec as a function of clips [B, 3, T, H, W]: reconstruction and KL."""

    def __init__(self, size: str):
        super().__init__()
        self.codec = TemporalAutoencoder(**our_settings(size))

    def forward(self, clips: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        posterior = self.codec.posterior(clips)
        drawn = torch.randn(posterior.mean.shape, generator=noise)
        return self.codec.reconstruct(posterior.sample(drawn), clips.shape[2]), posterior.kl().mean()


class Wan(nn.Module):
    """Wan's autoencoder with 8x8x8 compression; clips are filled up to 1 + 8 n frames with their last one."""

    def __init__(self, **settings: int):
        super().__init__()
        self.codec = Wan888(**settings)

    def forward(self, clips: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        num_frames = clips.shape[2]
        extra = -(num_frames - 1) % 8
        padded = torch.cat([clips, clips[:, :, -1:].expand(-1, -1, extra, -1, -1)], dim=2)
        posterior = self.codec.encode(padded).latent_dist
        kl = posterior.kl() / posterior.mean[0].numel()
        drawn = torch.randn(posterior.mean.shape, generator=noise)
        latent = posterior.mean + posterior.std * drawn
        return self.codec.decode(latent).sample[:, :, :num_frames], kl.mean()


def built(name: str) -> nn.Module:
    widths = {"wan_8x8x8": {}, "wan_8x8x8_third": {"base_dim": 32}}
    return Wan(**widths[name]) if name in widths else Ours(name)


def clips_of(shards: str, seed: int, batch_size: int) -> Iterator[Tensor]:
    """The same batches [B, 3, T, H, W] for both contestants, without end."""
    source = Source(shards, match="train-toyworld-*")
    data = ShardData(train={"toyworld": source}, batch_size=batch_size, seed=seed)
    data.use({"media": VIDEO}, dp_rank=0, dp_size=1)
    return (batch.media.frames for batch in data.train_dataloader())


def held_out(shards: str, num: int) -> Tensor:
    """Clips [num, 3, T, H, W] that neither was trained on."""
    source = Source(shards, split="val")
    data = ShardData(train={"val": source}, val={"val": source}, batch_size=num)
    data.use({"media": VIDEO}, dp_rank=0, dp_size=1)
    return next(iter(data.val_dataloader())).media.frames


@torch.no_grad()
def psnr(model: nn.Module, clips: Tensor) -> float:
    """Mean over clips, in dB. Noise of a fixed seed is added to the latents, as in training."""
    model.eval()
    decoded = [model(clip[None], torch.Generator().manual_seed(0))[0].clamp(-1, 1) for clip in clips]
    model.train()
    mse = (torch.cat(decoded) - clips).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())


def rate(elapsed: float, budget: float, lr: float) -> float:
    """Linear warm-up over a twentieth of the budget, then linear decay: both contestants end annealed."""
    progress = elapsed / budget
    return lr * min(1.0, progress / 0.05 + 0.02) * max(0.02, 1 - max(0.0, progress - 0.05) / 0.95)


def train(name: str, seed: int, lr: float, options: argparse.Namespace) -> dict[str, Any]:
    """One run: [{seconds, steps, psnr}] at equal parts of the budget."""
    torch.manual_seed(seed)
    model, noise = built(name).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    judged = held_out(options.shards, options.held_out)
    elapsed, steps, points = 0.0, 0, [{"seconds": 0.0, "steps": 0, "psnr": psnr(model, judged)}]
    for clips in clips_of(options.shards, seed, options.batch_size):
        start = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = rate(elapsed, options.seconds, lr)
        decoded, kl = model(clips, noise)
        error = decoded - clips
        loss = error.square().mean() + 0.1 * error.abs().mean() + KL * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        elapsed, steps = elapsed + time.process_time() - start, steps + 1
        if elapsed >= options.seconds * len(points) / options.points:
            points.append({"seconds": round(elapsed, 1), "steps": steps, "psnr": psnr(model, judged)})
            print(f"{name} seed {seed} lr {lr:g}: {points[-1]}", flush=True)
        if elapsed >= options.seconds:
            break
    parameters = sum(p.numel() for p in model.parameters())
    return {"name": name, "seed": seed, "lr": lr, "parameters": parameters, "curve": points}


def kept(name: str, seed: int, lr: float, options: argparse.Namespace) -> dict[str, Any]:
    """A run, read from its file if it is there."""
    file = options.out / "curves" / f"{name}_{seed}_{lr:g}_{options.seconds:g}s.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, train(name, seed, lr, options))
    return json.loads(file.read_text(encoding="utf-8"))


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A third of the budget for each learning rate of each contestant; the best one for all seeds."""
    runs = []
    short = argparse.Namespace(**{**vars(options), "seconds": options.seconds / 3})
    for name in options.contestants:
        tried = {lr: kept(name, 100, lr, short)["curve"][-1]["psnr"] for lr in options.lrs}
        print(f"{name}: PSNR by learning rate {tried}")
        best = max(tried, key=lambda lr: tried[lr])
        runs += [(name, seed, best) for seed in options.seeds]
    runs.sort(key=lambda run: run[1])  # seed by seed, so that the contestants take turns
    return [kept(*run, options) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--contestants",
        nargs=2,
        default=["fast", "wan_8x8x8"],
        help="ours, then Wan's: both at full width or both _third",
    )
    parser.add_argument("--shards", default="runs/toy/shards")
    parser.add_argument(
        "--seconds", type=float, default=600, help="processor time of each run's training steps"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--lrs", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=16, help="clips that are judged")
    parser.add_argument("--points", type=int, default=8, help="of each curve")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = compare(options)
    for name, group in itertools.groupby(
        sorted(runs, key=lambda run: run["name"]), key=lambda run: run["name"]
    ):
        ends = [run["curve"][-1]["psnr"] for run in group]
        print(f"{name}: {mean(ends):.2f} dB, seeds {', '.join(f'{end:.2f}' for end in ends)}")
    write_json(options.out / f"equal_time_{options.contestants[0]}.json", runs)


if __name__ == "__main__":
    main()
