"""Time `moviegen eval study analyse` on a vote file of a million rows, some of them broken.

    python experiments/study_million/million.py [folder=runs/million]     (about 400 MB there)

Writes numbers.json and the README's table beside this file; ends with 1 where it took longer than LIMIT_SECONDS.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from moviegen_eval.files import write_json_lines
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.study.axes import TEXT_TO_VIDEO
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.study import Arm, Item, Study, load_study

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from measured import fill, machine, today  # noqa: E402

LIMIT_SECONDS = 60
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


def main() -> int:
    """Write the inputs where they are missing, run the command, record its time and memory; 1 above the limit."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    folder, where = Path(given.get("folder", "runs/million")), machine()
    if not (folder / "votes.jsonl").exists():
        write_inputs(folder)
    command = [sys.executable, "-m", "moviegen.cli", "eval", "study", "analyse"]
    command += [f"study={folder / 'study.json'}", f"votes={folder / 'votes.jsonl'}", f"out={folder / 'out'}"]
    start, before = time.monotonic(), os.times()
    subprocess.run(command, check=True, stdout=(folder / "printed.md").open("w"))
    wall, after = time.monotonic() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    analysis = json.loads((folder / "out" / "analysis.json").read_text())
    values = {
        "wall_seconds": (round(wall, 1), "s"),
        "processor_seconds": (round(processor, 1), "s"),
        "memory": (round(memory), "MiB"),
        "cores": (where["cores"], "cores"),
        "load_before": (where["load_before"], "processes"),
    }
    figures = [
        Figure(f"study/million/{name}", float(value), None, None, analysis["n_read"], unit, False)
        for name, (value, unit) in values.items()
    ]
    write_numbers(HERE / "numbers.json", figures)
    fill(HERE / "README.md", table(values, analysis))
    print((folder / "printed.md").read_text()[-1500:])
    print(*figures, sep="\n")
    return int(wall > LIMIT_SECONDS)


def table(values: dict[str, tuple[float, str]], analysis: dict[str, Any]) -> list[tuple[str, str]]:
    """The README's rows."""
    busy = f"{values['cores'][0]:g} cores, {values['load_before'][0]:g} processes wanted to run in the minute before"
    left_out = sum(reason["count"] for reason in analysis["left_out"])
    return [
        ("measured", f"{today()}, {busy}"),
        ("votes read; lines and votes that do not count, all named", f"{analysis['n_read']:,}; {left_out:,}"),
        (f"wall time (below {LIMIT_SECONDS} s is asked for)", f"{values['wall_seconds'][0]:g} s"),
        ("processor time", f"{values['processor_seconds'][0]:g} s"),
        ("memory", f"{values['memory'][0]:g} MiB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
