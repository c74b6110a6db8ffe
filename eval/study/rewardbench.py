"""VideoGen-RewardBench (KlingTeam, Apache-2.0): a csv of experts' judgements becomes a study and its votes, and back.

Columns path_A, path_B, A_model, B_model, prompt, and VQ, MQ, TA, Overall with A, B or same; others are passed over.
Nothing is fetched: the csv and the videos are files that you have.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from moviegen_eval.files import write_atomically
from moviegen_eval.study.axes import Axis
from moviegen_eval.study.exchange import Imported, content_id, escaped, need_columns, plain, read_table
from moviegen_eval.study.study import Arm, Item, Study
from moviegen_eval.study.table import VoteTable
from moviegen_eval.study.tally import item_counts, majority
from moviegen_eval.study.votes import Vote

AXES = {
    "VQ": Axis("VQ", "Which video has the better visual quality?", 1),
    "MQ": Axis("MQ", "Which video has the better motion?", 1),
    "TA": Axis("TA", "Which video follows the text better?", 1),
    "Overall": Axis("Overall", "Which video is better, all in all?", 1),
}
ANSWERS = {"a": "a", "b": "b", "same": "tie"}
ITEM_COLUMNS = ("path_A", "path_B", "A_model", "B_model", "prompt")
COLUMNS = {"overall": "Overall", "text_alignment": "TA"}  # of ours that ask the same
WORDS = {1: "A", 0: "same", -1: "B"}
EXPERT = "expert"  # the file does not say who judged


def import_rewardbench(path: Path | str, encoding: str = "utf-8") -> tuple[Study, Imported]:
    """The study that the csv's rows are, with paths as they stand there, and its votes."""
    path, found = Path(path), Imported()
    header, rows = read_table(path, encoding)
    need_columns(path, header, ITEM_COLUMNS)
    axes = tuple(axis for key, axis in AXES.items() if key in header)
    if not axes:
        raise ValueError(f"{path}: none of the columns {', '.join(AXES)} is there; found {', '.join(header)}")
    items, arms, answers = [], {}, []
    for place, cells in rows:
        names = [_name(cells.get(side, "")) for side in ("A_model", "B_model")]
        if "" in cells or not all(names) or names[0] == names[1]:
            found.leave_out("a row without two different models and all its cells", place)
            continue
        arms |= dict.fromkeys(names)
        key = f"row{place.removeprefix('line ')}"
        prompt, first, second = (plain(cells[name]) for name in ("prompt", "path_A", "path_B"))
        items.append(Item(key, prompt, names[0], names[1], first, second))
        answers += [(key, axis.key, cells[axis.key], place) for axis in axes]
    study = Study(_name(path.stem), "VideoGen-RewardBench", axes, tuple(map(Arm, arms)), tuple(items))
    for key, axis, answer, place in answers:
        word = ANSWERS.get(answer.strip().lower())
        if word is None:
            found.leave_out("an answer that is none of A, B, same", f"{place}: {axis} is {answer!r:.40}")
            continue
        name = content_id(study.digest, key, axis)
        found.votes.append(
            Vote(study.digest, key, axis, EXPERT, word, None, time="", id=name, source="videogen_rewardbench")
        )
    return study, found


def export_rewardbench(study: Study, table: VoteTable, path: Path | str) -> None:
    """Write a row an item with the leading answer on each axis: A, B, same (also without a leading one), or nothing.

    Axes that the format does not know keep their own names as columns. `table`: votes that count; gold items are left
    out.
    """
    counts = item_counts(study, table)
    outcomes, _ = majority(counts)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*ITEM_COLUMNS, *(COLUMNS.get(axis.key, axis.key) for axis in study.axes)])
    for item, outcome, votes in zip(study.items, outcomes.tolist(), counts.sum(axis=2).tolist(), strict=True):
        if item.gold is None:
            words = [WORDS[answer] if n else "" for answer, n in zip(outcome, votes, strict=True)]
            facts = [item.video_a, item.video_b, item.arm_a, item.arm_b, item.prompt]
            writer.writerow([*map(escaped, facts), *words])
    write_atomically(path, text.getvalue())


def _name(text: str) -> str:
    """A model's name with the letters that a name of an arm may have."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text.strip())[:100]
