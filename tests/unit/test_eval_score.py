"""Scoring arms: equal n, manifests, caches that resume and that parts share, the refusal to compare the unlike."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_samples import NUM_PROMPTS, frames_of, write_arm, write_suite
from media_samples import video_file
from moviegen_eval import score_clips
from moviegen_eval.edit_set import edit_set
from moviegen_eval.manifest import GeneratedSample, read_manifest, write_manifest
from moviegen_eval.report.compared import by_tag_table
from moviegen_eval.score import score
from moviegen_eval.scores import Score, check_comparable, compare_scores, read_scores
from moviegen_eval.study_draft import draft
from test_edit_command import model, run  # noqa: F401 (model is a fixture)
from tiny_weights import write_tiny_weights

from moviegen.config import compose
from moviegen.media import write_video


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite and two arms, the second of twice the frame rate and with a missing and a damaged video."""
    root = tmp_path_factory.mktemp("bench")
    write_suite(root / "suite.csv")
    write_arm(root / "clean")
    write_arm(root / "noisy", noise=25, rate=16.0, length=16)
    (root / "noisy" / "p-03.mp4").write_bytes(b"junk")
    (root / "noisy" / "p-07.mp4").unlink()
    write_video(root / "noisy" / "stray.mp4", np.zeros((8, 32, 32, 3), np.uint8), 8.0)
    return root


def config(bench: Path, out: Path, **changes: Any) -> dict:
    arms = {name: str(bench / name) for name in ("clean", "noisy")}
    base = {
        "out": str(out),
        "suite": str(bench / "suite.csv"),
        "arms": arms,
        "metrics": ["flicker", "motion"],
    }
    return base | {"bootstrap_count": 200, "set_bootstrap": 5} | changes


def by_arm(scores: list[Score], output: str) -> dict[str, Score]:
    return {one.arm: one for one in scores if one.output == output}


def test_all_arms_are_scored_on_the_prompts_that_all_have(bench: Path, tmp_path: Path) -> None:
    scores = by_arm(score(config(bench, tmp_path)), "flicker")
    assert {one.n for one in scores.values()} == {NUM_PROMPTS - 2}
    assert scores["noisy"].value > 3 * scores["clean"].value
    assert compare_scores(scores["clean"], scores["noisy"]) > 0
    assert scores["clean"].low is not None and scores["clean"].low < scores["clean"].value
    file = read_scores(tmp_path)
    counts = file.facts["problem_counts"]
    assert counts["noisy"] == {"corrupt": 1, "extra": 1, "missing": 1} and counts["clean"] == {"unpaired": 2}
    assert file.facts["normal"] == {"frame_rate": 8.0}
    assert "arms differ; all clips were brought to 8 frames/s" in file.facts["warnings"]
    assert {row.prompt for row in file.samples} == set(file.facts["prompts_scored"])
    figures = {row["name"] for row in json.loads((tmp_path / "numbers.json").read_text())}
    assert "score/noisy/flicker_alternating" in figures
    with pytest.raises(ValueError, match="arms differ: frame_rate clean 8, noisy 16"):
        score(config(bench, tmp_path / "x", unlike="refuse"))


def test_what_edit_wrote_of_tgve_is_scored_against_its_sources_and_drafted_into_a_study(
    model: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    head = "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,"
    bear = "bear,a bear walks,a bear in oil,a lion walks,a bear in snow,a lion in snow in oil\n"
    (tmp_path / "tgve.csv").write_text(f"{head}Multiple Changes Caption\nDAVIS Videos:,,,,,\n{bear}")
    videos, suite = tmp_path / "videos", f"tgve:{tmp_path / 'tgve.csv'}"
    video_file(videos / "DAVIS_480p" / "480p_videos" / "bear.mp4", 8, height=32, width=32)
    edit_set({"out": str(tmp_path / "set"), "suite": suite, "videos": str(videos)})
    for arm, more in (("ours", []), ("copy", ["baseline=copy"])):
        assert run(tmp_path / arm, model, f"edits={tmp_path / 'set' / 'edits.jsonl'}", *more) == 0
    arms = {arm: str(tmp_path / arm) for arm in ("ours", "copy")}
    given: dict[str, Any] = {"suite": suite, "arms": arms, "sources": str(videos)}
    clip = {"weights": {"open_clip": write_tiny_weights(tmp_path / "weights")["open_clip"]}}
    wanted = {"out": str(tmp_path / "scores"), "metrics": ["edit", "flicker"], "other_weights": True}
    scores = score(given | clip | wanted)
    found = {(one.arm, one.output): one.n for one in scores}
    assert found["ours", "edit_direction"] == found["copy", "edit_text"] == found["ours", "flicker"] == 4
    study = draft(given | {"out": str(tmp_path / "study.yaml"), "axes": ["edit_text"]})
    assert len(study.items) == 4 and study.without_reference()[1] == []


def test_a_second_run_decodes_nothing_and_a_change_of_inputs_is_seen(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"clean": str(tmp_path / "arm")}
    shutil.copytree(bench / "clean", tmp_path / "arm")
    first = score(config(bench, tmp_path / "out", arms=arms))
    loaded: list[Path] = []
    plain = score_clips.load_clip
    monkeypatch.setattr(
        score_clips, "load_clip", lambda path, *rest: loaded.append(path) or plain(path, *rest)
    )
    assert score(config(bench, tmp_path / "out", arms=arms)) == first and loaded == []
    shutil.copy(bench / "noisy" / "p-00.mp4", tmp_path / "arm" / "p-00.mp4")
    score(config(bench, tmp_path / "out", arms=arms))
    assert [path.name for path in loaded] == ["p-00.mp4"]


def test_a_broken_off_run_goes_on_where_it_stopped(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = score_clips.load_clip, []

    def stop(path: Path, *rest: Any) -> Any:
        seen.append(path)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return plain(path, *rest)

    monkeypatch.setattr(score_clips, "load_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        score(config(bench, tmp_path))
    assert not (tmp_path / "scores.json").exists()
    scores = score(config(bench, tmp_path))
    assert len(seen) == 1 + 2 * (NUM_PROMPTS - 2) and scores


def test_the_parts_of_a_job_array_give_the_scores_of_one_run(bench: Path, tmp_path: Path) -> None:
    assert score(config(bench, tmp_path / "parts", part=1, num_parts=3)) == []
    assert score(config(bench, tmp_path / "parts", part=0, num_parts=3)) == []
    assert not (tmp_path / "parts" / "numbers.json").exists()
    parts = score(config(bench, tmp_path / "parts", part=2, num_parts=3))
    assert parts == score(config(bench, tmp_path / "one"))


def test_distances_of_sets_and_metrics_against_a_reference_run_with_tiny_weights(
    bench: Path, tmp_path: Path
) -> None:
    weights = write_tiny_weights(tmp_path / "weights")
    names = ["psnr", "clip", "fvd", "kvd", "rfvd"]
    chosen = {name: weights[name] for name in ("open_clip", "i3d_fvd")}
    write_arm(tmp_path / "long", length=32)
    write_arm(tmp_path / "noisy", noise=25, length=32)
    arms = {"long": str(tmp_path / "long"), "noisy": str(tmp_path / "noisy")}
    settings = config(bench, tmp_path / "out", arms=arms, metrics=names, weights=chosen, other_weights=True)
    scores = score(settings | {"reference": str(tmp_path / "long")})
    found = {(one.arm, one.output): one for one in scores}
    assert found["long", "psnr"].value == 100 and found["noisy", "psnr"].value < 30
    assert found["long", "rfvd"].value < 1e-9 < found["noisy", "rfvd"].value
    assert found["long", "kvd"].value <= 0 < found["noisy", "kvd"].value
    assert found["long", "fvd"].n == 2 * NUM_PROMPTS
    manifest = found["noisy", "fvd"].manifest
    assert len(manifest["weights"]["i3d_fvd"]) == 64 and manifest["reference_n"] == 2 * NUM_PROMPTS
    warnings = read_scores(tmp_path / "out").facts["warnings"]
    assert any("fvd: fewer than 2048 samples" in line for line in warnings)
    assert {"clip_text", "clip_frames"} <= {one.output for one in scores}


def test_scores_of_unlike_manifests_or_n_are_not_compared() -> None:
    one = Score(
        "a", "fvd", "fvd", 1.0, None, None, 100, "frechet", False, {"metric": "fvd", "weights": {"i3d": "x"}}
    )
    check_comparable(one, replace(one, arm="b"))
    assert compare_scores(one, replace(one, arm="b", value=3.0)) == 2
    with pytest.raises(
        ValueError, match="fvd of a and of b do not compare: n is 100 in the one, 99 in the other"
    ):
        check_comparable(one, replace(one, arm="b", n=99))
    other = {"metric": "fvd", "weights": {"i3d": "y"}}
    with pytest.raises(ValueError, match=r"weights is .* in the one"):
        compare_scores(one, replace(one, arm="b", manifest=other))
    with pytest.raises(ValueError, match="one is fvd, the other kvd"):
        check_comparable(one, replace(one, output="kvd"))


def test_metrics_that_no_clip_can_have_are_named_with_what_is_missing(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = score(config(bench, tmp_path, metrics=["free"], arms={"clean": str(bench / "clean")}))
    assert {one.metric for one in scores} == {"flicker", "motion"}
    skipped = read_scores(tmp_path).facts["skipped"]
    assert (
        skipped["psnr"] == "no reference clip of the same prompt" and skipped["oracle"] == "no toyworld spec"
    )
    assert skipped["onsets"] == "no sound" and skipped["mel_kernel"] == "no sound"
    assert "Left out: psnr: no reference clip" in capsys.readouterr().out


def test_wrong_keys_and_inputs_are_one_line(bench: Path, tmp_path: Path) -> None:
    for changes, hint in (
        ({"arms": {}}, "no arms"),
        ({"arms": {"a b": "x"}}, "cannot name an arm"),
        ({"arms": {"x": str(tmp_path / "no")}}, "is not a folder"),
        ({"part": 2, "num_parts": 2}, "part 2 of 2"),
        ({"reference": str(tmp_path / "no")}, "reference=.*is not a folder"),
        ({"metrics": ["fvd"]}, "no metric can be computed"),
        ({"metric": ["fvd"]}, "did you mean 'metrics'"),
    ):
        with pytest.raises(ValueError, match=hint):
            score(config(bench, tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "scores.json").exists()


def write_tries(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    """A manifest of (id, path, seed)."""
    common = {
        "set": "free",
        "spec": None,
        "system": "x",
        "steps": 1,
        "guidance": 1.0,
        "checkpoint": "",
        "commit": "",
    }
    write_manifest(
        folder,
        [GeneratedSample(id=i, prompt="a", path=p, seed=s, frame_rate=8.0, **common) for i, p, s in rows],  # type: ignore[arg-type]
    )


def test_an_arm_with_a_manifest_keeps_all_tries_of_a_prompt_as_one_observation(
    bench: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "arm"
    shutil.copytree(bench / "clean", folder)
    (folder / "again").mkdir()
    shutil.copy(bench / "noisy" / "p-00.mp4", folder / "again" / "p-00.mp4")
    write_tries(folder, [("p-00", "p-00.mp4", 0), ("p-00-1", "again/p-00.mp4", 1), ("p-01", "p-01.mp4", 0)])
    assert len(read_manifest(folder)) == 3
    scores = by_arm(score(config(bench, tmp_path / "out", arms={"x": str(folder)})), "flicker")
    assert scores["x"].n == 2
    file = read_scores(tmp_path / "out")
    assert sorted((row.prompt, row.number) for row in file.samples) == [("p-00", 0), ("p-00", 1), ("p-01", 0)]
    assert file.facts["problem_counts"]["x"]["extra"] == NUM_PROMPTS - 2


def test_of_two_tries_with_one_file_name_only_the_short_one_is_left_out(bench: Path, tmp_path: Path) -> None:
    folder = write_arm(tmp_path / "arm", num=3)
    write_video(folder / "again" / "p-00.mp4", frames_of(0, num=4), 8.0)
    names = ["p-00.mp4", "p-01.mp4", "p-02.mp4"]
    write_tries(folder, [(name[:-4], name, 0) for name in names] + [("p-00-1", "again/p-00.mp4", 1)])
    score(config(bench, tmp_path / "out", arms={"x": str(folder)}))
    file = read_scores(tmp_path / "out")
    assert [row["name"] for row in file.facts["problems"] if row["kind"] == "short"] == ["again/p-00.mp4"]
    assert [(row.prompt, row.number) for row in file.samples] == [("p-00", 0), ("p-01", 0), ("p-02", 0)]


def test_scores_of_two_runs_on_clips_of_other_sizes_do_not_compare(bench: Path, tmp_path: Path) -> None:
    write_arm(tmp_path / "large", size=48)
    arms = {"clean": str(bench / "clean"), "large": str(tmp_path / "large")}
    runs = [
        by_arm(score(config(bench, tmp_path / name, arms={name: arms[name]})), "flicker") for name in arms
    ]
    with pytest.raises(ValueError, match=r"normal is as they are: 8 frames/s, 1.0 s, 32x32 in the one"):
        check_comparable(runs[0]["clean"], runs[1]["large"])
    both = by_arm(score(config(bench, tmp_path / "both", arms=arms, unlike="as_they_are")), "flicker")
    check_comparable(both["clean"], both["large"])
    assert read_scores(tmp_path / "both").facts["differences"]["width"] == {"clean": "32", "large": "48"}


def test_a_job_array_s_variables_give_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "8")
    for name, words in (
        ("score", ["out=x", "suite=own"]),
        ("suite_generate", ["out=x", "suite=own", "model=m"]),
    ):
        cfg = compose(name, words)
        assert (cfg.part, cfg.num_parts) == (3, 8)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
    assert compose("score", ["out=x", "suite=own"]).num_parts == 1


def test_every_value_of_a_tag_has_figures_of_its_own(bench: Path, tmp_path: Path) -> None:
    """By edit type, which is what TGVE is judged by, where nothing is asked for."""
    rows = [
        {"id": f"p-{n:02d}", "prompt": f"edit {n}", "tags": {"edit_type": [kind], "hard": ["yes"] * (n % 2)}}
        for n, kind in enumerate(["style", "object change", "object change"] * (NUM_PROMPTS // 3))
    ]
    suite = tmp_path / "edits.jsonl"
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = score(config(bench, tmp_path / "out", suite=str(suite)))
    assert not [one for one in scores if "/" in one.output]
    figures = {row["name"]: row for row in json.loads((tmp_path / "out" / "numbers.json").read_text())}
    samples = read_scores(tmp_path / "out").samples
    for value, left_out in (("style", 1), ("object_change", 1)):  # p-03 and p-07, which one arm lacks
        own = {row["id"] for row in rows if row["tags"]["edit_type"] == [value.replace("_", " ")]}
        found = figures[f"score/noisy/edit_type/{value}/flicker"]
        mine = [one.scores["flicker"] for one in samples if one.arm == "noisy" and one.prompt in own]
        assert found["n"] == len(mine) == len(own) - left_out
        assert (
            found["value"] == pytest.approx(np.mean(mine)) and found["low"] < found["value"] < found["high"]
        )
        above = figures[f"score/clean/edit_type/{value}/flicker_minus_noisy"]
        other = figures[f"score/clean/edit_type/{value}/flicker"]
        assert above["value"] == pytest.approx(other["value"] - found["value"]) and above["high"] < 0
    assert "edit_type/style/flicker" in (tmp_path / "out" / "table.md").read_text()
    none = score(config(bench, tmp_path / "none", suite=str(suite), by=[]))
    assert none == scores and not read_scores(tmp_path / "none").by_tag
    hard = score(config(bench, tmp_path / "hard", suite=str(suite), by=["hard"])) and read_scores(
        tmp_path / "hard"
    )
    assert {one.output.rpartition("/")[0] for one in hard.by_tag} == {"hard/yes"}  # type: ignore[union-attr]
    table = by_tag_table(hard)  # type: ignore[arg-type]
    assert table.head[:3] == ("tag", "value", "metric") and table.rows[0][:2] == ("hard", "yes")
    with pytest.raises(ValueError, match="by=kind: no prompt has this tag; there are: edit_type, hard"):
        score(config(bench, tmp_path / "x", suite=str(suite), by=["kind"]))
    rows[0]["tags"]["edit_type"] = ["object_change"]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ValueError, match="'object change' and 'object_change' would both be called edit_type/object"
    ):
        score(config(bench, tmp_path / "x", suite=str(suite)))
    assert not (tmp_path / "x").exists()
