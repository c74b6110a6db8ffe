"""conf/demo.yaml in all its variants: the stages fit together before any of them runs."""

import os
import subprocess
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest
from moviegen_eval.config import ReportConfig, parse_config

from moviegen import config
from moviegen.cli import COMMANDS
from moviegen.config import REPOSITORY
from moviegen.demo import Runner

ODD_NAMES = ["it's mine", "a b, c=d", "cost $5", "back\\slash", "\\'both", 'a "b"', "[1]{2}#3"]
VARIANTS = {
    "plain": [],
    "videos": ["videos={folder}"],
    "scratch": ["scratch=true"],
    "scratch with videos": ["scratch=true", "videos={folder}"],
    "finetune": [
        "experiments=toy/finetune",
        "videos={folder}",
        "settings.licence='custom:Bob\\'s own, 2026'",
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of videos, in the repository as working folder as `make demo` has it."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("DEMO_VIDEOS", raising=False)
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def runner(variant: str, folder: Path, *more: str) -> Runner:
    words = [word.replace("{folder}", str(folder)) for word in VARIANTS[variant]]
    return Runner(config.build(config.compose("demo", [*words, f"run_dir={folder.parent / 'run'}", *more])))


def composed(job: Runner, stage: str) -> dict:
    file = COMMANDS[job.job.stages[stage].command].config
    assert file is not None
    return config.plain(config.compose(file, job.overrides(stage)))


def built(job: Runner) -> set[tuple[str, str]]:
    """(split, tar name) of the first tar of everything that the shards stage builds."""
    sources = composed(job, "shards")["sources"].values()
    pairs = {(source["split"], source["name"]) for source in sources if source.get("count", 1)}
    pairs |= {("val", source["name"]) for source in sources if source.get("holdout")}
    return {(split, f"{split}-{name}-000000.tar") for split, name in pairs}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_source_that_a_training_stage_reads_is_one_that_the_shards_stage_builds(
    variant: str, folder: Path
) -> None:
    job = runner(variant, folder)
    shards = built(job)
    match = composed(job, "latents")["match"]
    latents = {(split, name) for split, name in shards if fnmatch(name, match)}
    for stage in ("tae", "tae_resumed", "t2v", "t2v_resumed"):
        cfg = composed(job, stage)
        tars = {cfg["paths"]["shards"]: shards, cfg["paths"]["latents"]: latents}
        for source in (*cfg["data"]["train"].values(), *cfg["data"]["val"].values()):
            wanted = source.get("split", "train"), source.get("match", "*")
            found = [name for split, name in tars[source["path"]] if split == wanted[0]]
            assert any(fnmatch(name, wanted[1]) for name in found), (stage, source, found)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "finetune"])
def test_the_upsampler_goes_on_from_the_shipped_weights_with_their_guess_or_starts_from_nothing(
    variant: str, folder: Path
) -> None:
    job = runner(variant, folder)
    sources = composed(job, "upsample_shards")["sources"].values()
    tars = {(source["split"], f"{source['split']}-{source['name']}-000000.tar") for source in sources}
    for stage in ("upsample", "upsample_resumed"):
        cfg = composed(job, stage)
        for source in (*cfg["data"]["train"].values(), *cfg["data"]["val"].values()):
            split, match = source.get("split", "train"), source.get("match", "*")
            assert source["path"] == str(job.folder("upsample_shards"))
            assert any(one == split and fnmatch(name, match) for one, name in tars), (stage, source)
        started = (cfg["init_from"], cfg["task"]["stats_steps"])  # few clips would fit a worse guess
        assert started == ((None, 50) if "scratch" in variant else ("experiments/toy/weights/upsample", 0))
        assert (cfg["trainer"]["max_steps"] == 900) == ("scratch" in variant)
    crops = {source["name"]: source.get("crops") for source in sources}
    assert (crops["photos"] == 400) == ("scratch" in variant)


def test_the_generator_sees_your_clips_as_often_as_the_toyworld_s(folder: Path) -> None:
    train = composed(runner("finetune", folder), "t2v")["data"]["train"]
    assert {source["match"]: source.get("weight", 1.0) for source in train.values()} == {
        "train-toyworld-*": 1.0,
        "train-own-*": 1.0,
    }


def test_from_nothing_the_models_get_the_clips_that_the_shipped_generator_had(folder: Path) -> None:
    job = runner("scratch", folder)
    sources = composed(job, "shards")["sources"]
    assert {name: sources[name]["count"] for name in ("toyworld_train", "toyworld_spins")} == {
        "toyworld_train": 16000,
        "toyworld_spins": 3000,
    }
    train = composed(job, "t2v")["data"]["train"]
    assert {source["match"]: source["weight"] for source in train.values()} == {
        "train-toyworld-*": 5.0,
        "train-toyworld_spins-*": 1.0,
    }


@pytest.mark.parametrize("variant", ["scratch", "scratch with videos"])
def test_from_nothing_no_stage_reads_shipped_weights(variant: str, folder: Path) -> None:
    job = runner(variant, folder)
    shipped = [name for name in job.names if "experiments/toy/weights" in str(composed(job, name))]
    assert shipped == []
    assert not any("experiments/toy/weights" in path for s in job.job.stages.values() for path in s.inputs)


def test_every_model_of_the_job_is_broken_off_and_resumed(folder: Path) -> None:
    job = runner("plain", folder)
    trained = [
        name for name, stage in job.job.stages.items() if stage.command == "train" and not stage.folder
    ]
    assert {f"{name}_resumed" for name in trained if name != "t2v_early"} <= set(job.names)
    for name in trained:
        if name != "t2v_early":
            first, again = (composed(job, n) for n in (name, f"{name}_resumed"))
            assert again["trainer"].pop("max_steps") > first["trainer"].pop("max_steps") > 0
            assert first == again


def test_a_folder_may_have_any_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = folder / "".join(ODD_NAMES)
    odd.mkdir()
    monkeypatch.setenv("DEMO_VIDEOS", str(odd))
    shards = composed(runner("plain", folder), "shards")
    assert shards["sources"]["demo_videos"]["paths"] == [str(odd)]


def made(tmp_path: Path, *variables: str) -> str:
    """What `make demo` hands on: DEMO_VIDEOS in the environment | the words of the command line."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "moviegen"
    script.write_text('#!/bin/sh\nprintf "%s|%s" "$DEMO_VIDEOS" "$*"\n')
    script.chmod(0o755)
    later = time.time() + 3600
    (tmp_path / ".installed").touch()
    os.utime(tmp_path / ".installed", (later, later))
    words = ["make", "-s", "demo", f"VENV={tmp_path}", *variables]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", [*ODD_NAMES, ""])
def test_make_demo_hands_a_folder_of_any_name_on(name: str, tmp_path: Path) -> None:
    handed = made(tmp_path, f"DEMO_VIDEOS={name}", "SCRATCH=1")
    assert handed == f"{name}|demo scratch=true run_dir=runs/scratch"


@pytest.mark.parametrize("value", ["", "0", "no", "false"])
def test_make_demo_trains_from_nothing_only_where_it_is_asked_to(value: str, tmp_path: Path) -> None:
    assert made(tmp_path, f"SCRATCH={value}") == "|demo"


def test_no_folder_means_the_shipped_videos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_VIDEOS", "")
    assert "real_bikes" in composed(runner("plain", folder), "shards")["sources"]


def test_a_new_or_changed_file_among_your_videos_is_noticed(folder: Path) -> None:
    prints = []
    for name, text in (("a.mp4", "a"), ("a.txt", "a cat"), ("a.txt", "a dog")):
        (folder / name).write_text(text)
        os.utime(folder / name, ns=(0, len(prints)))
        prints.append(runner("finetune", folder).prints["shards"])
    assert len(set(prints)) == 3


@pytest.mark.parametrize("variant", ["plain", "scratch", "finetune"])
def test_the_report_has_a_title_a_summary_the_limits_and_the_configuration(
    variant: str, folder: Path
) -> None:
    job = runner(variant, folder)
    report = parse_config(ReportConfig, composed(job, "report"), "report")
    assert report.title != "moviegen report" and report.summary
    assert len(report.notes) >= 5 and "No GPU was used." in report.notes
    assert Path(report.config or "") == job.job.run_dir / "config.yaml"
    beside = {
        Path(os.path.normpath(job.folder("report") / name)).name for name in job.job.stages["report"].outputs
    }
    assert beside == {"report.html", "numbers.json"}
