"""Adapters: inputs as the other programs want them, their own environment, and their results read strictly."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from arm_samples import frames_of, write_arm, write_suite
from moviegen_eval.adapters import vbench
from moviegen_eval.adapters.base import External, file_name
from moviegen_eval.adapters.run import ADAPTERS, external
from moviegen_eval.adapters.videoscore import TEMPLATE
from moviegen_eval.arms import read_arm
from moviegen_eval.scores import read_scores
from moviegen_eval.suites import open_suite

from moviegen.media import write_video

NUM = 3
FAKE_VBENCH = """
import json, os, sys
args = sys.argv
assert "PYTHONPATH" not in os.environ
videos, out = args[args.index("--videos_path") + 1], args[args.index("--output_path") + 1]
stop = next((i for i, word in enumerate(args) if word.startswith("--mode")), len(args))
prompts = json.load(open(args[args.index("--prompt_file") + 1]))
os.makedirs(out)
rows = [{"video_path": path, "video_results": 0.5 + 0.1 * n} for n, path in enumerate(sorted(prompts))]
result = {name: [0.6, rows] for name in args[args.index("--dimension") + 1 : stop]}
json.dump(result, open(os.path.join(out, "results_x_eval_results.json"), "w"))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    write_suite(root / "suite.csv", NUM)
    write_arm(root / "ours", num=NUM)
    return root


def config(bench: Path, out: Path, benchmark: str, stage: str, **program: object) -> dict:
    program = {"repository": str(bench), "python": sys.executable, "version": "abc"} | program
    return {
        "out": str(out), "benchmark": benchmark, "suite": str(bench / "suite.csv"), "stage": stage,
        "arms": {"ours": str(bench / "ours")}, "external": program, "bootstrap_count": 200,
    }  # fmt: skip


def test_vbench_runs_on_own_prompts_with_its_six_dimensions_only(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench / "evaluate.py").write_text(FAKE_VBENCH)
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    scores = {one.output: one for one in external(config(bench, tmp_path, "vbench", "all"))}
    assert {name.removeprefix("vbench.") for name in scores} == {*vbench.CUSTOM, "custom_quality"}
    six = [vbench.normalized(name, 0.6) for name in vbench.CUSTOM]
    weights = [0.5 if name == "dynamic_degree" else 1.0 for name in vbench.CUSTOM]
    assert scores["vbench.custom_quality"].value == pytest.approx(np.average(six, weights=weights))
    consistency = scores["vbench.subject_consistency"]
    assert consistency.value == pytest.approx(0.6) and consistency.low is not None and consistency.n == NUM
    assert consistency.manifest["code"] == "abc"
    file = read_scores(tmp_path)
    assert {row.prompt for row in file.samples} == {"p-00", "p-01", "p-02"}
    script = (tmp_path / "ours" / "command.sh").read_text()
    assert "--mode=custom_input" in script and "temporal_flickering" not in script


def test_vbench_weighs_quality_four_to_one_and_dynamic_degree_half() -> None:
    perfect = {name: vbench.RANGES.get(name, (0, 1.0))[1] for name in (*vbench.QUALITY, *vbench.SEMANTIC)}
    assert vbench.totals(perfect) == pytest.approx({"quality": 1, "semantic": 1, "total": 1})
    worse = perfect | {"dynamic_degree": 0.0}
    assert vbench.totals(worse)["quality"] == pytest.approx(6 / 6.5)
    assert vbench.totals(worse)["total"] == pytest.approx((4 * 6 / 6.5 + 1) / 5)
    worse = perfect | {"scene": 0.0}
    assert vbench.totals(worse)["total"] == pytest.approx((4 + 8 / 9) / 5)
    assert len(vbench.QUALITY) == 7 and len(vbench.SEMANTIC) == 9 and len(vbench.CUSTOM) == 6
    assert sum(map(len, vbench.GROUPS_2.values())) == 18


def test_vbench_s_own_prompts_give_its_file_names_and_total(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "full.json").write_text(json.dumps([{"prompt_en": "a/b cup", "dimension": ["color"]}]))
    write_video(tmp_path / "arm" / "a_b cup-0.mp4", frames_of(0), 8.0)
    suite = open_suite(f"vbench:{tmp_path / 'full.json'}")
    (tmp_path / "arm" / "a_b cup-0.mp4").rename(tmp_path / "arm" / "0.mp4")
    arm = read_arm("x", tmp_path / "arm", suite)
    command = ADAPTERS["vbench"].prepare(arm, suite, tmp_path / "out", External(str(tmp_path)))[0]
    assert (tmp_path / "out" / "videos" / file_name("a/b cup", "-0.mp4")).is_file()
    assert "object_class" in command and "--mode=custom_input" not in command
    groups = [name for group in vbench.GROUPS_2.values() for name in group]
    (tmp_path / "out" / "results").mkdir()
    path = tmp_path / "out" / "results" / "r_eval_results.json"
    path.write_text(json.dumps({name: [0.5, []] for name in groups}))
    assert ADAPTERS["vbench2"].read(arm, suite, tmp_path / "out").totals["total"] == 0.5
    path.write_text('{"Composition": 3}')
    with pytest.raises(ValueError, match=r"Composition is no \[score, clips\]"):
        ADAPTERS["vbench2"].read(arm, suite, tmp_path / "out")
    with pytest.raises(ValueError, match="its dimensions need its own prompts"):
        ADAPTERS["vbench2"].prepare(arm, open_suite("own"), tmp_path, External("."))


def test_long_clips_are_refused_where_their_scores_would_be_others(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite.csv", 1)
    write_video(tmp_path / "arm" / "p-00.mp4", frames_of(0, num=12), 2.0)
    with pytest.raises(ValueError, match="1 videos of ours are longer than 5 s"):
        external(
            config(tmp_path, tmp_path / "out", "vbench", "prepare")
            | {"arms": {"ours": str(tmp_path / "arm")}}
        )


def test_av_benchmark_gets_sound_and_captions_and_no_distance_without_a_reference(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite.csv", 1)
    sound = (0.1 * np.sin(np.arange(48_000) / 20)).astype(np.float32)[None]
    write_video(tmp_path / "ours" / "p-00.mp4", frames_of(0), 8.0, audio=sound, sample_rate_hz=48_000)
    external(config(tmp_path, tmp_path / "out", "av_benchmark", "prepare", seconds=1.0))
    folder = tmp_path / "out" / "ours"
    assert (folder / "captions.csv").read_text() == "name,caption\np-00,a thing number 0\n"
    assert (folder / "audio" / "p-00.flac").stat().st_size > 1000
    assert "--audio_length=1" in (folder / "command.sh").read_text()
    (folder / "run.log").write_text("noise\nFD-VGG: 0.8\n  DeSync: 0.45\nIB-Score: 0.29\n")
    scores = {one.output: one for one in external(config(tmp_path, tmp_path / "out", "av_benchmark", "read"))}
    assert {name: one.value for name, one in scores.items()} == {
        "av_benchmark.DeSync": 0.45, "av_benchmark.IB-Score": 0.29,
    }  # fmt: skip
    assert (
        not scores["av_benchmark.DeSync"].higher_is_better
        and scores["av_benchmark.IB-Score"].higher_is_better
    )
    assert "no reference sound" in read_scores(tmp_path / "out").facts["warnings"][0]
    write_video(tmp_path / "ours" / "p-00.mp4", frames_of(0), 8.0)
    with pytest.raises(ValueError, match="have no sound"):
        external(config(tmp_path, tmp_path / "out", "av_benchmark", "prepare", seconds=1.0))


def test_videoscore_reads_five_numbers_a_clip(bench: Path, tmp_path: Path) -> None:
    external(config(bench, tmp_path, "videoscore", "prepare"))
    compile(TEMPLATE.read_text(encoding="utf-8"), "videoscore_run.py", "exec")
    rows = [{"file": f"p-{n:02d}.mp4", "scores": [1, 2, 3, 4, n]} for n in range(2)]
    (tmp_path / "ours" / "videoscore.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {one.output: one.value for one in external(config(bench, tmp_path, "videoscore", "read"))}
    assert scores["videoscore.text_alignment"] == 4 and scores["videoscore.factual_consistency"] == 0.5
    assert "1 clips have no scores" in read_scores(tmp_path).facts["warnings"][0]
    (tmp_path / "ours" / "videoscore.jsonl").write_text('{"file": "x", "scores": [1]}\n')
    with pytest.raises(ValueError, match="expected 5 numbers"):
        external(config(bench, tmp_path, "videoscore", "read"))


def test_a_program_that_fails_is_named_with_its_log(bench: Path, tmp_path: Path) -> None:
    (bench / "evaluate.py").write_text("import sys; print('no GPU'); sys.exit(3)")
    with pytest.raises(ValueError, match=r"ended with 3; see .*run\.log"):
        external(config(bench, tmp_path, "vbench", "run"))
    assert "no GPU" in (tmp_path / "ours" / "run.log").read_text()
    with pytest.raises(ValueError, match="cannot be started"):
        external(config(bench, tmp_path, "vbench", "run", python=str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="no adapter 'vbanch'"):
        external(config(bench, tmp_path, "vbanch", "prepare"))
