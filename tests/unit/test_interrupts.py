"""Ctrl-C and SIGTERM on a build of shards: what is finished is kept, wherever in the program the signal arrives."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from moviegen import interrupts

START = "import os, signal, sys, threading, time, pathlib; from moviegen.cli import main\n"
BUILD = """
words = ['data', 'build', 'source=toyworld', 'workers=0', 'shard_size=4', 'out=' + sys.argv[1]]
sys.exit(main(words))
"""
AFTER_THE_FIRST_TAR = """
def stop():
    while not list(pathlib.Path(sys.argv[1]).glob('t*.tar')): time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGNAL)
threading.Thread(target=stop, daemon=True).start()
"""
OF_ALL_PROCESSES = AFTER_THE_FIRST_TAR.replace("os.kill(os.getpid()", "os.killpg(os.getpgrp()").replace(
    "SIGNAL", "SIGINT"
)
TERM_OF_ALL_PROCESSES = OF_ALL_PROCESSES.replace("SIGINT", "SIGTERM")
IN_A_DESTRUCTOR = """
import moviegen_data.build as build
write = build.write_tar
class Doomed:
    def __del__(self): signal.raise_signal(signal.SIGINT)
def write_and_destroy(*args):
    record = write(*args)
    doomed = Doomed()
    del doomed
    return record
build.write_tar = write_and_destroy
"""


@pytest.mark.parametrize(
    ("signalled", "code", "workers"),
    [
        (AFTER_THE_FIRST_TAR.replace("SIGNAL", "SIGINT"), 130, 0),
        (AFTER_THE_FIRST_TAR.replace("SIGNAL", "SIGTERM"), 143, 0),
        (IN_A_DESTRUCTOR, 130, 0),
        (OF_ALL_PROCESSES, 130, 2),  # as a terminal sends it
        (AFTER_THE_FIRST_TAR.replace("SIGNAL", "SIGTERM"), 143, 2),
        (TERM_OF_ALL_PROCESSES, 143, 2),  # as `timeout` sends it
    ],
    ids=[
        "ctrl-c anywhere",
        "sigterm anywhere",
        "ctrl-c in a destructor",
        "ctrl-c, workers",
        "sigterm, workers",
        "sigterm of all, workers",
    ],
)
def test_a_signal_keeps_finished_tars_and_shows_in_the_exit_code(
    signalled: str, code: int, workers: int, tmp_path: Path
) -> None:
    build = BUILD.replace("workers=0", f"workers={workers}")
    ran = subprocess.run(
        [sys.executable, "-c", START + signalled + build, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        process_group=0,
    )
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.splitlines()[-1].endswith(
        "what is finished is kept; the same command goes on from there"
    )
    names = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert "train-toyworld-000000.tar" in names and "index.json" not in names
    assert all(name.startswith("train-toyworld-") for name in names if name != "UNFINISHED")


def test_a_lost_exception_is_raised_at_the_next_check() -> None:
    with interrupts.remembered():
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_is_an_exit_as_long_as_it_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, interrupts.terminable():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) is before is signal.SIG_DFL


@pytest.mark.parametrize(
    ("number", "context"),
    [(signal.SIGINT, interrupts.remembered), (signal.SIGTERM, interrupts.terminable)],
)
def test_another_handler_and_other_threads_are_left_alone(number: int, context: Callable) -> None:
    handlers = []

    def within() -> None:
        with context():
            handlers.append(signal.getsignal(number))

    mine = signal.signal(number, signal.SIG_IGN)
    try:
        within()
    finally:
        signal.signal(number, mine)
    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_IGN, mine]


SLOW = """
import pathlib, sys, time
print('half', end='\\r', file=sys.stderr, flush=True)
seen, end = pathlib.Path(sys.argv[1]), time.monotonic() + 30
while not seen.exists() and time.monotonic() < end: time.sleep(0.02)
print('x' * 5000 + ' done' if seen.exists() else 'nobody read', file=sys.stderr)
sys.exit(3)
"""


def test_what_a_child_says_is_shown_while_it_runs_and_the_end_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.StringIO):
        """Leaves a file behind as soon as something is shown."""

        def write(self, text: str) -> int:
            (tmp_path / "seen").touch()
            return super().write(text)

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    done = interrupts.run_shown([sys.executable, "-c", SLOW, str(tmp_path / "seen")])
    assert done.returncode == 3 and screen.getvalue() == f"half\r{'x' * 5000} done\n"
    assert len(done.stderr) == interrupts.KEPT and done.stderr.endswith("x done\n")


def test_a_signal_that_comes_while_a_child_begins_finds_it_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        os.kill(os.getpid(), signal.SIGTERM)
        begun.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return begun[0]

    monkeypatch.setattr(interrupts, "CHILD_SECONDS", 0.1)
    with pytest.raises(interrupts.Terminated), interrupts.terminable():
        interrupts.attended(start)
    assert begun[0].returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
