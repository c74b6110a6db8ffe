"""Which watermark marks pictures and sound: the built-in one, or VideoSeal and AudioSeal as TorchScript files.

Public models are read from a local path, never fetched. TorchScript holds a graph and tensors, no Python.
- VideoSeal (`y_256b_img.jit` of its authors): methods `embed(image [1, 3, H, W], bits [1, 256])` and `detect(image) ->
  [1, 1 + 256]`, values 0 to 1. The 32 bits are said eight times, each time with signs of the key.
- AudioSeal: a module scripted with methods `embed(sound [1, 1, N], bits [1, 16])` and `detect(sound) -> [1, 1 + 16]`,
  the first value the probability that there is a mark, all at 16 kHz. It says the lower 16 bits alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moviegen.config import UserError
from moviegen.media import resample_audio
from moviegen.provenance import picture, sound
from moviegen.provenance.code import PAYLOAD_BITS, PUBLIC_KEY, Reading, draw, threshold

BUILTIN = "builtin"
SEAL_BITS, SEAL_RATE_HZ, SOUND_BITS = 256, 16_000, 16

Frame = NDArray[np.uint8]


class FrameReader(Protocol):
    """Takes frames uint8 [H, W, 3] one by one, then says what mark it found."""

    def add(self, frame: Frame) -> None: ...
    def read(self, search: bool = True) -> Reading: ...


class PictureMark(Protocol):
    """A watermark in pictures."""

    name: str  # as the manifest's soft binding and the side-car call it

    def no_room(self, height: int, width: int) -> str | None:
        """Why frames of a size cannot carry it; None where they can."""
        ...

    def embedder(self, height: int, width: int, payload: int) -> Callable[[Frame], Frame]: ...
    def reader(self) -> FrameReader: ...


class SoundMark(Protocol):
    """A watermark in sound, float32 [C, N]."""

    name: str

    def no_room(self, num_samples: int, sample_rate_hz: int) -> str | None: ...
    def embed(self, audio: NDArray[np.float32], sample_rate_hz: int, payload: int) -> NDArray[np.float32]: ...
    def read(self, audio: NDArray[np.float32], sample_rate_hz: int) -> Reading: ...


class BuiltinPicture:
    """The built-in pattern (picture.py)."""

    name = "org.moviegen.picture.1"

    def __init__(self, strength: float = picture.STRENGTH) -> None:
        self.strength = strength

    def no_room(self, height: int, width: int) -> str | None:
        least = picture.LEAST_SIDE
        return f"{width}x{height} pixels: it needs {least} a side" if min(height, width) < least else None

    def embedder(self, height: int, width: int, payload: int) -> Callable[[Frame], Frame]:
        return picture.Embedder(height, width, payload, strength=self.strength)

    def reader(self) -> FrameReader:
        return picture.Detector()


class BuiltinSound:
    """The built-in swing of bands (sound.py)."""

    name = "org.moviegen.sound.1"

    def no_room(self, num_samples: int, sample_rate_hz: int) -> str | None:
        seconds = num_samples / sample_rate_hz
        if seconds < sound.LEAST_SECONDS:
            return f"{seconds:.2f} s of sound: it needs {sound.LEAST_SECONDS:.2f} s"
        return None

    def embed(self, audio: NDArray[np.float32], sample_rate_hz: int, payload: int) -> NDArray[np.float32]:
        return sound.mark_sound(audio, sample_rate_hz, payload)

    def read(self, audio: NDArray[np.float32], sample_rate_hz: int) -> Reading:
        return sound.read_sound_mark(audio, sample_rate_hz)


class VideoSeal:
    """VideoSeal from a TorchScript file; frames are marked one by one with the same bits."""

    name = "com.meta.videoseal"

    def __init__(self, path: str) -> None:
        self.model = _script(path, "VideoSeal")
        self.signs = np.where(draw(PUBLIC_KEY, "signs of seal", SEAL_BITS) >> np.uint64(63), 1, -1)

    def no_room(self, height: int, width: int) -> str | None:
        return f"{width}x{height} pixels: it needs 64 a side" if min(height, width) < 64 else None

    def embedder(self, height: int, width: int, payload: int) -> Callable[[Frame], Frame]:  # noqa: ARG002
        import torch

        bits = (np.tile(_bits(payload), SEAL_BITS // PAYLOAD_BITS) * self.signs > 0).astype(np.float32)

        def mark(frame: Frame) -> Frame:
            with torch.no_grad():
                image = torch.from_numpy(frame.astype(np.float32) / 255).permute(2, 0, 1)[None]
                marked = self.model.embed(image, torch.from_numpy(bits)[None])[0].permute(1, 2, 0)
            return np.rint(marked.clamp(0, 1).numpy() * 255).astype(np.uint8)

        return mark

    def reader(self) -> FrameReader:
        return _SealReader(self.model, self.signs)


class _SealReader:
    def __init__(self, model: Any, signs: NDArray[np.int64]) -> None:
        self.model, self.signs, self.total = model, signs, np.zeros(SEAL_BITS)

    def add(self, frame: Frame) -> None:
        import torch

        with torch.no_grad():
            image = torch.from_numpy(frame.astype(np.float32) / 255).permute(2, 0, 1)[None]
            self.total += self.model.detect(image)[0, 1:].numpy()

    def read(self, search: bool = True) -> Reading:  # noqa: ARG002
        """The bits by the sign of their eight readings' sum; signs drawn from the key make chance as in code.py."""
        values = (self.total * self.signs).reshape(-1, PAYLOAD_BITS)
        sums = values.sum(axis=0)
        agreement = values * np.where(sums > 0, 1, -1)
        score = float(agreement.sum() / max(math.sqrt(np.square(values).sum()), 1e-12))
        return Reading(_number(sums > 0), score, threshold(1), float((agreement > 0).mean()))


class AudioSeal:
    """AudioSeal from a TorchScript file. Its score is the probability that its model states; found above 1/2."""

    name = "com.meta.audioseal"

    def __init__(self, path: str) -> None:
        self.model = _script(path, "AudioSeal")

    def no_room(self, num_samples: int, sample_rate_hz: int) -> str | None:
        return None if num_samples >= sample_rate_hz else "less than 1 s of sound"

    def embed(self, audio: NDArray[np.float32], sample_rate_hz: int, payload: int) -> NDArray[np.float32]:
        import torch

        low = resample_audio(audio, sample_rate_hz, SEAL_RATE_HZ, 1)
        bits = torch.from_numpy((_bits(payload)[-SOUND_BITS:] > 0).astype(np.float32))[None]
        with torch.no_grad():
            change = self.model.embed(torch.from_numpy(low)[None], bits)[0].numpy() - low
        added = resample_audio(change.astype(np.float32), SEAL_RATE_HZ, sample_rate_hz, 1)
        missing = max(0, audio.shape[1] - added.shape[1])
        return audio + np.pad(added, ((0, 0), (0, missing)))[:, : audio.shape[1]]

    def read(self, audio: NDArray[np.float32], sample_rate_hz: int) -> Reading:
        import torch

        low = resample_audio(audio, sample_rate_hz, SEAL_RATE_HZ, 1)
        with torch.no_grad():
            told = self.model.detect(torch.from_numpy(low)[None])[0].numpy()
        sure = np.abs(told[1:] - 0.5) + 0.5
        return Reading(_number(told[1:] > 0.5), float(told[0]), 0.5, float(sure.mean()), SOUND_BITS)


def picture_mark(which: str | None, strength: float = picture.STRENGTH) -> PictureMark | None:
    """The watermark that a setting names: `builtin`, a TorchScript file of VideoSeal, or None for none."""
    if which is None:
        return None
    return BuiltinPicture(strength) if which == BUILTIN else VideoSeal(which)


def sound_mark(which: str | None) -> SoundMark | None:
    """The same for sound, with AudioSeal."""
    if which is None:
        return None
    return BuiltinSound() if which == BUILTIN else AudioSeal(which)


def _script(path: str, name: str) -> Any:
    """A TorchScript module with `embed` and `detect`. Raises UserError for anything else."""
    import torch

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give 'builtin' or a TorchScript file of {name}")
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path} is no TorchScript file of {name}") from error
    for method in ("embed", "detect"):
        if not hasattr(model, method):
            raise UserError(f"{path} has no method {method}; it is no TorchScript file of {name}")
    return model


def _bits(payload: int) -> NDArray[np.int64]:
    """+1 or -1 for each of the 32 bits, the highest first."""
    return np.array([1 if payload >> place & 1 else -1 for place in reversed(range(PAYLOAD_BITS))])


def _number(bits: NDArray[np.bool_]) -> int:
    return int("".join("1" if bit else "0" for bit in bits), 2)
