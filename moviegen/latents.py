"""Cached latents and the codec that they are of: `moviegen encode` notes it in index.json, training looks there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from moviegen.config import UserError
from moviegen.modelfile import codec_files, locate, read_weights

DECODING = ("codec.decoder.", "codec.linear.synthesis")  # what latents do not depend on


def encoder_sha256(model: str) -> str | None:
    """Hash of the encoder and the latent statistics of the codec of a model on disk; None where it has none of ours.

    Of weights rounded to bfloat16, so that exports of a model in either type agree.
    """
    weights = read_weights(model)
    names = sorted(name for name in weights if name.startswith("codec.") and not name.startswith(DECODING))
    if not names:  # a generator, which keeps a codec by its path
        inner = codec_files(model)
        return encoder_sha256(str(inner[0])) if len(inner) == 1 else None
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + weights[name].bfloat16().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def codec_note(model: str) -> dict[str, Any]:
    """What the index.json of latents says of their codec: {"codec": {"path", "encoder_sha256"}}."""
    return {"codec": {"path": model, "encoder_sha256": encoder_sha256(model)}}


def check_latents(task: Mapping[str, Any], folders: Iterable[str]) -> None:
    """Raise UserError where cached latents are of another codec than a task's node names.

    Codecs that differ in their decoder alone have the same latents. Shards that do not tell their codec pass.
    """
    codec = task.get("codec")
    named = codec.get("path") if isinstance(codec, Mapping) else None
    if not task.get("cached") or not isinstance(named, str):
        return
    notes = {folder: note for folder in dict.fromkeys(folders) if (note := _noted(folder))}
    own = _own(named) if notes else None
    for folder, note in notes.items():
        if note["encoder_sha256"] != own:
            raise UserError(
                f"{folder} holds latents of the codec {note.get('path')} (encoder {note['encoder_sha256'][:12]}), "
                f"task.codec.path={named} is another ({own[:12] if own else 'not one of ours'}): take "
                f"task.codec.path={note.get('path')}, or encode the clips with model={named}"
            )


def _noted(folder: str) -> dict[str, Any] | None:
    try:
        note = json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))["codec"]
        return note if isinstance(note["encoder_sha256"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no index or one of others; what is wrong with it is said where shards are read


def _own(path: str) -> str | None:
    try:
        locate(path)
    except UserError:  # diffusers' codecs, and Meta's of sound
        return None
    return encoder_sha256(path)
