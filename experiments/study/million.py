"""Time `moviegen eval study analyse` on a vote file of a million rows, some of them broken; writes million.json.

python experiments/study/million.py folder=runs/million   (about 400 MB there)
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from moviegen_eval.files import write_json_lines
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.study.axes import TEXT_TO_VIDEO
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.study import Arm, Item, Study, load_study

HERE = Path(__file__).parent
ARMS = ("ours", "sora", "kling", "gen3", "luma")
CONCEPTS = ("human", "animal", "scene", "physics", "unusual subject", "unusual activity", "camera motion")
PROMPTS = 9_260  # x 4 pairs x 27 votes (seven axes of 3, two of them 6) = 1,000,080


def write_inputs(folder: Path) -> None:
    """A study of five arms and its votes, with lines that are torn, doubled, foreign, or in another encoding."""
    items = [
        Item(
            f"{n:05d}-{arm}", f"prompt {n}", "ours", arm, f"ours/{n}.mp4", f"{arm}/{n}.mp4",
            {"concept": CONCEPTS[n % 7], "motion": ("low", "medium", "high")[n % 3]},
        )
        for n in range(PROMPTS)
        for arm in ARMS[1:]
    ]  # fmt: skip
    study = Study("million", "A million votes", TEXT_TO_VIDEO, tuple(map(Arm, ARMS)), tuple(items))
    folder.mkdir(parents=True, exist_ok=True)
    values = study.to_dict()
    write_json_lines(folder / "items.jsonl", values["items"])
    (folder / "study.json").write_text(json.dumps(values | {"items": "items.jsonl"}))
    study = load_study(folder / "study.json")
    table = simulate(study, Simulation({"ours": 0.3}, raters=300), 0)
    axes, raters = table.axis.names, table.rater.names
    with (folder / "votes.jsonl").open("wb") as file:
        for row in range(len(table)):
            left, right = table.watch_seconds[row]
            line = (
                f'{{"study":"{study.digest}","item":"{items[table.item.codes[row]].id}",'
                f'"axis":"{axes[table.axis.codes[row]]}","rater":"{raters[table.rater.codes[row]]}",'
                f'"answer":"{("tie", "a", "b")[table.answer[row]]}","shown_left":"{" ab"[table.shown_left[row]]}",'
                f'"watch_seconds":[{left},{right}],"reason":"","time":"{table.time[row]}+00:00","undoes":null,'
                f'"id":"{table.id[row].decode()}","source":"simulated","details":{{}}}}\n'
            ).encode()
            file.write(line)
            if row % 1000 == 1:
                file.write(line)  # the same vote twice
                file.write(line.replace(study.digest[:8].encode(), b"00000000", 1))
                file.write(line[:100] + b"\n")
                file.write(line.replace(b'"reason":""', b'"reason":"caf\xe9"'))


def main() -> None:
    """Write the inputs where they are missing, run the command, record its time and memory."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    folder = Path(given["folder"])
    if not (folder / "votes.jsonl").exists():
        write_inputs(folder)
    command = [sys.executable, "-m", "moviegen.cli", "eval", "study", "analyse"]
    command += [f"study={folder / 'study.json'}", f"votes={folder / 'votes.jsonl'}", f"out={folder / 'out'}"]
    start, before = time.monotonic(), os.times()
    subprocess.run(command, check=True, stdout=(folder / "printed.md").open("w"))
    wall, after = time.monotonic() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows = json.loads((folder / "out" / "analysis.json").read_text())["n_read"]
    figures = [
        Figure("study/million/wall_seconds", round(wall, 1), None, None, rows, "s", False),
        Figure("study/million/processor_seconds", round(processor, 1), None, None, rows, "s", False),
        Figure("study/million/memory", round(memory), None, None, rows, "MiB", False),
    ]
    write_numbers(HERE / "million.json", figures)
    print((folder / "printed.md").read_text()[-1500:])
    print(*figures, sep="\n")


if __name__ == "__main__":
    main()
