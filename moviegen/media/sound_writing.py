"""Sound files that take their samples piece by piece: FLAC or WAV, 24 bits; never a half-written file."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np

from moviegen.media.base import MediaError, atomic_path, write_error
from moviegen.media.writing import sound_frame

KINDS = {".flac": ("flac", "flac"), ".wav": ("wav", "pcm_s24le")}  # suffix: container and codec
PIECE = 4096  # samples that are encoded at once


class SoundWriter:
    """A sound file of one form; a context manager. The file appears only when the context ends without an error.

    Args:
        path: ends in .flac or .wav.
        num_channels: 1 or 2.

    Raises:
        MediaError: another suffix, sound of another form, or a file that cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate_hz: int, num_channels: int = 1) -> None:
        if Path(path).suffix.lower() not in KINDS:
            raise MediaError(path, f"sound is written as {' or '.join(KINDS)}", "write")
        self.path, self.rate, self.num_channels = path, sample_rate_hz, num_channels
        self.num_samples = 0

    def __enter__(self) -> SoundWriter:
        container, codec = KINDS[Path(self.path).suffix.lower()]
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_path(self.path))
        try:
            self._container = self._stack.enter_context(av.open(str(temporary), "w", format=container))
            layout = "mono" if self.num_channels == 1 else "stereo"
            self._stream: Any = self._container.add_stream(codec, rate=self.rate, layout=layout, format="s32")
            if codec == "flac":
                self._stream.codec_context.options = {"strict": "experimental"}
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def write(self, audio: np.ndarray) -> None:
        """Encode the next samples, float [C, N]; beyond -1 to 1 they are cut off."""
        if audio.ndim != 2 or len(audio) != self.num_channels or not np.isfinite(audio).all():
            stated = f"{self.num_channels} channels of finite samples, not {audio.shape}"
            raise MediaError(self.path, f"sound must be {stated}", "write")
        try:
            for begin in range(0, audio.shape[1], PIECE):
                frame = sound_frame(
                    np.clip(audio[:, begin : begin + PIECE], -1, 1), self.num_samples, self.rate, "s32"
                )
                self.num_samples += frame.samples
                self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise write_error(self.path, error) from error

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            try:
                if not self.num_samples:
                    raise MediaError(self.path, "no sound to write", "write")
                self._container.mux(self._stream.encode(None))
            except BaseException:
                self._stack.__exit__(*sys.exc_info())
                raise
        self._stack.__exit__(*error)
