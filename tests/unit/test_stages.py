"""The stage runner of the demo: skip, resume, start anew."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moviegen.config import UserError
from moviegen.demo import DemoConfig, Runner, Stage, demo
from moviegen.runfolder import read_json, write_json

CHILD = """
import sys, time, pathlib
from moviegen import interrupts
folder = pathlib.Path(sys.argv[1])
try:
    with interrupts.terminable():
        (folder / "started").touch()
        time.sleep(300)
except BaseException as error:
    (folder / "saved").write_text(type(error).__name__)
    raise
"""
PARENT = """
import sys
from moviegen import interrupts
from moviegen.demo import call_process
interrupts.CHILD_SECONDS = float(sys.argv[3])
try:
    with interrupts.terminable():
        call_process([sys.executable, "-c", sys.argv[1], sys.argv[2]])
except (KeyboardInterrupt, interrupts.Terminated):
    sys.exit(77)
"""


class Fake:
    """Stands for the processes: records each stage's folder and writes its output."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.code = 0

    def __call__(self, command: list[str]) -> int:
        folder = Path(command[-1].partition("=")[2].strip("'"))
        self.folders.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "partial").touch()
        if self.code:
            return self.code
        (folder / "out").touch()
        return 0


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "train.yaml").write_text("run_dir: ???\nsteps: 1\n")
    return folder


def job(tmp_path: Path, **changes: Stage) -> DemoConfig:
    """data -> tae (two stages in one folder) -> t2v, and a stage of its own."""
    stages = {
        "data": Stage("train", outputs=("out",)),
        "tae": Stage("train", needs=("data",), outputs=("out",)),
        "tae_resumed": Stage("train", ("steps=2",), folder="tae", needs=("tae",), outputs=("out",)),
        "t2v": Stage("train", needs=("tae_resumed",), warm=("steps=3",), scratch=("steps=9",)),
        "alone": Stage("train"),
    }
    return DemoConfig(run_dir=tmp_path / "run", report=tmp_path / "report.html", stages={**stages, **changes})


def run(config: DemoConfig, fake: Fake, conf: Path) -> list[str]:
    fake.folders.clear()
    Runner(config, fake, conf).run()
    return list(fake.folders)


def test_finished_stages_are_skipped(tmp_path: Path, conf: Path, capsys) -> None:
    fake = Fake()
    assert run(job(tmp_path), fake, conf) == ["data", "tae", "tae", "t2v", "alone"]
    assert run(job(tmp_path), fake, conf) == []
    assert "5 of 5 stages were finished before" in capsys.readouterr().out


def test_an_output_may_lie_beside_the_stage_s_folder(tmp_path: Path, conf: Path) -> None:
    def call(command: list[str]) -> int:
        (tmp_path / "run" / "report.html").touch()
        return 0

    stage = Stage("train", ("run_dir=elsewhere",), folder_key=None, outputs=("../report.html",))
    only = DemoConfig(
        run_dir=tmp_path / "run", report=tmp_path / "run" / "report.html", stages={"report": stage}
    )
    runner = Runner(only, call, conf)
    runner.run()
    assert runner.finished("report")
    (tmp_path / "run" / "report.html").unlink()
    assert not runner.finished("report")


def test_a_changed_stage_runs_again_with_those_that_build_on_it(tmp_path: Path, conf: Path) -> None:
    fake = Fake()
    run(job(tmp_path), fake, conf)
    changed = job(tmp_path, tae_resumed=Stage("train", ("steps=5",), folder="tae", needs=("tae",)))
    (tmp_path / "run" / "tae" / "old").touch()
    assert run(changed, fake, conf) == ["tae", "tae", "t2v"]
    assert not (tmp_path / "run" / "tae" / "old").exists()


def test_a_changed_config_file_invalidates_as_an_override_does(tmp_path: Path, conf: Path) -> None:
    fake = Fake()
    run(job(tmp_path), fake, conf)
    (conf / "train.yaml").write_text("run_dir: ???\nsteps: 4\n")
    assert run(job(tmp_path), fake, conf) == ["data", "tae", "tae", "t2v", "alone"]


def test_scratch_changes_only_what_it_names_and_what_follows(tmp_path: Path, conf: Path) -> None:
    fake = Fake()
    run(job(tmp_path), fake, conf)
    scratch = DemoConfig(**{**vars(job(tmp_path)), "scratch": True})
    assert run(scratch, fake, conf) == ["t2v"]


def test_changed_input_files_invalidate(tmp_path: Path, conf: Path) -> None:
    fake, weights = Fake(), tmp_path / "weights"
    weights.write_text("a")
    first = job(tmp_path, alone=Stage("train", inputs=(str(weights),)))
    run(first, fake, conf)
    assert run(first, fake, conf) == []
    weights.write_text("b")
    assert run(first, fake, conf) == ["alone"]


def test_a_missing_output_is_made_again_and_so_is_what_read_it(tmp_path: Path, conf: Path) -> None:
    fake = Fake()
    run(job(tmp_path), fake, conf)
    (tmp_path / "run" / "data" / "out").unlink()
    assert run(job(tmp_path), fake, conf) == ["data", "tae", "tae", "t2v"]


@pytest.mark.parametrize(("code", "error"), [(130, KeyboardInterrupt), (1, UserError)])
def test_a_stopped_stage_goes_on_in_its_folder(tmp_path: Path, conf: Path, code: int, error: type) -> None:
    fake = Fake()
    fake.code = code
    with pytest.raises(error):
        run(job(tmp_path), fake, conf)
    assert fake.folders == ["data"]
    (tmp_path / "run" / "data" / "partial").write_text("kept")
    fake.code = 0
    run(job(tmp_path), fake, conf)
    assert (tmp_path / "run" / "data" / "partial").read_text() == "kept"


def test_a_stage_stopped_under_another_configuration_starts_clean(tmp_path: Path, conf: Path) -> None:
    fake = Fake()
    fake.code = 1
    with pytest.raises(UserError, match="stage 'data' ended with exit code 1"):
        run(job(tmp_path), fake, conf)
    (tmp_path / "run" / "data" / "partial").write_text("old")
    fake.code = 0
    run(job(tmp_path, data=Stage("train", ("steps=7",))), fake, conf)
    assert (tmp_path / "run" / "data" / "partial").read_text() == ""


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path: Path, conf: Path) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "thesis.txt").touch()
    with pytest.raises(UserError, match="files of another run"):
        run(job(tmp_path), Fake(), conf)
    assert (tmp_path / "run" / "data" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage("trian"), "did you mean 'train'"),
        (Stage("train", needs=("dta",)), "no stage before it is called so; did you mean 'data'"),
        (Stage("train", folder="../x"), "leaves the run folder"),
        (Stage("train", folder="tae"), "shares its folder"),
        (Stage("train", ("stepz=1",)), "did you mean 'steps'"),
        (Stage("train", inputs=("no/such/file",)), "no/such/file does not exist"),
    ],
)
def test_a_wrong_stage_is_refused_before_any_runs(
    tmp_path: Path, conf: Path, stage: Stage, message: str
) -> None:
    fake = Fake()
    with pytest.raises(UserError, match=message):
        run(job(tmp_path, alone=stage), fake, conf)
    assert fake.folders == []


def test_two_jobs_in_one_folder_are_refused(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".stages").mkdir()
    node = {"_target_": "moviegen.demo.DemoConfig", "run_dir": str(tmp_path), "report": "r", "stages": {}}
    with (tmp_path / ".stages" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `moviegen` is running"):
            demo(node)
    assert demo(node) == 0


@pytest.mark.parametrize(
    ("number", "whom", "seconds", "seen"),
    [
        (signal.SIGINT, os.killpg, 60, "KeyboardInterrupt"),
        (signal.SIGTERM, os.killpg, 60, "Terminated"),
        (signal.SIGINT, os.kill, 0.1, "Terminated"),
        (signal.SIGTERM, os.kill, 0.1, "Terminated"),
    ],
    ids=["ctrl-c in a terminal", "sigterm to all", "ctrl-c to the job", "sigterm to the job"],
)
def test_a_signal_waits_for_the_stage_to_save(
    tmp_path: Path, number: int, whom: Callable[[int, int], None], seconds: float, seen: str
) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, str(tmp_path), str(seconds)]
    assert saved_on(command, tmp_path, whom, number) == seen


def saved_on(command: list[str], folder: Path, whom: Callable[[int, int], None], number: int) -> str:
    """What a job's stage saved when a signal ended both; the job writes `started` and `saved` into the folder."""
    parent = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    whom(parent.pid, number)
    assert parent.wait(timeout=180) == 77
    return (folder / "saved").read_text()


def test_what_took_long_is_moved_aside_and_never_deleted(tmp_path: Path, conf: Path, capsys) -> None:
    fake = Fake()
    run(job(tmp_path), fake, conf)
    marker = tmp_path / "run" / ".stages" / "tae.json"
    write_json(marker, read_json(marker) | {"seconds": 3600.0})
    (tmp_path / "run" / "tae" / "learned").touch()
    for number in (1, 2):
        changed = Stage("train", (f"steps={4 + number}",), folder="tae", needs=("tae",))
        assert run(job(tmp_path, tae_resumed=changed), fake, conf) == ["tae", "tae", "t2v"]
        write_json(marker, read_json(marker) | {"seconds": 3600.0})
    assert (tmp_path / "run" / "tae.old1" / "learned").exists()
    assert (tmp_path / "run" / "tae.old2").is_dir() and not (tmp_path / "run" / "tae" / "learned").exists()
    assert f"took 60.0 min: kept as {tmp_path / 'run' / 'tae.old1'}" in capsys.readouterr().out


def test_the_job_s_configuration_is_written_beside_its_report(tmp_path: Path) -> None:
    node = {"_target_": "moviegen.demo.DemoConfig", "run_dir": str(tmp_path), "report": "r", "stages": {}}
    demo(node)
    assert "report: r" in (tmp_path / "config.yaml").read_text()
