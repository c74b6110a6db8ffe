"""Real files: rotated, of a variable rate, 10-bit, transparent, of odd size, of one frame: right or refused."""

from __future__ import annotations

import struct
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import RATE, moving, tone, video_file
from odd_samples import click, click_at, gray, make_video, rotate

from moviegen import media
from moviegen.media import Limits, MediaError, sandbox
from moviegen.media.timeline import read_timeline

VARIABLE_MS = [0, 40, 80, 120, 320, 360, 400, 890, 930, 970, 1010]


def levels(path: Path) -> list[int]:
    """The mean level of each frame as it is read, in tens."""
    return [round(float(frame.mean()) / 10) for frame in media.read_clip(path).frames]


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int, turns: int) -> None:
    path = video_file(tmp_path / "phone.mp4", 4, height=48, width=64)
    plain = media.read_clip(path).frames
    rotate(path, degrees)
    np.testing.assert_array_equal(media.read_clip(path).frames, np.rot90(plain, turns, axes=(1, 2)))
    info = media.probe(path)
    assert (info.height, info.width) == ((48, 64) if degrees == 180 else (64, 48))
    assert info.remarks == (f"turned by {turns % 4 * 90} degrees counterclockwise, as its metadata says",)


def test_an_angle_that_is_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    path = rotate(video_file(tmp_path / "askew.mp4", 4), 45)
    with pytest.raises(MediaError, match=r"turns the picture by -?45 degrees; only quarter turns are read"):
        media.probe(path)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_variable_rate_becomes_constant_and_each_picture_keeps_its_time(tmp_path: Path, kind: str) -> None:
    tens = list(range(2, 13))
    path = tmp_path / f"screen.{kind}"
    make_video(path, gray([10 * t for t in tens]), times_ms=VARIABLE_MS)
    info = media.probe(path)
    assert (
        info.frame_rate == 25 and info.num_frames == 28
    )  # the last picture is said to stay for an eighth second
    assert info.remarks == ("its frame rate varies: read at 25 frames/s, frames repeated or left out",)
    read = levels(path)
    assert len(read) == 28
    for place, level in enumerate(read):  # the newest picture whose time is not more than half a frame away
        assert level == max(t for t, ms in zip(tens, VARIABLE_MS, strict=True) if ms <= 40 * place + 20), (
            place
        )
    np.testing.assert_array_equal(
        media.read_clip(path, start_frame=8, num_frames=3).frames, media.read_clip(path).frames[8:11]
    )


def test_rounded_time_stamps_are_not_a_variable_rate(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = make_video(tmp_path / "ntsc.mkv", moving(12), rate=rate)  # whole milliseconds in this container
    info = media.probe(path)
    assert info.frame_rate == pytest.approx(float(rate)) and info.num_frames == 12 and info.remarks == ()


def test_pictures_dropped_from_a_long_file_leave_the_others_at_their_times() -> None:
    stamps = np.delete(np.arange(1000) * 40, [500, 501, 502])
    timeline = read_timeline(stamps, 40, 1e-3, [24.93])
    assert timeline.frame_rate == 25 and timeline.num_frames == 1000
    shown = timeline.shown_at(np.arange(1000))
    np.testing.assert_allclose(timeline.times[shown[503:]] * 25, np.arange(503, 1000))
    assert (shown[499:503] == 499).all()


@pytest.mark.parametrize(("codec", "pixel_format"), [("libx264", "yuv420p10le"), ("libx265", "yuv420p10le")])
def test_ten_bits_are_read_with_eight(tmp_path: Path, codec: str, pixel_format: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = make_video(tmp_path / "ten.mp4", gray([20, 120, 240]), codec, pixel_format, **options)
    assert levels(path) == [2, 12, 24]
    assert media.probe(path).remarks == ("its 10-bit pictures are read with 8 bits",)


def test_high_dynamic_range_is_refused_where_it_would_come_out_wrong(tmp_path: Path) -> None:
    for name, said in (("smpte2084", None), ("arib-std-b67", "HLG")):
        params = f"transfer={name}:colorprim=bt2020:colormatrix=bt2020nc"
        options = {"x264-params": params, "color_trc": name}
        path = make_video(tmp_path / f"{name}.mp4", moving(2), pixel_format="yuv420p10le", **options)
        if said:
            assert any(said in remark for remark in media.probe(path).remarks)
        else:
            with pytest.raises(MediaError, match="high dynamic range"):
                media.probe(path)


def test_transparency_is_laid_over_black_and_said(tmp_path: Path) -> None:
    frames = gray([200, 200], channels=4)
    frames[..., 3] = 128
    path = make_video(tmp_path / "title.mov", frames, "qtrle", "argb")
    assert levels(path) == [10, 10]
    assert media.probe(path).remarks == ("its transparency, if any, is laid over black",)
    web = make_video(tmp_path / "title.webm", frames, "libvpx-vp9", "yuva420p")
    assert media.probe(web).remarks == ("its transparency is left out",) and levels(web) == [20, 20]


def test_odd_sizes_and_one_frame_are_read_as_they_are(tmp_path: Path) -> None:
    frames = moving(1, height=47, width=63)
    path = make_video(tmp_path / "odd.mkv", frames, "ffv1", "bgr0")
    np.testing.assert_array_equal(media.read_clip(path).frames, frames)
    assert (media.probe(path).width, media.probe(path).num_frames) == (63, 1)


@pytest.mark.parametrize("kind", ["avi", "asf", "ts", "mkv"])
def test_pictures_that_refer_to_later_ones_come_in_order(tmp_path: Path, kind: str) -> None:
    tens = list(range(2, 22))
    path = make_video(tmp_path / f"b.{kind}", gray([10 * t for t in tens]), bf="3", g="7")
    assert levels(path) == tens
    span = media.read_clip(path, start_frame=9, num_frames=3).frames
    assert [round(float(frame.mean()) / 10) for frame in span] == tens[9:12]


def test_sound_of_a_span_starts_with_its_pictures_where_the_clock_does_not_start_at_zero(
    tmp_path: Path,
) -> None:
    path = make_video(tmp_path / "tv.ts", moving(24), sound=click(3.0, at=2.0))
    info = media.probe(path)
    assert info.start_seconds > 0.1
    clip = media.read_clip(path, start_frame=12, with_audio=True)
    assert clip.audio is not None and click_at(clip.audio) == pytest.approx(0.5, abs=0.03)


def test_a_stream_gives_the_frames_of_the_clip_in_short_chunks(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4", 40)
    with media.stream_clip(path) as (info, chunks):
        parts = list(chunks)
    assert info == media.probe(path) and [len(part) for part in parts] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(parts), media.read_clip(path).frames)


def test_a_stream_waits_for_who_reads_it_and_other_reads_go_on(tmp_path: Path, monkeypatch) -> None:
    path = video_file(tmp_path / "clip.mp4", 40, height=128, width=128)
    limits, now = Limits(max_bytes=20 * 3 * 128**2), time.monotonic
    with media.stream_clip(path, limits) as (_, chunks):
        next(chunks)
        # longer than a chunk may take the child, and all of it more than one read may give
        monkeypatch.setattr(sandbox.time, "monotonic", lambda: now() + limits.seconds + 1)
        assert media.probe(path).num_frames == 40
        assert sum(len(chunk) for chunk in chunks) == 24


def test_a_stream_ends_where_the_damage_is_and_over_the_limit(tmp_path: Path) -> None:
    data = bytearray(video_file(tmp_path / "clip.mp4", 64).read_bytes())
    begin = data.find(b"mdat") + 2000
    data[begin : begin + 4000] = bytes(4000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    with (
        pytest.raises(MediaError, match=r"damaged\.mp4: the decoder failed") as caught,
        media.stream_clip(tmp_path / "damaged.mp4") as (_, chunks),
    ):
        list(chunks)
    assert caught.value.name == str(tmp_path / "damaged.mp4")
    few = Limits(max_stream_frames=10)
    with pytest.raises(MediaError, match="the limit is 10"), media.stream_clip(tmp_path / "clip.mp4", few):
        pass


def test_a_writer_of_single_frames_writes_what_write_video_writes(tmp_path: Path) -> None:
    frames = moving(12)
    media.write_video(tmp_path / "whole.mp4", frames, 8.0)
    with media.VideoWriter(tmp_path / "single.mp4", 8.0) as writer:
        for frame in frames:
            writer.write(frame)
    assert (tmp_path / "single.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MediaError("x", "y")])
def test_a_writer_that_is_interrupted_or_empty_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises((KeyboardInterrupt, MediaError)), media.VideoWriter(tmp_path / "a.mp4", 8.0) as writer:
        writer.write(moving(1)[0])
        raise error
    with pytest.raises(MediaError, match=r"a\.mp4: no frames"), media.VideoWriter(tmp_path / "a.mp4", 8.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_sound_that_fits_no_mp4_is_refused_by_copying_and_encoded_on_demand(tmp_path: Path) -> None:
    source = make_video(tmp_path / "old.asf", moving(16), sound=tone(2.0), sound_codec="wmav2")
    media.write_video(tmp_path / "mute.mp4", moving(16), 8.0)
    with pytest.raises(MediaError, match=r"old\.asf: its sound cannot be copied into mp4") as caught:
        media.copy_audio(source, tmp_path / "mute.mp4", tmp_path / "out.mp4")
    assert caught.value.rule == media.UNCOPYABLE and not (tmp_path / "out.mp4").exists()
    media.copy_audio(source, tmp_path / "mute.mp4", tmp_path / "out.mp4", encode=True)
    sound, rate = media.decode_audio(tmp_path / "out.mp4")
    assert rate == 48_000 and np.abs(np.fft.rfft(sound[0, :rate])).argmax() == 440


@pytest.mark.parametrize(
    ("codec", "source", "out"),
    [
        ("libsvtav1", "in.mp4", "out.mp4"),  # of which the decoder is no encoder
        ("libvpx-vp9", "in.mp4", "out.mp4"),
        ("libx265", "in.mov", "out.mov"),
        ("libvpx", "in.webm", "out.mkv"),
    ],
)
def test_pictures_of_any_kind_are_copied_and_can_be_decoded(
    tmp_path: Path, codec: str, source: str, out: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    make_video(tmp_path / source, moving(16), codec)
    media.write_flac(tmp_path / "sound.flac", tone(2.0), RATE)
    encode = not out.endswith(".mkv")
    media.copy_audio(tmp_path / "sound.flac", tmp_path / source, tmp_path / out, encode=encode, seconds=2.0)
    read = [media.read_clip(tmp_path / name).frames for name in (source, out)]
    np.testing.assert_array_equal(*read)
    assert len(read[0]) == 16 and media.decode_audio(tmp_path / out)[0].shape == (1, 2 * RATE)


def test_pictures_that_fit_no_mp4_are_refused_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    source, sound = make_video(tmp_path / "in.webm", moving(4), "libvpx"), tmp_path / "sound.flac"
    media.write_flac(sound, tone(0.5), RATE)
    before = sorted(path.name for path in tmp_path.iterdir())
    said = r"in\.webm: its pictures \(vp8\) cannot be copied into mp4; give a name that ends in \.mkv"
    with pytest.raises(MediaError, match=said):
        media.copy_audio(sound, source, tmp_path / "out.mp4", encode=True)
    with pytest.raises(MediaError, match=said):
        media.check_pictures(source, tmp_path / "out.mp4")
    media.check_pictures(source, tmp_path / "out.mkv")
    animated = make_video(tmp_path / "in.mov", gray([200, 200], channels=4), "qtrle", "argb")
    with pytest.raises(
        MediaError, match=r"its pictures \(qtrle\) cannot be copied into matroska; give .* in \.mov$"
    ):
        media.check_pictures(animated, tmp_path / "out.mkv")
    old = make_video(tmp_path / "in.flv", moving(4), "flv", rate=25)
    with pytest.raises(MediaError, match=r"\(flv1\) cannot be copied into mp4; convert it to H\.264 first$"):
        media.check_pictures(old, tmp_path / "out.mp4")
    before = sorted([*before, "in.flv", "in.mov"])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_cover_is_no_picture_to_put_sound_to(tmp_path: Path) -> None:
    plain, song = tmp_path / "plain.flac", tmp_path / "song.flac"
    media.write_flac(plain, tone(0.5), RATE)
    cover = media.to_png_bytes(moving(1)[0])
    body = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">6I", 0, 64, 64, 24, 0, len(cover)) + cover
    data = plain.read_bytes()  # its first block of metadata ends at 42
    song.write_bytes(data[:42] + struct.pack(">I", 6 << 24 | len(body)) + body + data[42:])
    with pytest.raises(MediaError, match=r"song\.flac: holds no picture to put sound to"):
        media.copy_audio(plain, song, tmp_path / "out.mp4", encode=True)
    assert not (tmp_path / "out.mp4").exists()
