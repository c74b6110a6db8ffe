"""What an edit leaves as it was is the source's own: exactly where nothing differs, and not where all of it does."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_samples import moving, video_file
from model_samples import Generator
from test_edit_command import refused, run, saved_editor

from moviegen.codec.tiling import Tiling
from moviegen.config import UserError
from moviegen.edit_files import SourceClip, kept_frames
from moviegen.keep import Keep, blended, changed, shares
from moviegen.media import read_clip, read_image, to_png_bytes
from moviegen.tasks.editing import Baseline, EditBatch
from moviegen.types import Latent, VideoClip

KEEP = Keep(low=24, high=64, slack=0, grow=1, soft=1)
UNMARKED = ["marking.picture=null", "marking.c2pa=false"]  # the pixels themselves


def kept(edited: np.ndarray, base: np.ndarray, source: np.ndarray, keep: Keep = KEEP) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] of an edit with its source put back."""
    found = shares(zip(edited, base, strict=True), keep)
    return np.stack([blended(frame, own, part) for (frame, part), own in zip(found, source, strict=True)])


def clips(num_frames: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A source, and what a codec makes of it."""
    source = moving(num_frames, 32, 32)
    noise = np.random.default_rng(0).normal(0, 6, source.shape)
    return source, (source + noise).clip(0, 255).astype(np.uint8)


def test_where_nothing_differs_from_the_codec_the_source_comes_back_exactly() -> None:
    source, base = clips()
    np.testing.assert_array_equal(kept(base, base, source), source)
    faint = (
        (base.astype(int) + 30).clip(0, 255).astype(np.uint8)
    )  # above `low` everywhere, above `high` nowhere
    np.testing.assert_array_equal(kept(faint, base, source), source)


def test_a_local_change_stays_and_all_outside_of_it_is_the_sources() -> None:
    source, base = clips()
    edited = (base.astype(int) + 12).clip(0, 255).astype(np.uint8)  # a sampler's blur, everywhere
    edited[:, 8:16, 8:16] = 255 - source[:, 8:16, 8:16] // 3
    base[:, 8:16, 8:16] = 0
    made = kept(edited, base, source)
    outside = np.ones((32, 32), dtype=bool)
    outside[4:20, 4:20] = False  # window, growth and fade reach so far
    np.testing.assert_array_equal(made[:, outside], source[:, outside])
    np.testing.assert_array_equal(made[:, 8:16, 8:16], edited[:, 8:16, 8:16])


def test_what_is_only_blurred_is_no_edit() -> None:
    source = np.zeros((2, 24, 24, 3), dtype=np.uint8)
    source[:, :, 12:] = 200
    edited = source.copy()
    edited[:, :, 11:13] = 100  # the edge, two pixels wide
    np.testing.assert_array_equal(kept(edited, source, source, replace(KEEP, slack=1)), source)
    exact = kept(edited, source, source, replace(KEEP, slack=0))
    np.testing.assert_array_equal(exact[:, :, 11:13], edited[:, :, 11:13])


def test_a_task_may_have_bounds_of_its_own() -> None:
    own = Keep(low=12, high=32, tasks={"segment": {"low": 48, "high": 64}})
    assert (own.of("segment").low, own.of("segment").high, own.of("segment").grow) == (48, 64, own.grow)
    source, _ = clips()
    ghost = (source.astype(int) + 40).clip(0, 255).astype(np.uint8)
    assert not np.array_equal(kept(ghost, source, source, own.of("add")), source)
    np.testing.assert_array_equal(kept(ghost, source, source, own.of("segment")), source)


def test_an_edit_of_all_of_the_picture_is_untouched() -> None:
    source, base = clips()
    edited = ((base.astype(int) + 128) % 256).astype(np.uint8)
    np.testing.assert_array_equal(kept(edited, base, source), edited)


def test_a_thing_is_followed_in_time_where_it_differs_little_and_another_is_not() -> None:
    levels = np.zeros((8, 20, 20), dtype=np.float32)
    for frame in range(8):  # it moves, and is seen well in one frame alone
        levels[frame, 4:8, frame : frame + 4] = 90 if frame == 5 else 40
    levels[:, 14:18, 4:8] = 40
    found = changed(levels, KEEP)
    assert found[:, 4:8].sum() == 8 * 16 and not found[:, 12:].any()


def test_in_a_long_clip_few_frames_are_held_and_a_thing_is_followed_to_its_end() -> None:
    seen = 0

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal seen
        for number in range(40):
            seen += 1
            edited = np.zeros((12, 12, 3), dtype=np.uint8)
            edited[4:8, 4:8] = 40 if number != 10 else 200
            yield edited, np.zeros((12, 12, 3), dtype=np.uint8)

    most, parts = 0, []
    for number, (_, part) in enumerate(shares(pairs(), replace(KEEP, frames=4))):
        most = max(most, seen - number)
        parts.append(part[5, 5])
    assert most <= 2 * 4
    assert parts == [0.0] * 4 + [1.0] * 36  # from at most a block before the sure frame, and to the end
    together = [part[5, 5] for _, part in shares(pairs(), replace(KEEP, frames=20))]
    assert together == [1.0] * 40


@pytest.fixture(scope="module")
def model(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_editor(generator, tmp_path_factory.mktemp("keep"))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The model's answer: its source, with so much added to the latents of a corner."""
    added = [0.0]

    def answer(_: object, batch: EditBatch, __: object, baseline: Baseline | None) -> Latent:
        values = batch.source.values.clone()
        if baseline != "copy":
            values[..., :2, :2] += added[0]
        return Latent(values, batch.source.frame_rate)

    monkeypatch.setattr("moviegen.edit.edit_latents", answer)
    return added


def test_the_pixels_of_a_picture_stay_at_its_own_size(
    model: str, answers: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = moving(1, 48, 64)[0]
    (tmp_path / "in.png").write_bytes(to_png_bytes(picture))
    words = [f"image={tmp_path / 'in.png'}", "instruction=remove the star", *UNMARKED]
    assert run(tmp_path / "same", model, *words) == 0
    assert "nothing was changed" in (said := capsys.readouterr().out) and "fainter than keep.high=" in said
    np.testing.assert_array_equal(read_image(tmp_path / "same" / "edited.png"), picture)
    note = json.loads((tmp_path / "same" / "edited.json").read_text())
    assert (
        note["edited_share"] == 0
        and note["recipe"]["keep"]["low"] == note["provenance"]["settings"]["keep"]["low"]
    )
    assert run(tmp_path / "spared", model, words[0], "instruction=invert the colors", *UNMARKED) == 0
    note = json.loads((tmp_path / "spared" / "edited.json").read_text())
    assert "edited_share" not in note and note["recipe"]["keep"]["spare"] == ["style"]
    assert np.abs(read_image(tmp_path / "spared" / "edited.png").astype(int) - picture).max() > 8
    answers[0] = 40.0
    assert run(tmp_path / "other", model, *words, "keep.low=8", "keep.high=8") == 0
    assert np.abs(read_image(tmp_path / "other" / "edited.png").astype(int) - picture).max() > 8
    (row,) = (tmp_path / "other" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(row)["keep"]["low"] == 8


class Blocks:
    """A codec whose latents are pixels, four by four."""

    temporal_factor, spatial_factor = 1, 4

    def decode(self, latent: Latent, num_frames: int | None = None) -> VideoClip:
        frames = latent.values.repeat_interleave(4, dim=3).repeat_interleave(4, dim=4)
        return VideoClip(frames, latent.frame_rate)


def test_at_the_size_of_the_file_an_edit_ends_where_it_ends(tmp_path: Path) -> None:
    picture = moving(1, 96, 128)[0]
    (tmp_path / "in.png").write_bytes(to_png_bytes(picture))
    latent = torch.zeros(1, 3, 1, 12, 16)  # 48 x 64 pixels: half of the file's
    source = SourceClip(tmp_path / "in.png", latent, 1, 96, 128, 0.0, (), None)
    edited = latent.clone()
    edited[..., 2:6, 2:6] = 0.9
    parts: list[float] = []
    codec: Any = Blocks()
    (made,) = kept_frames(edited, source, codec, Tiling(), KEEP, parts)
    assert made.shape == picture.shape and 0 < parts[0] < 0.25
    outside = np.ones((96, 128), dtype=bool)
    outside[8:56, 8:56] = False  # the edit is at 16:48; window, growth and fade are four pixels, here eight
    np.testing.assert_array_equal(made[outside], picture[outside])
    assert (made[18:46, 18:46] > 235).all()


def test_a_long_video_of_another_size_keeps_its_pixels_and_its_switch_off_says_nothing(
    model: str,
    answers: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = video_file(tmp_path / "in.mp4", 70, height=40, width=56)  # more than the codec's tile
    before = read_clip(source).frames
    words = [f"video={source}", "instruction=remove the star", "keep.frames=8", *UNMARKED]
    with monkeypatch.context() as large:
        large.setattr("moviegen.edit_files.SMALL_BYTES", 0)  # in chunks, as a large file is read
        assert run(tmp_path / "on", model, *words) == 0
    assert run(tmp_path / "off", model, *words[:2], *UNMARKED, "keep=null") == 0
    assert run(tmp_path / "copy", model, *words, "baseline=copy") == 0
    assert run(tmp_path / "sdedit", model, *words, "baseline=sdedit") == 0
    made = {
        name: read_clip(tmp_path / name / "edited.mp4").frames for name in ("on", "off", "copy", "sdedit")
    }
    assert made["on"].shape == before.shape
    errors = {name: np.abs(frames.astype(int) - before).mean() for name, frames in made.items()}
    assert errors["on"] < 2 < 10 < errors["off"]  # the codec's weights are random
    np.testing.assert_array_equal(made["sdedit"], made["on"])
    np.testing.assert_array_equal(made["copy"], made["off"])  # shows what the codec makes of the source
    notes = {name: json.loads((tmp_path / name / "edited.json").read_text()) for name in made}
    assert "keep" in notes["on"]["recipe"] and "edited_share" in notes["sdedit"]
    for name in ("off", "copy"):
        assert "keep" not in notes[name]["recipe"] and "edited_share" not in notes[name]
        assert "keep" not in (tmp_path / name / "manifest.jsonl").read_text()


def test_bounds_that_make_no_sense_are_refused(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, said in (
        ("keep.low=180", "keep.low=180, keep.high=32: need 0 <= low <= high <= 255"),
        ("keep.smooth=2", "keep.smooth=2: must be odd"),
        ("keep.frames=0", "frames=0: must be at least 1"),
        ("keep.spare=[styl]", "keep.spare: no edit task is called 'styl', did you mean 'style'?"),
        ("keep.tasks.segment.low=90", "keep.low=90, keep.high=64: need 0 <= low <= high <= 255"),
    ):
        error = refused(capsys, run(tmp_path / "out", model, "video=a.mp4", "instruction=add a star", words))
        assert said in error and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"keep\.high=300"):
        Keep(low=32, high=300)
    for tasks, said in (
        ({"ad": {"low": 9}}, "keep.tasks: no edit task is called 'ad', did you mean 'add'?"),
        ({"add": {"grow": 2}}, "keep.tasks.add.grow: is none of low, high"),
    ):
        with pytest.raises(UserError, match=said):
            Keep(low=12, high=32, tasks=tasks)
