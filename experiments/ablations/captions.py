"""Captions of the toy world without their motion: what one sees in single frames. Latents stay as they are."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import webdataset
from moviegen_data.toyworld.words import CAMERA_WORDS, INTERACTION_WORDS, MOTION_WORDS, TURNS

from moviegen.conditioning.text import TextEncoder
from moviegen.data.shards import Shard, ShardFolder
from moviegen.runfolder import file_sha256, write_json

DIRECTION = r"(?:left|right|up|down)"


def _alternatives(words: dict[str, tuple[str, ...]]) -> str:
    """A pattern for any of the phrases, longer ones first."""
    phrases = sorted((phrase for group in words.values() for phrase in group), key=len, reverse=True)
    return "|".join(re.escape(phrase) for phrase in phrases)


def _interactions() -> list[re.Pattern[str]]:
    phrases = sorted((p for group in INTERACTION_WORDS.values() for p in group), key=len, reverse=True)
    patterns = (
        re.escape(p).replace(r"\{b\}", r"(an? \w+ \w+ \w+)").replace(r"\{direction\}", DIRECTION)
        for p in phrases
    )
    return [re.compile(pattern) for pattern in patterns]


INTERACTIONS = _interactions()
MOTION = re.compile(rf" (?:{_alternatives(MOTION_WORDS)})(?: (?:{'|'.join(TURNS)}))?(?=[ ,.])")
CAMERA = re.compile(_alternatives(CAMERA_WORDS))


def without_motion(caption: str) -> str:
    """A training caption without what sprites and the camera do."""
    for pattern in INTERACTIONS:
        caption = pattern.sub(r"and \1", caption)
    caption = MOTION.sub("", CAMERA.sub("", caption))  # the camera first: it "does not move" either
    caption = re.sub(r"^\s*: ", "", caption)  # the camera stood first
    caption = re.sub(r"\. ?,(?= and)", ",", caption)
    return re.sub(r"[ ,.]+$", "", caption).strip() + "."


def rewrite(latents: Path, out: Path, encoder: str, max_tokens: int, match: str = "train-*") -> int:
    """Copy shards of cached latents with the captions, and their text features, of still pictures.

    Returns how many captions were written; finished shards are kept. Shards that `match` leaves out (held-out clips)
    are linked as they are, so that both arms are validated alike.
    """
    out.mkdir(parents=True, exist_ok=True)
    encode, count, records = TextEncoder(encoder, max_tokens), 0, []
    for shard in ShardFolder(str(latents)).shards:
        target, part = out / shard.path.name, out / f".{shard.path.name}.part"
        if shard.path.match(match) and not target.exists():
            with part.open("wb") as file, webdataset.TarWriter(file) as writer:
                for row in range(len(shard)):
                    writer.write(_sample(shard, row, encode))
                    count += 1
            part.replace(target)
        elif not target.exists():
            target.symlink_to(shard.path.resolve())
        own = {
            "name": target.name,
            "split": shard.split,
            "num_samples": len(shard),
            "sha256": file_sha256(target),
        }
        records.append(shard.record | own)
    write_json(out / "index.json", {"captions": "without motion", "shards": records})
    return count


def _sample(shard: Shard, row: int, encode: TextEncoder) -> dict[str, bytes | str]:
    sample = shard.read(row, ("latent.npy", "txt", "json"))
    caption = without_motion(sample.files["txt"].decode())
    features, mask = encode([caption])
    buffer = io.BytesIO()
    np.save(buffer, features[0][mask[0]].numpy().astype(np.float16), allow_pickle=False)
    return {
        "__key__": sample.key,
        "latent.npy": sample.files["latent.npy"],
        "text.npy": buffer.getvalue(),
        "txt": caption.encode(),
        "json": sample.files["json"],
    }
