"""Pictures of the toy world with short captions, of at most 77 tokens, and with long ones of about 140.

A picture is the middle frame of a clip. Both captions begin with the clip's own one and end with what stands where; the
long ones have many words between, so that whoever stops reading at 77 tokens knows what there is, and not where.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import webdataset

from moviegen.data.shards import Shard, ShardFolder
from moviegen.fields import decode_record
from moviegen.media import decode_video, encode_video
from moviegen.runfolder import file_sha256, write_json

CRF = 14.0  # H.264 quality, as of `moviegen data build`
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
BETWEEN = (
    "what is seen here is one single picture from the very middle of a short clip, a square of sixty four "
    "pixels on each side, without any writing in it. there is nothing else in it but what was named before, "
    "each thing in one even color and with a clear edge. where everything stands is told at the end, with the "
    "width of the picture cut into eight columns from left to right, and its height cut into eight rows from "
    "top to bottom."
)


def with_places(caption: str, truth: dict[str, Any], long: bool) -> str:
    """The caption of a clip with the places of its sprites in the middle frame behind it, or far behind it."""
    places = [_place(sprite, truth) for sprite in truth["sprites"]]
    return " ".join([caption, *([BETWEEN] if long else []), *places])


def _place(sprite: dict[str, Any], truth: dict[str, Any]) -> str:
    x, y = sprite["centers"][truth["num_frames"] // 2]
    column, row = (
        PLACES[min(max(int(value * 8 / side), 0), 7)]
        for value, side in ((x, truth["width"]), (y, truth["height"]))
    )
    return f"the {sprite['color']} {sprite['shape']} is in the {column} column and in the {row} row."


def write_pictures(shards: Path, out: Path, long: bool) -> None:
    """Shards of the middle frames of toyworld clips, with short captions or with long ones; finished ones stay."""
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for shard in ShardFolder(str(shards)).shards:
        target, part = out / shard.path.name, out / f".{shard.path.name}.part"
        if not target.exists():
            with part.open("wb") as file, webdataset.TarWriter(file) as writer:
                for row in range(len(shard)):
                    writer.write(_sample(shard, row, long))
            part.replace(target)
        own = {"name": target.name, "split": shard.split, "num_samples": len(shard), "frames": 1, "fps": 0.0}
        size = {name: shard.record[name] for name in ("height", "width")}
        records.append(own | size | {"sha256": file_sha256(target)})
    write_json(out / "index.json", {"captions": "long" if long else "short", "shards": records})


def _sample(shard: Shard, row: int, long: bool) -> dict[str, Any]:
    sample = shard.read(row, ("mp4", "txt", "json", "truth.json"))
    frames, _ = decode_video(sample.files["mp4"])
    caption = sample.files["txt"].decode().strip()
    text = with_places(caption, json.loads(sample.files["truth.json"]), long)
    record = decode_record(sample.files["json"]) | {"frames": 1, "fps": 0.0}
    middle = len(frames) // 2
    return {
        "__key__": sample.key,
        "mp4": encode_video(frames[middle : middle + 1], 1.0, crf=CRF),
        "txt": text,
        "json": json.dumps(record).encode(),
    }
