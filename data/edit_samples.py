"""Edit pairs as samples: `mp4` is the video after the edit, `source.mp4` the one before, `txt` the instruction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np
from moviegen_data.edit_pairs import EditUnit, Pair, PairFile, formed, rng_of, toy_pair
from moviegen_data.entries import entries, json_bytes, span_of
from moviegen_data.files import file_sha256
from moviegen_data.masks import sam_masks
from moviegen_data.toyworld.painting import segmentation
from PIL import Image

from moviegen.media import Limits, MediaError, encode_video, probe, read_clip, read_image

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
TOY_LICENCE = ("Apache-2.0", "https://spdx.org/licenses/Apache-2.0.html", "none-needed")


def edit_sample(unit: EditUnit, limits: Limits, crf: float) -> dict[str, Any]:
    """The tar entries of one pair; MediaError names the rule that a bad file breaks."""
    pair = toy_pair(unit) if unit.pair is None else file_pair(unit, unit.pair, limits)
    sound, rate = pair.sound or (None, None)
    coded = {
        name: encode_video(np.ascontiguousarray(frames), pair.frame_rate or 1.0, sound, rate, crf)
        for name, frames in (("mp4", pair.after), ("source.mp4", pair.before))
    }
    record = _record(unit, pair, coded, crf)
    sample = entries(record, coded["mp4"], pair.instruction) | {"source.mp4": coded["source.mp4"]}
    return sample | ({"truth.json": json_bytes(pair.truth)} if pair.truth else {})


def _record(unit: EditUnit, pair: Pair, coded: dict[str, bytes], crf: float) -> dict[str, Any]:
    if unit.world is not None:
        origin: dict[str, Any] = {"toyworld": asdict(unit.world), "seed": unit.seed, "index": unit.index}
        origin |= {"edit": unit.form}
        source, (licence, url, consent) = json.dumps(origin, sort_keys=True), TOY_LICENCE
        files: dict[str, Any] = {"source_sha256": hashlib.sha256(source.encode()).hexdigest()}
        files |= {"source_file": None, "origin": origin}
    else:
        assert unit.pair is not None
        licence, url, consent = unit.licence
        files = {"source_sha256": file_sha256(unit.pair.before), "source_file": unit.pair.before.name}
    return {
        "key": unit.key,
        "sha256": hashlib.sha256(coded["mp4"]).hexdigest(),
        "before_sha256": hashlib.sha256(coded["source.mp4"]).hexdigest(),
        "source": unit.group,
        **files,
        "span": span_of(0, len(pair.after), pair.frame_rate),
        "split": unit.split,
        "fps": pair.frame_rate,
        "frames": len(pair.after),
        "height": pair.after.shape[1],
        "width": pair.after.shape[2],
        "sample_rate_hz": pair.sound[1] if pair.sound else None,
        "channels": 1 if pair.sound else 0,
        "licence": licence,
        "licence_url": url,
        "consent": consent,
        "edit": {"task": pair.task, "form": unit.form},
        "transforms": [{"op": unit.form}, {"op": "encode", "codec": "h264", "crf": crf}],
    }


def file_pair(unit: EditUnit, files: PairFile, limits: Limits) -> Pair:
    """A pair of files in the form and size that the unit asks for; both are cut alike, around the middle."""
    frames, height, width = unit.size
    if unit.form == "segment":
        return _segmented(unit, files, limits)
    still = files.before.suffix.lower() in PICTURES
    if still != (files.after.suffix.lower() in PICTURES):
        raise MediaError(
            files.after, f"is no pair with {files.before.name}: one is a picture, one a video", "pair"
        )
    if still:
        before, after = (read_image(path, limits)[None] for path in (files.before, files.after))
    else:
        _same_form(files, limits)
        before, after = (
            read_clip(path, 0, frames, limits=limits, frame_rate=unit.frame_rate).frames
            for path in (files.before, files.after)
        )
    if before.shape != after.shape:
        sizes = " and ".join(f"{one.shape[2]}x{one.shape[1]}" for one in (before, after))
        raise MediaError(files.after, f"is not of the size of {files.before.name}: {sizes} pixels", "pair")
    before, after = (_fitted(one, height, width) for one in (before, after))
    rate = 0.0 if still else unit.frame_rate
    if unit.form != "video":
        (before, after), rate = formed(before, after, unit, rng_of(unit))
    return Pair(before, after, rate, files.instruction, files.task)


def _segmented(unit: EditUnit, files: PairFile, limits: Limits) -> Pair:
    """A video and the same with the named thing painted over; MediaError where it is not seen."""
    assert unit.finders is not None
    count, height, width = unit.size
    frames = read_clip(files.before, 0, count, limits=limits, frame_rate=unit.frame_rate).frames
    frames = _fitted(frames, height, width)
    mask = sam_masks(*unit.finders).find(frames, files.instruction)
    if mask is None or not mask.any():
        raise MediaError(files.before, f"shows no {files.instruction} that the detector finds", "no object")
    after, instruction = segmentation(frames, mask, files.instruction, rng_of(unit))
    return Pair(frames, after, unit.frame_rate, instruction, "segment")


def _same_form(files: PairFile, limits: Limits) -> None:
    """MediaError where two videos do not run side by side."""
    before, after = probe(files.before, limits), probe(files.after, limits)
    if abs(before.frame_rate - after.frame_rate) > 1e-3 * before.frame_rate:
        rates = f"{before.frame_rate:g} and {after.frame_rate:g} frames/s"
        raise MediaError(files.after, f"is not of the rate of {files.before.name}: {rates}", "pair")


def _fitted(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames scaled until they cover the size, and their middle."""
    scale = max(height / frames.shape[1], width / frames.shape[2])
    size = (max(width, round(frames.shape[2] * scale)), max(height, round(frames.shape[1] * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    return np.stack([np.asarray(one.crop((left, top, left + width, top + height))) for one in resized])
