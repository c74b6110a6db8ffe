"""Fields: how one file of a sample is read and how samples become a batch (design 5.3).

A conditioner names the `Field` it needs; the data module reads the fields it was asked for and no other file.
The ready-made fields below cover the files that `moviegen data build` and `moviegen encode` write.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moviegen.media import decode_audio, decode_video
from moviegen.types import AudioClip, Latent, VideoClip


@dataclass(frozen=True)
class Field:
    """One file of a WebDataset sample, e.g. `0001.camera.npy`, and how samples become a batch.

    A sample may lack the suffixes in `optional`; `decode` is given no bytes for them then.

    `decode` takes the bytes of `suffix`, then those of each suffix in `also`; `collate` takes the decoded
    values of a batch. Both run in data workers: module-level functions, no lambdas.
    """

    suffix: str
    decode: Callable[..., Any]
    collate: Callable[[list], Any]
    also: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Every suffix that is read, in the order `decode` takes them."""
        return (self.suffix, *self.also)


def same_shapes(shapes: Sequence[tuple[int, ...]], what: str) -> None:
    """Refuse to stack samples of several sizes; shards are written per bucket, one size a batch."""
    if len(set(shapes)) > 1:
        sizes = " and ".join(str(list(shape)) for shape in sorted(set(shapes))[:2])
        raise ValueError(f"{what} of several sizes in one batch: {sizes}; each size needs shards of its own")


def decode_text(data: bytes) -> str:
    """A caption: UTF-8, without the blanks around it."""
    return data.decode("utf-8").strip()


def with_frame_rate(caption: str, frame_rate: float) -> str:
    """A caption behind the token that controls frames per second, as `FPS-16` (paper 3.1.3); an image's as it is."""
    return f"FPS-{frame_rate:.0f} {caption}" if frame_rate > 0 else caption


def decode_text_with_rate(data: bytes, record: bytes) -> str:
    """A caption behind the frame rate of its clip, from the sample's json record."""
    return with_frame_rate(decode_text(data), _frame_rate(record))


def decode_array(data: bytes) -> np.ndarray:
    """A `.npy` file; arrays of Python objects are refused."""
    if not data.startswith(b"\x93NUMPY"):
        raise ValueError("not a .npy file")
    return np.load(io.BytesIO(data), allow_pickle=False)


def decode_clip(data: bytes) -> tuple[np.ndarray, float]:
    """An mp4 that this project wrote: frames uint8 [T, H, W, 3] and frames per second, 0 for an image."""
    frames, frame_rate = decode_video(data)
    return frames, float(frame_rate) if len(frames) > 1 else 0.0


def decode_latent(data: bytes, record: bytes) -> tuple[np.ndarray, float]:
    """A cached latent [C, T, H, W] and the frame rate of its clip, from the sample's json record."""
    values = decode_array(data)
    if values.ndim != 4:
        raise ValueError(f"a latent is [C, T, H, W], this array is {list(values.shape)}")
    return values, _frame_rate(record)


def _frame_rate(record: bytes) -> float:
    frame_rate = decode_record(record).get("fps")
    if not isinstance(frame_rate, int | float):
        raise ValueError(f"the json record has no number under 'fps', but {frame_rate!r}")
    return float(frame_rate)


def decode_record(data: bytes) -> dict[str, Any]:
    """A sample's json record without `origin`, from which a toyworld clip could be rendered with its truth."""
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError(f"a sample's json is an object, not {type(record).__name__}")
    return {key: value for key, value in record.items() if key != "origin"}


def decode_exchange(data: bytes) -> list[dict[str, str]]:
    """A line of finetuning data of a language model, {"messages": [{"role", "content"}, ...]} with the answer last."""
    row = json.loads(data)
    messages = row.get("messages") if isinstance(row, dict) else None
    roles = ("system", "user", "assistant")
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and m.get("role") in roles and isinstance(m.get("content"), str) for m in messages
    ):
        raise ValueError('an exchange is {"messages": [{"role": "user", "content": "..."}, ...]}')
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise ValueError(
            "an exchange ends with a user's prompt and the assistant's answer, which is not empty"
        )
    return messages


def collate_list(items: list) -> list:
    """Leave the values as a list."""
    return items


def collate_arrays(items: list[np.ndarray]) -> Tensor:
    """Stack arrays of one shape: float32 [B, ...]."""
    same_shapes([item.shape for item in items], "arrays")
    return torch.from_numpy(np.stack(items)).float()


def collate_clips(items: list[tuple[np.ndarray, float]]) -> VideoClip:
    """Frames uint8 [T, H, W, 3] become one clip batch [B, 3, T, H, W] in [-1, 1]."""
    same_shapes([frames.shape for frames, _ in items], "clips")
    pixels = torch.from_numpy(np.stack([frames for frames, _ in items]))
    frames = pixels.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return VideoClip(frames=frames.div_(127.5).sub_(1), frame_rate=torch.tensor([rate for _, rate in items]))


def collate_sounds(items: list[tuple[np.ndarray, int]]) -> AudioClip:
    """Sounds [C, N] of one form become float32 samples [B, C, N]."""
    if len(rates := sorted({rate for _, rate in items})) > 1:
        raise ValueError(f"sounds of {rates[0]} and {rates[1]} samples a second in one batch; resample them")
    same_shapes([samples.shape for samples, _ in items], "sounds")
    samples = torch.from_numpy(np.stack([samples for samples, _ in items])).float()
    return AudioClip(samples=samples, sample_rate_hz=items[0][1])


def collate_latents(items: list[tuple[np.ndarray, float]]) -> Latent:
    """Arrays [C, T, H, W] become one latent batch, float32."""
    same_shapes([values.shape for values, _ in items], "latents")
    values = torch.from_numpy(np.stack([values for values, _ in items])).float()
    return Latent(values=values, frame_rate=torch.tensor([rate for _, rate in items]))


def collate_tokens(items: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token features [L, D] become (features [B, L, D] float32, mask [B, L] bool, True on tokens)."""
    for item in items:
        if item.ndim != 2:
            raise ValueError(f"text features are [L, D], this array is {list(item.shape)}")
    same_shapes([item.shape[1:] for item in items], "text features")
    longest = max(len(item) for item in items)
    features = torch.zeros(len(items), longest, items[0].shape[1])
    mask = torch.zeros(len(items), longest, dtype=torch.bool)
    for row, item in enumerate(items):
        features[row, : len(item)] = torch.from_numpy(item)
        mask[row, : len(item)] = True
    return features, mask


def named_features(names: Sequence[str]) -> Field:
    """Token features of several encoders, `text.<name>.npy` each: a batch is name -> (features, mask) as of one."""
    first, *others = (features_suffix(name) for name in names)
    collate = partial(_collate_named, tuple(names))
    return Field(first, _decode_arrays, collate, also=tuple(others))


def features_suffix(name: str) -> str:
    """The file of a text encoder's features; "" is the only one of its sample. Raises ValueError for an odd name."""
    if not re.fullmatch(r"\w*", name):
        raise ValueError(f"a text encoder's name is of letters, digits and _, not {name!r}")
    return f"text.{name}.npy" if name else "text.npy"


def _decode_arrays(*files: bytes) -> tuple[np.ndarray, ...]:
    return tuple(decode_array(data) for data in files)


def _collate_named(
    names: tuple[str, ...], items: list[tuple[np.ndarray, ...]]
) -> dict[str, tuple[Tensor, Tensor]]:
    columns = zip(*items, strict=True)
    return {name: collate_tokens(list(column)) for name, column in zip(names, columns, strict=True)}


TEXT = Field("txt", decode_text, collate_list)
TEXT_WITH_RATE = Field("txt", decode_text_with_rate, collate_list, also=("json",))
VIDEO = Field("mp4", decode_clip, collate_clips)
SOUND_FILE = {
    name: Field(name, decode_audio, collate_sounds) for name in ("mp4", "flac")
}  # what holds the sound
LATENT = Field("latent.npy", decode_latent, collate_latents, also=("json",))
TEXT_FEATURES = Field("text.npy", decode_array, collate_tokens)
PAIR = Field("pair.json", decode_exchange, collate_list)
JSON = Field("json", decode_record, collate_list)
