"""slurm/many_nodes.sbatch on stand-ins of SLURM: which words start the ranks, and what a warning leads to."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from moviegen import layout
from moviegen.config import compose, plain
from moviegen.launch.config import take_launcher
from moviegen.launch.submit import parameters, sbatch_options
from moviegen.parallel.mesh import LayoutError, MeshConfig

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "scontrol": 'case "$*" in *hostnames*) echo n1 ;; *"show node"*) echo "NodeName=n1 NodeAddr=10.0.0.1" ;;'
    ' *"show job"*) echo "JobId=12 JobState=${STATE-RUNNING} Reason=None" ;; esac\n',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "scancel": 'kill -TERM "$(cat "$BIN/step")"\n',
    "python": 'trap "echo saved; exit 143" TERM\necho $$ > "$BIN/step.part"\nmv "$BIN/step.part" "$BIN/step"\n'
    "while :; do sleep 0.05; done\n",
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch) -> Path:
    """A folder with the scripts, the environment of a job of two nodes, and programs that note their words."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, lines in PROGRAMS.items():
        (folder / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$BIN/calls"\n{lines}')
        (folder / name).chmod(0o755)
    given = {"JOB_ID": "12", "JOB_NODELIST": "n[1-2]", "NNODES": "2", "NTASKS_PER_NODE": "4"}
    for name, value in {**given, "SUBMIT_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("BIN", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


def started(job: Path, *words: str) -> subprocess.Popen[str]:
    """The script, once its ranks run."""
    command = ["bash", "slurm/many_nodes.sbatch", "run", *words]
    process = subprocess.Popen(command, cwd=job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 30
    while not (job / "bin" / "step").is_file():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_of_either_kind_has_the_ranks_save_and_the_job_queued_again(job: Path, number: int) -> None:
    """SIGUSR1 before the time limit and where the cluster has send_user_signal; elsewhere SIGTERM alone."""
    process = started(job, "experiments=toy/t2v", "mesh=tensor")
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out == "saved\n" and process.returncode == 143
    assert (job / "bin" / "calls").read_text().splitlines()[-3:] == [
        "scancel --signal=TERM 12",
        "scontrol --oneliner show job 12",
        "scontrol requeue 12",
    ]


@pytest.mark.parametrize(
    ("state", "queued"), [("RUNNING", True), ("CANCELLED", False), ("COMPLETING", False)]
)
def test_a_job_whose_steps_alone_were_warned_is_queued_again_unless_it_is_over(
    job: Path, monkeypatch, state: str, queued: bool
) -> None:
    monkeypatch.setenv("STATE", state)
    process = started(job, "experiments=toy/t2v")
    os.kill(int((job / "bin" / "step").read_text()), signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert out == "saved\n" and process.returncode == 143
    assert ("scontrol requeue 12" in (job / "bin" / "calls").read_text().splitlines()) == queued


@pytest.mark.parametrize(
    ("words", "mesh"),
    [
        (["mesh=tensor", "mesh.tp=4"], MeshConfig(dp_shard=2, tp=4)),
        (["mesh=hybrid", "mesh.dp_shard=4"], MeshConfig(dp_replicate=2, dp_shard=4)),
        (["mesh=context", "mesh.context=ring", "mesh.cp=8"], MeshConfig(cp=8)),
        (["mesh=null", "trainer.strategy=ddp"], None),
    ],
)
def test_layouts_of_a_script_are_those_of_its_nodes_and_tasks(job: Path, words: list[str], mesh) -> None:
    process = started(job, "experiments=toy/t2v", *words)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    (call,) = [line for line in (job / "bin" / "calls").read_text().splitlines() if line.startswith("python")]
    command, overrides = shlex.split(call)[:4], call.split(" train ")[1].split()
    assert command == ["python", "-m", "moviegen.cli", "train"] and overrides[: 1 + len(words)] == [
        "experiments=toy/t2v",
        *words,
    ]
    cfg = plain(compose("train", overrides))
    assert (cfg["trainer"]["num_nodes"], cfg["trainer"]["devices"], cfg["run_dir"]) == (2, 4, "run")
    found = layout.layout_of(cfg["mesh"], cfg["trainer"])
    assert (found and found.mesh) == mesh


def test_layouts_go_with_the_launcher_and_are_held_against_its_nodes(tmp_path: Path) -> None:
    words = [
        "experiments=t2v/paper/stage3",
        "launcher=slurm",
        "trainer=gpu",
        "trainer.devices=8",
        "nodes=768",
    ]
    cfg = compose("train", [*words, "mesh=paper", "launcher.signal=TERM"])
    wanted = take_launcher(cfg)
    assert wanted is not None
    asked = parameters("train", wanted, tmp_path)
    assert (asked["nodes"], asked["tasks_per_node"], asked["gpus_per_node"]) == (768, 8, 8)
    assert sbatch_options(wanted)["signal"] == "TERM@300"
    mesh, trainer = plain(cfg)["mesh"], plain(cfg)["trainer"]
    found = layout.layout_of(mesh, trainer, (wanted.processes_per_node, wanted.nodes))
    assert found is not None and found.mesh == MeshConfig(dp_shard=768, cp=2, tp=4)
    with pytest.raises(
        LayoutError, match=r"mesh\.tp=16 does not divide the 8 devices of a node: take one of 1, 2, 4, 8"
    ):
        layout.layout_of({**mesh, "tp": 16}, trainer, (8, 768))
