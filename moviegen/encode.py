"""`moviegen encode`: write latents and text features of shards into new shards, so that training reads them.

The codec and the text encoder run once; a generator's data module reads the new folder instead of the old one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm
from webdataset.writer import TarWriter

from moviegen import runfolder, unfinished
from moviegen.codec.audio import AudioAutoencoder
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.codec.tiling import Tiling, encoded
from moviegen.conditioning.identity import FACES
from moviegen.conditioning.text import Text, TextCondition
from moviegen.config import UserError, build, check_least
from moviegen.data.shards import KEY, Sample, Shard, ShardFolder
from moviegen.encode_sound import size_of, sound_samples
from moviegen.fields import VIDEO, decode_record, features_suffix
from moviegen.latents import codec_note, features_note
from moviegen.media.base import write_error
from moviegen.modelfile import Dtype, load_codec, load_task, locate
from moviegen.provenance.consent import ConsentStore, people_in_shards
from moviegen.types import VideoClip


@dataclass(frozen=True)
class EncodeConfig:
    """The keys of conf/encode.yaml, which says what they are."""

    run_dir: Path
    shards: str
    model: str
    encoder: str
    text: Callable[..., TextCondition] | None = None
    match: str = "*"
    max_tokens: int = 64
    frame_rate_prefix: bool = False
    frames: tuple[int, ...] = ()
    tiling: Tiling = field(default_factory=Tiling)
    join: int = 1
    max_silence: float | None = None
    carry: tuple[str, ...] = ()
    store: Path = Path("consents")
    batch_size: int = 16
    precision: Dtype = "bfloat16"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, max_tokens=1, join=1, batch_size=1, num_threads=1)


def encode(cfg: DictConfig) -> None:
    """Encode every shard of `shards` whose name matches into `run_dir`; finished shards are kept.

    Raises UserError or ValueError where nothing matches, no sample has a caption, a model is missing, or faces are
    to be carried for which there is no consent.
    """
    config: EncodeConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    out = config.run_dir
    consents = _consents(config)
    codec = _codec(config)
    shards = _shards(config, codec)
    bare = {shard.path.name: len(shard) - len(_captioned(shard)) for shard in shards}
    if sum(bare.values()) == sum(len(shard) for shard in shards):
        raise UserError(
            f"{config.shards}: no sample of {config.match!r} has a caption (.txt); a generator needs them"
        )
    text = _loaded_text(config, codec)
    recipe = _recipe(config, text)
    out.mkdir(parents=True, exist_ok=True)
    stamps = [
        hashlib.sha256(f"{recipe} {shard.content()} {shard.path.name}".encode()).hexdigest()
        for shard in shards
    ]
    known = [_finished(shard, out, stamp) for shard, stamp in zip(shards, stamps, strict=True)]
    if None in known or not (out / unfinished.INDEX).is_file():
        unfinished.begin(out)
    records = []
    with tqdm(total=sum(len(shard) for shard in shards), desc="encode", unit="clip") as progress:
        for shard, stamp, record in zip(shards, stamps, known, strict=True):
            records.append(record or _encode_shard(shard, out, stamp, codec, text, config))
            progress.update(len(shard))
    runfolder.record(out, cfg, shards=[config.shards])
    full = [record for record in records if record["num_samples"]]
    made_by = codec_note(config.model) | features_note(text) | {"recipe": recipe}
    runfolder.write_json(out / "index.json", made_by | {"shards": full})
    runfolder.write_json(out / "outcomes.json", {"files": _left_out(Path(config.shards), shards)})
    unfinished.end(out)
    for consent in consents:
        digest = runfolder.file_sha256(out / "index.json")
        ConsentStore(config.store).record_use(consent, "shards", out / "index.json", digest)
    if any(bare.values()):
        names = ", ".join(f"{name} {count}" for name, count in bare.items() if count)
        print(f"{sum(bare.values())} samples without a caption were left out: {names}")
    if num_cut := sum(record.get("captions_cut", 0) for record in records):
        limits = ", ".join(f"{name or 'max_tokens'}={one.max_tokens}" for name, one in text.encoders.items())
        print(f"{num_cut} captions were longer than {limits} and cut there: caption_tokens_cut in their json")


def _shards(config: EncodeConfig, codec: TemporalAutoencoder | AudioAutoencoder) -> list[Shard]:
    """The shards that match and hold what the codec codes; UserError where none does, with what one of them holds."""
    named = [shard for shard in ShardFolder(config.shards).shards if fnmatch(shard.path.name, config.match)]
    kinds = ("mp4", "flac") if isinstance(codec, AudioAutoencoder) else ("mp4",)
    shards = [shard for shard in named if {*kinds} & set(shard.table.dtype.names or ())]
    if shards:
        return shards
    what = "videos or sounds" if "flac" in kinds else "videos"
    lacks = ""
    if named:
        held = ", ".join(f".{suffix}" for suffix in (named[0].table.dtype.names or ()) if suffix != KEY)
        wanted = " or ".join(f".{kind}" for kind in kinds)
        lacks = f"; {named[0].path.name} holds {held} and no {wanted}: give shards of moviegen data build"
    raise UserError(f"{config.shards}: no shard of {what} is named like {config.match!r}{lacks}")


def _recipe(config: EncodeConfig, text: TextCondition) -> str:
    """All that the written features depend on, beside the shards."""
    weights = runfolder.file_sha256(
        locate(config.model).with_name(locate(config.model).name + ".safetensors")
    )
    recipe = f"{weights} {config.precision} text {text_recipe(text)} tiling {config.tiling}"
    recipe += f" frames {list(config.frames)}" if config.frames else ""
    recipe += f" join {config.join}" if config.join > 1 else ""
    recipe += f" max_silence {config.max_silence}" if config.max_silence is not None else ""
    recipe += f" carry {list(config.carry)}" if config.carry else ""
    return recipe


def text_recipe(text: TextCondition) -> str:
    """What features of texts depend on beside the texts: the settings and the content of their encoders."""
    return json.dumps(text.feature_settings(), sort_keys=True)


def _text(config: EncodeConfig) -> TextCondition:
    """What reads the captions: the condition that `text` describes, or a single encoder; its width does not matter."""
    if config.text is not None:
        return config.text(dim=1)
    return Text(1, config.encoder, config.max_tokens, frame_rate_prefix=config.frame_rate_prefix)


def _loaded_text(config: EncodeConfig, codec: TemporalAutoencoder | AudioAutoencoder) -> TextCondition:
    """What reads the captions, its encoders read from their folders; UserError where the codec takes no several."""
    text = _text(config)
    if isinstance(codec, AudioAutoencoder) and not isinstance(text, Text):
        raise UserError(
            f"{config.model} is a codec of sound, whose text has one encoder; leave text=... away"
        )
    for encoder in text.encoders.values():
        encoder.loaded()
    return text


def _codec(config: EncodeConfig) -> TemporalAutoencoder | AudioAutoencoder:
    """The codec of video or of sound; raises UserError or ValueError for settings that it does not take."""
    codec = getattr(load_task(config.model), "codec", None)
    if isinstance(codec, AudioAutoencoder):
        if config.frames or config.frame_rate_prefix or config.tiling != Tiling():
            raise UserError(
                f"{config.model} is a codec of sound: frames, frame_rate_prefix and tiling are for video"
            )
        return codec.requires_grad_(False).eval()
    if config.join > 1 or config.max_silence is not None:
        raise UserError(f"join and max_silence are for sound, and {config.model} is no codec of sound")
    codec = load_codec(config.model)
    config.tiling.check(codec.spatial_factor, codec.temporal_factor)
    return codec


def _consents(config: EncodeConfig) -> list[str]:
    """Ids of the records that allow faces of people to be copied, where `carry` names them; ConsentError without."""
    if FACES.suffix not in config.carry:
        return []
    found, store = sorted(people_in_shards([config.shards])), ConsentStore(config.store)
    for consent in found:
        store.valid(consent, "training")
    return found


def _finished(shard: Shard, out: Path, stamp: str) -> dict[str, Any] | None:
    """The record of a shard that was encoded in this way before; None where it has to be."""
    target, note = out / shard.path.name, out / f"{shard.path.name}.json"
    known = runfolder.read_json(note) if note.is_file() else {}
    found = known.get("stamp") == stamp and (target.is_file() or not known["num_samples"])
    return known if found else None


def _encode_shard(
    shard: Shard,
    out: Path,
    stamp: str,
    codec: TemporalAutoencoder | AudioAutoencoder,
    text: TextCondition,
    config: EncodeConfig,
) -> dict[str, Any]:
    """Write one tar under a temporary name, then its record; return the record. No tar without samples."""
    target, note = out / shard.path.name, out / f"{shard.path.name}.json"
    temporary = out / f".{shard.path.name}.part"
    count = num_cut = 0
    try:
        with temporary.open("wb") as file, TarWriter(file) as writer:
            if isinstance(codec, AudioAutoencoder):
                rows, encoder = _captioned(shard), text.encoders[""].loaded()
                samples = sound_samples(shard, rows, codec, encoder, config.join, config.max_silence)
            else:
                samples = _samples(shard, codec, text, config)
            for sample, tokens_cut in samples:
                writer.write({k: _npy(v) if isinstance(v, np.ndarray) else v for k, v in sample.items()})
                count += 1
                num_cut += tokens_cut > 0
            file.flush()
        note.unlink(missing_ok=True)  # of what was made before: it must not vouch for another tar
        if count:
            os.replace(temporary, target)  # noqa: PTH105
        else:
            target.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None:  # not of what is written here
            raise
        raise write_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    record = {k: v for k, v in shard.record.items() if k not in ("sha256", "num_samples")}
    record |= {"name": target.name, "split": shard.split, "num_samples": count, "stamp": stamp}
    record["captions_cut"] = num_cut
    if config.frames and (frames := record.get("frames")):
        record["coded_frames"] = _places(config.frames, frames)
    if isinstance(codec, AudioAutoencoder):
        record |= size_of(shard, config.join)
    record["sha256"] = runfolder.file_sha256(target) if count else None
    runfolder.write_json(note, record)
    return record


def _samples(
    shard: Shard, codec: TemporalAutoencoder, text: TextCondition, config: EncodeConfig
) -> Iterator[tuple[dict[str, Any], int]]:
    """Samples of the new shard, each with how many tokens its caption lost at the limit, at most, of an encoder.

    One without a caption is left out, since it cannot train a generator.
    """
    captioned = _captioned(shard)
    pairs = "source.mp4" in (shard.table.dtype.names or ())
    suffixes = ("mp4", "json", "txt", *config.carry, *(("source.mp4",) if pairs else ()))
    for first in range(0, len(captioned), config.batch_size):
        rows = captioned[first : first + config.batch_size]
        files = [shard.read(row, suffixes) for row in rows]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            coded = _coded(codec, files, "mp4", config.tiling, config.frames)
            before = _coded(codec, files, "source.mp4", config.tiling) if pairs else None
        read = text.captions
        captions = [read.decode(*(sample.files[suffix] for suffix in read.suffixes)) for sample in files]
        features, lost = text_features(captions, text)
        for row, (sample, (latent, alone, places)) in enumerate(zip(files, coded, strict=True)):
            record = decode_record(sample.files["json"]) | ({"coded_frames": places} if places else {})
            record |= {"caption_tokens_cut": lost[row]} if lost[row] else {}
            new = {
                "__key__": sample.key,
                "latent.npy": latent.float().numpy(),
                **{suffix: each[row] for suffix, each in features.items()},
                "txt": sample.files["txt"],
                "json": json.dumps(record, ensure_ascii=False).encode(),
                **({"frames.npy": alone.float().numpy()} if places else {}),
                **{suffix: sample.files[suffix] for suffix in config.carry},
                **({} if before is None else {"source.npy": before[row][0].float().numpy()}),
            }
            yield new, lost[row]


def text_features(prompts: list[str], text: TextCondition) -> tuple[dict[str, list[np.ndarray]], list[int]]:
    """Token features [L, D] of prompts, by the file that they go into, and what each prompt lost at a limit."""
    found: dict[str, list[np.ndarray]] = {}
    lost = [0] * len(prompts)
    for name, encoder in text.encoders.items():
        features, mask = encoder.features(prompts)
        pairs = zip(features, mask, strict=True)
        found[features_suffix(name)] = [tokens[used].numpy() for tokens, used in pairs]
        lengths = encoder.lengths(prompts)
        lost = [max(old, length - encoder.max_tokens) for old, length in zip(lost, lengths, strict=True)]
    return found, lost


def _coded(
    codec: TemporalAutoencoder,
    samples: list[Sample],
    suffix: str,
    tiling: Tiling,
    frames: tuple[int, ...] = (),
) -> list[tuple[torch.Tensor, torch.Tensor, list[int]]]:
    """Of each sample's clip the latent [C, t, h, w], those of single frames and their numbers, as `_coded_alone`."""
    found = []
    for clip in _clips(samples, suffix, tiling):
        latents = encoded(codec, [clip.frames], clip.frame_rate, tiling).values
        alone, places = _coded_alone(codec, clip, frames, tiling)
        found += [(*pair, places) for pair in zip(latents, alone, strict=True)]
    return found


def _clips(samples: list[Sample], suffix: str, tiling: Tiling) -> Iterator[VideoClip]:
    """The clips of some samples as one batch; one after another where they are larger than a tile, to save memory."""
    clips = (VIDEO.decode(sample.files[suffix]) for sample in samples)
    first = next(clips)
    if tiling.holds(*first[0].shape[:3]):
        yield VIDEO.collate([first, *clips])
    else:
        yield from (VIDEO.collate([clip]) for clip in chain([first], clips))


def _coded_alone(
    codec: TemporalAutoencoder, clip: VideoClip, frames: tuple[int, ...], tiling: Tiling
) -> tuple[torch.Tensor, list[int]]:
    """Latents [B, F, C, H, W] of single frames, each as a one-frame video, and their numbers; negative from the end.

    Raises UserError for a frame that a clip has not.
    """
    count = clip.frames.shape[2]
    if outside := [frame for frame in frames if not -count <= frame < count]:
        raise UserError(f"frames={list(frames)}: frame {outside[0]} is outside the clips of {count} frames")
    places = _places(frames, count)
    if not places:
        return clip.frames.new_empty(len(clip.frames), 0), places
    pictures = clip.frames[:, :, places].transpose(1, 2).flatten(0, 1)[:, :, None]
    latents = encoded(codec, [pictures], torch.zeros(len(pictures)), tiling).values[:, :, 0]
    return latents.unflatten(0, (-1, len(places))), places


def _places(frames: tuple[int, ...], count: int) -> list[int]:
    """Numbers of frames in a clip of `count`, each once; negative ones are from the end."""
    return sorted({frame % count for frame in frames})


def _left_out(source: Path, shards: list[Shard]) -> list[dict[str, Any]]:
    """What the build of these shards left out, as its outcomes.json says, and every sample without a caption."""
    file = source / "outcomes.json"
    files = runfolder.read_json(file).get("files", []) if file.is_file() else []
    lost = [one for one in files if one["result"] == "dropped" or one["spans_dropped"]]
    for shard in shards:
        for row in sorted({*range(len(shard))} - {*_captioned(shard)}):
            dropped = {
                "result": "dropped",
                "rule": "no caption",
                "detail": shard.path.name,
                "spans_dropped": {},
            }
            lost.append({"file": shard.key(row), **dropped})
    return lost


def _captioned(shard: Shard) -> list[int]:
    """Rows of the samples that have a caption."""
    if "txt" not in (shard.table.dtype.names or ()):
        return []
    return [row for row in range(len(shard)) if shard.table["txt"][row][0] >= 0]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()
