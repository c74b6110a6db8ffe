"""`moviegen reconstruct`: through the autoencoder and back, held-out clips of shards or a video file.

Clips of shards are kept losslessly beside their sources; a video file is streamed (reconstruct_video.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import media, runfolder
from moviegen.codec.base import VideoCodec
from moviegen.codec.tiling import Tiling
from moviegen.config import UserError, build, check_least
from moviegen.data.shards import Shard, ShardFolder
from moviegen.fields import VIDEO
from moviegen.modelfile import Dtype, any_codec
from moviegen.pixels import to_uint8
from moviegen.reconstruct_video import reconstruct_video


@dataclass(frozen=True)
class ReconstructConfig:
    """The keys of conf/reconstruct.yaml, which says what they are."""

    run_dir: Path
    codec: Any  # a model on disk, or a `_target_` node
    tiling: Tiling
    video: str | None = None
    shards: str | None = None
    split: str = "val"
    max_clips: int = 64
    specs: str | None = None
    crf: float = 18
    precision: Dtype = "float32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, max_clips=1, num_threads=1, crf=0)
        if (self.video is None) == (self.shards is None):
            given = "neither is" if self.video is None else "both are"
            raise UserError(f"give video=FILE or shards=FOLDER, one of the two; {given} given")


def reconstruct(cfg: DictConfig) -> None:
    """Write what goes through the codec, and back, to run_dir.

    Of shards `<key>.npz` (source and reconstruction, uint8 [T, H, W, 3]) and `reconstructions.jsonl`; of a video
    out.mp4 and side_by_side.mp4.
    """
    config: ReconstructConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    if config.video is None:
        _reconstruct_shards(config, cfg)
        return
    media.check_readable(config.video)  # before the codec takes its time
    codec, bfloat16 = any_codec(config.codec), config.precision == "bfloat16"
    config.tiling.check(codec.spatial_factor, codec.temporal_factor)
    reconstruct_video(config.video, config.run_dir, codec, config.tiling, config.crf, bfloat16)
    runfolder.record(config.run_dir, cfg)


def _reconstruct_shards(config: ReconstructConfig, cfg: DictConfig) -> None:
    assert config.shards is not None
    out, codec, specs = config.run_dir, any_codec(config.codec), _read_specs(config.specs)
    shards = [shard for shard in ShardFolder(config.shards).shards if shard.split == config.split]
    if not shards:
        raise UserError(f"{config.shards}: no shard of split {config.split!r}")
    out.mkdir(parents=True, exist_ok=True)
    rows, taken = [], dict.fromkeys((shard.path.name.rsplit("-", 1)[0] for shard in shards), 0)
    for shard in tqdm(shards, desc="reconstruct", unit="shard"):
        source = shard.path.name.rsplit("-", 1)[0]
        for row in range(min(len(shard), config.max_clips - taken[source])):
            taken[source] += 1
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                rows.append(_reconstruct_one(shard, row, codec, out, specs))
    runfolder.record(out, cfg, shards=[config.shards])
    runfolder.write_text(out / "reconstructions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _read_specs(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    rows = (json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line)
    return {row["key"]: row["spec"] for row in rows}


def _reconstruct_one(
    shard: Shard, row: int, codec: VideoCodec, out: Path, specs: dict[str, Any]
) -> dict[str, Any]:
    suffixes = [name for name in ("mp4", "json", "txt") if name in (shard.table.dtype.names or ())]
    sample = shard.read(row, [s for s in suffixes if s != "txt" or shard.table["txt"][row][0] >= 0])
    record = json.loads(sample.files["json"])
    clip = VIDEO.collate([VIDEO.decode(sample.files["mp4"])])
    with torch.no_grad():
        decoded = codec.decode(codec.encode(clip), clip.frames.shape[2])
    arrays = {
        "source": to_uint8(clip.frames[0]),
        "reconstruction": to_uint8(decoded.frames[0]),
        "frame_rate": np.float64(clip.frame_rate[0]),
    }
    write_npz(out / f"{sample.key}.npz", arrays)
    kind = "toyworld" if "toyworld" in shard.path.name else "real"
    return {
        "key": sample.key,
        "set": kind,
        "source_name": str(record.get("source_file") or record.get("source") or shard.path.name),
        "path": f"{sample.key}.npz",
        "caption": sample.files["txt"].decode().strip() if "txt" in sample.files else None,
        "spec": specs.get(sample.key),
    }


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write an npz file whole or not at all; raises UserError where it cannot be written."""
    temporary = path.with_name(f".{path.name}")
    try:
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path} ({reason}): make room and give the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
