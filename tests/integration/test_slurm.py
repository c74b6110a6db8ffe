"""Against a real SLURM of two nodes (slurm/minicluster): training, preemption, sweeps, chains and the scripts.

Skipped, with the reason, where SLURM's programs are not installed.
"""

import contextlib
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_run import generator_words

from moviegen import cli
from moviegen.launch.follow import ENDED
from moviegen.scheduler import job_state

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "unit"))
from test_film import film_words, write_models  # noqa: E402

MINICLUSTER = ROOT / "slurm" / "minicluster"
SMALL_JOB = (
    "launcher=slurm",
    "launcher.cpus_per_process=1",
    "launcher.minutes=5",
    "launcher.warning_seconds=60",
)
STEPS = 400
PREEMPTED = (
    "trainer.strategy=ddp",
    "callbacks.checkpoint.every_n_train_steps=40",
    "callbacks.samples=null",
    f"trainer.val_check_interval={STEPS}",
    "callbacks.held_out=null",
)
PATIENCE_SECONDS = 250  # of a machine with other work


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster that runs as long as this file's tests, and that SLURM's commands find."""
    missing = subprocess.run(
        [MINICLUSTER, "missing"], capture_output=True, text=True, check=True
    ).stdout.split()
    if missing:
        pytest.skip(
            f"no SLURM here: {', '.join(missing)} not found (Debian: apt-get install slurm-wlm munge)"
        )
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([MINICLUSTER, "start", folder], capture_output=True, text=True, check=False)
    try:
        assert started.returncode == 0, started.stderr
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            patched.setenv("OMP_NUM_THREADS", "1")
            yield
    finally:
        subprocess.run([MINICLUSTER, "stop", folder], check=False)


@pytest.fixture(autouse=True)
def no_job_left(cluster: None) -> Iterator[None]:
    """The next test finds the nodes idle, also after one that failed."""
    yield
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True)
    listed = ["squeue", "--noheader", f"--user={getpass.getuser()}"]
    wait("no job is left", lambda: not subprocess.run(listed, capture_output=True, check=True).stdout, 60)


def wait(what: str, is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS, every: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(every)


def submitted(out: str) -> str:
    found = re.search(r"^submitted job (\d+)", out, re.MULTILINE)
    assert found, out
    return found.group(1)


def sbatch(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        ["sbatch", "--parsable", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout


def torchrun(words: list[str], log: Path) -> subprocess.Popen:
    """The same training in two processes that torchrun starts."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with log.open("w") as file:
        return subprocess.Popen([*command, "-m", "moviegen.train", *words[1:]], stdout=file, stderr=file)


@pytest.fixture(scope="module")
def alone(
    cluster: None, world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """The training that is not preempted, under way in two processes of this machine, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    process = torchrun(generator_words(folder / "run", world, STEPS, *PREEMPTED), folder / "log")
    yield process, folder
    process.kill()


@pytest.fixture(params=["SIGUSR1", "SIGTERM"])
def preempted_by(request: pytest.FixtureRequest, cluster: None) -> Iterator[str]:
    """What the cluster sends to a job when its grace time begins: its own signal, or SIGTERM where that is not set."""
    file = Path(os.environ["SLURM_CONF"])
    text = file.read_text()
    assert text.count("send_user_signal") == 1
    if request.param == "SIGTERM":
        file.write_text(re.sub(r"^.*send_user_signal$", "", text, flags=re.MULTILINE))
        configured = reconfigured()
        assert "send_user_signal" not in configured and re.search(r"PreemptMode\s*= REQUEUE", configured)
    yield request.param
    file.write_text(text)
    assert "send_user_signal" in reconfigured()


def reconfigured() -> str:
    """The controller's settings, once it has read its file again."""
    subprocess.run(["scontrol", "reconfigure"], check=True)
    return subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(1500)
def test_a_preempted_training_of_two_nodes_ends_as_one_that_was_left_alone(
    world, tmp_path, capsys, alone, preempted_by
) -> None:
    run, (reference, folder) = tmp_path / "run", alone
    words = [*generator_words(run, world, STEPS, *PREEMPTED), "nodes=2", *SMALL_JOB]
    urgent = sbatch("--hold", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=true")
    assert cli.main([*words, "launcher.minutes=30"]) == 0
    job = submitted(capsys.readouterr().out)
    wait("a checkpoint", lambda: any((run / "checkpoints").glob("[!.]*")), every=0.02)
    subprocess.run(["scontrol", "release", urgent], check=True)
    wait("the job with priority has run", lambda: job_state(urgent) == "COMPLETED")
    wait("the training has run to its end", lambda: job_state(job) in ENDED, 2 * PATIENCE_SECONDS)
    logs = sorted((run / "slurm").glob(f"{job}-node*.log"))
    text = "\n".join(log.read_text() for log in logs)
    assert job_state(job) == "COMPLETED" and re.search(r"\bRestarts=1\b", shown(job)), text
    assert [log.name.split("-")[1] for log in logs] == ["node0", "node1"]
    ((stopped, signal),) = re.findall(r"^terminated after (\d+) steps by (\w+)", text, re.MULTILINE)
    assert 20 <= int(stopped) < STEPS == json.loads((run / "model.json").read_text())["info"]["steps"]
    assert signal == preempted_by
    record = json.loads((run / "run.json").read_text())
    assert len(record["starts"]) == 2 and record["command"][:2] == ["moviegen", "train"]
    assert reference.wait(timeout=PATIENCE_SECONDS) == 0, (folder / "log").read_text()
    one, other = (load_file(place / "model.safetensors") for place in (run, folder / "run"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_sweep_of_three_is_one_job_array_and_its_runs_can_be_compared(world, tmp_path, capsys) -> None:
    sweep = tmp_path / "sweep"
    words = generator_words(sweep, world, 2, "callbacks.samples=null", "seed=0,1,2")
    assert cli.main([words[0], "-m", *words[1:], *SMALL_JOB, "launcher.follow=true"]) == 0
    out = capsys.readouterr().out
    job = submitted(out)
    for number in range(3):
        assert (sweep / str(number) / "model.safetensors").is_file(), out
        assert f"[{job}_{number}] " in out  # its log was followed
        record = json.loads((sweep / "slurm" / f"{job}_{number}.json").read_text())
        assert f"seed={number}" in record["command"] and len(record["git"]["commit"]) == 40
    assert cli.main(["runs", "compare", str(sweep), "wandb=null"]) == 0
    table = capsys.readouterr().out
    assert "0+1+2 | 3 seeds" in table and table.count("finished, 2 steps") == 3


def test_a_batch_of_films_is_one_job_array_and_each_prompt_becomes_one_film(tmp_path, capsys) -> None:
    films, prompts = tmp_path / "films", tmp_path / "prompts.txt"
    prompts.write_text("a red star\na blue disc\n")
    words = film_words(write_models(tmp_path / "models"), films, "size=[64,64]", "rewrite=false")
    words = [word for word in words if not word.startswith("prompt=")]
    batch = [f"prompts={prompts}", "part=1/2,2/2", *SMALL_JOB, "launcher.follow=true"]
    assert cli.main([words[0], "-m", *words[1:], *batch]) == 0
    out = capsys.readouterr().out
    job = submitted(out)
    made = sorted(path.relative_to(films).as_posix() for path in films.glob("*/*.mp4"))
    assert made == ["0/00001.mp4", "1/00002.mp4"], out
    for number, (name, prompt) in enumerate(zip(made, ("a red star", "a blue disc"), strict=True)):
        assert f"[{job}_{number}] film 1 of 1: {prompt}" in out  # its log was followed
        card = json.loads((films / name).with_suffix(".json").read_text())
        assert card["prompt"] == prompt and card["provenance"]["manifest"]
        record = json.loads((films / "slurm" / f"{job}_{number}.json").read_text())
        assert f"part={number + 1}/2" in record["command"]
    assert cli.main(["verify", str(films / made[1])]) == 0
    assert "Made by a model? Yes." in capsys.readouterr().out


def test_a_chain_waits_for_the_jobs_before_it(world, tmp_path, capsys) -> None:
    first = sbatch("--output=/dev/null", "--wrap=sleep 60")
    words = generator_words(
        tmp_path / "run", world, 2, *SMALL_JOB, f"launcher.after=[{first}]", "launcher.chain=2"
    )
    assert cli.main(words) == 0
    jobs = re.findall(r"\d+", capsys.readouterr().out.splitlines()[0].split(":")[0])
    assert len(jobs) == 2
    waiting = [shown(job) for job in jobs]
    subprocess.run(["scancel", first, *jobs], check=True)
    assert all("JobState=PENDING Reason=Dependency" in text for text in waiting)
    assert f"afterok:{first}" in waiting[0] and f"afternotok:{jobs[0]}" in waiting[1]


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (["launcher.partition=hihg"], "launcher.partition=hihg: no such partition; did you mean 'high'?"),
        (["launcher.partition=gpu"], "valid: high, low (nodes of low: 2 of 4 CPUs"),
        (["nodes=16"], "nodes=16: partition low has 2 that fit; use nodes=2 or fewer"),
        (["launcher.cpus_per_process=5"], "launcher.cpus_per_process=4 would fit"),
        (
            ["trainer.devices=2", "launcher.gpus_per_node=2"],
            "and 2 GPUs do not fit the nodes of partition low",
        ),
        (["launcher.memory_gb=64"], "64 GB do not fit"),
        (["launcher.minutes=600"], "partition low allows at most 60"),
        (["+launcher.options.nodelist=mini7"], "SLURM refuses the job: "),
        (["launcher.parts=2"], "launcher.parts=2: this command cannot be split"),
        (["mesh=context", "nodes=2"], "a codec takes data-parallel layouts only"),
        (["run_dir=/sys/run"], "run_dir=/sys/run: cannot write there"),
    ],
)
def test_a_job_that_does_not_fit_is_refused_with_what_would(
    tmp_path, monkeypatch, capsys, more, hint
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(["train", "experiments=toy/tae", *SMALL_JOB, *more])
    error = capsys.readouterr().err
    assert code == 2 and hint in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert "moviegen" not in subprocess.run(["squeue", "--format=%j"], capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts, where `python` is a stand-in that says how it was called.

    `train` waits for SIGTERM at its first start, ends as a training does that has saved, and is done at its second.
    """
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    stand_in = tmp_path / ".venv" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(
        "#!/usr/bin/env bash\n"
        'echo "rank $SLURM_PROCID of $SLURM_NTASKS part ${SLURM_ARRAY_TASK_ID-}: $*"\n'
        '[ "$3" = train ] && [ -z "${SLURM_RESTART_COUNT-}" ] || exit 0\n'
        'trap "echo saved; exit 143" TERM\n'
        "while :; do sleep 0.1; done\n"
    )
    stand_in.chmod(0o755)
    (stand_in.parent / "activate").write_text(f"PATH={stand_in.parent}:$PATH\n")
    return tmp_path


def test_the_scripts_start_every_rank_and_requeue_when_warned(checkout: Path) -> None:
    sized = ("--gpus-per-node=0", "--cpus-per-task=1", "--ntasks-per-node=1", "--time=5")
    many = sbatch(*sized, "slurm/many_nodes.sbatch", "run", "seed=1", cwd=checkout)
    logs = [checkout / "run" / "slurm" / f"{many}-node{node}-{os.uname().nodename}.log" for node in (0, 1)]
    wait("both nodes have started", lambda: all(log.is_file() and log.read_text() for log in logs))
    subprocess.run(["scancel", "--batch", "--signal=USR1", many], check=True)
    one = sbatch(*sized, "slurm/one_node.sbatch", "encode", "run_dir=x", cwd=checkout)
    parts = ("--gpus-per-task=0", "--cpus-per-task=1", "--time=5", "--array=0-1", "slurm/array.sbatch")
    array = sbatch(*parts, "eval", "generate", "out=x", cwd=checkout)
    for job in (one, f"{array}_0", f"{array}_1", many):
        wait(f"job {job} has ended well", lambda job=job: job_state(job) == "COMPLETED")
    for node, log in enumerate(logs):
        call = f"rank {node} of 2 part : -m moviegen.cli train seed=1 run_dir='run' nodes=2 trainer.devices=1"
        lines = log.read_text().splitlines()
        assert lines.count(call) == 2 and "saved" in lines
    assert (
        "rank 0 of 1 part : -m moviegen.cli encode run_dir=x" in (checkout / f"slurm-{one}.out").read_text()
    )
    for part in (0, 1):
        text = (checkout / f"slurm-{array}_{part}.out").read_text()
        assert f"part {part}: -m moviegen.cli eval generate out=x" in text


def test_a_script_that_is_preempted_saves_and_is_queued_again(checkout: Path, preempted_by: str) -> None:
    sized = ("--gpus-per-node=0", "--cpus-per-task=1", "--ntasks-per-node=1", "--time=30")
    job = sbatch(*sized, "slurm/many_nodes.sbatch", "run", "seed=1", cwd=checkout)
    logs = [checkout / "run" / "slurm" / f"{job}-node{node}-{os.uname().nodename}.log" for node in (0, 1)]
    wait("both nodes have started", lambda: all(log.is_file() and log.read_text() for log in logs))
    urgent = sbatch("--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=true")
    wait("the job with priority has run", lambda: job_state(urgent) == "COMPLETED")
    wait("the script has ended", lambda: job_state(job) in ENDED)
    assert job_state(job) == "COMPLETED", (checkout / f"slurm-{job}.out").read_text()
    for log in logs:
        lines = log.read_text().splitlines()
        assert [line.split()[0] for line in lines if line[:4] in ("rank", "save")] == [
            "rank",
            "saved",
            "rank",
        ]


def test_a_job_that_was_cancelled_does_not_rise_again(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), requeue())); time.sleep(60)"
    code = f"from moviegen.scheduler import requeue; {script}"
    wrapped = f'--wrap=exec srun {sys.executable} -c "{code}"'
    job = sbatch("--time=5", "--requeue", f"--output={tmp_path / 'log'}", wrapped)
    wait("it runs", lambda: job_state(job) == "RUNNING")
    time.sleep(2)
    subprocess.run(["scancel", job], check=True)
    wait("it has ended", lambda: job_state(job) == "CANCELLED" and "EndTime=Unknown" not in shown(job))
    time.sleep(2)
    with contextlib.suppress(subprocess.CalledProcessError):
        assert "JobState=CANCELLED" in shown(job)
