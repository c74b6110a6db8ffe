"""Arms: which video belongs to which prompt, what is wrong with the rest, and what makes two arms comparable."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_samples import frames_of, write_arm, write_suite
from moviegen_eval.arms import (
    SettingsCard,
    fair_plan,
    normalized,
    read_arm,
    read_card,
    unlike_settings,
    write_card,
)
from moviegen_eval.arms.fair import Normal, as_they_are, differences, unfit_videos
from moviegen_eval.arms.folder import count_problems
from moviegen_eval.arms.items import pairs_of_arms
from moviegen_eval.suites import Suite, open_suite

from moviegen.media import write_video

NUM = 4


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return open_suite(str(write_suite(tmp_path_factory.mktemp("suite") / "suite.csv", NUM)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arm(tmp_path_factory.mktemp("plain"), num=NUM)


def renamed(plain: Path, folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for row, name in enumerate(names):
        shutil.copy(plain / f"p-{row:02d}.mp4", folder / name)
    return folder


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("row", ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]),
        ("row", ["0000.mp4", "0001.mp4", "0002.mp4", "0003.mp4"]),
        ("prompt", [f"a thing number {n}-0.mp4" for n in range(4)]),
        ("id", [f"p-{n:02d}.mp4" for n in range(4)]),
    ],
)
def test_files_are_matched_by_the_rule_that_fits(
    suite: Suite, plain: Path, tmp_path: Path, rule: str, names: list[str]
) -> None:
    arm = read_arm("x", renamed(plain, tmp_path / "arm", names), suite)
    assert arm.rule == rule and list(arm.videos) == [prompt.id for prompt in suite.prompts]
    assert arm.problems == () and arm.videos["p-02"][0].path.name == names[2]
    assert arm.videos["p-02"][0].info.num_frames == 8


def test_missing_extra_corrupt_and_refused_are_counted_and_named(
    suite: Suite, plain: Path, tmp_path: Path
) -> None:
    folder = renamed(plain, tmp_path / "arm", ["p-00.mp4", "p-01.mp4", "p-00-1.mp4", "other.mp4"])
    (folder / "p-01.mp4").write_bytes(b"no video")
    write_card(folder, SettingsCard("x", refusals=["p-03", "p-99"]))
    arm = read_arm("x", folder, suite)
    assert count_problems(arm.problems)["x"] == {"corrupt": 1, "extra": 2, "missing": 1, "refused": 1}
    named = {(problem.kind, problem.name) for problem in arm.problems}
    assert {
        ("missing", "p-02"),
        ("refused", "p-03"),
        ("corrupt", "p-01.mp4"),
        ("extra", "other.mp4"),
    } <= named
    assert [video.number for video in arm.videos["p-00"]] == [0, 1] and "p-01" not in arm.videos
    with pytest.raises(ValueError, match=r"none of the 0 videos in .* such as p-00\.mp4"):
        (tmp_path / "empty").mkdir()
        read_arm("y", tmp_path / "empty", suite)


def test_settings_cards_are_strict_and_unlike_settings_are_found(tmp_path: Path) -> None:
    (tmp_path / "arm.yaml").write_text("date: 2024-12-09\nversion: 1.5\nsteps: 50\nguidance: 7\n")
    card = read_card(tmp_path, "kling15")
    assert (card.name, card.date, card.version, card.steps) == ("kling15", "2024-12-09", "1.5", 50)
    unlike = unlike_settings({"a": card, "b": SettingsCard("b", steps=50)})
    assert "steps" not in unlike and unlike["guidance"] == {"a": "7", "b": "not stated"}
    for text, hint in (
        ("stesp: 3", "did you mean 'steps'"),
        ("steps: many", "expected int"),
        ("a: [", "is not yaml"),
        ("steps: -1", "more than 0"),
    ):
        (tmp_path / "arm.yaml").write_text(text)
        with pytest.raises(ValueError, match=hint):
            read_card(tmp_path, "kling15")


def test_unlike_arms_are_brought_to_the_least_of_each_or_refused(
    suite: Suite, plain: Path, tmp_path: Path
) -> None:
    long = write_arm(tmp_path / "long", num=NUM, rate=16.0, size=48, length=32)
    arms = [read_arm("plain", plain, suite), read_arm("long", long, suite)]
    assert set(differences(arms)) == {"frame_rate", "seconds", "width", "height"}
    normal = fair_plan(arms)
    assert (
        normal == Normal(8.0, 1.0, 32, 32) and normal.describe() == "8 frames/s, the first 1 s, 32x32 pixels"
    )
    assert fair_plan(arms[:1]).is_empty() and fair_plan(arms, "as_they_are").is_empty()
    with pytest.raises(
        ValueError, match=r"arms differ: frame_rate plain 8, long 16; seconds plain 1, long 2"
    ):
        fair_plan(arms, "refuse")
    assert normalized(frames_of(0, size=48, num=16), 8.0, normal).shape == (8, 32, 32, 3)
    wide = np.zeros((2, 20, 80, 3), np.uint8)
    wide[:, :, 30:50] = 255
    assert normalized(wide, 8.0, Normal(width=10, height=10)).min() == 255


def test_a_video_too_short_for_the_comparison_is_named(suite: Suite, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arm"
    shutil.copytree(plain, folder)
    write_video(folder / "p-03.mp4", frames_of(3, num=4), 8.0)
    arm = read_arm("x", folder, suite)
    assert [(one.kind, one.name, one.reason) for one in unfit_videos([arm], Normal())] == [
        ("short", "p-03.mp4", "0.50 s, the comparison needs 1.00 s")
    ]
    assert unfit_videos([arm], Normal(), "as_they_are") == []


def test_an_arm_that_mixes_rates_and_sizes_is_unlike_and_what_cannot_be_brought_down_is_named(
    suite: Suite, plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(plain, folder)
    write_video(folder / "p-01.mp4", frames_of(1, num=4), 4.0)
    write_video(folder / "p-02.mp4", frames_of(2, num=16, size=48), 16.0)
    write_video(folder / "p-03.mp4", frames_of(3, size=16), 8.0)
    arms = [read_arm("plain", plain, suite), read_arm("mixed", folder, suite)]
    assert differences(arms)["frame_rate"] == {"plain": "8", "mixed": "4 to 16"}
    normal = fair_plan(arms)
    assert normal == Normal(frame_rate=8.0, width=32, height=32)
    assert [(one.kind, one.name) for one in unfit_videos(arms, normal)] == [
        ("slow", "p-01.mp4"),
        ("small", "p-03.mp4"),
    ]
    assert as_they_are(arms[:1]) == "as they are: 8 frames/s, 1.0 s, 32x32"
    assert as_they_are(arms).startswith("unlike: frame_rate plain: 8, mixed: 4 to 16; width")


def test_files_that_are_counted_from_1_are_refused(suite: Suite, plain: Path, tmp_path: Path) -> None:
    folder = renamed(plain, tmp_path / "arm", [f"{n}.mp4" for n in range(1, NUM + 1)])
    with pytest.raises(
        ValueError, match=r"holds 4\.mp4 but no video of row 0, so its files seem to be counted from 1"
    ):
        read_arm("x", folder, suite)
    (folder / "4.mp4").unlink()  # three of four from 1 on: row 0 is missing
    assert read_arm("x", folder, suite).problems[0].kind == "missing"


def test_pairs_put_the_first_arm_against_each_of_the_others(
    suite: Suite, plain: Path, tmp_path: Path
) -> None:
    fewer = renamed(plain, tmp_path / "fewer", ["p-00.mp4", "p-01.mp4"])
    arms = [read_arm(name, folder, suite) for name, folder in (("ours", plain), ("b", fewer), ("c", plain))]
    pairs, alone = pairs_of_arms(suite, arms)
    assert [pair.id for pair in pairs] == ["p-00.b", "p-01.b", "p-00.c", "p-01.c", "p-02.c", "p-03.c"]
    assert {pair.arm_a for pair in pairs} == {"ours"}
    assert pairs[0].tags == {
        "concept": "animal,scene",
        "concept_family": "animal,scene",
        "motion_level": "low",
    }
    assert [(one.arm, one.name) for one in alone] == [("b", "p-02"), ("b", "p-03")]
    with pytest.raises(ValueError, match="needs two arms"):
        pairs_of_arms(suite, arms[:1])
