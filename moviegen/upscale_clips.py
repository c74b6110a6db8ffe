"""`moviegen upscale clips`: what an upsampler makes of held-out clips, losslessly, for `moviegen eval upscale`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import runfolder
from moviegen.config import UserError, build, check_least
from moviegen.lineage import check_training
from moviegen.modelfile import weights_file
from moviegen.pixels import from_uint8, to_uint8
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.reconstruct import write_npz
from moviegen.tasks.upsample_task import UpsampleTask
from moviegen.tasks.upsampling import Upsampler, UpsamplerConfig
from moviegen.upscale import load_upsampler, text_inputs

CLIPS, ROWS, OWN = "clips.jsonl", "upscaled.jsonl", "upsampler"
FACTOR = 2
GRID = 8  # pixels: where a window of its own begins
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class UpscaleClipsConfig:
    """The keys of conf/upscale_clips.yaml, which says what they are."""

    run_dir: Path
    clips: Path
    model: str
    upsampler: UpsamplerConfig
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    apart: bool = True
    shown: int = 1
    crf: float = 18
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, shown=0, crf=0, num_threads=1)


def upscale_clips(cfg: DictConfig) -> None:
    """Write an npz a clip and upscaled.jsonl to run_dir, and marked files of the first `shown` of each set.

    Raises UserError or ValueError, before anything is written, for a folder without clips, a model that is no upsampler
    or that reads text, or windows that it cannot take.
    """
    config: UpscaleClipsConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    clips, out = _clips(config.clips), config.run_dir
    exporter = Exporter(config.marking, config.filters)
    check_training(config.model, ConsentStore(config.store))
    task = load_upsampler(config.model)
    text_inputs(task, None, 0.0)  # one that reads text has nothing to read here
    digest = runfolder.file_sha256(weights_file(config.model))
    rows, shown = [], dict.fromkeys((clip["set"] for clip in clips), config.shown)
    for clip in tqdm(clips, desc="upscale", unit="clip"):
        row, frames = _write(task, config, clip)
        if shown[clip["set"]] > 0:
            shown[clip["set"]] -= 1
            row["shown"] = f"{clip['name']}.mp4"
            settings = {"upsampler": asdict(config.upsampler), "crf": config.crf}
            given = (config.clips / clip["path"],)
            origin = Origin(config.model, digest, "", config.upsampler.seed, settings, given)
            made = Made(frames, clip["frame_rate"], crf=config.crf)
            exporter.export(out / row["shown"], made, origin, {"id": clip["name"], **settings})
        rows.append(row)
    runfolder.record(out, cfg)
    runfolder.write_text(out / ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{out / ROWS}: {len(rows)} clips, {sum(row['seconds'] for row in rows) / len(rows):.1f} s each")


def _write(
    task: UpsampleTask, config: UpscaleClipsConfig, clip: Mapping[str, Any]
) -> tuple[dict[str, Any], Frames]:
    """The npz of one clip; its line of upscaled.jsonl, and what the upsampler made."""
    name, low = clip["name"], _low(config.clips / clip["path"])
    began = time.monotonic()
    own = upsampled(task, config.upsampler, low)
    seconds = time.monotonic() - began
    others, alone_at = others_of(task, config.upsampler, low, config.apart)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    write_npz(config.run_dir / f"{name}.npz", {OWN: own, **others})
    row = {"name": name, "path": f"{name}.npz", "ways": [OWN, *others], "alone_at": alone_at}
    return row | {"seconds": seconds, "windows": windows_of(config.upsampler), "shown": None}, own


def upsampled(task: UpsampleTask, config: UpsamplerConfig, low: Frames) -> Frames:
    """Twice as large: uint8 [T, h, w, 3] to [T, 2 h, 2 w, 3]."""
    size = (FACTOR * low.shape[1], FACTOR * low.shape[2])
    frames = Upsampler(task, config, size, len(low))(from_uint8(low).unbind(1))
    return to_uint8(torch.stack(list(frames), dim=1))


def others_of(
    task: UpsampleTask, config: UpsamplerConfig, low: Frames, apart: bool
) -> tuple[dict[str, Frames], list[int]]:
    """What the judge holds against the whole, of low frames uint8 [T, h, w, 3], and top and left of `alone`.

    "windows apart" is the same model whose windows do not overlap, if `apart` is wanted. "alone" is one window in the
    middle, without its neighbours.
    """
    found = {}
    if apart:
        found["windows apart"] = upsampled(task, replace(config, overlap=0, tile_overlap=0), low)
    extents = [FACTOR * low.shape[axis] for axis in (1, 2)]
    sides = [min(extent, config.tile or extent) for extent in extents]
    at = [(extent - side) // 2 // GRID * GRID for extent, side in zip(extents, sides, strict=True)]
    rows, columns = (slice(n // FACTOR, (n + side) // FACTOR) for n, side in zip(at, sides, strict=True))
    found["alone"] = upsampled(task, replace(config, tile=None), low[: config.window, rows, columns])
    return found, at


def windows_of(config: UpsamplerConfig) -> dict[str, int | None]:
    """How a video is cut, for the judge to find the seams."""
    return {name: getattr(config, name) for name in ("window", "overlap", "tile", "tile_overlap")}


def _clips(folder: Path) -> list[dict[str, Any]]:
    path = folder / CLIPS
    if not path.is_file():
        raise UserError(f"{path} does not exist; `moviegen eval upscale_set out={folder}` writes it")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if not rows:
        raise UserError(f"{path}: names no clip")
    return rows


def _low(path: Path) -> Frames:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["low"]
