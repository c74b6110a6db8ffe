"""The paper's ablations of personalization at toy size: `python experiments/personalize/run.py --latents FOLDER`

Arms: references from other recordings (the base), of the clip itself alone, a frozen vision tower. Each is trained with
several seeds, makes clips of held-out characters and is judged by the oracle. Within a seed two arms are compared
prompt by prompt; over seeds means and differences to the base get Student's interval. Finished stages are not run
again. Writes numbers.json and table.md into the output folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from moviegen_eval.numbers import NUMBERS, Figure, read_numbers
from sweeps import Call, of_sampling, over_seeds, process, report, run_stage

BASE = "cross"
ARMS = (BASE, "paired", "frozen")
PAPER = {"paired": "identity up, naturalness -26.14, text -27.36", "frozen": "identity -16 %"}  # section 4.5
JUDGED = (
    "identity_best",
    "identity_worst",
    "identity_mean",
    "consistency",
    "variation",
    "identity_top1",
    "motion",
)


def make_clips(arm: str, seed: int, out: Path, latents: Path, more: Sequence[str], call: Call) -> Path:
    """Train one arm with one seed and make its clips; returns their folder."""
    folder = out / arm / str(seed)
    train = ["train", f"experiments=personalize/{arm}", f"seed={seed}", f"run_dir={folder / 'run'}"]
    run_stage(call, [*train, f"paths.latents={latents}", *more], folder / "run" / "model.safetensors")
    words = ["personalize", f"checkpoint={folder / 'run' / 'model'}", f"run_dir={folder / 'clips'}"]
    words += [f"prompts={out / 'prompts' / 'prompts.jsonl'}", "faces=toyworld", "crop_size=32"]
    run_stage(call, [*words, *of_sampling(more)], folder / "clips" / "manifest.jsonl")
    return folder / "clips"


def judged(clips: dict[str, Path], seed: int, out: Path, call: Call) -> dict[str, Figure]:
    """The figures of all arms of one seed, by name."""
    folder = out / "judged" / str(seed)
    words = ["eval", "identity", f"out={folder}", "faces=toyworld"]
    words += [f"+arms.{arm}={path}" for arm, path in clips.items()]
    pairs = ",".join(f"'{BASE},{arm}'" for arm in clips if arm != BASE)
    run_stage(call, [*words, f"compare=[{pairs}]"], folder / NUMBERS)
    return {figure.name: figure for figure in read_numbers(folder / NUMBERS)}


def summary(results: dict[int, dict[str, Figure]], arms: Sequence[str]) -> list[Figure]:
    """Of each arm and figure the mean over seeds, and the base less each other arm with the seeds' own intervals."""
    figures = []
    for arm in arms:
        part = "personalize" if arm == BASE else f"personalize/{arm}"
        for name in JUDGED:
            own = [found[f"{part}/{name}"].value for found in results.values() if f"{part}/{name}" in found]
            base = [
                found[f"personalize/{name}"].value
                for found in results.values()
                if f"personalize/{name}" in found
            ]
            if own:
                figures.append(over_seeds(f"personalize/{arm}/{name}", own, "mean over seeds"))
            if own and arm != BASE:
                differences = [one - other for one, other in zip(own, base, strict=True)]
                figures.append(
                    over_seeds(f"personalize/{arm}/{name}/minus_base", differences, "mean over seeds")
                )
    for seed, found in results.items():
        for name, figure in found.items():
            if "_minus_" in name:
                figures.append(
                    Figure(f"personalize/seed{seed}/{name.removeprefix('personalize/')}", *_rest(figure))
                )
    return figures


def _rest(figure: Figure) -> tuple:
    return figure.value, figure.low, figure.high, figure.n, figure.unit, figure.higher_is_better


def paper_said(figure: Figure) -> str:
    """What the paper found, beside a difference."""
    return PAPER.get(figure.name.split("/")[1], "") if figure.name.endswith("minus_base") else ""


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Run the sweep and write numbers.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--latents", type=Path, required=True, help="shards of `moviegen encode carry=[faces.npy]`"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/personalize"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=6, help="for each of the 16 held-out characters")
    parser.add_argument("more", nargs="*", help="overrides of every training, e.g. trainer.max_steps=100")
    given = parser.parse_args(arguments)
    if BASE not in given.arms:
        parser.error(f"--arms must name {BASE}, the base that the others are compared with")
    prompts = given.out / "prompts"
    words = [
        "eval",
        "prompts",
        f"out={prompts}",
        "heldout=0",
        "template=0",
        "free=[]",
        f"characters={given.prompts}",
    ]
    run_stage(call, words, prompts / "prompts.jsonl")
    results = {}
    for seed in given.seeds:
        ordered = sorted(given.arms, key=lambda arm: arm != BASE)
        clips = {arm: make_clips(arm, seed, given.out, given.latents, given.more, call) for arm in ordered}
        results[seed] = judged(clips, seed, given.out, call)
    report(given.out, summary(results, given.arms), "n", "arm against base", paper_said)


if __name__ == "__main__":
    main()
