"""Prove the comparison of Table 6 end to end on stand-ins: five folders of toyworld clips and simulated raters.

No video of any of the named systems is here. The stand-ins differ as real arms do: in length, frame rate, size, file
names, refusals, missing and damaged files. Simulated raters lean as the published net win rates say; pooled over votes
the study comes near them, and the majority of three stretches them, as it does with people. The report says on top that
its raters are a program.

    python experiments/benchmark/movie_gen_table6/stand_in.py out=runs/table6_stand_in [prompts=64]
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import yaml
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.report.published import read_published
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.study import Study, load_study
from moviegen_eval.study.votes import VoteLog
from moviegen_eval.suites import open_suite

from moviegen import cli
from moviegen.media import write_video

HERE = Path(__file__).parent
# name: (size, frame rate, frames, noise, files named by, refused rows, rows without a file, damaged rows)
ARMS = {
    "ours": (64, 16.0, 32, 4, "id", (), (), ()),
    "sora": (80, 12.0, 24, 8, "row", (), (3,), ()),
    "kling15": (96, 12.0, 30, 6, "prompt", (5, 9), (), ()),
    "runway_gen3": (64, 8.0, 18, 16, "row", (), (), (7,)),
    "luma": (64, 8.0, 18, 30, "id", (), (), ()),
}
TIES = 0.5  # odds of a tie of two equal arms


def main() -> None:
    """Make the stand-ins, then run draft, build, score, votes, report and its check through the command line."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    out, num = Path(given.get("out", "runs/table6_stand_in")), int(given.get("prompts", "64"))
    suite = write_suite(out / "bench", num)
    for name in ARMS:
        write_arm(out / "arms" / name, name, suite, num)
    arms = [f"arms.{name}={out / 'arms' / name}" for name in ARMS]
    bench = f"suite='movie_gen_video:{out / 'bench'}'"
    recipe = "experiments=benchmark/movie_gen_table6/"
    run(
        "eval study draft",
        recipe + "study",
        bench,
        *arms,
        f"out={out}/study.yaml",
        "same_gold=3",
        "degraded_gold=3",
        "overwrite=true",
    )
    run("eval study build", f"study={out}/study.yaml", f"out={out}/built")
    vote(load_study(out / "study.yaml"), out / "votes.jsonl")
    run("eval score", recipe + "score", bench, *arms, f"out={out}/scores", "num_threads=1")
    report = [
        f"study={out}/study.yaml",
        f"built={out}/built",
        f"votes={out}/votes.jsonl",
        f"scores={out}/scores",
    ]
    report += [f"out={out}/report/report.html", "title='Table 6 on stand-ins'", "grid_items=12"]
    report += [
        "summary='Toyworld clips stand in for every arm, and a program for the raters: only the path is shown.'"
    ]
    run("eval report", recipe + "report", *report)
    run("eval report", recipe + "report", *report, "--check")


def run(command: str, *words: str) -> None:
    """One command of the console program."""
    if code := cli.main([*command.split(), *words]):
        sys.exit(code)


def write_suite(folder: Path, num: int) -> Path:
    """Our own prompts as the two files of Movie Gen Video Bench, with its quirks."""
    everything = open_suite("own").prompts
    prompts = everything[:: max(1, len(everything) // num)][:num]  # of all concepts
    folder.mkdir(parents=True, exist_ok=True)
    texts = [prompt.text for prompt in prompts]
    texts[-1] = texts[0]  # a text that repeats
    (folder / "MovieGenVideoBench.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    with (folder / "MovieGenVideoBenchWithTag.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["prompt", "concept", "motion_level"])
        for number, prompt in enumerate(prompts):
            concepts = list(prompt.tags["concept"]) * (2 if number % 40 == 7 else 1)
            trailing = " " if number % 30 == 5 else ""
            writer.writerow([texts[number] + trailing, ",".join(concepts), prompt.tags["motion_level"][0]])
    return folder


def write_arm(folder: Path, name: str, suite: Path, num: int) -> None:
    """One stand-in with its settings card."""
    size, rate, frames, noise, rule, refused, absent, damaged = ARMS[name]
    prompts = open_suite(f"movie_gen_video:{suite}").prompts
    world = World(WorldConfig(level=2, size=size, num_frames=frames, frame_rate=rate))
    rng = np.random.default_rng(len(name))
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(num):
        stem = {"id": prompts[row].id, "row": f"{row:04d}", "prompt": prompts[row].text}[rule]
        path = folder / f"{stem}.mp4"
        if row in refused or row in absent or path.exists():
            continue
        if row in damaged:
            path.write_bytes(b"not a video")
            continue
        clip = world.render(7, row).frames
        noisy = np.clip(clip + rng.normal(0, noise, clip.shape), 0, 255).astype(np.uint8)
        write_video(path, noisy, rate)
    card = {
        "name": name,
        "model": f"stand-in for {name}: toyworld with noise {noise}",
        "prompt_rewriting": "none",
        "frame_rate": rate,
        "duration_seconds": frames / rate,
        "width": size,
        "height": size,
        "tries_per_prompt": 1,
        "refusals": [prompts[row].id for row in refused],
    }
    (folder / "arm.yaml").write_text(yaml.safe_dump(card, sort_keys=False))


def vote(study: Study, path: Path) -> None:
    """Votes of simulated raters whose odds give the published net win rates, axis by axis."""
    published = read_published(HERE / "published.json")
    path.unlink(missing_ok=True)
    with VoteLog(path, durable=False) as log:
        for axis in study.axes:
            strengths = {arm: -z_of(published.net(axis.key, arm) or 0.0) for arm in ARMS if arm != "ours"}
            table = simulate(
                study, Simulation(strengths, prompt_sd=0.6, ties=TIES, raters=30, sided=1), seed=1
            )
            log.append(one for one in table.votes() if one.axis == axis.key)


def z_of(net: float) -> float:
    """The difference of strengths whose net win rate this is, by Davidson's odds exp(z/2) : ties : exp(-z/2)."""
    low, high = -12.0, 12.0
    for _ in range(60):
        z = (low + high) / 2
        win, loss = math.exp(z / 2), math.exp(-z / 2)
        low, high = (z, high) if 100 * (win - loss) / (win + TIES + loss) < net else (low, z)
    return (low + high) / 2


if __name__ == "__main__":
    main()
