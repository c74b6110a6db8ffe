"""The media layer: round trips, stream copy, spans, and what is refused."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import RATE, moving, tone, video_file
from odd_samples import make_video
from PIL import Image

from moviegen import media
from moviegen.media import MediaError


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2))


def test_media_does_not_import_torch() -> None:
    code = "import sys, moviegen.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_written_frames_come_back_close_and_in_order() -> None:
    frames = moving()
    decoded, frame_rate = media.decode_video(media.encode_video(frames, 8.0, crf=12))
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8 and frame_rate == 8.0
    assert all(psnr(one, other) > 36 for one, other in zip(decoded, frames, strict=True))


def test_plain_colors_survive_the_change_to_ycbcr_and_back() -> None:
    for color in ((220, 30, 30), (20, 200, 60), (30, 60, 230), (255, 255, 255), (0, 0, 0)):
        frames = np.full((4, 32, 32, 3), color, np.uint8)
        decoded, _ = media.decode_video(media.encode_video(frames, 8.0, crf=12))
        assert np.abs(decoded.astype(int) - frames).max() <= 4


def test_a_photograph_is_a_video_of_one_frame(tmp_path: Path) -> None:
    media.write_video(tmp_path / "photo.mp4", moving(1), 8.0)
    assert media.decode_video(tmp_path / "photo.mp4")[0].shape == (1, 64, 64, 3)
    assert media.probe(tmp_path / "photo.mp4").num_frames == 1


def test_the_file_says_what_was_written_and_starts_with_its_index(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4", 24, 12.0, height=48, width=80)
    info = media.probe(path)
    assert (info.width, info.height, info.num_frames, info.frame_rate) == (80, 48, 24, 12.0)
    assert (info.video_codec, info.has_audio, info.sample_rate_hz, info.num_channels) == (
        "h264",
        True,
        RATE,
        1,
    )
    assert info.duration_seconds == pytest.approx(2.0, abs=0.05)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back_in_place_and_of_the_same_length(channels: int) -> None:
    sound = tone(channels=channels)
    decoded, rate = media.decode_audio(media.encode_video(moving(), 8.0, sound, RATE))
    assert rate == RATE and decoded.shape == sound.shape
    assert np.abs(decoded - sound).max() < 0.05


def test_an_impact_is_heard_when_it_was_written() -> None:
    sound = np.zeros((1, 2 * RATE), np.float32)
    sound[0, RATE : RATE + 480] = 0.8
    decoded, _ = media.decode_audio(media.encode_video(moving(), 8.0, sound, RATE))
    loud = np.flatnonzero(np.abs(decoded[0]) > 0.4)
    assert abs(loud[0] - RATE) < 0.005 * RATE


def test_flac_is_lossless_to_24_bits(tmp_path: Path) -> None:
    sound = tone(0.3, channels=2)
    media.write_flac(tmp_path / "sound.flac", sound, RATE)
    decoded, rate = media.decode_audio(tmp_path / "sound.flac")
    assert rate == RATE and np.abs(decoded - sound).max() <= 2**-23


def test_stream_copy_keeps_pictures_and_sound_bit_for_bit(tmp_path: Path) -> None:
    video_file(tmp_path / "sounding.mp4", seed=3)
    media.write_video(tmp_path / "mute.mp4", moving(), 8.0)
    media.copy_audio(tmp_path / "sounding.mp4", tmp_path / "mute.mp4", tmp_path / "both.mp4")
    pictures, mute = (
        media.decode_video(tmp_path / "both.mp4")[0],
        media.decode_video(tmp_path / "mute.mp4")[0],
    )
    copied, sound = (
        media.decode_audio(tmp_path / "both.mp4")[0],
        media.decode_audio(tmp_path / "sounding.mp4")[0],
    )
    np.testing.assert_array_equal(pictures, mute)
    np.testing.assert_array_equal(copied, sound)


def test_stream_copy_leaves_out_sound_beyond_the_pictures(tmp_path: Path) -> None:
    video_file(tmp_path / "long.mp4", 32)
    media.write_video(tmp_path / "short.mp4", moving(8), 8.0)
    media.copy_audio(tmp_path / "long.mp4", tmp_path / "short.mp4", tmp_path / "out.mp4")
    assert media.decode_audio(tmp_path / "out.mp4")[0].shape[1] == pytest.approx(RATE, abs=1024)


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(30_000, 1001)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_put_to_pictures_of_a_broken_rate_is_exact_to_the_sample(
    tmp_path: Path, rate: Fraction, suffix: str
) -> None:
    source = make_video(tmp_path / f"in{suffix}", moving(50), rate=rate)
    num_samples = round(50 / rate * RATE)
    assert media.probe(source).picture_seconds == pytest.approx(num_samples / RATE, abs=0.5 / RATE)
    media.write_flac(tmp_path / "sound.flac", tone(3.0)[:, :num_samples], RATE)
    encode = suffix != ".mkv"
    media.copy_audio(tmp_path / "sound.flac", source, tmp_path / f"out{suffix}", encode=encode, seconds=3.0)
    assert media.decode_audio(tmp_path / f"out{suffix}")[0].shape == (1, num_samples)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_end_of_the_last_picture_is_known_at_a_variable_rate(tmp_path: Path, suffix: str) -> None:
    times = [0, 100, 233, 466, 500, 733, 1117, 1350, 1391]
    info = media.probe(make_video(tmp_path / f"in{suffix}", moving(9), times_ms=times))
    with av.open(str(tmp_path / f"in{suffix}")) as container:
        assert container.duration is not None
        stated = container.duration / av.time_base
    assert info.num_frames / info.frame_rate != pytest.approx(stated, abs=0.01)
    assert info.picture_seconds == pytest.approx(stated, abs=1e-3)


def test_stream_copy_of_a_mute_file_names_it_and_writes_nothing(tmp_path: Path) -> None:
    media.write_video(tmp_path / "mute.mp4", moving(), 8.0)
    with pytest.raises(MediaError, match=r"mute\.mp4: holds no sound"):
        media.copy_audio(tmp_path / "mute.mp4", tmp_path / "mute.mp4", tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["mute.mp4"]


def test_a_span_holds_the_frames_asked_for_and_their_sound(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4", 32)
    whole = media.read_clip(path)
    span = media.read_clip(path, start_frame=5, num_frames=4, stride=3, with_audio=True)
    np.testing.assert_array_equal(span.frames, whole.frames[5:17:3])
    assert span.frame_rate == pytest.approx(8 / 3) and whole.audio is None
    assert span.audio is not None and span.sample_rate_hz == RATE
    expected = tone(4.0)[:, round(5 / 8 * RATE) :][:, : round(12 / 8 * RATE)]
    assert span.audio.shape == expected.shape and np.abs(span.audio - expected).max() < 0.05


def test_another_frame_rate_takes_the_frames_nearest_in_time(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4", 50, 25.0)
    whole, retimed = media.read_clip(path), media.read_clip(path, num_frames=8, frame_rate=8.0)
    np.testing.assert_array_equal(retimed.frames, whole.frames[[0, 3, 6, 9, 13, 16, 19, 22]])
    assert retimed.frame_rate == 8.0


def test_a_span_beyond_the_end_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match="frame 19 asked for, it has 16"):
        media.read_clip(path, start_frame=10, num_frames=10)


def test_resampled_sound_keeps_its_pitch_and_length() -> None:
    resampled = media.resample_audio(tone(1.0, channels=2), RATE, 16_000, 1)
    assert resampled.shape == (1, 16_000)
    assert np.abs(np.fft.rfft(resampled[0])).argmax() == 440


def test_surround_is_mixed_by_its_speakers_and_stereo_by_its_mean() -> None:
    wave, silent = 0.3 * tone(0.1)[0], np.zeros(RATE // 10, np.float32)
    center = np.stack([silent, silent, wave, silent, silent, silent])
    low = np.stack([silent, silent, silent, wave, silent, silent])
    surround = np.stack([silent, silent, silent, silent, wave, silent])
    for layout in (None, "5.1", "5.1(side)"):
        mixed = media.resample_audio(center, RATE, RATE, 1, layout)
        np.testing.assert_allclose(mixed[0], 0.7071 * wave, atol=1e-6)
        assert not media.resample_audio(low, RATE, RATE, 1, layout).any()
        both = media.resample_audio(surround, RATE, RATE, 2, layout)
        np.testing.assert_allclose(both, [0.7071 * wave, silent], atol=1e-6)
    front = np.stack([wave, 0.5 * wave])  # as loud alone as with silent speakers beside them
    expected = media.resample_audio(front, RATE, RATE, 1)
    np.testing.assert_allclose(expected, front.mean(axis=0, keepdims=True), atol=1e-6)
    with_silence = np.concatenate([front, np.zeros((4, len(wave)), np.float32)])
    np.testing.assert_allclose(media.resample_audio(with_silence, RATE, RATE, 1), expected, atol=1e-6)
    assert np.abs(media.resample_audio(np.tile(3 * wave, (6, 1)), RATE, RATE, 1)).max() == pytest.approx(1.0)
    unknown = media.resample_audio(center, RATE, RATE, 1, "6.0(front)")
    np.testing.assert_allclose(unknown[0], wave / 6, atol=1e-6)
    np.testing.assert_array_equal(media.resample_audio(front[:1], RATE, RATE, 2), front[[0, 0]])


def test_frames_are_taken_from_a_generator_one_at_a_time(tmp_path: Path) -> None:
    taken = []

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(moving(6)):
            taken.append(number)
            yield frame

    media.write_video(tmp_path / "clip.mp4", frames(), 8.0)
    assert taken == list(range(6)) and media.probe(tmp_path / "clip.mp4").num_frames == 6


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (np.zeros((2, 63, 64, 3), np.uint8), "even sizes for yuv420p, not 64x63"),
        (np.zeros((2, 64, 64, 3), np.float32), "must be uint8"),
        (np.zeros((0, 64, 64, 3), np.uint8), "no frames"),
        ([np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)], "of one size"),
    ],
)
def test_wrong_frames_are_refused_and_leave_no_file(
    tmp_path: Path, frames: list[np.ndarray], reason: str
) -> None:
    with pytest.raises(MediaError, match=reason):
        media.write_video(tmp_path / "out" / "clip.mp4", frames, 8.0)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    before = path.read_bytes()

    def frames() -> Iterator[np.ndarray]:
        yield from moving(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        media.write_video(path, frames(), 8.0)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from moving(4)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be written: the disk is full"):
        media.write_video(tmp_path / "clip.mp4", frames(), 8.0)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_the_system_cuts_short_leaves_no_file(tmp_path: Path) -> None:
    """The muxer's own writes fail here, at a limit on file size set in a process of its own."""
    code = (
        "import resource, sys, numpy as np; from moviegen import media\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "frames = np.random.default_rng(0).integers(0, 255, (64, 64, 64, 3), dtype=np.uint8)\n"
        "try: media.write_video(sys.argv[1], frames, 8.0)\n"
        "except media.MediaError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "clip.mp4")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == f"{tmp_path / 'clip.mp4'}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_an_image_round_trips_through_png(tmp_path: Path) -> None:
    picture = moving(1)[0]
    (tmp_path / "picture.png").write_bytes(media.to_png_bytes(picture))
    np.testing.assert_array_equal(media.read_image(tmp_path / "picture.png"), picture)


def test_a_picture_through_jpeg_is_near_and_the_nearer_the_higher_the_quality() -> None:
    picture = moving(1)[0]
    low, high = (media.through_jpeg(picture, quality) for quality in (20, 95))
    assert low.shape == high.shape == picture.shape and low.dtype == np.uint8
    assert 20 < psnr(low, picture) < psnr(high, picture)
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "jpeg", quality=20)
    np.testing.assert_array_equal(low, np.asarray(Image.open(stored)))
