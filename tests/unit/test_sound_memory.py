"""Sound for a long video holds no more at once than for a short one: pictures as they come, sound in windows."""

import tempfile
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from moviegen.conditioning.video import PixelFeatures
from moviegen.provenance import sound as marks
from moviegen.sound import WINDOW, _decoded, _looked_at
from moviegen.types import AudioClip, Latent

CHUNK = 16  # pictures


class Eyes(PixelFeatures):
    """Notes how many pictures it is shown at once."""

    most = 0

    def forward(self, frames: Tensor) -> Tensor:
        self.most = max(self.most, frames.shape[2])
        return super().forward(frames)


def pictures(num_chunks: int) -> Iterator[np.ndarray]:
    for _ in range(num_chunks):
        yield np.zeros((CHUNK, 64, 64, 3), np.uint8)


def looked_at(num_chunks: int) -> tuple[int, int]:
    """Most pictures that were shown at once, and the most bytes of numpy that were held."""
    eyes = Eyes((4, 8), size=16, features=6)
    tracemalloc.start()
    with torch.no_grad():
        length = sum(part.shape[1] for part in _looked_at(eyes, pictures(num_chunks)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == num_chunks * CHUNK
    return eyes.most, peak


def test_pictures_are_forgotten_once_they_were_looked_at() -> None:
    (few, low), (many, high) = looked_at(4), looked_at(40)
    assert few == many <= 2 * CHUNK
    assert high < 1.2 * low


class Codec:
    """Silence at 2400 Hz and 25 latent frames a second; notes the longest latent that it is given."""

    hop, sample_rate_hz, most = 96, 2400, 0

    def decode(self, latent: Latent) -> AudioClip:
        self.most = max(self.most, latent.values.shape[2])
        return AudioClip(torch.zeros(1, 1, latent.values.shape[2] * self.hop), self.sample_rate_hz)


@pytest.mark.parametrize("seconds", [20, 300])
def test_a_window_of_sound_is_decoded_at_a_time_onto_disk(seconds: int) -> None:
    codec, frames = Codec(), 25 * seconds
    latent = Latent(torch.zeros(1, 3, frames, 1, 1), torch.tensor([25.0]))
    with tempfile.TemporaryFile() as scratch:
        samples = _decoded(codec, latent, frames * codec.hop, scratch)  # type: ignore[arg-type]
        assert isinstance(samples, np.memmap) and samples.shape == (1, frames * codec.hop)
    assert WINDOW < codec.most <= WINDOW + 32


@pytest.mark.parametrize("seconds", [4, 40])
def test_sound_on_disk_is_marked_onto_disk(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "BLOCK", 32)
    tone = np.sin(np.arange(seconds * 16_000, dtype=np.float32))[None]
    with tempfile.TemporaryFile() as scratch:
        scratch.truncate(tone.nbytes)
        audio = np.memmap(scratch, np.float32, "r+", shape=tone.shape)
    audio[:] = tone
    tracemalloc.start()
    marked = marks.mark_sound(audio, 16_000, 0xC0FFEE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(marked, np.memmap) and peak < 1_000_000
    np.testing.assert_array_equal(marked, marks.mark_sound(tone, 16_000, 0xC0FFEE))
