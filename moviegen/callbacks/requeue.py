"""The way back into SLURM's queue, for `Preemption`."""

from __future__ import annotations

from moviegen import scheduler


class Requeue:
    """Puts the job that this process runs in back into the queue; does nothing outside of SLURM.

    A job that may not be requeued (sbatch --no-requeue) or is being cancelled ends instead.
    """

    def __call__(self) -> None:
        scheduler.requeue()
