"""How `moviegen train` ends when something else than its last step ends it: one line, and an exit code."""

import errno
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint_samples import save

from moviegen import train
from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.preemption import Preempted
from moviegen.callbacks.watchdog import Watchdog
from moviegen.config import UserError
from moviegen.tasks.base import NotFiniteError


def fit(folder: Path, error: BaseException) -> None:
    """Fit with a trainer that raises."""

    def raises(*_: Any, **__: Any) -> None:
        raise error

    callbacks = [Checkpoints(str(folder)), Watchdog(str(folder))]
    trainer: Any = SimpleNamespace(fit=raises, callbacks=callbacks, global_step=7, is_global_zero=True)
    train._fit(trainer, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotFiniteError("step 7: the loss of sample a is nan"), "sample a is nan; {} is the last good state"),
        (OSError(errno.ENOSPC, "No space left"), r"\(No space left\); {} is as it was before: make room"),
        (OSError(errno.EIO, "Input/output error"), r"\(Input/output error\); {} is as it was before"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "),
            r"step 7: DataLoader worker \(pid 9\) is killed by signal: Killed\.; {} is kept: the same command",
        ),
    ],
)
def test_what_ends_a_training_is_one_line_that_names_what_is_kept(
    tmp_path: Path, error: Exception, line: str
) -> None:
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        fit(tmp_path, error)
    folder = save(tmp_path, 4, {"x": torch.zeros(1)})
    with pytest.raises(UserError, match=line.format(folder)):
        fit(tmp_path, error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_sees_the_signal_in_the_exit_code(tmp_path: Path, capsys, number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as caught:
        fit(tmp_path, Preempted(number))
    assert caught.value.code == 128 + number
    line = f"terminated after 7 steps by {number.name}: the same command goes on from there"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("of our own"), OSError(errno.ENOENT, "No such file")])
def test_our_own_faults_keep_their_traceback(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        fit(tmp_path, error)
    assert caught.value is error
