"""Many raters at once against one rating page whose server is killed (SIGKILL) at random instants; no vote may be lost.

    python experiments/study_load/load.py raters=200 seconds=90 kills=8

Every simulated rater keeps a connection from an address of its own, loads both videos of each task, thinks, answers,
sometimes takes an answer back, and repeats a request until it is answered, as the page does. At the end the database
and votes.jsonl are held against what the raters were told, and all files are searched for the addresses. Linux only.
Writes numbers.json and the README's table beside this file; ends with 1 where a vote was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.study.assign import left_side
from moviegen_eval.study.axes import TEXT_TO_VIDEO
from moviegen_eval.study.built import Built, BuiltPair, write_built
from moviegen_eval.study.store import raters as rater_table
from moviegen_eval.study.store import votes as vote_table
from moviegen_eval.study.study import Arm, Item, Study, save_study
from moviegen_eval.study.table import read_votes

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from load_table import cells  # noqa: E402
from measured import fill, machine, today  # noqa: E402

SECONDS = 2.0  # length of a clip
ADDRESSES = "127.9"  # of the raters, on the loopback device


@dataclass
class Settings:
    """The size of the test; the defaults are those of the issue, on the paper's bench of 1003 prompts."""

    out: Path = field(default_factory=lambda: Path("runs/study_load") / time.strftime("%Y%m%dT%H%M%S"))
    raters: int = 200
    seconds: float = 90.0  # that the server is up, restarts not counted
    kills: int = 8
    items: int = 1003
    think_seconds: float = 10.0  # mean, from the task to the answer; people who watch both videos are slower
    video_bytes: int = 150_000
    seed: int = 0
    database: str | None = None


@dataclass
class Log:
    """What the raters saw, in their words."""

    sent: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # vote -> (code, undoes)
    saved: set[str] = field(default_factory=set)
    state_seconds: list[tuple[float, float]] = field(
        default_factory=list
    )  # (when, how long) of answered votes
    failures: Counter = field(default_factory=Counter)
    repeated: int = 0
    video_bytes: int = 0


class Connection:
    """A browser's connection, as small as it can be: HTTP/1.1, kept open."""

    def __init__(self, port: int, rater: int = 0) -> None:
        self.port, self.address = port, f"{ADDRESSES}.{rater // 250}.{rater % 250 + 1}"
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, code: str = "", body: Any = None) -> tuple[int, bytes]:
        """One request; OSError or EOFError when the server is gone."""
        try:
            return await asyncio.wait_for(self._ask(method, path, code, body), 30)
        except (OSError, EOFError, TimeoutError):
            self.close()
            raise

    async def _ask(self, method: str, path: str, code: str, body: Any) -> tuple[int, bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.address, 0))
        reader, writer = self.streams
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: study\r\nX-Code: {code}\r\nContent-Length: {len(data)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        answer = await reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), answer

    def close(self) -> None:
        if self.streams is not None:
            with contextlib.suppress(OSError):
                self.streams[1].close()
            self.streams = None


class Server:
    """The command of the project, as a process that can be killed and started again."""

    def __init__(self, settings: Settings, port: int) -> None:
        out = settings.out
        self.command = [
            sys.executable,
            "-m",
            "moviegen.cli",
            "eval",
            "study",
            "serve",
            f"study={out / 'study.json'}",
        ]
        self.command += [f"built={out / 'built'}", f"out={out / 'votes'}", f"port={port}"]
        self.command += [f"raters={settings.raters}", "lease_minutes=5.0"]
        if settings.database:
            self.command.append(f"database='{settings.database}'")
        self.port, self.log = port, (out / "server.log").open("ab")
        self.process: subprocess.Popen | None = None
        self.processor_seconds = self.start_seconds = 0.0

    async def start(self) -> float:
        """Start it; seconds until it answers."""
        begin = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while True:
            with contextlib.suppress(OSError, EOFError):
                status, _ = await Connection(self.port).ask("GET", "/api/study")
                if status == 200:
                    self.start_seconds = self._processor()
                    return time.monotonic() - begin
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}; see {self.log.name}")
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.processor_seconds += self._processor() - self.start_seconds
        self.process.kill()
        self.process.wait()

    def _processor(self) -> float:
        """Processor time of the running process, which other work on the machine does not lengthen."""
        assert self.process is not None
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """End it as a user would; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


async def rate(settings: Settings, log: Log, port: int, code: str, seed: int, stop: asyncio.Event) -> None:
    """One rater until the end of the test; the last answer is repeated until it is saved."""
    rng, connection = random.Random(f"{settings.seed}-{seed}"), Connection(port, seed)
    await asyncio.sleep(rng.random() * settings.think_seconds)
    await persist(log, connection, "POST", "/api/join", "", {"code": code})
    state = await persist(log, connection, "POST", "/api/consent", code)
    while not stop.is_set() and state["status"] == "task":
        task = state["task"]
        for side in ("left", "right"):
            video = await persist(log, connection, "GET", f"/{task[side]}", code, raw=True)
            log.video_bytes += len(video)
        await asyncio.sleep(rng.expovariate(1 / settings.think_seconds))
        cast = {"id": uuid.UUID(int=rng.getrandbits(128)).hex, "assignment": task["id"], "undoes": None}
        last = state.get("last")
        if last and rng.random() < 0.1:  # takes the last answer back, and gives another
            cast |= {"assignment": last["id"], "undoes": last["vote"]}
        cast |= {
            "answer": rng.choice(("left", "right", "tie")),
            "watch_seconds": [SECONDS, SECONDS],
            "reason": "",
        }
        log.sent[cast["id"]] = (code, cast["undoes"])
        begin = time.monotonic()
        state = await persist(log, connection, "POST", "/api/rater/vote", code, cast)
        assert state["saved"] == cast["id"]
        log.saved.add(cast["id"])
        log.state_seconds.append((begin, time.monotonic() - begin))
    connection.close()


async def persist(
    log: Log, connection: Connection, method: str, path: str, code: str, body: Any = None, raw: bool = False
) -> Any:
    """Repeat a request until the server answers it. Raises RuntimeError for an answer that refuses it."""
    for tries in range(10_000):
        try:
            status, answer = await connection.ask(method, path, code, body)
        except (OSError, EOFError, TimeoutError) as error:
            log.failures[type(error).__name__] += 1
        else:
            if status < 400:
                log.repeated += tries > 0
                return answer if raw else json.loads(answer)
            if status < 500:
                raise RuntimeError(f"{method} {path}: {status} {answer[:200]!r}")
            log.failures[str(status)] += 1
        await asyncio.sleep(min(2.0, 0.1 * 2**tries) * random.uniform(0.7, 1.3))
    raise RuntimeError(f"{method} {path}: no answer")


async def run_load(settings: Settings) -> dict[str, Any]:
    """Run the whole test; the facts that `check` found."""
    settings.out.mkdir(parents=True, exist_ok=True)
    study = write_study(settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, log = Server(settings, port), Log()
    await server.start()
    lines = (settings.out / "votes" / "links.txt").read_text().splitlines()
    codes = [line.partition("#code=")[2] for line in lines if "#code=" in line]
    begin, stop = time.monotonic(), asyncio.Event()
    raters = [
        asyncio.create_task(rate(settings, log, port, code, number, stop))
        for number, code in enumerate(codes)
    ]
    restarts, down = [], []
    rng = random.Random(settings.seed)
    cuts = sorted(rng.random() for _ in range(settings.kills))
    for start, cut in zip([0.0, *cuts], cuts, strict=False):
        await asyncio.sleep((cut - start) * settings.seconds)
        at = time.monotonic()
        server.kill()
        restarts.append(await server.start())
        down.append((at, time.monotonic()))
    await asyncio.sleep((1 - cuts[-1] if cuts else 1) * settings.seconds)
    stop.set()
    await asyncio.gather(*raters)
    elapsed = time.monotonic() - begin
    server.kill()  # once more, with nothing under way
    await server.start()
    exit_code = server.stop()
    facts = check(settings, study, log)
    return (
        facts
        | _timing(log, down, elapsed)
        | {
            "server_processor_seconds_per_vote": server.processor_seconds / max(1, len(log.saved)),
            "restart_seconds": restarts,
            "restart_seconds_median": float(np.median(restarts or [0.0])),
            "exit_code": exit_code,
        }
    )


def check(settings: Settings, study: Study, log: Log) -> dict[str, Any]:
    """Hold the database and votes.jsonl against what the raters were told."""
    url = settings.database or f"sqlite:///{settings.out / 'votes' / 'votes.sqlite'}"
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(vote_table)).mappings()]
        codes = {row.id: row.code for row in connection.execute(sa.select(rater_table))}
        if not settings.database:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()
    stored = Counter(row["id"] for row in rows)
    shown = Counter((row["rater"], row["item"]) for row in rows if row["undoes"] is None)
    per_task = Counter((row["item"], row["axis"]) for row in rows if row["undoes"] is None)
    needed = {axis.key: axis.raters for axis in study.axes}
    logged = read_votes(settings.out / "votes" / "votes.jsonl")
    wrong_side = [
        row
        for row in rows
        if row["shown_left"] != left_side(study.seed, row["rater"], row["item"], row["axis"])
    ]
    return {
        "raters": settings.raters,
        "kills": settings.kills + 1,
        "votes_sent": len(log.sent),
        "votes_acknowledged": len(log.saved),
        "votes_stored": len(rows),
        "lost": len(log.saved - stored.keys()),
        "never_saved": len(log.sent.keys() - log.saved),
        "not_sent_by_anybody": len(stored.keys() - log.sent.keys()),
        "stored_twice": sum(count > 1 for count in stored.values()),
        "of_another_rater": sum(
            log.sent[row["id"]][0] != codes[row["rater"]] for row in rows if row["id"] in log.sent
        ),
        "pairs_repeated": sum(count > 1 for count in shown.values()),
        "over_the_wanted_number": sum(count > needed[axis] for (_, axis), count in per_task.items()),
        "wrong_side": len(wrong_side),
        "missing_in_the_log": len(stored.keys() - {name.decode() for name in logged.id.tolist()}),
        "lines_in_the_log": len(logged),
        "unreadable_lines": sum(reason.count for reason in logged.left_out),
        "taken_back": sum(row["undoes"] is not None for row in rows),
        "addresses_found": addresses(settings.out),
    }


def addresses(folder: Path) -> int:
    """How many of all files, what the server printed included, hold an address of a rater."""
    text, packed = f"{ADDRESSES}.".encode(), socket.inet_aton(f"{ADDRESSES}.0.1")
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".mp4"]
    return sum(text in (data := path.read_bytes()) or packed in data for path in written)


def write_study(settings: Settings) -> Study:
    """A study of the paper's size and axes, its videos without content."""
    items = tuple(
        Item(f"i{n:04d}", f"prompt {n}", "ours", "other", f"ours/{n}.mp4", f"other/{n}.mp4")
        for n in range(settings.items)
    )
    study = Study("load", "Load", TEXT_TO_VIDEO, (Arm("ours"), Arm("other")), items, seed=settings.seed)
    save_study(study, settings.out / "study.json")
    media = settings.out / "built" / "media"
    media.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(settings.seed)
    names = [f"{n:032x}.mp4" for n in range(32)]
    for name in names:
        (media / name).write_bytes(noise.bytes(settings.video_bytes))
    pairs = {
        item.id: BuiltPair(
            a=names[2 * n % 32],
            b=names[(2 * n + 1) % 32],
            width=64,
            height=64,
            frame_rate=8.0,
            num_frames=16,
            duration_seconds=SECONDS,
            sound=False,
            loudness_lufs=None,
            source="",
            notes=[],
        )
        for n, item in enumerate(items)
    }
    write_built(Built(settings.out / "built", pairs), study.digest)
    return study


def _timing(log: Log, down: list[tuple[float, float]], elapsed: float) -> dict[str, Any]:
    """Times of answers to votes, those apart that met a killed server."""
    calm = [
        took
        for begin, took in log.state_seconds
        if not any(begin + took > killed and begin < back + 3 for killed, back in down)
    ]
    quantiles = np.quantile(calm or [0.0], [0.5, 0.95, 0.99])
    return {
        "elapsed_seconds": elapsed,
        "votes_per_second": len(log.saved) / elapsed,
        "video_megabytes_per_second": log.video_bytes / elapsed / 1e6,
        "vote_seconds_median": float(quantiles[0]),
        "vote_seconds_95": float(quantiles[1]),
        "vote_seconds_99": float(quantiles[2]),
        "requests_repeated": log.repeated,
        "failures": dict(log.failures),
    }


GOALS = ("lost", "never_saved", "not_sent_by_anybody", "stored_twice", "of_another_rater", "pairs_repeated")
GOALS += ("wrong_side", "missing_in_the_log", "unreadable_lines", "addresses_found")


def main(arguments: list[str]) -> int:
    """Run the test of the command line's settings, print and write its facts; 1 where a vote was lost."""
    given = dict(argument.split("=", 1) for argument in arguments)
    kinds: dict[str, Any] = dict.fromkeys(("raters", "kills", "items", "video_bytes", "seed"), int)
    kinds |= {"out": Path, "database": str}
    settings = Settings(**{key: kinds.get(key, float)(value) for key, value in given.items()})
    where = machine()
    facts = where | asyncio.run(run_load(settings))
    print(json.dumps(facts, indent=1))
    figures = [
        Figure(f"study_load/{name}", float(value), None, None, facts["votes_sent"], "", "per_second" in name)
        for name, value in facts.items()
        if isinstance(value, int | float)
    ]
    write_numbers(HERE / "numbers.json", figures)
    busy = f"{facts['cores']} cores, {facts['load_before']:g} processes wanted to run in the minute before"
    fill(HERE / "README.md", [("measured", f"{today()}, {busy}"), *cells(facts)])
    return int(any(facts[name] for name in GOALS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
