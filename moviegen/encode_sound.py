"""Sound in `moviegen encode`: latents of the sound tracks, structured captions, and the pictures that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from moviegen.codec.audio import AudioAutoencoder
from moviegen.conditioning.sound_caption import SoundCaption
from moviegen.conditioning.text import Encoder
from moviegen.data.shards import Sample, Shard
from moviegen.fields import decode_record, decode_text
from moviegen.media import decode_audio, decode_video, encode_video, resample_audio
from moviegen.media.loudness import silence_share
from moviegen.types import AudioClip

CRF = 14.0  # H.264 quality of joined clips, as of `moviegen data build`
BLACK = np.zeros((1, 32, 32, 3), np.uint8)  # the picture beside sound alone, which a generator takes for none


def sound_samples(
    shard: Shard,
    rows: list[int],
    codec: AudioAutoencoder,
    encoder: Encoder,
    join: int,
    max_silence: float | None = None,
) -> Iterator[tuple[dict[str, Any], int]]:
    """Samples of a new shard, each with how many tokens its caption lost at the encoder's limit.

    With `join` above 1 so many successive clips become one, cut to cut. Beside sound alone stands a black picture.

    Clips without sound are left out, those whose share of silence is above `max_silence`, and those that a joined
    sample would not be filled with.
    """
    heard = [row for row in rows if has_sound(shard, row) and not is_silent(shard, row, max_silence)]
    files = (_kind(shard), "json", "txt")
    for first in range(0, len(heard) - join + 1, join):
        yield _sample([shard.read(row, files) for row in heard[first : first + join]], codec, encoder)


def size_of(shard: Shard, join: int) -> dict[str, int]:
    """Frames, height and width of the new samples, as far as the shard's own record says them."""
    if _kind(shard) == "flac":
        return {"frames": 1, "height": BLACK.shape[1], "width": BLACK.shape[2]}
    return {"frames": shard.record["frames"] * join} if "frames" in shard.record else {}


def _kind(shard: Shard) -> str:
    """The file of a sample that holds its sound."""
    return "mp4" if "mp4" in (shard.table.dtype.names or ()) else "flac"


def has_sound(shard: Shard, row: int) -> bool:
    """Whether a sample's record says that it has a sound track."""
    return bool(decode_record(shard.read(row, ("json",)).files["json"]).get("channels"))


def is_silent(shard: Shard, row: int, max_silence: float | None) -> bool:
    """Whether more of a sample's sound is silent than may be."""
    return (
        max_silence is not None
        and silence_share(*decode_audio(shard.read(row, (_kind(shard),)).files[_kind(shard)])) > max_silence
    )


def _sample(parts: list[Sample], codec: AudioAutoencoder, encoder: Encoder) -> tuple[dict[str, Any], int]:
    records = [decode_record(part.files["json"]) for part in parts]
    texts = [decode_text(part.files["txt"]) for part in parts]
    rate = codec.sample_rate_hz
    kind = "mp4" if "mp4" in parts[0].files else "flac"
    sounds = [
        sound_of(part.files[kind], len_seconds(record) if kind == "mp4" else None, rate)
        for part, record in zip(parts, records, strict=True)
    ]
    clip = AudioClip(torch.from_numpy(np.concatenate(sounds, axis=1))[None], rate)
    with torch.no_grad():
        latent = codec.encode(clip).values[0]
    try:
        caption = SoundCaption.of(records[0], ", then ".join(texts)).text
    except ValueError as error:  # what a predictor of yours said
        raise ValueError(f"sample {parts[0].key}: {error}; see `sound` in its json") from None
    features, mask = encoder([caption])
    lost = max(0, encoder.lengths([caption])[0] - int(mask.sum()))
    record = records[0] | {"caption": caption, "joined": [part.key for part in parts]}
    record |= {"caption_tokens_cut": lost} if lost else {}
    if kind == "flac":
        video = encode_video(BLACK, 1.0, crf=CRF)
    elif len(parts) > 1:
        frames = np.concatenate([decode_video(part.files["mp4"])[0] for part in parts])
        record["frames"] = len(frames)
        video = encode_video(frames, record["fps"], crf=CRF)
    else:
        video = parts[0].files["mp4"]
    sample = {
        "__key__": parts[0].key,
        "latent.npy": latent.float().numpy(),
        "text.npy": features[0][mask[0]].numpy(),
        "txt": caption.encode(),
        "mp4": video,
        "json": json.dumps(record, ensure_ascii=False).encode(),
    }
    return sample, lost


def len_seconds(record: dict[str, Any]) -> float:
    """How long the pictures of a sample last."""
    return record["frames"] / record["fps"]


def sound_of(data: bytes, seconds: float | None, sample_rate_hz: int) -> np.ndarray:
    """The sound of a sample of our shards, mono float32 [1, N] of exactly so many seconds, where they are given."""
    sound, rate = decode_audio(data)
    sound = resample_audio(sound, rate, sample_rate_hz, 1)
    if seconds is None:
        return sound
    length = round(seconds * sample_rate_hz)
    return np.pad(sound[:, :length], ((0, 0), (0, max(0, length - sound.shape[1]))))
