"""Cached latents and text features: `moviegen encode` notes in index.json what made them, training looks there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from moviegen.conditioning.text import TextCondition, unlike
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


def features_note(text: TextCondition) -> dict[str, Any]:
    """What the index.json says of text features: {"features": {file: settings}}."""
    return {"features": text.feature_settings()}


def check_latents(
    task: Mapping[str, Any], folders: Iterable[str], conditions: Mapping[str, Any] | None = None
) -> None:
    """Raise UserError where cached latents are of another codec than a task's node names, or cached text features were
    made otherwise than its `conditions` (by name) make them.

    Codecs that differ in their decoder alone have the same latents. Shards that do not tell what made them pass.
    """
    folders = list(dict.fromkeys(folders))
    _check_codec(task, folders)
    for name, condition in (conditions or {}).items():
        if isinstance(condition, TextCondition) and condition.reads_features:
            _check_features(name, condition, folders)


def _check_features(name: str, condition: TextCondition, folders: list[str]) -> None:
    notes = {folder: note for folder in folders if isinstance(note := noted(folder, "features"), Mapping)}
    own = condition.feature_settings() if notes else {}
    for folder, note in notes.items():
        for file in own.keys() & note.keys():
            if odd := unlike(own[file], note[file]):
                raise UserError(
                    f"{folder} holds text features ({file}) of {_shown(note[file], odd)}, the condition {name} has "
                    f"{_shown(own[file], odd)}: give it the same, or encode the captions with its own"
                )


def _shown(settings: Mapping[str, Any], names: list[str]) -> str:
    weights = str(settings.get("weights_sha256"))[:12]
    return ", ".join(f"{n}={settings[n]}" + f" (weights {weights})" * (n == "encoder") for n in names)


def _check_codec(task: Mapping[str, Any], folders: list[str]) -> None:
    codec = task.get("codec")
    named = codec.get("path") if isinstance(codec, Mapping) else None
    if not task.get("cached") or not isinstance(named, str):
        return
    notes = {folder: note for folder in folders if (note := _codec_of(folder))}
    own = _own(named) if notes else None
    for folder, note in notes.items():
        if note["encoder_sha256"] != own:
            raise UserError(
                f"{folder} holds latents of the codec {note.get('path')} (encoder {note['encoder_sha256'][:12]}), "
                f"task.codec.path={named} is another ({own[:12] if own else 'not one of ours'}): take "
                f"task.codec.path={note.get('path')}, or encode the clips with model={named}"
            )


def noted(folder: str, name: str) -> Any:
    """What the index.json of a folder says by a name; None where it says nothing."""
    try:
        return json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no index or one of others; what is wrong with it is said where shards are read


def _codec_of(folder: str) -> dict[str, Any] | None:
    note = noted(folder, "codec")
    return note if isinstance(note, dict) and isinstance(note.get("encoder_sha256"), str) else None


def _own(path: str) -> str | None:
    try:
        locate(path)
    except UserError:  # diffusers' codecs, and Meta's of sound
        return None
    return encoder_sha256(path)
