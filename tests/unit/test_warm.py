"""Commands as forks of a warm process: they begin and end as processes of their own do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import moviegen_data
import pytest
from test_stages import saved_on

from moviegen import warm

PARENT = """
import atexit, pathlib, sys, time, weakref
from moviegen import cli, interrupts, warm
from moviegen.demo import COMMAND, call_process

folder = pathlib.Path(sys.argv[1])
weakref.finalize(cli, print, "parent finalized")
atexit.register(lambda: print("parent ends"))

def run(words):
    weakref.finalize(warm, print, "finalized")
    atexit.register(lambda: print("command ends"))
    print("runs", *words, sys.argv[1:] == words)
    if words == ["wait"]:
        try:
            (folder / "started").touch()
            time.sleep(300)
        except BaseException as error:
            (folder / "saved").write_text(type(error).__name__)
            raise
    return int(words[0])

cli.run, warm.HEAVY, interrupts.CHILD_SECONDS = run, (), float(sys.argv[2])
warm.own_process()
try:
    with interrupts.terminable():
        print("codes", [call_process([*COMMAND, word]) for word in sys.argv[3:]])
except (KeyboardInterrupt, interrupts.Terminated):
    sys.exit(77)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's processes are forked")
def test_forks_have_their_own_words_exit_code_and_exit_functions(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path), "1", "0", "2"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    ran = [line for code in (0, 2) for line in (f"runs {code} True", "command ends", "finalized")]
    assert said == [*ran, "codes [0, 2]", "parent ends", "parent finalized"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's processes are forked")
@pytest.mark.parametrize(
    ("whom", "number", "seconds", "seen"),
    [
        (os.killpg, signal.SIGINT, 30, "KeyboardInterrupt"),  # Ctrl-C reaches both
        (os.kill, signal.SIGTERM, 0.2, "Terminated"),  # only the parent: the fork is told
    ],
)
def test_a_fork_saves_before_a_signal_ends_both(whom, number, seconds, seen, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path), str(seconds), "wait"]
    assert saved_on(words, tmp_path, whom, number) == seen


HURRY = """
import os, signal, time
from moviegen import cli, interrupts, warm

begin, begins = os.pipe()

def run(words):
    os.read(begin, 1)
    os.kill(os.getppid(), signal.SIGINT)  # and ends at once: the parent hears of both together
    return 3

cli.run, warm.HEAVY = run, ()
codes = []
for _ in range(20):
    forks = []
    try:
        os.write(begins, b".")
        interrupts.attended(lambda: forks.append(warm.Fork([])) or forks[0])
        time.sleep(10)
    except KeyboardInterrupt:
        fork, = forks
        codes.append(fork.poll())
        fork.send_signal(signal.SIGTERM)
print(set(codes), len(codes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's processes are forked")
def test_a_fork_s_end_is_known_where_ctrl_c_comes_with_it() -> None:
    said = subprocess.run([sys.executable, "-c", HURRY], capture_output=True, text=True, timeout=300)
    assert (said.stdout, said.stderr) == ("{3} 20\n", "")


def test_code_that_was_changed_meanwhile_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "THIS", warm.Process(is_command=True))
    monkeypatch.setattr(sys, "platform", "linux")
    assert warm.forks() and warm.forks()
    assert {Path(warm.__file__), Path(moviegen_data.__file__)} < {*(warm.THIS.sources or {})}
    changed = {file: time + 1 for file, time in warm._sources().items()}
    monkeypatch.setattr(warm, "_sources", lambda: changed)
    assert not warm.forks()
