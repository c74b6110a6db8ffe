"""Batches of Mechanical Turk and Prolific: csv with one task a row out, csv with answers in.

A task's `pair` is an opaque word for item, axis and side, so that a page built from the batch tells nobody which arm
is which. Workers' ids are kept as a hash with the study's digest.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moviegen_eval.files import write_atomically
from moviegen_eval.study.exchange import Imported, content_id, escaped, need_columns, read_table
from moviegen_eval.study.intervals import rng_for
from moviegen_eval.study.study import Item, Study
from moviegen_eval.study.votes import Vote, microseconds

TASK_COLUMNS = ("pair", "question", "prompt", "video_left", "video_right", "reference", "set")
ANSWERS = ("left", "right", "tie")


@dataclass(frozen=True)
class Platform:
    """How a platform names its columns, and which states of a submission count."""

    name: str
    worker: tuple[str, ...]  # the first that is there
    given: str  # before columns of the task
    answered: str  # before columns of the answer
    state: str
    good_states: tuple[str, ...]
    time: tuple[str, ...]


MTURK = Platform(
    "mturk",
    ("WorkerId",),
    "Input.",
    "Answer.",
    "AssignmentStatus",
    ("submitted", "approved"),
    ("SubmitTime",),
)
PROLIFIC = Platform(
    "prolific",
    ("PROLIFIC_PID", "prolific_pid", "Participant id", "participant_id"),
    "",
    "",
    "Status",
    ("approved", "awaiting review", "submitted"),
    ("time", "Completed at", "completed_at"),
)


def pair_word(study: Study, item: str, axis: str, left: str) -> str:
    """The opaque word for an item on an axis with arm `left` ("a" or "b") on the left."""
    return hashlib.sha256("\0".join((study.digest, str(study.seed), item, axis, left)).encode()).hexdigest()[
        :20
    ]


def export_batch(
    study: Study, shown: Study, folder: Path | str, platform: Platform, url: str, set_size: int = 20
) -> list[Path]:
    """Write the tasks, one file for each number of raters (MTurk: assignments a task); returns the files.

    Args:
        shown: the same study with the names of the videos as workers see them; they must not tell the arms.
        url: where the videos are; `{video}` stands for the file's name.
        set_size: tasks that one participant gets together (column `set`).
    """
    if "{video}" not in url:
        raise ValueError(f"url={url!r} must hold {{video}}, in place of a video's file name")
    rows: dict[int, list[list[str]]] = {}
    for axis in study.axes:
        lefts = rng_for(study.seed, "batch sides", axis.key).choice(
            np.array(["a", "b"]), size=len(study.items)
        )
        for item, left in zip(shown.items, lefts.tolist(), strict=True):
            videos = [item.video_a, item.video_b] if left == "a" else [item.video_b, item.video_a]
            videos.append(item.reference if item.reference and axis.reference else "")
            urls = [url.replace("{video}", Path(video).name) if video else "" for video in videos]
            row = [pair_word(study, item.id, axis.key, left), axis.question, escaped(item.prompt), *urls]
            rows.setdefault(axis.raters, []).append(row)
    written = []
    for raters, tasks in sorted(rows.items()):
        order = rng_for(study.seed, "batch order", str(raters)).permutation(len(tasks))
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(TASK_COLUMNS)
        writer.writerows([*tasks[row], place // set_size] for place, row in enumerate(order))
        path = Path(folder) / f"{platform.name}-{raters}-raters.csv"
        write_atomically(path, text.getvalue())
        written.append(path)
    return written


def import_batch(
    path: Path | str,
    study: Study,
    platform: Platform,
    encoding: str = "utf-8",
    submissions: Path | str | None = None,
) -> Imported:
    """Votes of a results file: the task's `pair`, and a `choice` of left, right, tie.

    The choice is one column, or a column of true / false for each answer (`Answer.choice.left`). Optional: reason,
    watch_left, watch_right. Rejected and returned work is left out, and named.

    Args:
        submissions: Prolific's own table of who was approved; the answers come from another tool there.
    """
    header, rows = read_table(path, encoding)
    worker = next((name for name in platform.worker if name in header), platform.worker[0])
    need_columns(path, header, (worker, f"{platform.given}pair"))
    words = {
        pair_word(study, item.id, axis.key, left): (item, axis.key, left)
        for item in study.items
        for axis in study.axes
        for left in ("a", "b")
    }
    states = _states(submissions, encoding) if submissions else None
    found = Imported()
    for place, cells in rows:
        state = (
            states.get(cells.get(worker, ""), "not in submissions")
            if states
            else cells.get(platform.state, "")
        )
        if "" in cells:
            found.leave_out("a row of another length than the first line", f"{place}: {cells['']}")
        elif state and state.strip().lower() not in platform.good_states:
            found.leave_out(f"submission {state.strip().lower()}", place)
        else:
            _add(
                found,
                place,
                cells,
                study,
                platform,
                worker,
                words.get(cells[f"{platform.given}pair"].strip()),
            )
    return found


def _add(
    found: Imported,
    place: str,
    cells: Mapping[str, str],
    study: Study,
    platform: Platform,
    worker: str,
    task: tuple[Item, str, str] | None,
) -> None:
    """The vote of one row, or why it has none."""
    choice = _choice(cells, f"{platform.answered}choice")
    person = cells[worker].strip()
    if task is None:
        found.leave_out("its pair is no task of this study", f"{place}: {cells[f'{platform.given}pair']!r}")
    elif choice is None:
        found.leave_out("its choice is none of left, right, tie", place)
    elif not person:
        found.leave_out("no worker is named", place)
    else:
        item, axis, left = task
        sides = {"left": left, "right": "b" if left == "a" else "a", "tie": "tie"}
        when = next((cells[name] for name in platform.time if cells.get(name)), "")
        watched = [_number(cells.get(f"{platform.answered}watch_{side}", "")) for side in ("left", "right")]
        found.votes.append(
            Vote(
                study=study.digest,
                item=item.id,
                axis=axis,
                rater=hash_rater(study, person),
                answer=sides[choice],
                shown_left=left,
                watch_seconds=(watched[0], watched[1]),
                reason=cells.get(f"{platform.answered}reason", "")[:1000],
                time=when if microseconds(when) is not None else "",
                id=content_id(study.digest, platform.name, *(f"{k}={v}" for k, v in sorted(cells.items()))),
                source=platform.name,
            )
        )


def hash_rater(study: Study, person: str) -> str:
    """An opaque id for a platform's id of a person, another one in each study."""
    return hashlib.sha256(f"{study.digest}\0{person}".encode()).hexdigest()[:16]


def _choice(cells: Mapping[str, str], name: str) -> str | None:
    marked = [answer for answer in ANSWERS if cells.get(f"{name}.{answer}", "").strip().lower() == "true"]
    given = cells.get(name, "").strip().lower() or (marked[0] if len(marked) == 1 else "")
    return given if given in ANSWERS else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e6 else None


def _states(path: Path | str, encoding: str) -> dict[str, str]:
    header, rows = read_table(path, encoding)
    worker = next((name for name in PROLIFIC.worker if name in header), PROLIFIC.worker[2])
    need_columns(path, header, (worker, PROLIFIC.state))
    return {
        cells.get(worker, "").strip(): cells.get(PROLIFIC.state, "").strip() or "unknown" for _, cells in rows
    }
