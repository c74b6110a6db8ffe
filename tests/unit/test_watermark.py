"""The built-in watermark: its code, its bound on false alarms, and what it outlives in picture and sound."""

import io
import math

import av
import numpy as np
import pytest
from moviegen_data.toyworld import World, WorldConfig
from PIL import Image

from moviegen.media import encode_video
from moviegen.provenance import code, picture, sound

PAYLOAD = 0xDEADBEEF


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """Two seconds of the toy world, uint8 [16, 256, 256, 3]."""
    config = WorldConfig(level=4, size=256, num_frames=16, frame_rate=8.0)
    return World(config).render(0, 3).frames


@pytest.fixture(scope="module")
def marked(clip: np.ndarray) -> np.ndarray:
    embed = picture.Embedder(256, 256, PAYLOAD)
    return np.stack([embed(frame) for frame in clip])


def found(frames: np.ndarray, key: str = code.PUBLIC_KEY) -> code.Reading:
    detector = picture.Detector(key)
    for frame in frames:
        detector.add(frame)
    return detector.read()


def compressed(frames: np.ndarray, crf: int) -> np.ndarray:
    with av.open(io.BytesIO(encode_video(frames, 8.0, crf=crf)), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    size, filtering = (width, height), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, filtering)) for frame in frames])


@pytest.mark.parametrize("payload", [0, 1, PAYLOAD, 2**32 - 1])
def test_every_payload_is_decoded_from_its_signs_and_from_noisy_ones(payload: int) -> None:
    signs = code.encode(payload).astype(float)
    assert signs.shape == (code.CHIPS,) and set(np.abs(signs)) == {1.0}
    assert code.decode(signs) == payload
    noise = np.random.default_rng(payload).normal(0, 1.0, signs.shape)
    assert (np.sign(signs + noise) != signs).mean() > 0.1 and code.decode(signs + noise) == payload


def test_a_payload_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"payload 4294967296 is not in 0 to 2\^32 - 1"):
        code.encode(1 << 32)


def test_the_threshold_makes_the_bound_one_in_a_million() -> None:
    def chance(hypotheses: int, share: float) -> float:
        return hypotheses * 2**32 * math.exp(-(code.threshold(hypotheses, share) ** 2) / 2)

    assert chance(1, 1.0) == pytest.approx(1e-6)
    assert chance(2, 0.5) + chance(picture.HYPOTHESES, 0.5) == pytest.approx(1e-6)


def test_scores_without_a_mark_stay_below_the_bound_whatever_the_values() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.exponential(1.0, code.CHIPS)  # of what a file happens to show
    phases = rng.uniform(0, 2 * np.pi, (20_000, code.CHIPS))
    scores = (sizes * np.cos(phases)).sum(axis=1) / np.sqrt(np.square(sizes).sum() / 2)
    for z in (1.0, 2.0, 3.0):
        assert (scores > z).mean() < np.exp(-(z**2) / 2)


def test_the_pattern_never_changes() -> None:
    """A file that was marked today must be read in ten years: these numbers are part of the format."""
    assert code.draw("key", "purpose", 2).tolist() == [8671566160221658733, 2768699539882215678]
    frequencies, phases = picture.waves(code.PUBLIC_KEY)
    assert (
        frequencies.shape == (code.CHIPS, 2)
        and len({tuple(row) for row in frequencies.tolist()}) == code.CHIPS
    )
    np.testing.assert_allclose(np.abs(phases), 1, atol=1e-6)
    wave = picture.pattern(64, 64, PAYLOAD)
    assert np.sqrt(np.square(wave).mean()) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(wave[0, :3], [-0.343722, -0.594962, -0.71278], atol=1e-3)


def test_the_mark_is_faint_and_leaves_luma_alone(clip: np.ndarray, marked: np.ndarray) -> None:
    error = marked.astype(float) - clip
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 42
    luma = error @ np.array([0.299, 0.587, 0.114])
    assert np.sqrt(np.square(luma).mean()) < 0.35
    assert np.abs(error).max() <= 20


def test_nothing_is_found_in_what_was_not_marked_or_by_another_key(
    clip: np.ndarray, marked: np.ndarray
) -> None:
    assert not found(clip).found
    assert not found(marked, "another key").found
    assert not found(np.zeros((2, 64, 64, 3), np.uint8)).found


@pytest.mark.parametrize(
    "harm",
    [
        lambda frames: compressed(frames, 30),
        lambda frames: compressed(frames, 36),
        lambda frames: resized(frames, 128, 128),
        lambda frames: compressed(resized(frames, 128, 128), 30),
        lambda frames: resized(frames, 512, 512),
        lambda frames: frames[:, 20:247, 13:240],
        lambda frames: frames[:, 30:210, 60:240],
        lambda frames: compressed(frames[:, 70:230, 40:200], 23),
        lambda frames: frames[::3],
    ],
    ids=["crf 30", "crf 36", "half", "half, crf 30", "twice", "crop 0.89", "crop 0.7", "crop 0.62", "fps"],
)
def test_the_mark_outlives_what_happens_to_videos(marked: np.ndarray, harm) -> None:
    reading = found(harm(marked))
    assert reading.found and reading.payload == PAYLOAD


def test_another_shape_of_frame_carries_the_mark_too(clip: np.ndarray) -> None:
    wide = resized(clip, 180, 320)
    embed = picture.Embedder(180, 320, 7)
    frames = np.stack([embed(frame) for frame in wide])
    assert found(frames).payload == 7 and found(frames[:, :, 40:300]).payload == 7


def music(rate: int, seconds: float) -> np.ndarray:
    """Something with notes and noise, float32 [1, N]."""
    rng, times = np.random.default_rng(5), np.arange(round(rate * seconds)) / rate
    total = 0.02 * rng.standard_normal(times.size)
    for begin in np.arange(0, seconds, 0.21):
        pitch = rng.uniform(200, 900)
        swell = np.exp(-np.maximum(times - begin, 0) / 0.3) * (times >= begin)
        total += 0.1 * swell * sum(np.sin(2 * np.pi * pitch * n * times) / n for n in range(1, 9))
    return (total / np.abs(total).max() * 0.7).astype(np.float32)[None]


@pytest.mark.parametrize("rate", [48_000, 44_100, 16_000])
def test_the_mark_in_sound_is_read_wherever_the_sound_begins(rate: int) -> None:
    audio = music(rate, 5.0)
    marked = sound.mark_sound(audio, rate, PAYLOAD)
    assert marked.shape == audio.shape and marked.dtype == np.float32
    assert not sound.read_sound_mark(audio, rate).found
    for begin in (0, rate // 7):
        reading = sound.read_sound_mark(marked[:, begin:] * 0.3, rate)
        assert reading.found and reading.payload == PAYLOAD


def test_the_mark_in_sound_is_a_decibel() -> None:
    audio = np.random.default_rng(1).standard_normal((2, 48_000)).astype(np.float32) * 0.1
    change = sound.mark_sound(audio, 48_000, PAYLOAD) - audio
    assert 20 < 10 * np.log10(np.square(audio).mean() / np.square(change).mean()) < 35
    silent = np.zeros((1, 48_000), np.float32)
    np.testing.assert_array_equal(sound.mark_sound(silent, 48_000, PAYLOAD), silent)
    assert not sound.read_sound_mark(silent, 48_000).found


def test_sound_is_marked_alike_in_one_block_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.random.default_rng(3).normal(0, 0.1, (2, 3 * 48_000 + 77)).astype(np.float32)
    whole = sound.mark_sound(audio, 48_000, 0xC0FFEE)
    monkeypatch.setattr(sound, "BLOCK", 6)
    np.testing.assert_allclose(sound.mark_sound(audio, 48_000, 0xC0FFEE), whole, atol=1e-6)
    assert np.abs(whole - audio).max() > 1e-3
