"""Ctrl-C on a build of shards: what is finished is kept, wherever in the program the signal arrives."""

import signal
import subprocess
import sys
import threading
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
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=stop, daemon=True).start()
"""
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


@pytest.mark.parametrize("signalled", [AFTER_THE_FIRST_TAR, IN_A_DESTRUCTOR], ids=["anywhere", "destructor"])
def test_ctrl_c_keeps_finished_tars_and_exits_130(signalled: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", START + signalled + BUILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 130, ran.stderr
    names = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert "train-toyworld-000000.tar" in names and "index.json" not in names
    assert all(name.startswith("train-toyworld-") for name in names)


def test_a_lost_exception_is_raised_at_the_next_check() -> None:
    with interrupts.remembered():
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_handler_and_other_threads_are_left_alone() -> None:
    handlers = []

    def within() -> None:
        with interrupts.remembered():
            handlers.append(signal.getsignal(signal.SIGINT))

    mine = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        within()
    finally:
        signal.signal(signal.SIGINT, mine)
    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_IGN, mine]
