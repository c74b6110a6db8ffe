"""`moviegen sound shards`: sound for the clips of a split, alone or joined to long ones cut to cut, to be judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import media, runfolder
from moviegen.codec.audio import AudioAutoencoder, decode_long, encode_long
from moviegen.conditioning.sound_caption import SoundCaption
from moviegen.conditioning.video import Seen, VideoFeatures
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.data.shards import Sample, ShardFolder
from moviegen.encode_sound import has_sound, len_seconds, sound_of
from moviegen.fields import decode_record, decode_text
from moviegen.media import decode_video
from moviegen.modelfile import Dtype
from moviegen.pixels import from_uint8
from moviegen.sound import known_context, known_sound, named, sound_model
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.long_sound import SoundSampler, sample_sound
from moviegen.types import AudioClip

MANIFEST = "sounds.jsonl"


@dataclass(frozen=True)
class SoundShardsConfig:
    """The keys of conf/sound_shards.yaml, which says what they are."""

    run_dir: Path
    shards: str
    model: str
    sampler: SoundSampler
    split: str = "val"
    match: str = "*toyworld*"
    join: int = 1
    max_sounds: int | None = None
    batch_size: int = 16
    with_text: bool = True
    with_video: bool = True
    ceiling: bool = False
    keep: tuple[tuple[float, float], ...] = ()
    precision: Dtype = "float32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, join=1, max_sounds=1, batch_size=1, num_threads=1)
        for start, stop in self.keep:
            if not 0 <= start < stop:
                raise UserError(f"keep: {start} to {stop} s is no stretch of a sound")


def sound_shards(cfg: DictConfig) -> None:
    """Write `<key>.flac` for every clip (or every `join` of them) and sounds.jsonl, which names clips and seams.

    With `ceiling` also `<key>.ceiling.flac`, the clips' own sound after the model's codec: what it could make at most.

    Raises UserError where there is no clip, or clips of several lengths, or the model makes no sound.
    """
    config: SoundShardsConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    task, out = sound_model(config.model), config.run_dir
    groups = _groups(config)
    seconds = config.join * len_seconds(decode_record(groups[0][0].files["json"]))
    if config.keep:
        known_context(task)  # refuses a model that takes no known sound
    for start, stop in config.keep:
        if stop > seconds + 1e-6:
            raise UserError(f"keep: {start} to {stop} s is no stretch of sounds of {seconds:.2f} s")
    out.mkdir(parents=True, exist_ok=True)
    runfolder.record(out, cfg, shards=[config.shards])
    rows = []
    with tqdm(total=len(groups), desc="sound", unit="clip") as progress:
        for first in range(0, len(groups), config.batch_size):
            batch = groups[first : first + config.batch_size]
            rows += _make(task, batch, out, config)
            progress.update(len(batch))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with media.atomic_path(out / MANIFEST) as temporary:
        temporary.write_text(lines, encoding="utf-8")
    print(f"{out / MANIFEST}: {len(rows)} sounds")


def _groups(config: SoundShardsConfig) -> list[list[Sample]]:
    """Clips of one length and rate with a caption and a sound track, `join` at a time; UserError for any others."""
    found: list[Sample] = []
    for shard in ShardFolder(config.shards).shards:
        if shard.split != config.split or not fnmatch(shard.path.name, config.match):
            continue
        if not {"mp4", "txt"} <= set(shard.table.dtype.names or ()):
            continue
        rows = [row for row in range(len(shard)) if has_sound(shard, row)]
        found += [shard.read(row, ("mp4", "json", "txt")) for row in rows]
    if not found:
        raise UserError(
            f"{config.shards}: no clips of split {config.split!r} with sound match {config.match!r}"
        )
    records = [decode_record(sample.files["json"]) for sample in found]
    lengths = sorted({(record["frames"], record["fps"]) for record in records})
    if len(lengths) > 1:
        (few, slow), (many, fast) = lengths[0], lengths[-1]
        forms = f"{few} frames at {slow:g} a second and {many} at {fast:g}"
        raise UserError(
            f"{config.shards}: clips of {forms}; give clips of one length and rate with match=..."
        )
    return _turned(found, config.join)[: config.max_sounds]


def _turned(found: Sequence[Sample], join: int) -> list[list[Sample]]:
    """As many joined clips as there are clips: number i begins with clip i, and goes on in steps of its own."""
    steps = [step for step in range(1, len(found) + 1) if np.gcd(step, len(found)) == 1]
    return [
        [found[(i + k * steps[i % len(steps)]) % len(found)] for k in range(join)] for i in range(len(found))
    ]


def _make(
    task: FlowTask, batch: list[list[Sample]], out: Path, config: SoundShardsConfig
) -> list[dict[str, Any]]:
    records = [decode_record(group[0].files["json"]) for group in batch]
    seconds, codec = len_seconds(records[0]), task.codec
    num_samples = round(seconds * config.join * codec.sample_rate_hz)
    frames = codec.num_latents(num_samples)
    mask = np.zeros(frames, bool)  # of what is kept, the same in all
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        inputs, absent = _told(task, batch, records[0]["fps"], config)
        if config.keep:
            own = np.stack([_own(group, codec.sample_rate_hz) for group in batch])
            known = known_sound(codec, own, config.keep, frames)
            inputs[known_context(task)], mask = known, known.mask[0].numpy()
        keys = [f"{group[0].key}x{config.join}" if config.join > 1 else group[0].key for group in batch]
        numbers = torch.tensor([key_number(key) for key in keys])
        latent = sample_sound(task, inputs, numbers, frames, config.sampler, absent=absent)
        sounds = decode_long(codec, latent, num_samples).samples.float().numpy()
    rate = codec.latent_rate_hz
    stretches = _stretches(mask, rate)
    seams = _breaks(_seams(frames, config.sampler, rate), stretches, num_samples / codec.sample_rate_hz)
    rows = []
    for key, group, audio in zip(keys, batch, sounds, strict=True):
        media.write_flac(out / f"{key}.flac", audio, codec.sample_rate_hz)
        row = {"key": key, "file": f"{key}.flac", "clips": [part.key for part in group]}
        row |= {"clip_seconds": seconds, "seams": seams, "sampler": asdict(config.sampler)}
        if config.keep:
            row["kept_seconds"] = stretches
        if config.ceiling:
            row["ceiling"] = f"{key}.ceiling.flac"
            media.write_flac(out / row["ceiling"], _after_codec(group, codec), codec.sample_rate_hz)
        rows.append(row)
    return rows


def _told(
    task: FlowTask, batch: list[list[Sample]], rate: float, config: SoundShardsConfig
) -> tuple[dict[str, Any], frozenset[str]]:
    """Texts and what is seen of the pictures, and the names of the conditions that are left out."""
    texts = [", then ".join(decode_text(part.files["txt"]) for part in group[:2]) for group in batch]
    captions = [SoundCaption(text).text for text in texts]
    inputs: dict[str, Any] = {"text": task.conditioners.named()["text"].of_captions(captions)}
    eyes = named(task, VideoFeatures)
    if eyes is not None:
        extractor = task.conditioners.named()[eyes].extractor
        seen = [extractor(_pictures(group)) for group in batch]
        inputs[eyes] = Seen(torch.cat(seen), torch.full((len(batch),), float(rate)))
    given = (("text", config.with_text), (eyes, config.with_video))
    return inputs, frozenset(name for name, is_given in given if name and not is_given)


def _after_codec(group: list[Sample], codec: AudioAutoencoder) -> np.ndarray:
    """The sound [1, N] of clips that follow each other, through the codec and back."""
    clip = AudioClip(torch.from_numpy(_own(group, codec.sample_rate_hz))[None], codec.sample_rate_hz)
    return decode_long(codec, encode_long(codec, clip), clip.samples.shape[2]).samples[0].numpy()


def _own(group: list[Sample], rate_hz: int) -> np.ndarray:
    """The sound [1, N] of clips that follow each other."""
    parts = [
        sound_of(part.files["mp4"], len_seconds(decode_record(part.files["json"])), rate_hz) for part in group
    ]
    return np.concatenate(parts, axis=1)


def _pictures(group: list[Sample]) -> torch.Tensor:
    """The pictures [1, 3, T, H, W] of clips that follow each other."""
    frames = np.concatenate([decode_video(part.files["mp4"])[0] for part in group])
    return from_uint8(frames)[None]


def _seams(frames: int, sampler: SoundSampler, rate_hz: float) -> list[float]:
    """Where windows end or begin, in seconds."""
    if frames <= sampler.window:
        return []
    if sampler.method == "segments":
        return [place / rate_hz for place in range(sampler.window, frames, sampler.hop)]
    starts = [*range(0, frames - sampler.window, sampler.hop), frames - sampler.window]
    edges = {edge for start in starts for edge in (start, start + sampler.window)} - {0, frames}
    return [edge / rate_hz for edge in sorted(edges)]


def _stretches(mask: np.ndarray, rate_hz: float) -> list[list[float]]:
    """Where a mask [L] of latent frames holds, in seconds: whole frames, what touches as one stretch."""
    steps = np.diff(mask.astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    return [[float(a) / rate_hz, float(b) / rate_hz] for a, b in zip(starts, stops, strict=True)]


def _breaks(windows: Sequence[float], stretches: Sequence[Sequence[float]], seconds: float) -> list[float]:
    """Edges of windows, but for those within what is kept, and edges of what is kept; each once, in seconds."""
    inner = [one for one in windows if not any(start < one < stop for start, stop in stretches)]
    return sorted({*inner, *(edge for stretch in stretches for edge in stretch if 0 < edge < seconds)})
