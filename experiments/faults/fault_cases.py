"""The cases of the sweep: break a training in one way, look at the disk, go on, compare with an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from fault_injection import (
    EIO,
    ENOSPC,
    FaultySystem,
    copied,
    dies,
    dies_where_all_takes_long,
    fails,
    files_of,
    flip,
    takes_long,
)
from fault_training import CODES, Fault, Run, Tiny, digest_of_checkpoint, finish, notes, start
from torch import Tensor

from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import CheckpointError
from moviegen.callbacks.storage import verify


@dataclass
class Outcome:
    """What came of one fault."""

    case: str
    codes: list[int | None]  # of the ranks that met it
    lost: int = 0  # finished steps that had to be made again
    bound: int = 0  # what may be lost
    wrong: list[str] = field(default_factory=list)  # steps or checkpoints that differ from the unbroken run
    unloadable: int = 0  # `latest` that nobody damaged and that cannot be loaded
    unexpected: str = ""  # exit code, or a run that did not go on to its end
    went_back: bool = False  # an older checkpoint was loaded, for the newest is damaged
    latest: str | None = None  # what `latest` named after the fault, "" for nothing; None: not looked at
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether something was lost that must not be, or the run did not end or go on as it should."""
        return bool(self.wrong or self.unloadable or self.unexpected) or self.lost > self.bound


class Reference:
    """The unbroken run: for every step its samples, loss and state."""

    def __init__(self, run: Run):
        self.run = run
        codes = finish(start(run))
        if codes != [0] * run.world:
            raise RuntimeError(f"the unbroken run ended with {codes}: see {run.folder}/output-0.txt")
        self.notes = {(note["rank"], note["step"]): note for note in notes(run)}

    def wrong(self, run: Run) -> list[str]:
        """Noted steps of another run that differ in samples, loss, state or random numbers."""
        found = []
        for note in notes(run):
            same = self.notes[note["rank"], note["step"]]
            parts = [name for name in ("ids", "loss", "state", "rng") if note[name] != same[name]]
            if parts:
                found.append(f"attempt {note['attempt']} rank {note['rank']} step {note['step']}: {parts}")
        return found

    def same(self, folder: Path, sha256: str | None = None) -> bool:
        """Whether a checkpoint holds the state of the unbroken run at its step; raises CheckpointError."""
        manifest = verify(folder, sha256)
        state, ranks = digest_of_checkpoint(folder, manifest)
        mine = [self.notes[rank, manifest.step] for rank in range(manifest.num_ranks)]
        return state == mine[0]["state"] and ranks == [note["rng"] for note in mine]


def examine(run: Run, reference: Reference, outcome: Outcome) -> str:
    """Look at `latest` as the fault has left it; what it names, if it is there."""
    named = Folders(run.checkpoints).latest()
    if named is None:
        return ""
    try:
        if not reference.same(*named):
            outcome.wrong.append(f"{named[0].name} differs")
    except CheckpointError as error:
        outcome.unloadable += 1
        outcome.detail += str(error)
    return named[0].name


def go_on(run: Run, reference: Reference, outcome: Outcome) -> Outcome:
    """Start the run again without a fault, and compare all steps of both attempts."""
    codes = finish(start(replace(run, watchdog_seconds=0.0), attempt=1))
    if codes != [0] * run.world:
        outcome.unexpected += f"the second attempt ended with {codes}; "
    made = [note["step"] for note in notes(run) if note["attempt"] == 0]
    again = [note["step"] for note in notes(run) if note["attempt"] == 1]
    if not again and max(made, default=0) < run.steps:
        outcome.unexpected += "the second attempt made no step; "
    outcome.lost = max(made, default=0) - (min(again) - 1 if again else run.steps)
    outcome.wrong += reference.wrong(run)
    examine(run, reference, outcome)
    return outcome


def broken(
    case: str,
    run: Run,
    reference: Reference,
    fault: Fault | None = None,
    disturb: Callable[[list[int]], None] | None = None,
    expected: Iterable[int | None] | None = None,
    bound: int | None = None,
    seconds: float = 60.0,
) -> Outcome:
    """Run with a fault from within or without, until its ranks have ended, then go on."""
    pids = start(run, fault=fault)
    if disturb is not None:
        disturb(pids)
    outcome = Outcome(case, finish(pids, seconds))
    expected = None if expected is None else list(expected)
    if None in outcome.codes and None not in (expected or []):
        outcome.unexpected += f"a rank hung: {outcome.codes}; "
    if expected is not None and not set(outcome.codes) <= set(expected):
        outcome.unexpected += f"exit codes {outcome.codes}, not {expected}; "
    if outcome.unexpected:
        outcome.detail += last_words(run)
    outcome.latest = examine(run, reference, outcome)
    outcome.bound = run.every if bound is None else bound
    return go_on(run, reference, outcome)


def last_words(run: Run) -> str:
    """The end of what each rank has written."""
    files = sorted(run.folder.glob("output-*.txt"))
    return "".join(f"{file.name}: {file.read_text(errors='replace')[-600:]!r}; " for file in files)


def everyone() -> int:
    """All ranks, for a signal."""
    return -os.getpgid(0)


def signal_at(step: int, number: int, whom: Callable[[], int] = os.getpid, rank: int = 0) -> Fault:
    """A signal in the middle of the backward pass of a step, on one rank."""

    def fault(task: Tiny, own: int) -> None:
        def in_backward(now: int, gradient: Tensor) -> Tensor:
            if now == step and own == rank:
                os.kill(whom(), number)
            return gradient

        task.in_backward = in_backward

    return fault


def poisoned(step: int, rank: int, where: str) -> Fault:
    """A loss or a gradient that is no number, on one rank."""

    def fault(task: Tiny, own: int) -> None:
        def spoil(now: int, value: Tensor) -> Tensor:
            return value * float("nan") if now == step and own == rank else value

        setattr(task, where, spoil)

    return fault


def faulty_disk(kind: Callable[[str, tuple], None], at: int, forever: bool = False, rank: int = 0) -> Fault:
    """A disk that misbehaves at one call of a save, counted from the first call of the run."""

    def fault(task: Tiny, own: int) -> None:  # noqa: ARG001
        if own == rank:
            FaultySystem(kind, at, forever).install()

    return fault


def after(run: Run, seconds: float, number: int) -> Callable[[list[int]], None]:
    """A signal to the whole process group, so long after the first step."""

    def disturb(pids: list[int]) -> None:
        wait_for(run.folder / "notes.jsonl")
        time.sleep(seconds)
        os.killpg(pids[0], number)

    return disturb


def wait_for(path: Path) -> None:
    """Until there is such a file, or for a minute."""
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.001)


def wait_for_step(run: Run, step: int) -> None:
    """Until a step is noted, or for a minute."""
    deadline = time.monotonic() + 60
    while all(note["step"] < step for note in notes(run)) and time.monotonic() < deadline:
        time.sleep(0.001)


def during_a_save(run: Run, began: Path, seconds: float, inside: list[bool], pids: list[int]) -> None:
    """SIGKILL to all ranks so long after a save has begun; `inside` learns whether it was still going on."""
    wait_for(began)
    time.sleep(seconds)
    os.killpg(pids[0], signal.SIGKILL)
    inside.append(any(path.name.endswith(".part") for path in run.checkpoints.iterdir()))


@dataclass(frozen=True)
class Calls:
    """Names of the calls of the system that the saves of a run make in its first rank, in their order."""

    names: tuple[str, ...]

    def of_saves(self, first: int, last: int) -> range:
        """Numbers, from 1, of the calls of these saves; each begins with a folder."""
        begins = [number for number, name in enumerate(self.names, 1) if name == "mkdir"]
        begins.append(len(self.names) + 1)
        return range(begins[first - 1], begins[last])

    def moves_latest(self, save: int) -> int:
        """Number of the call that moves `latest` in a save: not yet made, everything else is on the disk."""
        return [number for number, name in enumerate(self.names, 1) if name == "replace"][save - 1]


def calls_of_saves(run: Run) -> Calls:
    """Of an unbroken run, all but its last save. Saves in the background make the same calls, one after another."""
    file = run.folder / "calls.json"

    def fault(task: Tiny, rank: int) -> None:
        system = FaultySystem(lambda *_: None, at=0)
        system.install()

        def in_step(step: int, losses: Tensor) -> Tensor:  # noqa: ARG001
            if rank == 0:
                file.write_text(json.dumps(system.calls))
            return losses

        task.in_step = in_step

    codes = finish(start(run, fault=fault))
    if codes != [0] * run.world:
        raise RuntimeError(f"the run that is counted ended with {codes}: see {run.folder}/output-0.txt")
    return Calls(tuple(json.loads(file.read_text())))


def damaged(source: Reference, scratch: Path, count: int, seed: int) -> list[Outcome]:
    """Bit flips, cuts, missing files and stale ones in the newest checkpoint, one at a time.

    Each is tried as a run would: `latest` first, then what is older. What is loaded must be right.
    """
    rng, outcomes = random.Random(seed), []
    root = source.run.checkpoints
    newest = Folders(root).latest()
    assert newest is not None
    names = [path.relative_to(root) for path in files_of(newest[0])] + [Path("latest")]
    tensors = next(name for name in names if name.suffix == ".safetensors")
    damages: list[tuple[str, Path, Callable[[Path], Any]]] = [
        ("bit flip", tensors if number % 2 else rng.choice(names), lambda path: flip(path, rng))
        for number in range(count)
    ]
    for name in names:
        size = (root / name).stat().st_size
        for length in {0, 1, size // 2, size - 1}:
            damages.append(("truncation", name, lambda path, length=length: os.truncate(path, length)))
        damages.append(("missing file", name, Path.unlink))
    for case, name, damage in damages:
        copy = copied(root, scratch / "damaged")
        detail = damage(copy / name)
        outcomes.append(_loaded(case, source, copy, f"{name}: {detail or ''}"))
    return outcomes


def _loaded(case: str, source: Reference, root: Path, detail: str) -> Outcome:
    """What a run would go on from in this folder, and whether it is what was saved."""
    outcome, newest = Outcome(case, [], detail=detail), Folders(root).whole()[0]
    for folder, sha256 in Folders(root).candidates():
        try:
            if not source.same(folder, sha256):
                outcome.wrong.append(f"{folder.name} loads with other values: {detail}")
            outcome.went_back = folder != newest
            return outcome
        except CheckpointError:
            continue
    outcome.unexpected = f"nothing is left to load: {detail}"
    return outcome


def stale_files(run: Run, reference: Reference) -> Outcome:
    """What killed saves and removals may leave, before the first start: none of it is loaded, all of it is removed."""
    run.checkpoints.mkdir(parents=True)
    for name in (".step-000000008.part", ".step-000000004.old.part"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "rank-00000.safetensors").write_bytes(b"half a file")
    (run.checkpoints / ".latest.part").write_text('{"folder": "step-000')
    outcome = broken("stale temporary files", run, reference, expected=[0], bound=0)
    left = [path.name for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    if left:
        outcome.unexpected += f"left over: {left}; "
    return outcome


def other_layouts(run: Run, reference: Reference, worlds: tuple[int, ...]) -> Outcome:
    """The run continued on other numbers of ranks: samples bit-equal, loss to 1e-6."""
    outcome = Outcome(f"layouts {' -> '.join(map(str, worlds))}", [])
    each = run.steps // len(worlds)
    for number, world in enumerate(worlds):
        part = replace(run, world=world, steps=each * (number + 1))
        outcome.codes += finish(start(part, attempt=number))
    steps: dict[int, list[dict[str, Any]]] = {}
    for note in notes(run):
        steps.setdefault(note["step"], []).append(note)
    worst = 0.0
    for step in range(1, run.steps + 1):
        parts, one = sorted(steps.get(step, []), key=lambda note: note["rank"]), reference.notes[0, step]
        if [name for note in parts for name in note["ids"]] != one["ids"]:
            outcome.wrong.append(f"step {step}: other samples")
            continue
        loss = sum(note["loss"] for note in parts) / len(parts)
        worst = max(worst, abs(loss / one["loss"] - 1))
    if worst > 1e-6:
        outcome.wrong.append(f"the loss differs by {worst:.2g}")
    if set(outcome.codes) != {0}:
        outcome.unexpected = f"exit codes {outcome.codes}"
    outcome.detail = json.dumps({"loss": worst})
    return outcome


def kill_a_child(step: int) -> Fault:
    """SIGKILL to a data worker of this process, in a step."""

    def fault(task: Tiny, rank: int) -> None:  # noqa: ARG001
        def in_step(now: int, losses: Tensor) -> Tensor:
            if now == step:
                for child in torch.multiprocessing.active_children():
                    child.kill()
            return losses

        task.in_step = in_step

    return fault


__all__ = ["CODES", "EIO", "ENOSPC", "dies", "dies_where_all_takes_long", "fails", "takes_long"]  # for run.py
