"""`moviegen encode`: write latents and text features of shards into new shards, so that training reads them.

The codec and the text encoder run once; a generator's data module reads the new folder instead of the old one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm
from webdataset.writer import TarWriter

from moviegen import runfolder
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.text import TextEncoder
from moviegen.config import UserError, build, check_least
from moviegen.data.shards import Shard, ShardFolder
from moviegen.fields import VIDEO
from moviegen.modelfile import Dtype, load_codec, locate


@dataclass(frozen=True)
class EncodeConfig:
    """The keys of conf/encode.yaml, which says what they are."""

    run_dir: Path
    shards: str
    model: str
    encoder: str
    match: str = "*"
    max_tokens: int = 64
    batch_size: int = 16
    precision: Dtype = "bfloat16"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, max_tokens=1, batch_size=1, num_threads=1)


def encode(cfg: DictConfig) -> None:
    """Encode every shard of `shards` whose name matches into `run_dir`; finished shards are kept.

    Raises UserError where nothing matches or a model is missing.
    """
    config: EncodeConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    out = config.run_dir
    shards = [shard for shard in ShardFolder(config.shards).shards if fnmatch(shard.path.name, config.match)]
    if not shards:
        raise UserError(f"{config.shards}: no shard is named like {config.match!r}")
    weights = runfolder.file_sha256(
        locate(config.model).with_name(locate(config.model).name + ".safetensors")
    )
    recipe = f"{weights} {config.encoder} {config.max_tokens} {config.precision}"
    codec, encoder = load_codec(config.model), TextEncoder(config.encoder, config.max_tokens)
    out.mkdir(parents=True, exist_ok=True)
    records = []
    with tqdm(total=sum(len(shard) for shard in shards), desc="encode", unit="clip") as progress:
        for shard in shards:
            stamp = hashlib.sha256(f"{recipe} {shard.sha256} {shard.path.name}".encode()).hexdigest()
            records.append(_encode_shard(shard, out, stamp, codec, encoder, config))
            progress.update(len(shard))
    runfolder.record(out, cfg, shards=[config.shards])
    runfolder.write_json(out / "index.json", {"recipe": recipe, "shards": records})


def _encode_shard(
    shard: Shard,
    out: Path,
    stamp: str,
    codec: TemporalAutoencoder,
    encoder: TextEncoder,
    config: EncodeConfig,
) -> dict[str, Any]:
    """Write one tar under a temporary name, then its record; return the record."""
    target, note = out / shard.path.name, out / f"{shard.path.name}.json"
    if target.is_file() and note.is_file() and runfolder.read_json(note).get("stamp") == stamp:
        return runfolder.read_json(note)
    temporary = out / f".{shard.path.name}.part"
    count = 0
    try:
        with temporary.open("wb") as file, TarWriter(file) as writer:
            for sample in _samples(shard, codec, encoder, config):
                writer.write(sample)
                count += 1
            file.flush()
        os.replace(temporary, target)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)
    record = {k: v for k, v in shard.record.items() if k not in ("sha256", "num_samples")}
    record |= {"name": target.name, "split": shard.split, "num_samples": count, "stamp": stamp}
    record["sha256"] = runfolder.file_sha256(target)
    runfolder.write_json(note, record)
    return record


def _samples(
    shard: Shard, codec: TemporalAutoencoder, encoder: TextEncoder, config: EncodeConfig
) -> Iterator[dict[str, Any]]:
    """Samples of the new shard; one without a caption is left out, since it cannot train a generator."""
    suffixes = [name for name in ("mp4", "json", "txt") if name in (shard.table.dtype.names or ())]
    if "txt" not in suffixes:
        raise UserError(f"{shard.path}: no sample has a caption (.txt); a generator needs them")
    for first in range(0, len(shard), config.batch_size):
        rows = range(first, min(first + config.batch_size, len(shard)))
        captioned = [row for row in rows if shard.table["txt"][row][0] >= 0]
        files = [shard.read(row, suffixes) for row in captioned]
        if not files:
            continue
        clip = VIDEO.collate([VIDEO.decode(sample.files["mp4"]) for sample in files])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            latents = codec.encode(clip).values
        features, mask = encoder([sample.files["txt"].decode() for sample in files])
        for sample, latent, tokens, used in zip(files, latents, features, mask, strict=True):
            yield {
                "__key__": sample.key,
                "latent.npy": _npy(latent.float().numpy()),
                "text.npy": _npy(tokens[used].numpy()),
                "txt": sample.files["txt"],
                "json": sample.files["json"],
            }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()
