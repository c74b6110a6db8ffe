"""The rating page's server: routes for raters and for the admin page. Nothing about a connection is kept or logged.

A rater is known by a code, sent in a header by the page; links carry it behind `#`, which browsers send to no server.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from moviegen_eval.study.assign import Assignment, Desk, RaterState, RefusedError
from moviegen_eval.study.built import Built
from moviegen_eval.study.store import Store
from moviegen_eval.study.study import Study
from moviegen_eval.study.writer import Writer
from pydantic import BaseModel, ConfigDict, Field

STATIC = Path(__file__).parent / "static"
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # of codes: nothing that looks like something else
CODE_LENGTH = 10  # 49 bits
MAX_BODY = 32_768  # bytes of a request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
PAGES = {
    "": ("rate.html", "text/html"),
    "admin": ("admin.html", "text/html"),
    "rate.js": ("rate.js", "text/javascript"),
    "player.js": ("player.js", "text/javascript"),
    "outbox.js": ("outbox.js", "text/javascript"),
    "admin.js": ("admin.js", "text/javascript"),
    "style.css": ("style.css", "text/css"),
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Join(Strict):
    """Who comes: with a code, from a recruiting platform, or (where the study is open) just so."""

    code: str | None = Field(None, max_length=40)
    external: str | None = Field(None, min_length=1, max_length=200)


class Details(Strict):
    """What else is logged with a vote."""

    window: tuple[int, int] = (0, 0)  # CSS pixels
    touch: bool = False
    replays: int = Field(default=0, ge=0, le=100_000)
    steps: int = Field(default=0, ge=0, le=100_000)
    flickers: int = Field(default=0, ge=0, le=100_000)
    hidden_times: int = Field(default=0, ge=0, le=100_000)
    hidden_seconds: float = Field(default=0, ge=0, le=1e7)
    max_drift_seconds: float = Field(default=0, ge=0, le=1e5)
    sent_again: int = Field(default=0, ge=0, le=100_000)


class Cast(Strict):
    """An answer, in terms of sides: the page does not know the arms."""

    id: str = Field(pattern="^[0-9a-f]{32}$")
    assignment: str = Field(pattern="^[0-9a-f]{16}$")
    answer: Literal["left", "right", "tie"]
    watch_seconds: tuple[float, float]
    reason: str = Field("", max_length=2000)
    undoes: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    details: Details = Field(default_factory=Details)


class Options(Strict):
    """What the page is told, besides the study."""

    anyone: bool = False  # who opens the page without a code becomes a new rater
    external: str | None = None  # name of the query parameter with a platform's id, such as PROLIFIC_PID
    completion: str | None = None  # code or url that is shown when all is done
    max_raters: int = 10_000


class Service:
    """What the routes call. Every method that needs a rater raises RefusedError for an unknown code."""

    def __init__(self, study: Study, built: Built, store: Store, writer: Writer, options: Options) -> None:
        self.study, self.built, self.store, self.writer, self.options = study, built, store, writer, options
        self.axes = {axis.key: axis for axis in study.axes}
        self.items = {item.id: item for item in study.items}

    async def run(self, operation: Callable[[Desk], Any]) -> Any:
        """Run an operation on the desk; returns when it is on disk."""
        return await asyncio.wrap_future(self.writer.submit(operation))

    async def as_rater(self, code: str, operation: Callable[[Desk, RaterState], Any]) -> Any:
        """Run an operation for the rater with this code."""

        def found(desk: Desk) -> Any:
            rater = desk.codes.get(plain_code(code))
            if rater is None:
                raise RefusedError("this code is not known", 403)
            return operation(desk, desk.raters[rater])

        return await self.run(found)

    async def join(self, join: Join) -> dict[str, Any]:
        """The code of an old or new rater."""
        if join.code:
            return await self.as_rater(join.code, lambda _, rater: {"code": rater.code})
        hashed = None
        if join.external and self.options.external:
            hashed = hmac.new(self.store.secret.encode(), join.external.encode(), hashlib.sha256).hexdigest()
        elif not self.options.anyone:
            raise RefusedError("a link or a code is needed", 403)

        def operation(desk: Desk) -> dict[str, Any]:
            if hashed in desk.externals:
                return {"code": desk.raters[desk.externals[hashed]].code}
            return {"code": self.add_rater(desk, hashed).code}

        return await self.run(operation)

    def add_rater(self, desk: Desk, external: str | None = None) -> RaterState:
        """A new rater with a drawn id and code."""
        if len(desk.raters) >= self.options.max_raters:
            raise RefusedError("this study takes no more raters", 403)
        return desk.join(f"r{secrets.token_hex(8)}", new_code(), external, time.time())

    async def state(self, code: str) -> dict[str, Any]:
        """Everything the page needs to begin or to go on."""
        return await self.as_rater(code, self._state)

    async def event(self, code: str, kind: str) -> dict[str, Any]:
        """Consent, pause or resume, and the state after it."""

        def operation(desk: Desk, rater: RaterState) -> dict[str, Any]:
            if kind == "consent" and rater.consented:
                return self._state(desk, rater)
            if kind != "consent" and not rater.consented:
                raise RefusedError("the consent comes first", 403)
            desk.event(kind, rater.id, time.time())
            return self._state(desk, rater)

        return await self.as_rater(code, operation)

    async def vote(self, code: str, cast: Cast) -> dict[str, Any]:
        """Take an answer; the state after it. The same answer sent twice counts once."""
        values = cast.model_dump()
        values["reason"] = "".join(c if c.isprintable() else " " for c in cast.reason).strip()

        def operation(desk: Desk, rater: RaterState) -> dict[str, Any]:
            desk.vote(rater, values, time.time())
            return {"saved": cast.id, **self._state(desk, rater)}

        return await self.as_rater(code, operation)

    def _state(self, desk: Desk, rater: RaterState) -> dict[str, Any]:
        state: dict[str, Any] = {"answered": len(rater.votes), "limit": desk.rules.tasks_per_rater}
        if not rater.consented:
            return state | {"status": "consent"}
        if rater.paused:
            return state | {"status": "paused"}
        status, todo = desk.next(rater, time.time())
        state["status"] = status
        if todo:
            state["task"] = self._task(desk, todo[0])
            state["ahead"] = [self._task(desk, own) for own in todo[1:]]
        if status == "done":
            state["completion"] = self.options.completion
        if rater.votes:
            last = rater.assignments[next(reversed(rater.votes))]
            standing = rater.votes[last.id]
            state["last"] = self._task(desk, last) | {
                "vote": standing.id,
                "answer": _side(standing.answer, last.shown_left),
                "watch_seconds": standing.watch_seconds,
                "reason": standing.reason,
            }
        return state

    def _task(self, desk: Desk, own: Assignment) -> dict[str, Any]:
        """What the page may know of a task: neither arms nor whether it is a gold item."""
        axis, pair = self.axes[own.axis], self.built.items[own.item]
        files = {"a": pair.a, "b": pair.b}
        right = "b" if own.shown_left == "a" else "a"
        return {
            "id": own.id,
            "question": axis.question,
            "sound": axis.sound,
            "prompt": self.items[own.item].prompt,
            "left": f"media/{files[own.shown_left]}",
            "right": f"media/{files[right]}",
            "reference": f"media/{pair.reference}" if axis.reference and pair.reference else None,
            "width": pair.width,
            "height": pair.height,
            "frame_rate": pair.frame_rate,
            "duration_seconds": pair.duration_seconds,
            "least_seconds": desk.least_seconds(own.item),
        }


def create_app(service: Service) -> FastAPI:
    """The application with all routes."""
    from moviegen_eval.study.admin import add_admin_routes

    app = FastAPI(title="moviegen study", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard)
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    _add_rater_routes(app, service)
    add_admin_routes(app, service)

    @app.get("/media/{name}")
    async def media(name: str) -> Response:
        path = service.built.files.get(name)
        if path is None:
            raise RefusedError("there is no such video", 404)
        kind = "image/png" if name.endswith(".png") else "video/mp4"
        return Video(path, media_type=kind, headers={"cache-control": "private, max-age=86400"})

    @app.get("/")
    @app.get("/{name}")
    async def page(name: str = "") -> Response:
        if name not in PAGES:
            raise RefusedError("there is nothing here", 404)
        file, kind = PAGES[name]
        return FileResponse(STATIC / file, media_type=kind, headers={"cache-control": "no-cache"})

    return app


def _add_rater_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/study")
    async def study() -> dict[str, Any]:
        about = service.study
        return {
            "title": about.title,
            "instructions": about.instructions,
            "consent": about.consent,
            "key": about.digest[:12],
            "anyone": service.options.anyone,
            "external": service.options.external,
        }

    @app.post("/api/join")
    async def join(join: Join) -> dict[str, Any]:
        return await service.join(join)

    @app.get("/api/state")
    async def state(x_code: str = Header("")) -> dict[str, Any]:
        return await service.state(x_code)

    @app.post("/api/{kind}")
    async def event(kind: Literal["consent", "pause", "resume"], x_code: str = Header("")) -> dict[str, Any]:
        return await service.event(x_code, kind)

    @app.post("/api/rater/vote")
    async def vote(cast: Cast, x_code: str = Header("")) -> dict[str, Any]:
        return await service.vote(x_code, cast)


class Video(FileResponse):
    """A file in fewer and larger pieces: each costs a change of thread."""

    chunk_size = 1 << 18


class Guard:
    """Security headers on every answer; bodies without a length, or too long, are refused unread."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
                if scope["path"].startswith("/api/"):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"" if scope["method"] == "POST" else b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            refusal = JSONResponse({"error": f"a request has at most {MAX_BODY} bytes"}, 413)
            await refusal(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


def new_code() -> str:
    """A code that nobody guesses and nobody misreads."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))


def plain_code(code: str) -> str:
    """A code as it is stored, however it was typed."""
    return "".join(c for c in code.lower() if c in ALPHABET)


def _side(answer: str, shown_left: str) -> str:
    return "tie" if answer == "tie" else "left" if answer == shown_left else "right"


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status: int = getattr(error, "status", 500)
    return JSONResponse({"error": str(error)}, status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)
