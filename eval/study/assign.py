"""Who rates what next: balanced over items and axes, never the same pair twice, sides from a stored seed.

A `Desk` holds the state of one running study in memory. Its methods check a request first, then change the state and
add the rows to write to `pending`; nothing here touches a database or a clock, so the same calls give the same state.
A rater stays on one axis as long as there is something to rate on it (the paper's studies ask one question at a time).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from moviegen_eval.study.study import Item, Study
from moviegen_eval.study.votes import Vote

Side = Literal["a", "b"]
ANSWERS = ("left", "right", "tie")
WATCHED = (
    0.8  # of a clip's length must have been watched: players that are kept in step run a little fast or slow
)


class RefusedError(ValueError):
    """A request that cannot be fulfilled: one line for the rater's page, and the status of the HTTP answer."""

    def __init__(self, message: str, status: int = 409) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Rules:
    """How tasks are handed out."""

    gold_every: int = 10  # one gold item in so many tasks of a rater, at a drawn place; 0: none
    tasks_per_rater: int | None = None  # None: as many as there are
    pairs_once: bool = True  # a rater sees a pair on one axis only; false: once on each axis
    lease_seconds: float = 1800.0  # a task that was handed out and not answered is free again after this
    ahead: int = 1  # tasks handed out ahead of the current one, so that their videos are there in time


@dataclass(frozen=True)
class Assignment:
    """One item on one axis for one rater, with the sides as they are shown."""

    id: str
    rater: str
    number: int  # from 0, in the order of the rater's session
    item: str
    axis: str
    shown_left: Side
    time: float  # seconds since 1970, UTC


@dataclass(frozen=True)
class Standing:
    """The vote of a task that stands: not taken back by another."""

    id: str
    answer: str
    watch_seconds: tuple[float, float]
    reason: str


@dataclass
class RaterState:
    """What a rater has seen and answered."""

    id: str
    code: str
    external: str | None = None  # keyed hash of a platform's id of the person
    consented: bool = False
    paused: bool = False
    axis: str | None = None
    assignments: dict[str, Assignment] = field(default_factory=dict)  # by id, in order
    votes: dict[str, Standing] = field(default_factory=dict)  # by assignment, in the order of first answers
    seen: set[tuple[str, str]] = field(default_factory=set)  # (pair, axis)
    last_seen: float = 0.0

    def unanswered(self) -> list[Assignment]:
        return [own for own in self.assignments.values() if own.id not in self.votes]


@dataclass
class TaskState:
    """One item on one axis: how often it is answered, and who has it open until when."""

    item: Item
    axis: str
    needed: int
    voted: int = 0
    leases: dict[str, float] = field(default_factory=dict)  # rater -> end of the lease

    def load(self, now: float) -> int:
        return self.voted + (sum(end > now for end in self.leases.values()) if self.leases else 0)


def draw(*parts: object) -> int:
    """A number that is a pure function of its parts, as good as random (64 bits)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def left_side(seed: int, rater: str, item: str, axis: str) -> Side:
    """Which arm stands on the left: a pure function of the study's seed, the rater, the item and the axis."""
    return "a" if draw("side", seed, rater, item, axis) & 1 else "b"


def pair_of(item: Item) -> str:
    """What a rater must not see twice: the two videos, in any order."""
    return "\x1f".join(sorted((item.video_a, item.video_b)))


class Desk:
    """The state of one study that is being rated. Not for several threads at once."""

    def __init__(self, study: Study, rules: Rules, durations: dict[str, float]) -> None:
        """`durations`: seconds of each item's two videos, which are equally long."""
        self.study, self.rules, self.durations = study, rules, durations
        self.items = {item.id: item for item in study.items}
        self.pairs = {item.id: pair_of(item) for item in study.items}
        self.golds = [item for item in study.items if item.gold is not None]
        self.raters: dict[str, RaterState] = {}
        self.codes: dict[str, str] = {}
        self.externals: dict[str, str] = {}
        self.votes: dict[str, tuple[str, str]] = {}  # vote -> (assignment, rater)
        self.accepting = True
        self.pending: list[tuple[str, dict[str, Any]]] = []  # (table, row) to write
        self.tasks = {
            axis.key: {i.id: TaskState(i, axis.key, axis.raters) for i in study.items if i.gold is None}
            for axis in study.axes
        }

    # Reading back what was written, in the order of writing.

    def restore(
        self,
        raters: Iterable[dict[str, Any]],
        assignments: Iterable[dict[str, Any]],
        votes: Iterable[dict[str, Any]],
        events: Iterable[dict[str, Any]],
    ) -> None:
        """Rebuild the state from the rows of the four tables."""
        for row in raters:
            self._add_rater(row["id"], row["code"], row["external"])
        for row in assignments:
            names = ("id", "rater", "number", "item", "axis", "shown_left", "time")
            self._add_assignment(Assignment(**{name: row[name] for name in names}))
        for row in votes:
            watched = (row["watch_left"], row["watch_right"])
            self._count_vote(
                row["rater"], row["assignment"], Standing(row["id"], row["answer"], watched, row["reason"])
            )
        for row in events:
            self._apply_event(row["kind"], row["rater"])

    # What raters do.

    def join(self, rater: str, code: str, external: str | None, now: float) -> RaterState:
        """A new rater."""
        if rater in self.raters or code in self.codes or external in self.externals:
            raise RefusedError("this code is taken")
        state = self._add_rater(rater, code, external)
        self.pending.append(("raters", {"id": rater, "code": code, "external": external, "time": now}))
        return state

    def event(self, kind: str, rater: str | None, now: float) -> None:
        """Log consent, pause, resume, or (without a rater) open and close."""
        self._apply_event(kind, rater)
        self.pending.append(("events", {"rater": rater, "kind": kind, "time": now}))

    def next(self, rater: RaterState, now: float) -> tuple[str, list[Assignment]]:
        """("task", current and those ahead), ("wait", []) while others hold the last tasks, or ("done", [])."""
        if not rater.consented:
            raise RefusedError("the consent comes first", 403)
        if not self.accepting:
            return "closed", []
        rater.last_seen = now
        todo = [own for own in rater.unanswered() if self._still_needed(own, now)]
        while len(todo) <= self.rules.ahead and self._may_have_more(rater, len(todo)):
            item = self._choose(rater, now)
            if item is None:
                break
            todo.append(self._assign(rater, item, now))
        for own in todo:
            self._hold(own, now)
        if todo:
            return "task", todo
        return ("wait" if self._could_come(rater) else "done"), []

    def vote(self, rater: RaterState, cast: dict[str, Any], now: float) -> Vote | None:
        """Take an answer in terms of sides; the vote in terms of arms, or None where it was taken before.

        `cast`: id, assignment, answer (left, right, tie), watch_seconds (left, right), reason, undoes, details.
        """
        if not rater.consented:
            raise RefusedError("the consent comes first", 403)
        if cast["id"] in self.votes:
            if self.votes[cast["id"]] != (cast["assignment"], rater.id):
                raise RefusedError("the id of this vote is taken by another")
            return None
        own = rater.assignments.get(cast["assignment"])
        if own is None:
            raise RefusedError("this task was not handed out to you", 404)
        standing = rater.votes.get(own.id)
        if cast["undoes"] != (standing and standing.id):
            raise RefusedError(
                "this task is answered already" if standing else "there is no such vote to take back"
            )
        least = self.least_seconds(own.item)
        if standing is None and min(cast["watch_seconds"]) < least:
            seconds = min(cast["watch_seconds"])
            raise RefusedError(f"watch both videos first: {seconds:.2f} s seen, {least:.2f} s needed", 422)
        vote = self._vote(own, cast, now)
        row = asdict(vote) | {"assignment": own.id}
        row["watch_left"], row["watch_right"] = row.pop("watch_seconds")
        self.pending.append(("votes", row))
        rater.last_seen = now
        left, right = cast["watch_seconds"]
        self._count_vote(rater.id, own.id, Standing(vote.id, vote.answer, (left, right), vote.reason))
        return vote

    def least_seconds(self, item: str) -> float:
        """How long both videos must have been watched: nearly once, or what the study's exclusion rule asks for."""
        return max(WATCHED * self.durations[item], self.study.exclusion.min_watch_seconds)

    def _vote(self, own: Assignment, cast: dict[str, Any], now: float) -> Vote:
        other: Side = "b" if own.shown_left == "a" else "a"
        try:
            return Vote(
                study=self.study.digest,
                item=own.item,
                axis=own.axis,
                rater=own.rater,
                answer={"left": own.shown_left, "right": other, "tie": "tie"}[cast["answer"]],
                shown_left=own.shown_left,
                watch_seconds=tuple(cast["watch_seconds"]),
                reason=cast["reason"],
                time=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
                undoes=cast["undoes"],
                id=cast["id"],
                details={**cast["details"], "elapsed_seconds": round(now - own.time, 3)},
            )
        except ValueError as error:
            raise RefusedError(str(error), 422) from None

    # The choice.

    def _choose(self, rater: RaterState, now: float) -> tuple[Item, str] | None:
        number = len(rater.assignments)
        axis, free = self._axis(rater, now)
        if not free:
            return None
        gold = self._gold(rater, axis, number)
        if gold is not None:
            return gold, axis
        least = min(load for load, _ in free)
        best = [task for load, task in free if load == least]
        return best[draw("item", self.study.seed, rater.id, number) % len(best)].item, axis

    def _axis(self, rater: RaterState, now: float) -> tuple[str, list[tuple[int, TaskState]]]:
        """The rater's axis while it has free tasks; then the one with most to do for each of its raters."""
        if rater.axis is not None and (free := self._free(rater, rater.axis, now)):
            return rater.axis, free
        crowd = {key: 1 for key in self.tasks}
        for other in self.raters.values():
            if (
                other.axis is not None
                and other is not rater
                and other.last_seen > now - self.rules.lease_seconds
            ):
                crowd[other.axis] += 1
        found = {key: self._free(rater, key, now) for key in self.tasks}
        missing = {k: sum(task.needed - load for load, task in free) / crowd[k] for k, free in found.items()}
        best = max(missing, key=missing.__getitem__)
        return best, found[best]

    def _free(self, rater: RaterState, axis: str, now: float) -> list[tuple[int, TaskState]]:
        """Tasks for which this rater is still wanted, each with its load."""
        loads = ((task.load(now), task) for task in self._open_tasks(rater, axis))
        return [(load, task) for load, task in loads if load < task.needed]

    def _open_tasks(self, rater: RaterState, axis: str) -> Iterator[TaskState]:
        """Tasks that lack votes, and whose pair this rater has not seen."""
        seen, suffix, pairs = rater.seen, "" if self.rules.pairs_once else axis, self.pairs
        for key, task in self.tasks[axis].items():
            if task.voted < task.needed and (pairs[key], suffix) not in seen:
                yield task

    def _gold(self, rater: RaterState, axis: str, number: int) -> Item | None:
        """A gold item where the rater's drawn place for one in this block of tasks is reached."""
        every = self.rules.gold_every
        if not every or number % every != draw("gold", self.study.seed, rater.id, number // every) % every:
            return None
        left = [item for item in self.golds if self._key(item.id, axis) not in rater.seen]
        return left[draw("which gold", self.study.seed, rater.id, number) % len(left)] if left else None

    def _key(self, item: str, axis: str) -> tuple[str, str]:
        return self.pairs[item], "" if self.rules.pairs_once else axis

    def _may_have_more(self, rater: RaterState, held: int) -> bool:
        limit = self.rules.tasks_per_rater
        return limit is None or len(rater.votes) + held < limit

    def _still_needed(self, own: Assignment, now: float) -> bool:
        """Whether an open task still waits for this rater; not if others answered it after the lease ended."""
        task = self.tasks[own.axis].get(own.item)
        return task is None or task.leases.get(own.rater, 0.0) > now or task.voted < task.needed

    def _could_come(self, rater: RaterState) -> bool:
        more = self._may_have_more(rater, 0)
        return more and any(True for axis in self.tasks for _ in self._open_tasks(rater, axis))

    # Changes of the state.

    def _add_rater(self, rater: str, code: str, external: str | None) -> RaterState:
        self.raters[rater] = state = RaterState(rater, code, external)
        self.codes[code] = rater
        if external is not None:
            self.externals[external] = rater
        return state

    def _assign(self, rater: RaterState, choice: tuple[Item, str], now: float) -> Assignment:
        item, axis = choice
        number = len(rater.assignments)
        key = f"{draw('assignment', self.study.digest, rater.id, rater.code, number):016x}"
        side = left_side(self.study.seed, rater.id, item.id, axis)
        own = Assignment(key, rater.id, number, item.id, axis, side, now)
        self._add_assignment(own)
        self.pending.append(("assignments", dict(own.__dict__)))
        return own

    def _add_assignment(self, own: Assignment) -> None:
        rater = self.raters[own.rater]
        rater.assignments[own.id] = own
        rater.seen.add(self._key(own.item, own.axis))
        rater.axis = own.axis
        rater.last_seen = max(rater.last_seen, own.time)
        self._hold(own, own.time)

    def _hold(self, own: Assignment, now: float) -> None:
        task = self.tasks[own.axis].get(own.item)
        if task is not None:
            task.leases[own.rater] = now + self.rules.lease_seconds

    def _count_vote(self, rater: str, assignment: str, standing: Standing) -> None:
        state = self.raters[rater]
        own = state.assignments[assignment]
        task = self.tasks[own.axis].get(own.item)
        if assignment not in state.votes and task is not None:
            task.voted += 1
            task.leases.pop(rater, None)
        state.votes[assignment] = standing
        self.votes[standing.id] = (assignment, rater)

    def _apply_event(self, kind: str, rater: str | None) -> None:
        if rater is None:
            self.accepting = kind == "open"
            return
        state = self.raters[rater]
        if kind == "consent":
            state.consented = True
        elif kind in ("pause", "resume"):
            state.paused = kind == "pause"
            if kind == "pause":  # what is open is free for others
                for own in state.unanswered():
                    if (task := self.tasks[own.axis].get(own.item)) is not None:
                        task.leases.pop(rater, None)
