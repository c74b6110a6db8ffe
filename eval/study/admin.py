"""The admin page's routes: progress, agreement and gold accuracy of a running study, links, and the votes so far.

Results by arm are left out on purpose: looking at them while votes come in invites stopping at the right moment.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from anyio import to_thread
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from moviegen_eval.study.assign import Desk, RefusedError
from moviegen_eval.study.store import vote_of
from moviegen_eval.study.study import Study
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from moviegen_eval.study.app import Service

ACTIVE_SECONDS = 300.0
FRESH_SECONDS = 2.0  # an answer is given again within this time, however many admin pages ask


class NewRaters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(ge=1, le=1000)


@dataclass(frozen=True)
class Standings:
    """A copy of what the admin page is about."""

    accepting: bool
    raters: list[dict[str, Any]]
    answers: list[
        tuple[str, str, str, str, str, float]
    ]  # rater, axis, item, answer, shown_left, least watch seconds
    tasks: dict[str, list[tuple[int, int]]]  # axis -> (voted, needed) of each item


def standings(desk: Desk, now: float) -> Standings:
    """Copy the state, briefly, in the thread that owns it."""
    raters, answers = [], []
    for rater in desk.raters.values():
        state = (
            "paused"
            if rater.paused
            else "rating"
            if rater.votes
            else "agreed"
            if rater.consented
            else "invited"
        )
        active = rater.last_seen > now - ACTIVE_SECONDS
        raters.append({"rater": rater.id, "state": state, "active": active})
        for key, vote in rater.votes.items():
            own = rater.assignments[key]
            least = min(vote.watch_seconds)
            answers.append((rater.id, own.axis, own.item, vote.answer, own.shown_left, least))
    tasks = {axis: [(t.voted, t.needed) for t in tasks.values()] for axis, tasks in desk.tasks.items()}
    return Standings(desk.accepting, raters, answers, tasks)


def progress(study: Study, now: Standings) -> dict[str, Any]:
    """What the admin page shows, as plain values."""
    golds = {item.id: item.gold for item in study.items if item.gold is not None}
    rows = _rater_rows(study, now, golds)
    axes = [_axis_row(axis.key, now, golds) for axis in study.axes]
    gold = [answer == golds[item] for _, _, item, answer, _, _ in now.answers if item in golds]
    left, right = sum(row["left"] for row in rows), sum(row["right"] for row in rows)
    return {
        "title": study.title,
        "study": study.digest,
        "accepting": now.accepting,
        "voted": sum(min(axis["voted"], axis["needed"]) for axis in axes),
        "needed": sum(axis["needed"] for axis in axes),
        "active": sum(row["active"] for row in rows),
        "gold_votes": len(gold),
        "gold_accuracy": sum(gold) / len(gold) if gold else None,
        "side_p": _side_p(left, right),
        "axes": axes,
        "raters": rows,
    }


def _axis_row(axis: str, now: Standings, golds: dict[str, Any]) -> dict[str, Any]:
    tasks = now.tasks[axis]
    answers = [row for row in now.answers if row[1] == axis and row[2] not in golds]
    voted = sum(min(voted, needed) for voted, needed in tasks)
    return {
        "axis": axis,
        "items": len(tasks),
        "done": sum(voted >= needed for voted, needed in tasks),
        "voted": voted,
        "needed": sum(needed for _, needed in tasks),
        "ties": sum(row[3] == "tie" for row in answers) / len(answers) if answers else None,
        "shared": sum(voted >= 2 for voted, _ in tasks),
        "alpha": alpha((row[0], row[2], row[3]) for row in answers),
    }


def alpha(answers: Iterable[tuple[str, str, str]]) -> float | None:
    """Krippendorff's nominal alpha of (rater, item, answer); None where no item has two answers, or all are equal."""
    import evalica
    import pandas as pd

    frame = pd.DataFrame(answers, columns=["rater", "item", "answer"])  # type: ignore[arg-type]
    frame = frame[frame.groupby("item")["item"].transform("size") > 1]
    if frame.empty or frame["answer"].nunique() < 2:
        return None
    frame["answer"] = frame["answer"].map({"a": 0.0, "b": 1.0, "tie": 2.0})
    table = frame.pivot(index="rater", columns="item", values="answer")
    return float(evalica.alpha(table).alpha)


def _rater_rows(study: Study, now: Standings, golds: dict[str, Any]) -> list[dict[str, Any]]:
    answers: dict[str, list[tuple]] = {}
    for row in now.answers:
        answers.setdefault(row[0], []).append(row)
    rows = []
    for rater in now.raters:
        own = answers.get(rater["rater"], [])
        gold = [row[3] == golds[row[2]] for row in own if row[2] in golds]
        left = sum(row[3] == row[4] for row in own)
        ties = sum(row[3] == "tie" for row in own)
        values = {
            **rater,
            "votes": len(own),
            "gold_votes": len(gold),
            "gold_accuracy": sum(gold) / len(gold) if gold else None,
            "left": left,
            "right": len(own) - left - ties,
            "ties": ties,
            "side_p": _side_p(left, len(own) - left - ties),
            "median_watch_seconds": median(row[5] for row in own) if own else None,
        }
        rows.append(values | {"flags": _flags(study, values)})
    return sorted(rows, key=lambda row: (-row["votes"], row["rater"]))


def _flags(study: Study, row: dict[str, Any]) -> list[str]:
    """Which of the study's rules would leave this rater out."""
    rules, flags = study.exclusion, []
    accuracy, chosen = row["gold_accuracy"], row["left"] + row["right"]
    if rules.min_gold_accuracy is not None and row["gold_votes"] >= rules.min_gold_votes:
        assert accuracy is not None or not row["gold_votes"]
        if accuracy is not None and accuracy < rules.min_gold_accuracy:
            flags.append(f"gold accuracy below {rules.min_gold_accuracy:g}")
    if rules.max_side_bias is not None and chosen:
        bias = abs(row["left"] - row["right"]) / chosen
        if bias > rules.max_side_bias and row["side_p"] < rules.max_side_p:
            flags.append(f"side bias above {rules.max_side_bias:g}")
    return flags


def _side_p(left: int, right: int) -> float | None:
    """Of the two-sided binomial test that both sides are chosen equally often."""
    from scipy.stats import binomtest

    return float(binomtest(left, left + right).pvalue) if left + right else None


def add_admin_routes(app: FastAPI, service: Service) -> None:
    """Everything under /api/admin; each request carries the admin's token in a header."""
    latest: dict[str, Any] = {"time": -FRESH_SECONDS, "value": None}

    def check(token: str) -> None:
        if not hmac.compare_digest(token.encode(), service.store.admin.encode()):
            raise RefusedError("this link is not the admin's", 403)

    @app.get("/api/admin/progress")
    async def get_progress(x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        if time.monotonic() - latest["time"] > FRESH_SECONDS:
            now = await service.run(lambda desk: standings(desk, time.time()))
            latest["value"] = await to_thread.run_sync(progress, service.study, now)
            latest["time"] = time.monotonic()
        return latest["value"]

    @app.post("/api/admin/raters")
    async def new_raters(new: NewRaters, x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        codes = await service.run(lambda desk: [service.add_rater(desk).code for _ in range(new.count)])
        latest["time"] = -FRESH_SECONDS
        return {"codes": codes}

    @app.post("/api/admin/{kind}")
    async def set_accepting(kind: Literal["open", "close"], x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        await service.run(lambda desk: desk.event(kind, None, time.time()))
        latest["time"] = -FRESH_SECONDS
        return {"accepting": kind == "open"}

    @app.get("/api/admin/votes")
    async def votes(x_admin: str = Header("")) -> StreamingResponse:
        check(x_admin)
        lines = (vote_of(row).to_line() for row in service.store.rows("votes"))
        return StreamingResponse(lines, media_type="application/x-ndjson")
