"""Break a training in every way that one machine allows, and count what is lost.

    python experiments/faults/run.py out=runs/faults [scale=1.0] [seed=0] [only=PREFIX]

`scale` multiplies how often each fault is tried; the figures on record are of scale=1. Writes numbers.json.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import fault_cases as cases
from fault_cases import CODES, Outcome, Reference, broken
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
        self.number, self.references = 0, {}

    def run(self, **changes: object) -> Run:
        """A run in a new folder."""
        self.number += 1
        return replace(Run(self.settings.out / f"run-{self.number:04d}", self.shards), **changes)  # type: ignore[arg-type]

    def reference(self, run: Run) -> Reference:
        """The unbroken run with the same samples and layout; how it saves makes no difference to it."""
        key = (run.world, run.dropout, run.steps, run.accumulate)
        if key not in self.references:
            self.references[key] = Reference(
                self.run(world=run.world, dropout=run.dropout, steps=run.steps, accumulate=run.accumulate)
            )
        return self.references[key]

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
                fault = cases.signal_at(self.rng.randrange(1, 8), number)
                yield self.broken(f"{name} in backward", {}, fault=fault, expected=[code], bound=0)
        for name, code in (("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)):
            fault = cases.signal_at(self.rng.randrange(1, 8), getattr(signal, name), rank=1)
            yield self.broken(
                f"{name} to one of two ranks", {"world": 2}, fault=fault, expected=[code], bound=0
            )

    def kills(self) -> Iterator[Outcome]:
        """A process that is gone at a random instant."""
        for name in ("SIGKILL", "SIGABRT", "SIGSEGV"):
            for number in range(self.settings.times(20 if name == "SIGKILL" else 3)):
                changes = {"background": bool(number % 2), "accumulate": 1 + number % 2}
                fault = cases.signal_at(self.rng.randrange(8), getattr(signal, name))
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
            fault = cases.kill_a_child(self.rng.randrange(1, 7))
            changes = {"num_workers": 1, "step_seconds": STEP}
            yield self.broken("dead loader worker", changes, fault=fault, expected=[1])

    def disks(self) -> Iterator[Outcome]:
        """Every call of a save fails once, or from then on; sync and in the background."""
        calls = cases.calls_of_a_save(self.run())
        for background in (False, True):
            changes = {"background": background}
            step = (1 + background) * max(1, round(1 / self.settings.scale))
            for at in range(1, calls + 1, step):
                for name, number, forever in (
                    ("disk full", cases.ENOSPC, True),
                    ("EIO on write", cases.EIO, False),
                ):
                    fault = cases.faulty_disk(cases.fails(number), at, forever)
                    yield self.broken(name, changes, fault=fault, expected=[0, 1])

    def killed_saves(self) -> Iterator[Outcome]:
        """SIGKILL at each call of a save (a write half done), and at random instants of a slow one."""
        calls = cases.calls_of_a_save(self.run())
        for background in (False, True):
            where = "async" if background else "sync"
            for at in range(1, calls + 1, max(1, round(1 / self.settings.scale))):
                fault = cases.faulty_disk(cases.dies, at)
                changes = {"background": background}
                yield self.broken(
                    f"kill at a call of a save, {where}", changes, fault=fault, expected=[0, -9]
                )
            for number in range(self.settings.times(60)):
                world = 2 if number % 6 == 0 else 1
                run = self.run(background=background, world=world, step_seconds=0.01)
                began, inside = run.folder / "began", []
                first = 1 + calls // 2 * self.rng.randrange(2)  # of the first of the two saves, or the second
                fault = cases.faulty_disk(cases.takes_long(0.02, began), first, forever=True)
                disturb = partial(cases.during_a_save, run, began, self.rng.random() * 0.4, inside)
                name = f"kill during a save, {where}"
                outcome = broken(
                    name, run, self.reference(run), fault=fault, disturb=disturb, expected=[-9, 0]
                )
                outcome.detail += "inside" if inside == [True] else "between saves"
                yield outcome

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


GROUPS: tuple[Callable[[Sweep], Iterator[Outcome]], ...] = (
    Sweep.damages, Sweep.killed_saves, Sweep.kills, Sweep.signals, Sweep.numbers, Sweep.layouts, Sweep.workers,
    Sweep.stops, Sweep.disks,
)  # fmt: skip


def sweep(settings: Settings) -> list[Outcome]:
    """Run all groups; prints a line for each outcome that is not as it should be."""
    everything = Sweep(settings)
    outcomes = []
    for group in GROUPS:
        if not group.__name__.startswith(settings.only):
            continue
        begun = time.monotonic()
        for outcome in group(everything):
            outcomes.append(outcome)
            if outcome.wrong or outcome.unloadable or outcome.unexpected or outcome.lost > outcome.bound:
                print(f"NOT AS IT SHOULD BE: {outcome}", flush=True)
        print(f"{group.__name__}: {len(outcomes)} cases so far, {time.monotonic() - begun:.0f} s", flush=True)
        write_numbers(
            settings.out / "numbers.json", figures(outcomes)
        )  # a sweep that is broken off keeps its groups
    return outcomes


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
            "most_steps_lost": max(one.lost for one in some),
        }
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
    bad = [one for one in outcomes if one.wrong or one.unloadable or one.unexpected or one.lost > one.bound]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
