"""The admin page's routes: progress, agreement and gold accuracy of a running study, links, and the votes so far.

Everything but who is there now is computed from votes.jsonl, as the analysis does it. Results by arm are left out on
purpose: looking at them while votes come in invites stopping at the right moment.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Header
from fastapi.responses import FileResponse
from moviegen_eval.study.assign import Desk, RefusedError
from moviegen_eval.study.study import Study
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from moviegen_eval.study.app import Service

ACTIVE_SECONDS = 300.0
FRESH_SECONDS = 2.0  # an answer is given again within this time, however many admin pages ask
REST = 5.0  # and within so many times what it took to compute
RESAMPLES = 200  # for alpha's interval, which is not shown


class NewRaters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(ge=1, le=1000)


@dataclass(frozen=True)
class Presence:
    """What only the running server knows: who is there, and how many votes each task has."""

    accepting: bool
    raters: dict[str, dict[str, Any]]
    tasks: dict[str, list[tuple[int, int]]]  # axis -> (voted, needed) of each item


@dataclass
class Latest:
    """The last answer, and until when it is good enough."""

    until: float = 0.0
    value: dict[str, Any] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def presence(desk: Desk, now: float) -> Presence:
    """Copy the state, briefly, in the thread that owns it."""
    raters = {}
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
        raters[rater.id] = {"state": state, "active": rater.last_seen > now - ACTIVE_SECONDS}
    tasks = {axis: [(t.voted, t.needed) for t in tasks.values()] for axis, tasks in desk.tasks.items()}
    return Presence(desk.accepting, raters, tasks)


def progress(study: Study, log: Path, now: Presence) -> dict[str, Any]:
    """What the admin page shows, as plain values."""
    from moviegen_eval.study.raters import rater_rows, side_bias
    from moviegen_eval.study.table import read_votes
    from moviegen_eval.study.tally import item_counts, rater_tally
    from moviegen_eval.study.validity import clean_votes, excluded_raters

    table, left_out = clean_votes(read_votes(log), study)
    excluded = excluded_raters(rater_tally(table, study), study.exclusion)
    rows = [_rater_row(row) for row in rater_rows(table, study, excluded)]
    named = {row["rater"] for row in rows}
    rows = sorted(rows, key=lambda row: (-row["votes"], row["rater"]))
    rows += [{"rater": name} for name in now.raters if name not in named]
    counts = item_counts(study, table)
    axes = [_axis_row(study, number, counts, now) for number in range(len(study.axes))]
    gold = sum(row.get("gold", 0) for row in rows)
    return {
        "title": study.title,
        "study": study.digest,
        "accepting": now.accepting,
        "voted": sum(axis["voted"] for axis in axes),
        "needed": sum(axis["needed"] for axis in axes),
        "active": sum(rater["active"] for rater in now.raters.values()),
        "gold": gold,
        "gold_accuracy": sum(row.get("gold_right", 0) for row in rows) / gold if gold else None,
        "side_p": side_bias(table).p if len(table) else None,
        "left_out": [{"reason": out.reason, "count": out.count} for out in left_out],
        "axes": axes,
        "raters": [
            row | now.raters.get(row["rater"], {"state": "imported", "active": False}) for row in rows
        ],
    }


def _axis_row(study: Study, number: int, counts: Any, now: Presence) -> dict[str, Any]:
    from moviegen_eval.study.intervals import rng_for
    from moviegen_eval.study.raters import alpha
    from moviegen_eval.study.tally import clusters_of

    key = study.axes[number].key
    plain = [position for position, item in enumerate(study.items) if item.gold is None]
    own, tasks = counts[plain, number], now.tasks[key]
    found = alpha(own, clusters_of(study)[plain], RESAMPLES, rng_for(study.seed, "admin"))
    return {
        "axis": key,
        "items": len(tasks),
        "done": sum(voted >= needed for voted, needed in tasks),
        "voted": sum(min(voted, needed) for voted, needed in tasks),
        "needed": sum(needed for _, needed in tasks),
        "ties": float(own[:, 1].sum() / own.sum()) if own.sum() else None,
        "shared": int((own.sum(axis=1) >= 2).sum()),
        "alpha": found.value if found else None,
    }


def _rater_row(row: Any) -> dict[str, Any]:
    """A RaterRow without the counts by arm."""
    return {
        "rater": row.rater,
        "votes": row.votes,
        "gold": row.gold,
        "gold_right": row.gold_right,
        "left": row.side.left,
        "right": row.side.right,
        "side_p": row.side.p,
        "agreed": row.agreed,
        "compared": row.compared,
        "ties": row.tie_rate,
        "watch_seconds": row.watch_seconds,
        "excluded": row.excluded,
        "flags": list(row.flags),
    }


def add_admin_routes(app: FastAPI, service: Service) -> None:
    """Everything under /api/admin; each request carries the admin's token in a header."""
    latest = Latest()

    def check(token: str) -> None:
        if not hmac.compare_digest(token.encode(), service.store.admin.encode()):
            raise RefusedError("this link is not the admin's", 403)

    @app.get("/api/admin/progress")
    async def get_progress(x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        async with latest.lock:  # one computation, for all who ask
            if time.monotonic() >= latest.until:
                await asyncio.to_thread(importlib.import_module, "moviegen_eval.study.raters")  # slow, once
                begin = time.monotonic()
                now = await service.run(lambda desk: presence(desk, time.time()))
                latest.value = await asyncio.to_thread(progress, service.study, service.writer.path, now)
                took = time.monotonic() - begin
                latest.until = time.monotonic() + max(FRESH_SECONDS, REST * took)
        return latest.value

    @app.post("/api/admin/raters")
    async def new_raters(new: NewRaters, x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        codes = await service.run(lambda desk: [service.add_rater(desk).code for _ in range(new.count)])
        latest.until = 0.0
        return {"codes": codes}

    @app.post("/api/admin/{kind}")
    async def set_accepting(kind: Literal["open", "close"], x_admin: str = Header("")) -> dict[str, Any]:
        check(x_admin)
        await service.run(lambda desk: desk.event(kind, None, time.time()))
        latest.until = 0.0
        return {"accepting": kind == "open"}

    @app.get("/api/admin/votes")
    async def votes(x_admin: str = Header("")) -> FileResponse:
        check(x_admin)
        return FileResponse(service.writer.path, media_type="application/x-ndjson")
