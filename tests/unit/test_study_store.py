"""The database of a running study: what is acknowledged is there, nothing is changed, one server, one study."""

import dataclasses
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from moviegen_eval.study.assign import Desk, RefusedError, Rules
from moviegen_eval.study.store import Store
from moviegen_eval.study.study import load_study, save_study
from moviegen_eval.study.table import read_votes
from moviegen_eval.study.writer import Writer
from page_samples import SECONDS, cast, client, make_study, served, write_served

STUDY = make_study(40)
POSTGRES = Path("/usr/lib/postgresql")


def open_writer(url: str, log: Path) -> tuple[Store, Writer]:
    store = Store(url, STUDY.digest)
    durations = {item.id: SECONDS for item in STUDY.items}
    return store, Writer(store, lambda: Desk(STUDY, Rules(gold_every=0), durations), log)


def enter(desk: Desk, name: str):
    rater = desk.join(name, f"code{name}", None, 0.0)
    desk.event("consent", name, 0.0)
    return desk.next(rater, 0.0)[1][0]


def vote(desk: Desk, own, **changes):
    return desk.vote(desk.raters[own.rater], cast({"id": own.id}, details={}) | changes, 1.0)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server of our own, for one test."""
    found = sorted(POSTGRES.glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    bin_folder, data = found[-1].parent, tmp_path / "pg"
    user = {} if os.getuid() else {"user": "postgres"}  # it refuses to run as root
    if user:
        data.mkdir()
        os.chown(data, pwd.getpwnam("postgres").pw_uid, -1)
        for parent in (tmp_path, *tmp_path.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = (tmp_path / "postgres.log").open("wb")
    quiet = {"stdout": output, "stderr": output, "cwd": "/"}
    subprocess.run(
        [bin_folder / "initdb", "-D", data, "-U", "study", "-A", "trust", "--no-sync"],
        check=True,
        **user,
        **quiet,
    )
    options = [f"-p{port}", f"-k{data}", "-clisten_addresses=127.0.0.1"]
    server = subprocess.Popen([bin_folder / "postgres", "-D", data, *options], **user, **quiet)
    url = f"postgresql+pg8000://study@127.0.0.1:{port}/postgres"
    try:
        end, asked = time.monotonic() + 180, [bin_folder / "pg_isready", f"-p{port}", "-h127.0.0.1", "-q"]
        while subprocess.run(asked, check=False).returncode:
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"PostgreSQL does not answer: {(tmp_path / 'postgres.log').read_text()[-500:]}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def test_sqlite_writes_ahead_and_syncs_and_refuses_to_change_a_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'votes.sqlite'}"
    store, writer = open_writer(url, tmp_path / "votes.jsonl")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    writer.submit(lambda desk: vote(desk, enter(desk, "r"))).result()
    refuses_changes(store)
    writer.close()
    store.close()
    assert (tmp_path / "votes.sqlite").stat().st_mode & 0o077 == 0  # codes are secrets


def refuses_changes(store: Store) -> None:
    for statement in ("UPDATE votes SET answer = 'a'", "DELETE FROM votes", "DELETE FROM assignments"):
        with pytest.raises(sa.exc.DBAPIError, match="never changed"), store.engine.begin() as connection:
            connection.execute(sa.text(statement))


def goes_on_after_a_restart(url: str, log: Path) -> None:
    store, writer = open_writer(url, log)
    own = writer.submit(lambda desk: enter(desk, "r")).result()
    first = writer.submit(lambda desk: vote(desk, own)).result()
    second = writer.submit(lambda desk: vote(desk, own, answer="tie", undoes=first.id)).result()
    refuses_changes(store)
    with pytest.raises(ValueError, match="running already"):
        Store(url, STUDY.digest)
    writer.close()
    store.close()
    log.write_text('{"half a line that a killed server left')
    store, writer = open_writer(url, log)
    standing = writer.submit(lambda desk: desk.raters["r"].votes[own.id]).result()
    assert (standing.id, standing.answer) == (second.id, "tie")
    with pytest.raises(RefusedError, match="answered already"):
        writer.submit(lambda desk: vote(desk, own)).result()
    writer.close()
    store.close()
    assert [row.id for row in read_votes(log).votes()] == [first.id, second.id]
    with pytest.raises(ValueError, match=r"holds votes of study .* take the old file, or another database"):
        Store(url, dataclasses.replace(STUDY, seed=9).digest)


def test_sqlite_goes_on_after_a_restart(tmp_path: Path) -> None:
    goes_on_after_a_restart(f"sqlite:///{tmp_path / 'v.sqlite'}", tmp_path / "votes.jsonl")


def test_postgresql_goes_on_after_a_restart(postgres: str, tmp_path: Path) -> None:
    goes_on_after_a_restart(postgres, tmp_path / "votes.jsonl")


def test_postgresql_serves_a_study_by_url(postgres: str, tmp_path: Path) -> None:
    config = dataclasses.replace(write_served(tmp_path, make_study(2)), database=postgres, anyone=True)
    for number in range(2):
        with served(config) as url, client(url) as page:
            headers = {"X-Code": page.post("/api/join", json={}).json()["code"]}
            state = page.post("/api/consent", headers=headers).json()
            assert (
                page.post("/api/rater/vote", json=cast(state["task"]), headers=headers).json()["answered"]
                == 1
            )
        assert len(read_votes(tmp_path / "votes" / "votes.jsonl")) == number + 1
    assert not (tmp_path / "votes" / "votes.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "expected sqlite:/// or postgresql://"),
        ("sqlite://", "sqlite needs a file"),
        ("mysql+nothing://x/y", "expected sqlite:/// or postgresql://"),
        ("postgresql+pg8000://u:secret@127.0.0.1:1/x", "127.0.0.1:1"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Store(url, STUDY.digest)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_request_that_cannot_be_written_fails_alone(tmp_path: Path, monkeypatch) -> None:
    store, writer = open_writer(f"sqlite:///{tmp_path / 'v.sqlite'}", tmp_path / "votes.jsonl")
    append, gate = store.append, threading.Event()

    def failing(rows):
        if any(row.get("id") == "bad" for _, row in rows):
            raise sa.exc.OperationalError("insert", {}, Exception("disk is full"))
        append(rows)

    monkeypatch.setattr(store, "append", failing)
    held = writer.submit(lambda desk: gate.wait(10))  # so that the next ones come in one batch
    futures = [writer.submit(lambda desk, name=name: enter(desk, name)) for name in ("good", "bad", "fine")]
    broken = writer.submit(lambda desk: desk.raters["nobody"])
    gate.set()
    assert held.result()
    assert [futures[n].result().rater for n in (0, 2)] == ["good", "fine"]
    with pytest.raises(RefusedError, match="try again") as caught:
        futures[1].result()
    assert caught.value.status == 503
    with pytest.raises(KeyError):
        broken.result()
    assert writer.submit(lambda desk: sorted(desk.raters)).result() == ["fine", "good"]
    assert writer.submit(lambda desk: vote(desk, desk.next(desk.raters["good"], 0.0)[1][0])).result()
    writer.close()
    store.close()


def test_a_process_killed_right_after_its_answer_has_lost_nothing(tmp_path: Path) -> None:
    save_study(STUDY, tmp_path / "study.json")
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
import test_study_store as t
from pathlib import Path
store, writer = t.open_writer("sqlite:///{tmp_path}/v.sqlite", Path("{tmp_path}/votes.jsonl"))
for n in range(20):
    own = writer.submit(lambda desk: t.enter(desk, f"r{{n}}")).result()
    print(writer.submit(lambda desk: t.vote(desk, own)).result().id, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    told = done.stdout.split()
    assert (done.returncode, len(told)) == (-9, 20), done.stderr[-500:]
    with sqlite3.connect(tmp_path / "v.sqlite") as database:
        assert [row[0] for row in database.execute("SELECT id FROM votes ORDER BY seq")] == told
    assert load_study(tmp_path / "study.json").digest == STUDY.digest
    shutil.rmtree(tmp_path)
