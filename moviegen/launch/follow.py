"""Print the log of jobs until they have ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from moviegen.scheduler import job_state

# all others, SIGNALING and REQUEUED among them, may turn into RUNNING; PREEMPTED does so where it requeues, and is
# then seen as PENDING at once (squeue(1), job state codes)
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
        "UNKNOWN",
    ]
)
POLL_SECONDS = 1.0


def follow(ids: Sequence[str], logs: Path) -> int:
    """Print what the first node of each job writes until all have ended; 0 if all ended well, otherwise 1.

    Ctrl-C stops the printing alone: the jobs go on.
    """
    read: dict[Path, int] = {}
    running, states = list(ids), dict.fromkeys(ids, "PENDING")
    try:
        while running:
            for one in running:
                states[one] = job_state(one)
            _print_news(ids, logs, read)
            running = [one for one in running if states[one] not in ENDED]
            if running:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print(f"\nno longer following; {', '.join(running)} goes on", file=sys.stderr)
        return 0
    _print_news(ids, logs, read)
    failed = [f"job {one} ended as {state}" for one, state in states.items() if state != "COMPLETED"]
    if failed:
        print(f"error: {'; '.join(failed)}; see {logs}", file=sys.stderr)
    return 1 if failed else 0


def _print_news(ids: Sequence[str], logs: Path, read: dict[Path, int]) -> None:
    """Print the lines added since the last time, behind the job's id where there are several jobs."""
    for one in ids:
        for path in sorted(logs.glob(f"{one}-node0-*.log")):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            read[path] = read.get(path, 0) + len(whole) + len(newline)
            prefix = f"[{one}] " if len(ids) > 1 else ""
            for line in whole.decode(errors="replace").splitlines() if newline else ():
                print(f"{prefix}{line}", flush=True)
