"""Break a training in every way that one machine allows, and count what is lost.

    python experiments/faults/run.py out=runs/faults [scale=1.0] [seed=0] [only=PREFIX]

`scale` multiplies how often each fault is tried; the figures on record are of scale=1. Writes outcomes/GROUP.jsonl, a
line a case, and numbers.json over all groups that have left theirs in the folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import fault_cases as cases
from fault_cases import CODES, Outcome, Reference, broken
from fault_layouts import LAYOUTS
from fault_shards import write_shards
from fault_training import Run
from moviegen_eval.numbers import Figure, write_numbers

STEP = 0.02  # seconds of a step where a signal comes from outside


@dataclass
class Settings:
    """The size of the sweep."""

    out: Path
    scale: float = 1.0
    seed: int = 0
    only: str = ""

    def times(self, count: int) -> int:
        """How often a fault is tried at this scale."""
        return max(1, round(count * self.scale))


class Sweep:
    """All cases over one set of shards; each run has a folder of its own."""

    def __init__(self, settings: Settings):
        self.settings, self.rng = settings, random.Random(settings.seed)
        self.shards = write_shards(settings.out / "shards")
        self.references, self.counted = {}, {}

    def run(self, **changes: object) -> Run:
        """A run in a new folder."""
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.settings.out))
        return replace(Run(folder, self.shards), **changes)  # type: ignore[arg-type]

    def reference(self, run: Run) -> Reference:
        """The unbroken run with the same samples and layout; how it saves makes no difference to it."""
        names = ("world", "layout", "dropout", "steps", "accumulate")
        key = tuple(getattr(run, name) for name in names)
        if key not in self.references:
            self.references[key] = Reference(self.run(**dict(zip(names, key, strict=True))))
        return self.references[key]

    def calls(self, world: int = 1) -> cases.Calls:
        """The calls of the saves of a run that keeps one checkpoint, so that its second save removes the first."""
        if world not in self.counted:
            self.counted[world] = cases.calls_of_saves(self.run(world=world, keep=1))
        return self.counted[world]

    def some(self, calls: range, share: float = 1.0) -> range:
        """Of these numbers every one, or at a smaller scale every so many-th."""
        return calls[:: max(1, round(1 / (share * self.settings.scale)))]

    def broken(self, case: str, changes: dict, **how: object) -> Outcome:
        """One run that meets a fault."""
        run = self.run(**changes)
        return broken(case, run, self.reference(run), **how)  # type: ignore[arg-type]

    # -- the cases, each a stream of outcomes

    def signals(self) -> Iterator[Outcome]:
        """From outside, at random instants; and in the middle of a backward pass."""
        for name, code in (("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("SIGUSR2", 140)):
            number = getattr(signal, name)
            for turn in range(self.settings.times(5)):
                run = self.run(step_seconds=STEP, steps=40, num_workers=turn % 2, background=bool(turn % 2))
                disturb = cases.after(run, self.rng.random() * 0.7, number)
                yield broken(name, run, self.reference(run), disturb=disturb, expected=[code, 0], bound=0)
            for _ in range(self.settings.times(2)):
                fault = cases.signal_at(self.rng.randrange(1, 16), number)
                yield self.broken(f"{name} in backward", {}, fault=fault, expected=[code], bound=0)
        for name, code in (("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)):
            fault = cases.signal_at(self.rng.randrange(1, 16), getattr(signal, name), rank=1)
            yield self.broken(
                f"{name} to one of two ranks", {"world": 2}, fault=fault, expected=[code], bound=0
            )

    def kills(self) -> Iterator[Outcome]:
        """A process that is gone at a random instant."""
        for name in ("SIGKILL", "SIGABRT", "SIGSEGV"):
            for number in range(self.settings.times(20 if name == "SIGKILL" else 3)):
                changes = {"background": bool(number % 2), "accumulate": 1 + number % 2}
                fault = cases.signal_at(self.rng.randrange(16), getattr(signal, name))
                yield self.broken(name, changes, fault=fault, expected=[-getattr(signal, name)])
        for rank in (0, 1):
            fault = cases.signal_at(6, signal.SIGKILL, rank=rank)
            yield self.broken(
                "dead rank", {"world": 2, "watchdog_seconds": 20.0}, fault=fault, expected=[-9, 1]
            )

    def stops(self) -> Iterator[Outcome]:
        """SIGSTOP: one that goes on later is as if nothing had been; one that does not is found by the watchdog."""

        run = self.run(step_seconds=STEP, steps=40)

        def pause(pids: list[int]) -> None:
            cases.after(run, 0.2, signal.SIGSTOP)(pids)
            cases.after(run, 0.7, signal.SIGCONT)(pids)

        yield broken("SIGSTOP and SIGCONT", run, self.reference(run), disturb=pause, expected=[0], bound=0)
        fault = cases.signal_at(6, signal.SIGSTOP, rank=1)
        changes = {"world": 2, "watchdog_seconds": 8.0}
        yield self.broken("SIGSTOP of a rank for good", changes, fault=fault, expected=[1, None], seconds=30)

    def workers(self) -> Iterator[Outcome]:
        """A data worker that is gone."""
        for _ in range(self.settings.times(3)):
            fault = cases.kill_a_child(self.rng.randrange(1, 15))
            changes = {"num_workers": 1, "step_seconds": STEP}
            yield self.broken("dead loader worker", changes, fault=fault, expected=[1])

    def disks(self) -> Iterator[Outcome]:
        """Every call of the second save fails once, or from then on; sync and in the background."""
        for background in (False, True):
            for at in self.some(self.calls().of_saves(2, 2), 0.5 if background else 1.0):
                for name, number, forever in (
                    ("disk full", cases.ENOSPC, True),
                    ("EIO on write", cases.EIO, False),
                ):
                    fault = cases.faulty_disk(cases.fails(number), at, forever)
                    changes = {"background": background, "keep": 1}
                    yield self.broken(name, changes, fault=fault, expected=[0, 1])

    def killed_saves(self) -> Iterator[Outcome]:
        """SIGKILL at each call of a save (a write half done), and at random instants of a slow one."""
        for background in (False, True):
            where = "async" if background else "sync"
            changes = {"background": background, "keep": 1}
            first, others = self.calls().of_saves(1, 1), self.calls().of_saves(2, 3)
            for at in (*self.some(first, 0.2), *self.some(others)):
                fault = cases.faulty_disk(cases.dies, at)
                yield self.broken(f"kill at a call of a save, {where}", changes, fault=fault, expected=[-9])
            yield self.killed_before_latest_moves(where, changes)
            for number in range(self.settings.times(60)):
                yield self.killed_while_saving(background, 2 if number % 6 == 0 else 1)

    def killed_before_latest_moves(self, where: str, changes: dict) -> Outcome:
        """SIGKILL in the third save; of one in the background, when training waits for it to begin the next."""
        run = self.run(**changes)
        noted = run.every * 2 if run.background else run.every * 3
        late = cases.dies_where_all_takes_long(
            0.01, self.calls().moves_latest(3), partial(cases.wait_for_step, run, noted)
        )
        fault = cases.faulty_disk(late, 1, forever=True)
        case = f"kill before latest moves, {where}"
        return broken(case, run, self.reference(run), fault=fault, expected=[-9])

    def killed_while_saving(self, background: bool, world: int) -> Outcome:
        """SIGKILL at a random instant of the second or third save, on a disk that is slow from its beginning."""
        run = self.run(background=background, world=world, keep=1, step_seconds=0.01)
        began, inside = run.folder / "began", []
        save = 2 + self.rng.randrange(2)
        calls, seconds = self.calls(world).of_saves(save, save), 0.01
        fault = cases.faulty_disk(cases.takes_long(seconds, began), calls[0], forever=True)
        when = self.rng.random() * seconds * len(calls)
        disturb = partial(cases.during_a_save, run, began, when, inside)
        name = f"kill during a save, {'async' if background else 'sync'}"
        outcome = broken(name, run, self.reference(run), fault=fault, disturb=disturb, expected=[-9, 0])
        outcome.detail += "inside" if inside == [True] else "between saves"
        return outcome

    def damages(self) -> Iterator[Outcome]:
        """Files that change on the disk."""
        for world in (1, 2):
            source, scratch = self.reference(self.run(world=world)), self.settings.out / "scratch"
            yield from cases.damaged(source, scratch, self.settings.times(150), self.settings.seed + world)
        run = self.run()
        yield cases.stale_files(run, self.reference(run))

    def numbers(self) -> Iterator[Outcome]:
        """A loss or gradient that is no number, on one of two ranks."""
        for where in ("in_step", "in_backward"):
            fault = cases.poisoned(6, 1, where)
            yield self.broken("NaN on one rank", {"world": 2}, fault=fault, expected=[CODES["not finite"]])

    def layouts(self) -> Iterator[Outcome]:
        """Other numbers of ranks."""
        for worlds in ((1, 2, 4, 1), (2, 1)):
            run = self.run(dropout=0.0)
            yield cases.other_layouts(run, self.reference(run), worlds)

    def sharded(self) -> Iterator[Outcome]:
        """Ranks that share one model, between the backward passes of its blocks: all are gone, or one of them."""
        for name in LAYOUTS:
            for number in range(self.settings.times(12)):
                changes = {"world": 2, "layout": name, "steps": 8, "watchdog_seconds": 20.0}
                changes |= {"background": bool(number // 2 % 2), "accumulate": 1 + number // 4 % 2}
                one = number % 2 == 1
                whom = os.getpid if one else cases.everyone
                fault = cases.signal_at(self.rng.randrange(5, 8), signal.SIGKILL, whom, rank=number // 2 % 2)
                expected = [-9, 1] if one else [-9]
                yield self.broken(f"SIGKILL, {name}", changes, fault=fault, expected=expected)


GROUPS: tuple[Callable[[Sweep], Iterator[Outcome]], ...] = (
    Sweep.damages, Sweep.killed_saves, Sweep.kills, Sweep.signals, Sweep.numbers, Sweep.layouts, Sweep.workers,
    Sweep.stops, Sweep.disks, Sweep.sharded,
)  # fmt: skip


def sweep(settings: Settings) -> list[Outcome]:
    """Run the groups; prints a line for each outcome that is not as it should be.

    A group's outcomes are kept in `outcomes/`, and those of groups that are not run now are counted with the others.
    """
    everything, kept = Sweep(settings), settings.out / "outcomes"
    kept.mkdir(exist_ok=True)
    for group in GROUPS:
        if not group.__name__.startswith(settings.only):
            continue
        begun, count = time.monotonic(), 0
        with (kept / f"{group.__name__}.jsonl").open("w", buffering=1) as file:
            for count, outcome in enumerate(group(everything), 1):  # noqa: B007 (the last is printed)
                file.write(json.dumps(asdict(outcome)) + "\n")
                if outcome.bad:
                    print(f"NOT AS IT SHOULD BE: {outcome}", flush=True)
        print(f"{group.__name__}: {count} cases, {time.monotonic() - begun:.0f} s", flush=True)
        write_numbers(settings.out / "numbers.json", figures(outcomes_in(kept)))
    return outcomes_in(kept)


def outcomes_in(folder: Path) -> list[Outcome]:
    """The outcomes of all groups that have been run."""
    files = (folder / f"{group.__name__}.jsonl" for group in GROUPS)
    lines = (line for file in files if file.is_file() for line in file.read_text().splitlines())
    return [Outcome(**json.loads(line)) for line in lines]


def figures(outcomes: list[Outcome]) -> list[Figure]:
    """What is counted, over all faults and for each."""
    found = []
    for name in ("", *dict.fromkeys(outcome.case for outcome in outcomes)):
        some = [outcome for outcome in outcomes if name in ("", outcome.case)]
        path = "faults/" + "_".join(name.replace(",", "").replace("->", "to").split()) + ("/" if name else "")
        counts = {
            "cases": len(some),
            "silently_wrong": sum(bool(one.wrong) for one in some),
            "unloadable_latest": sum(one.unloadable for one in some),
            "unexpected_ends": sum(bool(one.unexpected) for one in some),
            "beyond_bound": sum(one.lost > one.bound for one in some),
            "most_steps_lost": max((one.lost for one in some), default=0),
        }
        if name and some[0].latest is not None:
            counts["with_a_latest"] = sum(bool(one.latest) for one in some)
        if name in ("bit flip", "truncation", "missing file"):
            counts["refused_for_the_one_before"] = sum(one.went_back for one in some)
        if name.startswith("kill during a save"):
            counts["inside_a_save"] = sum("inside" in one.detail for one in some)
        for what, count in counts.items():
            found.append(Figure(path + what, float(count), None, None, len(some), "", what == "cases"))
    return found


def main(words: list[str]) -> int:
    """The command; its exit code is 1 if anything was lost that must not be."""
    given = dict(word.split("=", 1) for word in words)
    numbers = {"scale": float(given.get("scale", 1)), "seed": int(given.get("seed", 0))}
    settings = Settings(Path(given["out"]), only=given.get("only", ""), **numbers)
    outcomes = sweep(settings)
    for figure in figures(outcomes)[:6]:
        print(f"{figure.name}: {figure.value:g}")
    return int(any(one.bad for one in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
