"""Building a study: equal form, opaque names, gold items, what is refused, what is left out, resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
from moviegen_eval.study.build import build
from moviegen_eval.study.built import read_built
from moviegen_eval.study.check import check_videos
from moviegen_eval.study.study import load_study

from moviegen import cli
from moviegen.media import probe, read_clip, read_image, read_sound, to_png_bytes, write_video
from moviegen.media.loudness import equal_gains, loudness_lufs

RATE_HZ = 48_000


def tone(seconds: float, level: float, channels: int = 2) -> np.ndarray:
    wave = np.sin(2 * np.pi * 997 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    return np.repeat((level * wave)[None], channels, axis=0).astype(np.float32)


def clip(
    path: Path, seconds: float, rate: float, width: int, height: int, level: float | None = None
) -> None:
    """A bar that walks once over the picture, so that a frame's time can be seen."""
    count = round(seconds * rate)
    frames = np.full((count, height, width, 3), 60, np.uint8)
    for number, frame in enumerate(frames):
        left = round(number / count * (width - 8))
        frame[:, left : left + 8] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(
        path,
        frames,
        rate,
        None if level is None else tone(seconds, level),
        None if level is None else RATE_HZ,
    )


@pytest.fixture
def arms(tmp_path: Path) -> dict[str, str]:
    for number in range(3):
        clip(tmp_path / "ours" / f"{number}.mp4", 1.0, 12.0, 96, 64, 0.5)
        clip(tmp_path / "sora" / f"{number}.mp4", 1.5, 24.0, 128, 128, 0.05)
    (tmp_path / "prompts.txt").write_text("a bar walks\na bar, again\nthe last bar\n")
    return {"ours": str(tmp_path / "ours"), "sora": str(tmp_path / "sora")}


def config(tmp_path: Path, arms: dict[str, str], **changes) -> dict:
    values = {"study": str(tmp_path / "study.yaml"), "out": str(tmp_path / "built"), "arms": arms}
    values |= {
        "prompts": str(tmp_path / "prompts.txt"),
        "axes": ["overall", "audio_quality"],
        "gold_share": 0.6,
    }
    return values | changes


def test_both_videos_of_a_pair_get_one_size_rate_length_and_loudness(tmp_path: Path, arms) -> None:
    built = build(config(tmp_path, arms))
    study = load_study(tmp_path / "study.yaml")
    assert read_built(tmp_path / "built", study.digest) == built
    for item in study.items[:3]:
        pair = built.items[item.id]
        infos = [probe(tmp_path / "built" / "media" / name) for name in (pair.a, pair.b)]
        for name in (
            "width",
            "height",
            "frame_rate",
            "num_frames",
            "sample_rate_hz",
            "num_channels",
            "video_codec",
        ):
            assert getattr(infos[0], name) == getattr(infos[1], name), name
        assert (infos[0].width, infos[0].height, infos[0].frame_rate, infos[0].num_frames) == (
            96,
            64,
            12.0,
            12,
        )
        sounds = [read_sound(tmp_path / "built" / "media" / name, 0.0, 1.0) for name in (pair.a, pair.b)]
        levels = [loudness_lufs(*sound) for sound in sounds]
        assert levels == pytest.approx([-23.0, -23.0], abs=0.5)
        kinds = [note.partition(":")[0] for note in pair.notes]
        assert kinds == ["size", "black bars", "frame rate", "length"]
    assert "black bars: around 128x128, of another aspect than 96x64" in pair.notes
    first = built.items[study.items[0].id]
    square = read_clip(tmp_path / "built" / "media" / first.b).frames
    assert square[:, :, :14].mean() < 5 and square[:, :, 20:76].mean() > 50  # bars, not stretched
    bar = [int(frame[32, 16:80, 0].argmax()) for frame in square]
    assert bar == sorted(bar) and bar[-1] < 50  # cut after 1.0 of 1.5 s, not played faster


def test_names_and_files_say_nothing_about_the_arm(tmp_path: Path, arms) -> None:
    built = build(config(tmp_path, arms))
    files = list((tmp_path / "built" / "media").iterdir())
    assert {path.name for path in files} == set(built.files)
    for path in files:
        assert len(path.stem) == 32 and set(path.stem) <= set("0123456789abcdef")
        assert path.stat().st_mtime == 0
        assert not any(word in path.read_bytes() for word in (b"ours", b"sora", str(tmp_path).encode()))


def test_the_drafted_study_has_prompts_gold_items_and_what_a_rater_is_told(tmp_path: Path, arms) -> None:
    build(config(tmp_path, arms, study=str(tmp_path / "new" / "folder" / "study.yaml")))
    study = load_study(tmp_path / "new" / "folder" / "study.yaml")
    plain, gold = [i for i in study.items if i.gold is None], [i for i in study.items if i.gold is not None]
    assert [item.prompt for item in plain] == ["a bar walks", "a bar, again", "the last bar"]
    assert [item.gold for item in gold] == ["a", "b"]
    for item in gold:
        good, bad = (study.video(item, side) for side in (item.gold, "b" if item.gold == "a" else "a"))
        difference = np.abs(read_clip(good).frames.astype(int) - read_clip(bad).frames.astype(int)).mean()
        assert difference > 5
    assert [axis.key for axis in study.axes] == ["overall", "audio_quality"]
    assert study.instructions and study.consent and study.exclusion.min_gold_accuracy == 0.6
    row = {
        "source": "x.mp4",
        "still": False,
        "task": "color",
        "caption": None,
    }  # as moviegen edit writes them
    lines = [{"id": str(n), "file": f"{n}.mp4", "instruction": f"make it {n}", **row} for n in range(3)]
    (tmp_path / "ours" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    edits = {"study": str(tmp_path / "edits.yaml"), "out": str(tmp_path / "edits")}
    build(config(tmp_path, arms, **edits, prompts=None, gold_share=0.0))
    assert [item.prompt for item in load_study(tmp_path / "edits.yaml").items] == [
        "make it 0",
        "make it 1",
        "make it 2",
    ]


def test_a_build_goes_on_and_builds_anew_only_what_changed(tmp_path: Path, arms) -> None:
    first = build(config(tmp_path, arms))
    clip(tmp_path / "sora" / "1.mp4", 1.0, 24.0, 128, 128, 0.1)
    second = build(config(tmp_path, arms))
    changed = [key for key in first.items if first.items[key] != second.items[key]]
    assert changed == ["1"]
    assert {path.name for path in (tmp_path / "built" / "media").iterdir()} == set(second.files)


def test_missing_videos_are_counted_and_named_and_an_arm_without_partner_refused(
    tmp_path: Path, arms, capsys
) -> None:
    clip(tmp_path / "sora" / "7.mp4", 1.0, 24.0, 64, 64, 0.1)
    (tmp_path / "ours" / "2.mp4").unlink()
    build(config(tmp_path, arms, gold_share=0.0))
    out = capsys.readouterr().out
    assert "left out: 2 videos of arm 'sora' that arm 'ours' does not have (2, 7)" in out
    with pytest.raises(ValueError, match="two or more"):
        build(config(tmp_path, {"ours": arms["ours"]}, study=str(tmp_path / "other.yaml")))


def test_pairs_that_cannot_be_compared_are_all_named_and_the_others_built(tmp_path: Path, arms) -> None:
    clip(tmp_path / "sora" / "0.mp4", 9.0, 4.0, 64, 64, 0.1)
    (tmp_path / "ours" / "1.mp4").write_bytes(b"no video at all")
    with pytest.raises(
        ValueError, match=r"2 of 3 items cannot be built: item 0: .*lengths 1 and 9 differ"
    ) as caught:
        build(config(tmp_path, arms, gold_share=0.0))
    assert "item 1: " in str(caught.value) and "\n" not in str(caught.value)
    rows = [json.loads(line) for line in (tmp_path / "built" / "problems.jsonl").read_text().splitlines()]
    assert [row["item"] for row in rows] == ["0", "1"]
    assert list(read_built(tmp_path / "built").items) == ["2"]
    clip(tmp_path / "sora" / "0.mp4", 1.0, 24.0, 64, 64, 0.1)
    clip(tmp_path / "ours" / "1.mp4", 1.0, 12.0, 96, 64, 0.5)
    assert list(build(config(tmp_path, arms)).items) == ["0", "1", "2"]
    assert not (tmp_path / "built" / "problems.jsonl").exists()


def test_sound_is_left_out_where_no_axis_is_judged_with_it_and_missed_where_one_is(
    tmp_path: Path, arms
) -> None:
    built = build(config(tmp_path, arms, axes=["overall"], gold_share=0.0))
    assert not any(probe(path).has_audio for path in built.files.values())
    clip(tmp_path / "sora" / "0.mp4", 1.0, 24.0, 64, 64)
    with pytest.raises(ValueError, match="holds no sound, and an axis of the study is judged with it"):
        build(config(tmp_path, arms, study=str(tmp_path / "heard.yaml"), gold_share=0.0))


def picture(path: Path, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png_bytes(np.full((side, side, 3), 90, np.uint8)))


def test_a_reference_is_built_anew_under_an_opaque_name_and_missed_where_an_axis_asks_for_it(
    tmp_path: Path, arms
) -> None:
    for number in range(2):
        picture(tmp_path / "faces" / f"{number}.png", 3000)
    clip(tmp_path / "faces" / "2.mp4", 1.0, 24.0, 64, 64, 0.1)
    settings = config(tmp_path, arms, axes=["identity", "overall"])
    with pytest.raises(
        ValueError, match="axis 'identity' is judged against a reference, but item '0' has none"
    ):
        build(settings)
    assert not (tmp_path / "study.yaml").exists()
    built = build(settings | {"references": str(tmp_path / "faces")})
    study = load_study(tmp_path / "study.yaml")
    assert [study.reference(item) is not None for item in study.items] == [True] * len(study.items)
    assert check_videos(study) and not [one for one in check_videos(study) if "reference" in one.reason]
    shown = [built.folder / "media" / str(built.items[str(n)].reference) for n in range(3)]
    assert read_image(shown[0]).shape == (1280, 1280, 3) and shown[0].stat().st_mtime == 0
    assert probe(shown[2]).num_frames == 24 and not probe(shown[2]).has_audio
    assert {path.name for path in (tmp_path / "built" / "media").iterdir()} == set(built.files)
    assert build(settings) == built
    (tmp_path / "faces" / "1.png").write_bytes(b"no picture")
    (tmp_path / "faces" / "2.mp4").unlink()
    with pytest.raises(ValueError, match=r"items cannot be built: item 1: "):
        build(settings)
    faults = {one.reason: one.count for one in check_videos(study)}
    assert faults["reference that cannot be read"] == faults["missing reference"] == 1


def test_loudness_agrees_with_the_broadcasters_reference_tones() -> None:
    full = tone(5.0, 1.0, 1)
    assert loudness_lufs(full, RATE_HZ) == pytest.approx(-3.01, abs=0.02)  # BS.1770-4: 997 Hz, one channel
    assert loudness_lufs(tone(5.0, 10 ** (-23 / 20)), RATE_HZ) == pytest.approx(
        -23.0, abs=0.05
    )  # EBU Tech 3341, 1
    quiet = np.concatenate([tone(5.0, 10 ** (-23 / 20)), np.zeros((2, 5 * RATE_HZ), np.float32)], axis=1)
    # Silence is gated out but for the blocks at the border; without gates this would be -26.
    assert loudness_lufs(quiet, RATE_HZ) == pytest.approx(-23.0, abs=0.2)
    assert loudness_lufs(np.zeros((1, RATE_HZ), np.float32), RATE_HZ) is None


def test_a_gain_never_clips_and_both_arms_still_end_equally_loud() -> None:
    peaky = np.zeros((1, RATE_HZ), np.float32)
    peaky[:, ::4800] = 0.9  # quiet, but with high peaks
    plain = tone(1.0, 0.5, 1)
    first, second, reached = equal_gains((peaky, RATE_HZ), (plain, RATE_HZ), -14.0)
    assert reached is not None and reached < -14.0
    assert np.abs(peaky * first).max() <= 0.9
    levels = [loudness_lufs(peaky * first, RATE_HZ), loudness_lufs(plain * second, RATE_HZ)]
    assert levels == pytest.approx([reached, reached], abs=0.05)


def test_the_command_line_builds_and_says_in_one_line_what_it_cannot(tmp_path: Path, arms, capsys) -> None:
    words = [f"study={tmp_path / 'study.yaml'}", f"out={tmp_path / 'built'}"]
    assert cli.main(["eval", "study", "build", *words]) == 2
    assert "give arms.<name>=folder" in capsys.readouterr().err
    more = [f"arms.{name}={folder}" for name, folder in arms.items()]
    more += [f"prompts={tmp_path / 'prompts.txt'}", "axes=[overall]", "gold_share=0.0"]
    assert cli.main(["eval", "study", "build", *words, *more]) == 0
    assert cli.main(["eval", "study", "serve", *words, f"built={tmp_path / 'ours'}"]) == 2
    assert "build.json" in capsys.readouterr().err
