"""Clips through one codec and back, for `moviegen eval codec`, which runs this module as a process of its own.

    python -m moviegen.roundtrip job.json

reads `Job` and writes `<out>/<key>.npy` (uint8 [T, H, W, 3]) for each clip and, last, `<out>/result.json`. What is
wrong with the job ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moviegen import interrupts
from moviegen.codec.seams import compare_tiled, tiled_reconstruction
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.codec.tiling import Tiling
from moviegen.media import atomic_path
from moviegen.modelfile import DTYPES, Dtype, any_codec
from moviegen.pixels import from_uint8, to_uint8
from moviegen.runfolder import write_json
from moviegen.types import VideoClip

RESULT = "result.json"
LOADER = "moviegen.modelfile.load_codec"  # of a node that reads a model on disk


@dataclass(frozen=True)
class Job:
    """What to reconstruct, and how."""

    codec: Any  # a model on disk (path without suffix), or a `_target_` node
    clips: list[dict[str, Any]]  # key, path of uint8 [T, H, W, 3] npy, frame_rate
    out: str
    seam_clips: list[str]  # keys of the clips that also go through tiled and whole
    tiling: dict[str, Any]  # the fields of `Tiling`
    max_whole_frames: int  # clips longer than this are reconstructed in tiles
    device: str = "cpu"
    precision: Dtype = "float32"
    num_threads: int | None = None
    seed: int = 0  # of random weights


def run(job: Job) -> dict[str, Any]:
    """Reconstruct all clips of a job; returns what `result.json` holds.

    Raises ValueError for a codec that cannot be built or clips that it does not take.
    """
    if job.num_threads:
        torch.set_num_threads(job.num_threads)
    torch.manual_seed(job.seed)
    codec, tiling, out = any_codec(job.codec).to(job.device).eval(), Tiling(**job.tiling), Path(job.out)
    # Smaller tiles than the codec's own factors allow would be refused in the middle of the work.
    tiling.check(codec.spatial_factor, codec.temporal_factor)
    out.mkdir(parents=True, exist_ok=True)
    seams, seconds, num_pixels = {}, 0.0, 0
    for item in job.clips:
        clip = _load(item, job.device)
        with torch.autocast(job.device.split(":")[0], DTYPES[job.precision], job.precision != "float32"):
            begin = time.perf_counter()
            pixels = to_uint8(_reconstruct(codec, clip, tiling, job.max_whole_frames))
            seconds += time.perf_counter() - begin
            if item["key"] in job.seam_clips:
                seams[item["key"]] = asdict(compare_tiled(codec, clip, tiling))
        num_pixels += clip.frames[0, 0].numel()
        with atomic_path(out / f"{item['key']}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, pixels, allow_pickle=False)
    result = _describe(codec, job) | {"seconds": seconds, "num_pixels": num_pixels, "seams": seams}
    write_json(out / RESULT, result)
    return result


def _load(item: dict[str, Any], device: str) -> VideoClip:
    frames = from_uint8(np.load(item["path"], allow_pickle=False))[None].to(device)
    return VideoClip(frames, torch.tensor([float(item["frame_rate"])], device=device))


@torch.no_grad()
def _reconstruct(codec: Any, clip: VideoClip, tiling: Tiling, max_whole_frames: int) -> torch.Tensor:
    num_frames = clip.frames.shape[2]
    if num_frames > max_whole_frames:
        return tiled_reconstruction(codec, clip, tiling)[0]
    return codec.decode(codec.encode(clip), num_frames).frames[0]


def _describe(codec: Any, job: Job) -> dict[str, Any]:
    return {
        "codec": str(getattr(codec, "kind", type(codec).__name__)),
        "random_weights": _is_random(codec, job.codec),
        "latent_channels": codec.latent_channels,
        "spatial_factor": codec.spatial_factor,
        "temporal_factor": codec.temporal_factor,
        "num_parameters": sum(p.numel() for p in codec.parameters()),
        "weights": getattr(codec, "weights", []),
    }


def _is_random(codec: Any, given: Any) -> bool:
    """Whether no weights were read: a public codec says so; ours was built of settings, not from a model on disk."""
    loaded = isinstance(given, str) or given.get("_target_") == LOADER
    return bool(getattr(codec, "random", isinstance(codec, TemporalAutoencoder) and not loaded))


def main(argv: list[str]) -> int:
    """Run the job of a json file; exit code 0, or 2 for what is wrong with it."""
    try:
        with interrupts.terminable():
            run(Job(**json.loads(Path(argv[0]).read_text(encoding="utf-8"))))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
