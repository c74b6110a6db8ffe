"""VideoGen-RewardBench (KlingTeam, Apache-2.0): a csv of experts' judgements becomes a study and its votes.

Columns path_A, path_B, A_model, B_model, prompt, and VQ, MQ, TA, Overall with A, B or same; others are passed over.
Nothing is fetched: the csv and the videos are files that you have.
"""

from __future__ import annotations

import re
from pathlib import Path

from moviegen_eval.study.axes import Axis
from moviegen_eval.study.exchange import Imported, content_id, need_columns, read_table
from moviegen_eval.study.study import Arm, Item, Study
from moviegen_eval.study.votes import Vote

AXES = {
    "VQ": Axis("VQ", "Which video has the better visual quality?", 1),
    "MQ": Axis("MQ", "Which video has the better motion?", 1),
    "TA": Axis("TA", "Which video follows the text better?", 1),
    "Overall": Axis("Overall", "Which video is better, all in all?", 1),
}
ANSWERS = {"a": "a", "b": "b", "same": "tie"}
EXPERT = "expert"  # the file does not say who judged


def import_rewardbench(path: Path | str, encoding: str = "utf-8") -> tuple[Study, Imported]:
    """The study that the csv's rows are, with paths as they stand there, and its votes."""
    path, found = Path(path), Imported()
    header, rows = read_table(path, encoding)
    need_columns(path, header, ("path_A", "path_B", "A_model", "B_model", "prompt"))
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
        items.append(Item(key, cells["prompt"], names[0], names[1], cells["path_A"], cells["path_B"]))
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


def _name(text: str) -> str:
    """A model's name with the letters that a name of an arm may have."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text.strip())[:100]
