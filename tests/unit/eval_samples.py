"""A small judged job on disk, for the tests of judge and report: clips, reconstructions, shards and a log."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.world import ToyClip, World
from moviegen_eval.manifest import GeneratedSample, write_manifest
from moviegen_eval.pairs import ClipPair, Reconstruction, save_pair, write_reconstructions

from moviegen.media import encode_video, write_video

NUM_HELDOUT, NUM_TEMPLATE, NUM_FREE, NUM_PAIRS = 8, 4, 2, 4
PROMPT_WITH_MARKUP = '<script src="http://example.org/x.js">alert(1)</script> & a "red" star'


def softened(frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """A stand-in for a reconstruction, slightly blurred and noisy: uint8 [T, H, W, 3]."""
    clip = frames.astype(np.float64)
    mixed = 0.9 * clip + 0.05 * np.roll(clip, 1, axis=1) + 0.05 * np.roll(clip, 1, axis=2)
    noise = np.random.default_rng(seed).normal(0, 1, clip.shape)
    return np.clip(np.rint(mixed + noise), 0, 255).astype(np.uint8)


def write_job(root: Path) -> None:
    """Write gen/, rec/, shards/ and run/ under `root`."""
    heldout = World(WorldConfig(level=2, combos="heldout"))
    worded = World(WorldConfig(level=2, combos="all", template="heldout"))
    samples = [_sample(root, "heldout", index, heldout.render(5, index)) for index in range(NUM_HELDOUT)]
    samples += [_sample(root, "template", index, worded.render(6, index)) for index in range(NUM_TEMPLATE)]
    samples += [_sample(root, "free", index, heldout.render(7, index)) for index in range(NUM_FREE)]
    write_manifest(root / "gen", samples)
    _write_pairs(root / "rec", World(WorldConfig(level=2, combos="all")))
    (root / "shards").mkdir()
    world = World(WorldConfig(level=2))
    write_shard(root / "shards" / "train-toyworld-000000.tar", [world.render(1, i).frames for i in range(24)])
    write_shard(root / "shards" / "train-real-000000.tar", [_photo_like(3)])
    _write_run(root / "run")


def _sample(root: Path, name: str, index: int, clip: ToyClip) -> GeneratedSample:
    path = f"{name}-{index}.mp4"
    (root / "gen").mkdir(exist_ok=True)
    write_video(root / "gen" / path, clip.frames, clip.frame_rate)
    spec = None if name == "free" else clip.truth["spec"]
    prompt = PROMPT_WITH_MARKUP if name == "free" else clip.caption
    facts = {
        "system": "moviegen",
        "seed": 0,
        "steps": 25,
        "guidance": 4.0,
        "checkpoint": "t2v",
        "commit": "abc",
    }
    return GeneratedSample(
        id=f"{name}-{index}",
        prompt=prompt,
        path=path,
        set=name,
        spec=spec,
        frame_rate=clip.frame_rate,
        **facts,  # type: ignore[arg-type]
    )


def _write_pairs(folder: Path, world: World) -> None:
    records = []
    for index in range(NUM_PAIRS):
        clip, key = world.render(9, index), f"toy-{index}"
        path = save_pair(folder, key, ClipPair(clip.frames, softened(clip.frames), clip.frame_rate))
        records.append(Reconstruction(key, "toyworld", "toyworld", path, clip.caption, clip.truth["spec"]))
    for index in range(2):
        frames, key = _photo_like(10 + index), f"real-{index}"
        path = save_pair(folder, key, ClipPair(frames, softened(frames), 24.0))
        records.append(Reconstruction(key, "real", f"file {index}.mp4", path))
    write_reconstructions(folder, records)


def _photo_like(seed: int) -> np.ndarray:
    """A moving smooth random pattern of a size that 8 does not divide: uint8 [9, 44, 60, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 16, 3)).repeat(6, axis=0).repeat(6, axis=1)
    return np.stack([coarse[t : t + 44, t : t + 60] for t in range(9)]).astype(np.uint8)


def write_shard(path: Path, clips: list[np.ndarray]) -> None:
    """A tar of mp4 members with a caption beside each, as in real shards."""
    with tarfile.open(path, "w") as tar:
        for index, frames in enumerate(clips):
            for suffix, data in (("mp4", encode_video(frames, 8.0)), ("txt", b"a caption")):
                info = tarfile.TarInfo(f"{path.stem}-{index}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _write_run(folder: Path) -> None:
    (folder / "log").mkdir(parents=True)
    lines = ["epoch,step,train/loss,val/loss"]
    lines += [f"0,{step},{2 / (1 + step / 50)}," for step in range(0, 400, 10)]
    lines += [f"0,{step},,{2.1 / (1 + step / 50)}" for step in range(0, 400, 100)]
    (folder / "log" / "metrics.csv").write_text("\n".join(lines) + "\n")
    run = {
        "command": ["moviegen", "train"],
        "git": {"commit": "0123abc", "dirty": True},
        "packages": {"torch": "2"},
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.yaml").write_text("seed: 0\noptimizer:\n  lr: 0.001\n")


def judge_config(root: Path) -> dict:
    """A complete config of `judge` for a job that `write_job` wrote."""
    return {
        "out": str(root / "judged"),
        "generations": str(root / "gen"),
        "reconstructions": str(root / "rec"),
        "train_shards": str(root / "shards"),
        "level": 2,
        "runs": {"t2v": str(root / "run")},
        "csv_figures": [{"column": "val/loss", "take": "last", "unit": "loss", "higher_is_better": False}],
        "bars": {"tae/toyworld/psnr": "tae/toyworld/psnr_pca", "t2v/colour": 0.97, "t2v/unmeasured": 0.5},
        "bootstrap_count": 200,
        "shuffles": 20,
    }
