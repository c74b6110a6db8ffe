"""`moviegen demo`: the main job as a list of stages in conf/demo.yaml, each a `moviegen` command of its own.

A stage that is finished, for this configuration and these upstream results, is skipped; an interrupted one is
started again in its folder and goes on there; one whose configuration changed starts from an empty folder, and
what it had made moves aside if it took long.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from moviegen import config, interrupts, warm
from moviegen.cli import COMMANDS, EXIT_INTERRUPTED
from moviegen.runfolder import file_sha256, read_json, write_json, write_text

KEEP_SECONDS = 600.0  # of work: what took longer is never deleted, only moved aside
COMMAND = [sys.executable, "-m", "moviegen.cli"]
SHOWN_WIDTH = 160  # of one override in what is printed


@dataclass(frozen=True)
class Stage:
    """One command of the job. Besides its overrides it gets `<folder_key>=<job's run_dir>/<folder>`.

    In an override `{videos}` and `{settings.NAME}` stand for those values, quoted for Hydra whatever they hold.
    """

    command: str  # a `moviegen` command, e.g. "data build"
    overrides: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()  # added when training goes on from the shipped weights
    scratch: tuple[str, ...] = ()  # added when it starts from nothing
    with_videos: tuple[str, ...] = ()  # added when the user gave a folder of videos, whose files then count
    folder_key: str | None = "run_dir"  # the command's key for its folder; None: the overrides say it
    folder: str | None = None  # below the job's run_dir; None: the stage's name; stages may share one
    needs: tuple[str, ...] = ()  # names of the stages whose results it reads
    inputs: tuple[str, ...] = ()  # files outside the job whose content counts, e.g. shipped weights
    warm_inputs: tuple[str, ...] = ()  # the same, unless training starts from nothing
    outputs: tuple[str, ...] = ()  # must exist for the stage to count as finished; below its folder
    minutes: float = 1.0  # expected on two cores, for the time left
    scratch_minutes: float | None = None


@dataclass(frozen=True)
class DemoConfig:
    """The whole job."""

    run_dir: Path
    report: Path  # named in the last line
    stages: dict[str, Stage]
    scratch: bool = False
    videos: str | None = None  # a folder of the user's own, empty for none; stages refer to it as {videos}
    settings: dict[str, Any] = field(default_factory=dict)  # free values that stages refer to


def demo(cfg: Any) -> int:
    """Run the stages that are not finished; the composed conf/demo.yaml describes them."""
    job = config.build(cfg)
    if job.videos and not Path(job.videos).is_dir():
        raise config.UserError(f"videos={job.videos} is not a folder")
    with alone(job.run_dir):
        runner = Runner(job)
        write_text(job.run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config.plain(cfg))))
        runner.run()
    return 0


class Runner:
    """Decides which stages are finished and runs the others in order."""

    def __init__(
        self,
        job: DemoConfig,
        call: Callable[[list[str]], int] | None = None,
        conf: Path = config.CONF,
        label: str = "report",
    ):
        self.job, self.call, self.conf, self.label = job, call or call_process, conf, label
        self.names = list(job.stages)
        self._check_names()
        self.prints: dict[str, str] = {}
        for name in self.names:
            self.prints[name] = self._fingerprint(name)

    def run(self) -> None:
        """Run what is not finished; raises UserError naming the stage that failed."""
        began, skipped = time.monotonic(), 0
        for number, name in enumerate(self.names, start=1):
            title = f"[{number}/{len(self.names)}] {name}"
            if self.finished(name):
                skipped += 1
                print(f"{title}: finished before", flush=True)
                continue
            self._prepare(name)
            left = sum(
                self._expected(other) for other in self.names[number - 1 :] if not self.finished(other)
            )
            words = " ".join(["moviegen", self.job.stages[name].command, *map(_shown, self.overrides(name))])
            print(
                f"\n{title}: about {self._expected(name):.1f} min, {left:.1f} min left in all\n  {words}",
                flush=True,
            )
            self._run_stage(name)
        total = sum(self.seconds().values())
        print(
            f"\n{self.label}: {self.job.report}   this run {_minutes(time.monotonic() - began)}, "
            f"all stages {_minutes(total)}; {skipped} of {len(self.names)} stages were finished before"
        )

    def seconds(self) -> dict[str, float]:
        """What each stage took, all its tries together."""
        return {name: self._marker(name).get("seconds", 0.0) for name in self.names}

    def finished(self, name: str) -> bool:
        """Whether a stage's marker fits its configuration and upstream results, and its outputs are there."""
        marker = self._marker(name)
        if marker.get("state") != "done" or marker.get("identity") != self._identity(name):
            return False
        if self._changed(name):
            return False
        return not self._missing(name)

    def _missing(self, name: str) -> list[Path]:
        """Outputs of a stage that are not there; `..` in them works before the folder exists."""
        outputs = (os.path.normpath(self.folder(name) / output) for output in self.job.stages[name].outputs)
        return [Path(output) for output in outputs if not Path(output).exists()]

    def folder(self, name: str) -> Path:
        """The run folder of a stage."""
        return self.job.run_dir / (self.job.stages[name].folder or name)

    def _check_names(self) -> None:
        root = self.job.run_dir.resolve()
        for position, name in enumerate(self.names):
            stage = self.job.stages[name]
            if stage.command not in COMMANDS:
                hint = config.nearest(stage.command, COMMANDS)
                raise config.UserError(f"stages.{name}.command={stage.command}: no such command; {hint}")
            for other in stage.needs:
                if other not in self.names[:position]:
                    hint = config.nearest(other, self.names[:position])
                    raise config.UserError(
                        f"stages.{name}.needs={other}: no stage before it is called so; {hint}"
                    )
            if root not in self.folder(name).resolve().parents:
                raise config.UserError(f"stages.{name}.folder={stage.folder} leaves the run folder {root}")
            sharers = self._sharers(name)
            if name != sharers[0] and stage.needs != (sharers[sharers.index(name) - 1],):
                before = sharers[sharers.index(name) - 1]
                raise config.UserError(
                    f"stages.{name} shares its folder, so it must need ['{before}'] and no other"
                )

    def _sharers(self, name: str) -> list[str]:
        return [other for other in self.names if self.folder(other) == self.folder(name)]

    def overrides(self, name: str) -> list[str]:
        """The words that follow a stage's command."""
        stage = self.job.stages[name]
        variant = stage.scratch if self.job.scratch else stage.warm
        where = [f"{stage.folder_key}={config.quoted(self.folder(name))}"] if stage.folder_key else []
        videos = stage.with_videos if self.job.videos else ()
        return [*map(self._filled, [*stage.overrides, *variant, *videos]), *where]

    def _filled(self, line: str) -> str:
        """An override with the values that it refers to, each quoted."""
        values = {f"settings.{key}": value for key, value in self.job.settings.items()}
        for key, value in (values | {"videos": self.job.videos}).items():
            line = line.replace(f"{{{key}}}", config.quoted(value))
        return line

    def _fingerprint(self, name: str) -> str:
        """Hash of a stage's composed config, the files it starts from, and the stages it builds on."""
        stage = self.job.stages[name]
        file = COMMANDS[stage.command].config
        cfg = config.plain(config.compose(file, self.overrides(name), self.conf)) if file else {}
        warm = () if self.job.scratch else stage.warm_inputs
        videos = (self.job.videos,) if self.job.videos and stage.with_videos else ()
        inputs = {path: _content(Path(path)) for path in (*stage.inputs, *warm, *videos)}
        return _hash([stage.command, cfg, inputs, [self.prints[other] for other in stage.needs]])

    def _identity(self, name: str) -> str:
        upstream = [self._marker(other).get("finished") for other in self.job.stages[name].needs]
        return _hash([self.prints[name], upstream])

    def _marker_path(self, name: str) -> Path:
        return self.job.run_dir / ".stages" / f"{name}.json"

    def _marker(self, name: str) -> dict[str, Any]:
        path = self._marker_path(name)
        return read_json(path) if path.is_file() else {}

    def _prepare(self, name: str) -> None:
        """Empty the stage's folder unless what lies there is this very stage, interrupted."""
        sharers = self._sharers(name)
        if name != sharers[0]:
            return
        own, folder = self._marker(name), self.folder(name)
        if not own and folder.is_dir() and any(folder.iterdir()):
            raise config.UserError(
                f"{folder} holds files of another run: move it away, or choose another run_dir"
            )
        if own.get("state") == "done" or own.get("identity") != self._identity(name) or self._changed(name):
            if folder.is_dir():
                self._clear(folder, sum(self._marker(other).get("seconds", 0.0) for other in sharers))
            for other in reversed(sharers):  # the first one last: it says whose the folder is
                self._marker_path(other).unlink(missing_ok=True)

    def _clear(self, folder: Path, seconds: float) -> None:
        """Take a folder that is out of date out of the way; `seconds` of work went into it."""
        if seconds < KEEP_SECONDS:
            shutil.rmtree(folder)
            return
        names = (folder.with_name(f"{folder.name}.old{number}") for number in count(1))
        aside = next(path for path in names if not path.exists())
        folder.rename(aside)
        print(
            f"{folder} is of another configuration and took {_minutes(seconds)}: kept as {aside}", flush=True
        )

    def _changed(self, name: str) -> bool:
        """Whether anything in the stage's folder came from another configuration."""
        markers = {other: self._marker(other) for other in self._sharers(name)}
        return any(marker and marker["print"] != self.prints[other] for other, marker in markers.items())

    def _expected(self, name: str) -> float:
        stage = self.job.stages[name]
        longer = stage.scratch_minutes if self.job.scratch else None
        return stage.minutes if longer is None else longer

    def _run_stage(self, name: str) -> None:
        marker = {"identity": self._identity(name), "print": self.prints[name], "state": "started"}
        spent = self._marker(name).get("seconds", 0.0)
        write_json(self._marker_path(name), marker | {"seconds": spent})
        began = time.monotonic()
        command = [*COMMAND, *self.job.stages[name].command.split()]
        try:
            code = self.call([*command, *self.overrides(name)])
        finally:
            marker["seconds"] = round(spent + time.monotonic() - began, 1)
            write_json(self._marker_path(name), marker)
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise config.UserError(
                f"stage '{name}' ended with exit code {code}; the same command tries it again"
            )
        if missing := self._missing(name):
            raise RuntimeError(f"stage '{name}' ended without writing {missing[0]}")
        write_json(self._marker_path(name), marker | {"state": "done", "finished": time.time_ns()})


def call_process(command: list[str]) -> int:
    """The exit code of a process, which may finish what it saves before Ctrl-C or SIGTERM goes on.

    Our own commands are forks of this process, where forks are sound, so that what all of them import is read once.
    """
    if warm.forks() and command[: len(COMMAND)] == COMMAND:
        return warm.run_command(command[len(COMMAND) :])
    return interrupts.run_child(command).returncode


@contextlib.contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Hold the run folder's lock: two jobs in one folder would overwrite each other."""
    (run_dir / ".stages").mkdir(parents=True, exist_ok=True)
    with (run_dir / ".stages" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise config.UserError(f"another `moviegen` is running in {run_dir}") from None
        yield


def _content(path: Path) -> str | dict[str, tuple[int, int]]:
    """What a marker remembers of an input: a file's hash; names, sizes and times of the files in a folder."""
    if path.is_dir():
        files = (item for item in sorted(path.rglob("*")) if item.is_file() and not item.name.startswith("."))
        return {str(file.relative_to(path)): _stamp(file) for file in files}
    if not path.is_file():
        hint = "; scratch=true trains from nothing" if path.suffix == ".safetensors" else ""
        raise config.UserError(f"{path} does not exist{hint}")
    return file_sha256(path)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _shown(word: str) -> str:
    return word if len(word) <= SHOWN_WIDTH else word[: SHOWN_WIDTH - 3] + "..."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
