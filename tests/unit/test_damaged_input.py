"""Files that are no videos, damaged ones, and decoders that crash, hang or take all memory."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import config, moving, own, video_file
from moviegen_data.build import build
from moviegen_data.config import PhotoSource
from PIL import Image

from moviegen.media import Limits, MediaError, decode_audio, decode_video, probe, read_clip, read_image
from moviegen.media import sandbox as sandboxes

FAKE = """
import sys
for line in sys.stdin:
    {action}
"""


def play(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Put another program in the decoder's place for the next read."""
    sandboxes.reset()
    monkeypatch.setattr(sandboxes, "COMMAND", (sys.executable, "-c", FAKE.format(action=action)))


def broken_files(folder: Path) -> dict[str, str]:
    """Damaged files by name, with the rule that each breaks."""
    data = video_file(folder / "good.mp4", 32).read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 500)
    (folder / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (folder / "no_index.mp4").write_bytes(data[: data.find(b"moov") - 4] + data[data.find(b"mdat") - 4 :])
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    return {
        "empty.mp4": "empty",
        "text.mp4": "not media",
        "cut.mp4": "truncated",
        "no_index.mp4": "truncated",
        "playlist.mp4": "not media",
        "noise.mp4": "not media",
    }


def test_each_broken_file_is_named_with_its_reason_in_one_line(tmp_path: Path) -> None:
    for name, rule in broken_files(tmp_path).items():
        for read in (probe, read_clip):
            with pytest.raises(MediaError) as caught:
                read(tmp_path / name)
            assert caught.value.rule == rule, name
            assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_urls_are_refused(tmp_path: Path) -> None:
    for name, reason in (
        (str(tmp_path / "none.mp4"), "no such file"),
        (str(tmp_path), "not a regular file"),
        ("pipe:cat /etc/passwd", "is a url"),
        ("https://example.org/clip.mp4", "is a url"),
    ):
        with pytest.raises(MediaError, match=reason):
            probe(name)
        with pytest.raises(MediaError, match=reason):
            decode_video(name)


def test_fewer_frames_than_the_container_promises_are_truncation_with_both_numbers(tmp_path: Path) -> None:
    data = video_file(tmp_path / "clip.mp4", 64).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"truncated: the container promises 64 frames, \d+ are there"):
        read_clip(tmp_path / "cut.mp4", num_frames=2)


def test_a_container_without_a_frame_count_is_held_against_its_duration(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in np.random.default_rng(0).integers(0, 255, (64, 64, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert probe(tmp_path / "clip.mkv").num_frames == 64
    with pytest.raises(MediaError, match=r"truncated: the container promises 8\.00 s"):
        probe(tmp_path / "cut.mkv")


def test_damage_inside_the_pictures_is_an_error_not_a_wrong_picture(tmp_path: Path) -> None:
    data = bytearray(video_file(tmp_path / "clip.mp4", 64).read_bytes())
    begin = data.find(b"mdat") + 2000
    data[begin : begin + 4000] = bytes(4000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    with pytest.raises(MediaError, match=r"damaged\.mp4: the decoder failed"):
        read_clip(tmp_path / "damaged.mp4")


def test_our_own_readers_refuse_bytes_that_are_no_video() -> None:
    for read in (decode_video, decode_audio):
        with pytest.raises(MediaError, match="cannot be decoded"):
            read(b"no video at all" * 100)


@pytest.mark.parametrize(("width", "fits"), [(48, False), (72, False), (64, True), (70, True), (304, True)])
def test_a_width_that_decord_cannot_read_is_said_so(tmp_path: Path, width: int, fits: bool) -> None:
    video_file(tmp_path / "clip.mp4", 2, height=32, width=width)
    if fits:
        assert decode_video(tmp_path / "clip.mp4")[0].shape == (2, 32, width, 3)
        return
    with pytest.raises(MediaError, match="has a width that decord cannot read"):
        decode_video(tmp_path / "clip.mp4")


def test_a_frame_over_the_pixel_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    Image.new("RGB", (200, 100)).save(tmp_path / "photo.png")
    limits = Limits(max_pixels=4000)
    with pytest.raises(MediaError, match="64x64 is 4096 pixels a frame, the limit is 4000"):
        read_clip(path, limits=limits)
    with pytest.raises(MediaError, match="200x100 is 20000 pixels a frame, the limit is 4000"):
        read_image(tmp_path / "photo.png", limits)
    with pytest.raises(MediaError, match="the limit is 4000"):
        decode_video(path, max_pixels=4000)


def test_more_frames_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match="16 frames asked for, the limit is 10"):
        read_clip(path, limits=Limits(max_frames=10))
    with pytest.raises(MediaError, match="holds 16 frames, the limit is 10"):
        decode_video(path, max_frames=10)


def test_a_decoder_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    Image.new("L", (12_000, 12_000)).save(tmp_path / "bomb.png")
    limits = Limits(memory_bytes=400 << 20, max_pixels=1 << 40)
    with pytest.raises(MediaError) as caught:
        read_image(tmp_path / "bomb.png", limits)
    assert caught.value.rule in ("memory", "crash")


def test_a_decoder_that_crashes_is_an_error_and_the_next_read_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with monkeypatch.context() as patched:
        play(patched, "import ctypes; ctypes.string_at(0)")
        with pytest.raises(MediaError, match=r"clip\.mp4: the decoder crashed \(SIGSEGV\)"):
            probe(path)
    assert probe(path).num_frames == 16


def test_a_decoder_that_hangs_is_stopped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video_file(tmp_path / "clip.mp4")
    began = time.monotonic()
    with monkeypatch.context() as patched:
        play(patched, "import time; time.sleep(60)")
        with pytest.raises(MediaError, match=r"took longer than 0\.5 s") as caught:
            probe(path, Limits(seconds=0.5))
    assert caught.value.rule == "timeout" and time.monotonic() - began < 10
    assert probe(path).num_frames == 16


def test_a_decoder_that_answers_nonsense_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_file(tmp_path / "clip.mp4")
    play(monkeypatch, "print('x' * 100, flush=True)")
    with pytest.raises(MediaError, match="not a reply"):
        probe(path)
    sandboxes.reset()


def test_a_child_killed_between_two_reads_is_replaced(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    box = sandboxes.Sandbox(Limits().memory_bytes)
    message = {"op": "probe", "path": str(path)}
    assert box.request(message, Limits())[0][0]["info"]["num_frames"] == 16
    os.kill(box.process.pid, signal.SIGKILL)
    box.process.wait()
    with pytest.raises(MediaError, match="SIGKILL"):
        box.request(message, Limits())
    assert probe(path).num_frames == 16


@pytest.mark.parametrize("kind", ["avi", "mp4", "flv"])
def test_a_container_of_zero_length_is_empty(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"none.{kind}"
    with av.open(str(path), "w", format=kind, options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    assert path.stat().st_size > 0
    for read in (probe, read_clip):
        with pytest.raises(MediaError, match="zero-length: its video stream holds no frames") as caught:
            read(path)
        assert caught.value.rule == "empty"


def test_a_read_that_hands_over_more_than_its_limit_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match="decodes to more than the 100000 bytes") as caught:
        read_clip(path, limits=Limits(max_bytes=100_000))
    assert caught.value.rule == "too large" and probe(path).num_frames == 16
    with monkeypatch.context() as patched:  # a header that announces 2^60 bytes
        play(patched, "import os, struct; os.write(1, struct.pack('>cQ', b'J', 20) + b'{\"shape\": [1, 1, 1]}')"
             "; os.write(1, struct.pack('>cQ', b'B', 1 << 60))")  # fmt: skip
        with pytest.raises(MediaError, match="decodes to more than"):
            probe(path)
    sandboxes.reset()


def test_pictures_of_other_kinds_are_not_even_tried(tmp_path: Path) -> None:
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n"
    (tmp_path / "drawing.png").write_bytes(header + b"showpage\n%%EOF\n")
    with pytest.raises(MediaError, match="cannot be identified as an image \\(PNG, JPEG") as caught:
        read_image(tmp_path / "drawing.png")
    assert caught.value.rule == "not media"
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        Image.new("RGB", (8, 6)).save(tmp_path / "picture", kind)
        assert read_image(tmp_path / "picture").shape == (6, 8, 3)


def test_a_damaged_photograph_is_named_in_a_build_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(moving(1)[0]).save(tmp_path / "photos" / "good.png")
    data = (tmp_path / "photos" / "good.png").read_bytes()
    (tmp_path / "photos" / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "photos" / "text.jpg").write_text("no photograph")
    source = PhotoSource("photos", "train", (str(tmp_path / "photos"),), licence="CC0-1.0")
    totals = build(config(tmp_path / "out", photos=source))
    assert (totals["kept"], totals["dropped_by_rule"]) == (1, {"damaged": 1, "not media": 1})
    lines = capsys.readouterr().out.splitlines()
    assert any(
        "cut.png" in line and "dropped (damaged): the image cannot be decoded" in line for line in lines
    )
    assert any("text.jpg" in line and "dropped (not media)" in line for line in lines)


def test_a_build_names_and_counts_each_broken_file_and_keeps_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    rules = broken_files(folder)
    (folder / "notes.md").write_text("about these videos")
    totals = build(config(tmp_path / "out", own=own(folder, tmp_path / "gone.mp4")))
    printed = capsys.readouterr().out
    for name, rule in (rules | {"notes.md": "not media", "gone.mp4": "missing"}).items():
        assert any(name in line and f"dropped ({rule})" in line for line in printed.splitlines()), name
    assert totals["kept"] == 1 and totals["dropped"] == 8 and totals["samples"] == 4
    assert totals["dropped_by_rule"] == {"truncated": 2, "empty": 1, "not media": 4, "missing": 1}


def test_a_span_that_does_not_decode_is_dropped_and_the_others_are_kept(tmp_path: Path) -> None:
    frames = np.concatenate([moving(seed=seed) for seed in range(4)])
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"g": "8", "crf": "5", "keyint_min": "8", "bf": "0", "sc_threshold": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    data[-3000:-200] = bytes(2800)
    path.write_bytes(data)
    totals = build(config(tmp_path / "out", own=own(path)))
    assert totals["kept"] == 1 and 0 < totals["samples"] < 8
    assert totals["spans_dropped_by_rule"] == {"damaged": 8 - totals["samples"]}
