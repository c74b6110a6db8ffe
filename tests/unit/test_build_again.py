"""`moviegen data build` run again: a full disk loses nothing, and a finished build tells what became of files."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_samples import RATE, config, own, read_tars, tone, toys, video_file, visible
from moviegen_data import edit_samples, samples
from moviegen_data.build import build
from moviegen_data.config import ToyEditSource
from moviegen_data.toyworld import WorldConfig

from moviegen.media import MediaError, write_flac

EDITS = ToyEditSource("edits", "train", 4, 0, WorldConfig(level=4, size=64, num_frames=8))


def fails_from(call: int, function: Any, rule: str) -> Any:
    """A function that stands for another, and from its so-manieth call on meets a disk that takes nothing."""
    calls = []

    def failing(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) >= call:
            raise MediaError("video.mp4", "cannot be written: the disk is full", rule)
        return function(*given, **more)

    return failing


@pytest.mark.parametrize("rule", ["disk full", "write"])
def test_an_edit_that_cannot_be_written_stops_the_build_and_is_made_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    with monkeypatch.context() as patched, pytest.raises(MediaError, match="the disk is full"):
        failing = fails_from(8, edit_samples.encode_video, rule)  # in the second tar: a tar has three edits
        patched.setattr(edit_samples, "encode_video", failing)
        build(config(tmp_path, edits=EDITS))
    assert visible(tmp_path) == ["UNFINISHED", "train-edits-000000.json", "train-edits-000000.tar"]
    totals = build(config(tmp_path, edits=EDITS))
    assert totals["samples"] == 4 == len(read_tars(tmp_path)) and not totals["dropped_by_rule"]


def test_a_sound_that_cannot_be_written_stops_the_build_and_is_made_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, name in ((2.1, "rain"), (1.1, "wind")):
        write_flac(tmp_path / "in" / f"{name}.flac", tone(seconds), RATE)
    sounds = own(tmp_path / "in")
    with monkeypatch.context() as patched, pytest.raises(MediaError, match="the disk is full"):
        patched.setattr(samples, "encode_flac", fails_from(2, samples.encode_flac, "disk full"))
        build(config(tmp_path / "out", own=sounds))
    assert visible(tmp_path / "out") == ["UNFINISHED"]
    assert build(config(tmp_path / "out", own=sounds))["samples"] == 3 == len(read_tars(tmp_path / "out"))


def float_wav(path: Path, sound: np.ndarray) -> None:
    """Write samples [N] as they are, in 32 bits, mono."""
    data = sound.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)


def test_sound_that_is_no_number_is_a_bad_file_and_not_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    float_wav(tmp_path / "in" / "good.wav", tone(1.1)[0])
    float_wav(tmp_path / "in" / "odd.wav", np.where(np.arange(RATE * 11 // 10) % 100, 0.1, np.nan))
    totals = build(config(tmp_path / "out", own=own(tmp_path / "in")))
    assert totals["samples"] == 1 and totals["dropped_by_rule"] == {"damaged": 1}


def test_a_finished_build_says_again_what_became_of_each_file(tmp_path: Path, capsys) -> None:
    video_file(tmp_path / "in" / "a.mp4")
    video_file(tmp_path / "in" / "short.mp4", 5, seed=1)
    sources = {"own": own(tmp_path / "in"), "toy": toys(2)}
    build(config(tmp_path / "out", **sources))
    first = capsys.readouterr().out.splitlines()
    build(config(tmp_path / "out", **sources))
    again = capsys.readouterr().out.splitlines()
    assert any("short.mp4" in line and "dropped (too short)" in line for line in again)
    assert again[0].endswith("finished before, 4 samples in 2 shards") and again[1:] == first
    (tmp_path / "out" / "outcomes.json").write_text("[]")
    build(config(tmp_path / "out", **sources))
    assert capsys.readouterr().out.splitlines()[0] == again[0]
