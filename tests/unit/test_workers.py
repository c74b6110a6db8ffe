"""Worker processes: results in order, errors as they were raised, and no waiting for one that was killed."""

import os
import signal
import time
from multiprocessing.connection import Connection

import pytest
from moviegen_data.workers import WorkerKilledError, in_processes

LARGE = 1 << 20  # bytes, more than a pipe holds


def work(unit: object) -> object:
    if isinstance(unit, float):
        time.sleep(unit)
    if unit == "bad":
        raise ValueError("a bad unit")
    if unit == "killed":
        os.kill(os.getpid(), signal.SIGTERM)
    return bytes(LARGE) if unit == "large" else unit


def killed_while_sending(unit: object) -> object:
    if unit == 3:
        write = os.write

        def half(handle: int, data: bytes) -> int:
            write(handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        vars(Connection)["_send"].__defaults__ = (half,)
        return bytes(LARGE)
    return unit


def test_results_come_in_the_order_of_the_units() -> None:
    units = [0.3, 1, "large", 2, 0.1, 3]
    with in_processes(work, units, 2) as made:
        assert list(made) == [0.3, 1, bytes(LARGE), 2, 0.1, 3]
    with in_processes(work, [], 2) as made:
        assert list(made) == []


def test_what_is_raised_is_raised_here_and_leaving_early_waits_for_nothing_else() -> None:
    with pytest.raises(ValueError, match="a bad unit"), in_processes(work, [1, "bad", 2], 2) as made:
        list(made)
    with in_processes(work, ["large", "large", *range(1000)], 2) as made:
        assert next(made) == bytes(LARGE)


@pytest.mark.parametrize("kind", ["at work", "while sending"])
def test_one_that_is_killed_is_noticed(kind: str) -> None:
    one, units = (work, [1, "killed", 2, 3]) if kind == "at work" else (killed_while_sending, [*range(9)])
    with pytest.raises(WorkerKilledError, match="was killed"), in_processes(one, units, 2) as made:
        list(made)
