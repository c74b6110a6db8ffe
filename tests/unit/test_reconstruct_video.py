"""A video file through a codec: every frame, at its time, with its sound, in memory that does not grow; or nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_samples import RATE, moving, tone, video_file
from odd_samples import click, click_at, gray, make_video, rotate

from moviegen import cli, media
from moviegen.codec.streaming import reconstruct_stream
from moviegen.codec.tiling import Tiling
from moviegen.reconstruct_video import OUT, SIDE_BY_SIDE, reconstruct_video
from moviegen.types import Latent, VideoClip

TILING = Tiling(frames=8, frames_overlap=4)


class Blocks:
    """A codec whose cells know their own block alone: the mean of 4x4 pixels, or of 2 frames of 4x4."""

    latent_channels = 3
    spatial_factor = 4

    def __init__(self, temporal_factor: int = 2) -> None:
        self.temporal_factor = temporal_factor
        self.lengths: list[int] = []

    def encode(self, clip: VideoClip) -> Latent:
        frames = clip.frames
        self.lengths.append(frames.shape[2])
        if frames.shape[2] % self.temporal_factor:
            frames = torch.cat([frames, frames[:, :, -1:]], dim=2)
        size = (self.temporal_factor, 4, 4)
        return Latent(torch.nn.functional.avg_pool3d(frames, size), clip.frame_rate)

    def decode(self, latent: Latent, num_frames: int | None = None) -> VideoClip:
        scale = (float(self.temporal_factor), 4.0, 4.0)
        frames = torch.nn.functional.interpolate(latent.values, scale_factor=scale, mode="nearest")
        return VideoClip(frames[:, :, :num_frames], latent.frame_rate)


class Failing(Blocks):
    """A codec during whose second tile something happens."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def encode(self, clip: VideoClip) -> Latent:
        if self.lengths:
            raise self.error
        return super().encode(clip)


class Terminating(Blocks):
    """A codec during whose second tile the process is told to go."""

    def encode(self, clip: VideoClip) -> Latent:
        if self.lengths:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().encode(clip)


def in_a_process(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code that may import this file."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 13)])
def test_each_frame_comes_back_beside_its_source_in_its_size(
    num_frames: int, height: int, width: int
) -> None:
    frames = moving(num_frames, height, width)
    chunks = np.array_split(frames, max(1, num_frames // 3))
    for size in (None, 8):
        tiling = Tiling(frames=8, frames_overlap=4, size=size, size_overlap=4)
        pairs = list(reconstruct_stream(Blocks(), chunks, 8.0, tiling))
        np.testing.assert_array_equal(np.stack([source for source, _ in pairs]), frames)
        padded = np.pad(frames, ((0, num_frames % 2), (0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
        blocks = padded.reshape(-1, 2, padded.shape[1] // 4, 4, padded.shape[2] // 4, 4, 3)
        means = blocks.mean(axis=(1, 3, 5)).repeat(2, 0).repeat(4, 1).repeat(4, 2)
        decoded = np.stack([frame for _, frame in pairs])
        assert np.abs(decoded - means[:num_frames, :height, :width]).max() < 0.51


def test_what_is_held_does_not_grow_with_the_clip() -> None:
    held = {}
    for num_frames in (32, 256, 1024):
        taken = given = most = 0

        def chunks(count: int = num_frames) -> Iterator[np.ndarray]:
            nonlocal taken
            for _ in range(0, count, 4):
                taken += 4
                yield np.zeros((4, 8, 8, 3), np.uint8)

        codec = Blocks()
        for _ in reconstruct_stream(codec, chunks(), 8.0, TILING):
            most = max(most, taken - given)
            given += 1
        assert given == num_frames and max(codec.lengths) == 8
        held[num_frames] = most
    assert held[32] == held[256] == held[1024] <= 8 + 4 + 8  # a tile, its overlap, and what was read ahead


def test_a_file_comes_back_with_its_sound_and_side_by_side(tmp_path: Path) -> None:
    path = video_file(tmp_path / "in.mp4", 40, 8.0, height=64, width=96)
    reconstruct_video(path, tmp_path / "out", Blocks(), TILING)
    source, out = (
        media.read_clip(path, with_audio=True),
        media.read_clip(tmp_path / "out" / OUT, with_audio=True),
    )
    pair = media.read_clip(tmp_path / "out" / SIDE_BY_SIDE, with_audio=True)
    assert out.frames.shape == source.frames.shape and pair.frames.shape == (40, 64, 192, 3)
    assert (out.frame_rate, pair.frame_rate) == (8.0, 8.0)
    for clip in (out, pair):
        np.testing.assert_array_equal(clip.audio, source.audio)
    assert np.abs(pair.frames[:, :, :96].astype(int) - source.frames).mean() < 4
    assert np.abs(pair.frames[:, :, 96:].astype(int) - out.frames).mean() < 4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [OUT, SIDE_BY_SIDE]


def test_an_odd_size_is_written_with_a_repeated_edge_and_said(tmp_path: Path, capsys) -> None:
    path = make_video(tmp_path / "odd.mkv", moving(1, height=47, width=63), "ffv1", "bgr0")
    reconstruct_video(path, tmp_path, Blocks(), TILING)
    assert media.read_clip(tmp_path / OUT).frames.shape == (1, 48, 64, 3)
    assert media.read_clip(tmp_path / SIDE_BY_SIDE).frames.shape == (1, 48, 128, 3)
    printed = capsys.readouterr().out
    assert f"{path}: 63x47 is written as 64x48, the last row or column repeated" in printed
    assert f"{tmp_path / OUT}: 1 frames of 63x47" in printed and "no sound" in printed


@pytest.mark.parametrize("kind", ["vfr.mp4", "vfr.mkv", "tv.ts"])
def test_picture_and_sound_stay_in_step(tmp_path: Path, kind: str) -> None:
    """A flash and a click at 1.52 s of a screen recording with pauses, and of a file whose clock starts late."""
    pauses = [0, 40, 80, 120, 500, 540, 580, 1200, 1240, 1520, 1560, 1600, 1980]
    times = list(range(0, 2000, 40)) if kind == "tv.ts" else pauses
    frames = gray([230 if ms == 1520 else 20 for ms in times])
    stated = None if kind == "tv.ts" else times
    path = make_video(tmp_path / kind, frames, times_ms=stated, rate=25, sound=click(2.0, 1.52))
    reconstruct_video(path, tmp_path / "out", Blocks(1), TILING)
    clip = media.read_clip(tmp_path / "out" / OUT, with_audio=True)
    bright = np.flatnonzero(clip.frames.mean(axis=(1, 2, 3)) > 120)
    assert clip.frame_rate == 25 and len(bright) == 1 and clip.audio is not None
    seen, heard = bright[0] / clip.frame_rate, click_at(clip.audio)
    assert abs(seen - heard) <= 0.025 and heard == pytest.approx(1.52, abs=0.025)


def test_a_phone_s_upright_film_is_upright(tmp_path: Path) -> None:
    path = rotate(video_file(tmp_path / "phone.mp4", 8, height=32, width=64), 90)
    reconstruct_video(path, tmp_path / "out", Blocks(), TILING)
    out, source = media.read_clip(tmp_path / "out" / OUT).frames, media.read_clip(path).frames
    assert out.shape == (8, 64, 32, 3) and np.abs(out.astype(int) - source).mean() < 12


def test_sound_that_fits_no_mp4_is_encoded_and_said(tmp_path: Path, capsys) -> None:
    path = make_video(tmp_path / "old.asf", moving(16), sound=tone(2.0), sound_codec="wmav2")
    reconstruct_video(path, tmp_path / "out", Blocks(), TILING)
    assert "sound encoded anew as AAC, for its kind fits no mp4" in capsys.readouterr().out
    assert media.probe(tmp_path / "out" / SIDE_BY_SIDE).sample_rate_hz == RATE


def test_what_is_left_out_of_the_sound_is_said(tmp_path: Path, capsys) -> None:
    longer = make_video(tmp_path / "longer.mp4", moving(8), sound=tone(1.5))
    two = tmp_path / "two.mkv"
    with av.open(str(longer)) as source, av.open(str(two), "w") as container:
        tracks = [source.streams.video[0], source.streams.audio[0], source.streams.audio[0]]
        copies = [container.add_stream_from_template(track) for track in tracks]
        for number, copy in enumerate(copies):
            source.seek(0)
            for packet in source.demux(tracks[number]):
                if packet.dts is not None:
                    packet.stream = copy
                    container.mux(packet)
    reconstruct_video(longer, tmp_path / "a", Blocks(), TILING)
    said = re.search(
        r"sound copied, without its last (\S+) s, for which there is no", capsys.readouterr().out
    )
    assert said and float(said[1]) == pytest.approx(0.5, abs=0.05)
    reconstruct_video(two, tmp_path / "b", Blocks(), TILING)
    assert f"{two}: the first of its 2 sound tracks is used" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_what_is_broken_off_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, error: BaseException
) -> None:
    path = video_file(tmp_path / "in.mp4", 40)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OUT).write_bytes(b"of before")
    with pytest.raises(type(error)):
        reconstruct_video(path, tmp_path / "out", Failing(error), TILING)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [OUT]
    assert (tmp_path / "out" / OUT).read_bytes() == b"of before"


def test_sigterm_leaves_no_hidden_file_and_shows_in_the_exit_code(tmp_path: Path) -> None:
    path = video_file(tmp_path / "in.mp4", 40)
    code = (
        "import sys, moviegen.reconstruct as command; from moviegen import cli\n"
        "from test_reconstruct_video import Terminating\n"
        "command.any_codec = lambda path: Terminating()\n"
        "sys.exit(cli.main(['reconstruct', *sys.argv[1:], 'tiling.frames=8', 'tiling.frames_overlap=4']))\n"
    )
    done = in_a_process(code, f"video={path}", f"run_dir={tmp_path / 'out'}")
    assert done.returncode == 143 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("terminated: what is finished is kept")
    assert list((tmp_path / "out").iterdir()) == []


def test_damage_in_the_middle_of_a_file_leaves_nothing(tmp_path: Path) -> None:
    data = bytearray(video_file(tmp_path / "in.mp4", 64).read_bytes())
    begin = data.find(b"mdat") + 2000
    data[begin : begin + 4000] = bytes(4000)
    (tmp_path / "in.mp4").write_bytes(data)
    with pytest.raises(media.MediaError, match=r"in\.mp4: the decoder failed"):
        reconstruct_video(tmp_path / "in.mp4", tmp_path / "out", Blocks(), TILING)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["in.mp4"]


def test_a_full_disk_is_one_line_with_the_file_s_own_name_and_leaves_nothing(tmp_path: Path) -> None:
    """The muxer's writes fail at a limit on file size, set in a process of its own."""
    path = video_file(tmp_path / "in.mp4", 48)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from test_reconstruct_video import TILING, Blocks, media, reconstruct_video\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "try: reconstruct_video(sys.argv[1], Path(sys.argv[2]), Blocks(), TILING)\n"
        "except media.MediaError as error: print(error)\n"
    )
    done = in_a_process(code, str(path), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("cannot be written: File too large\n") and done.stdout.count("\n") == 1
    assert done.stdout.startswith((f"{tmp_path / 'out' / OUT}: ", f"{tmp_path / 'out' / SIDE_BY_SIDE}: "))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give video=FILE or shards=FOLDER, one of the two; neither is given"),
        (["video=a.mp4", "shards=b"], "give video=FILE or shards=FOLDER, one of the two; both are given"),
        (["video=none.mp4"], "none.mp4: no such file"),
        (["video=text.mp4"], "text.mp4: cannot be opened as a video"),
        (["video=text.mp4", "tiling.frames=30"], "tiling.frames must be a multiple of the codec's 8, got 30"),
        (["video=text.mp4", "tiling.frames=8"], "tiles of frames=8 need an overlap from 0 to 7, got 16"),
        (["video=text.mp4", "codec=nowhere/tae"], "no model at nowhere/tae"),
        (["video=text.mp4", "crf=52"], ": must be at most 51"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch, capsys, words: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    assert cli.main(["reconstruct", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and reason in error and error.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "text.mp4"]
