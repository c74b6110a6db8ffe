"""`launcher=slurm` without a cluster: what is asked of SLURM, and what is refused before anything is written."""

import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from moviegen import cli, scheduler
from moviegen.config import compose
from moviegen.launch import job
from moviegen.launch.cluster import nodes_of_cluster
from moviegen.launch.config import LAUNCHED, take_launcher
from moviegen.launch.submit import parameters, sbatch_options
from moviegen.space import check_output

SINFO = """
h100|h100*|16|96|2000000|gpu:h100:8(S:0-1),shard:16|2-00:00:00
mixed|mixed|4|32|128000|(null)|infinite
mixed|mixed|2|64|512000|gpu:2|infinite
"""
TRAIN = ["train", "experiments=toy/tae", "launcher=slurm"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch) -> Path:
    """Stand-ins for SLURM's programs, each noting its words; sinfo tells of a cluster with GPUs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, says in {
        "sinfo": f"cat <<'END'{SINFO}END",
        "sbatch": "true",
        "scontrol": "echo JobState=RUNNING",
    }.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{says}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_without_a_scheduler_nothing_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for sweep in ([], ["-m", "seed=0,1"]):
        assert cli.main([*TRAIN, *sweep]) == 2
        error = capsys.readouterr().err
        assert "launcher=slurm: there is no SLURM here" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nodes_without_anything_that_starts_them_are_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "experiments=toy/tae", "nodes=2"]) == 2
    assert (
        "nodes=2: nothing starts the processes of the other machines; add launcher=slurm"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["trainer.devices=3", "trainer.strategy=ddp"],
            "a batch of 16 samples does not divide over 3 processes",
        ),
        (["trainer=gpu"], "trainer.devices=1: this machine has no GPU: take trainer=cpu"),
        (
            ["trainer.devices=many"],
            "trainer.devices=many: must be a number of processes, a list of devices, or auto",
        ),
        (
            ["-m", "seed=0,1", "optimizer=adamw", "mesh=node", "trainer.devices=3"],
            "a batch of 16 samples does not divide over the 3 ",
        ),
        (["-m", "seed=0,1", "--cfg", "job"], "--cfg prints one configuration and -m runs many"),
    ],
)
def test_what_this_machine_or_a_batch_does_not_divide_by_is_refused_before_any_process_is_started(
    tmp_path: Path, monkeypatch, capsys, words, hint
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("moviegen.interrupts.run_child", lambda *_: pytest.fail("a job was started"))
    assert cli.main(["train", "experiments=toy/tae", *words]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and hint in last
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_sweep_writes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []
    monkeypatch.setattr("moviegen.cli._one_after_the_other", lambda _, jobs: len(seen.extend(jobs) or []))
    assert cli.main(["train", "-m", "experiments=toy/tae", "seed=0,1", "dry_run=true"]) == 0
    assert [job[-1] for job in seen] == ["run_dir='runs/toy/tae/0'", "run_dir='runs/toy/tae/1'"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("programs")
def test_sinfo_is_read_with_gpus_and_limits() -> None:
    h100, plain, small = nodes_of_cluster()
    assert (h100.default, h100.count, h100.cpus, h100.gpus, h100.minutes) == (True, 16, 96, 8, 2880)
    assert (plain.default, plain.gpus, plain.minutes) == (False, 0, float("inf"))
    assert (small.gpus, small.memory_mb) == (2, 512000)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nodes=32"], "nodes=32: partition h100 has 16 that fit; use nodes=16 or fewer"),
        (["trainer.devices=16"], "16 processes of 8 CPUs a node and 16 GPUs do not fit"),
        (
            ["trainer.devices=4", "launcher.partition=mixed"],
            "and 4 GPUs do not fit the nodes of partition mixed",
        ),
        (["trainer.devices=8", "launcher.cpus_per_process=16"], "launcher.cpus_per_process=12 would fit"),
        (
            ["trainer.devices=auto"],
            "trainer.devices=auto: with a launcher, give the number of processes a node",
        ),
        (["launcher.minutes=9000"], "launcher.minutes=9000: partition h100 allows at most 2880"),
        (["launcher.minutes=5"], "launcher.warning_seconds=300: must be less than launcher.minutes=5"),
        (["launcher.partition=h10"], "launcher.partition=h10: no such partition; did you mean 'h100'?"),
        (["launcher.chain=0"], "chain=0: must be at least 1"),
        (["launcher.partitoin=h100"], "unknown key"),
        (["run_dir=runs/100%"], "SLURM reads a % in the name of a log"),
        (  # without a mesh
            ["trainer.devices=8", "nodes=4"],
            "a batch of 16 samples does not divide over 32 processes (trainer.devices * nodes): take a data.batch_size "
            "that is a multiple of 32, or one of 1, 2, 4, 8, 16 processes",
        ),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(
    programs, tmp_path, monkeypatch, capsys, words, hint
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*TRAIN, "trainer=gpu", *words]) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1
    assert not Path("runs").exists()


def test_the_script_asks_for_what_the_command_says(tmp_path: Path) -> None:
    words = ["experiments=toy/t2v", "launcher=slurm", "trainer=gpu", "trainer.devices=8", "nodes=16"]
    words += ["launcher.after=[7,8]", "launcher.requeue=false", "+launcher.options.reservation=ours"]
    cfg = compose("train", words)
    wanted = take_launcher(cfg)
    assert wanted is not None and "launcher" not in cfg and cfg.trainer.num_nodes == 16
    asked = parameters("train", wanted, tmp_path, "afternotok:9")
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"], asked["cpus_per_task"]) == (
        16,
        8,
        8,
        8,
    )
    more = asked["additional_parameters"]
    assert more["dependency"] == "afterok:7:8,afternotok:9" and more["kill-on-invalid-dep"] == "yes"
    assert (more["no-requeue"], more["reservation"], more["signal"]) == (True, "ours", "USR1@300")
    assert f"--output={tmp_path}/%j-node%n-%N.log" in asked["srun_args"]
    assert "requeue" not in sbatch_options(wanted)


def test_within_a_job_the_same_words_run_the_command_itself(monkeypatch) -> None:
    monkeypatch.setenv(LAUNCHED, "1")
    cfg = compose("score", ["out=x", "suite=own", "launcher=slurm", "launcher.parts=4"])
    assert take_launcher(cfg) is None and "launcher" not in cfg


def test_a_task_of_an_array_is_requeued_alone(programs, monkeypatch) -> None:
    assert scheduler.requeue() is False  # no job
    for name, value in {
        "JOB_ID": "12",
        "ARRAY_JOB_ID": "12",
        "ARRAY_TASK_ID": "3",
        "ARRAY_TASK_COUNT": "4",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert scheduler.requeue() is True
    assert (programs / "calls").read_text().splitlines()[-1] == "scontrol requeue 12_3"
    (programs / "scontrol").write_text("#!/bin/sh\necho JobState=CANCELLED\n")
    assert scheduler.requeue() is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_ends_a_command_that_does_not_mind_it_and_requeues(programs, monkeypatch, number) -> None:
    before = {one: signal.getsignal(one) for one in (*job.WARNINGS, signal.SIGCONT)}
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv(LAUNCHED, "")
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr(cli, "main", lambda words: os.kill(os.getpid(), number))
    try:
        with pytest.raises(SystemExit) as left:
            job.run(["train"], None)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert left.value.code == 128 + number
    assert "scontrol requeue 12\n" in (programs / "calls").read_text()


def test_an_output_folder_that_cannot_be_written_is_refused_and_none_is_made(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for folder in ("/proc/moviegen", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=f"out={folder}: cannot write there"):
            check_output(folder, "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("programs")
def test_a_disk_without_room_for_checkpoints_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("Usage", "total used free")(0, 0, 10**6))
    assert cli.main([*TRAIN, "trainer=gpu"]) == 2
    error = capsys.readouterr().err
    assert (
        "has 1 MB free; a checkpoint takes" in error
        and "not even one fits" in error
        and error.count("\n") == 1
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize(("options", "filled"), [("ro", False), ("size=64k", True)])
def test_a_read_only_or_full_file_system_is_refused(tmp_path: Path, options: str, filled: bool) -> None:
    """On a real file system of its own, in a mount namespace that ends with the process."""
    fill = "cat /dev/zero > $1/zeros 2>/dev/null;" if filled else ""
    check = "import sys; from moviegen.space import check_output; check_output(sys.argv[1] + '/run')"
    script = f'mount -t tmpfs -o {options} moviegen $1 && {{ {fill} shift; "$@"; }} || exit $?'
    mounted = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "x", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        tmp_path,
        sys.executable,
        "-c",
        check,
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        f"ValueError: run_dir={tmp_path}/run: "
    )
