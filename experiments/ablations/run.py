"""The paper's Table 8 at toy size, in one command: `python experiments/ablations/run.py --latents runs/toy/latents`

Each arm is a training recipe beside this file; each is trained with several seeds, makes clips of held-out prompts and
is judged by the oracle. Means over seeds, and the differences to the base of the same seed, get Student's interval.
Stages that are finished are not run again. Writes numbers.json and table.md into the output folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from captions import rewrite
from moviegen_eval.numbers import NUMBERS, Figure, read_numbers
from sweeps import Call, of_sampling, over_seeds, process, report, run_stage

from moviegen.config import compose

BASE = "flow_matching"
ARMS = (BASE, "diffusion", "dit_block", "still_captions")
PAPER = {  # net win rate of the base over the arm: quality, alignment (Table 8)
    "diffusion": "16.53 / 7.08",
    "dit_block": "18.63 / 12.60",
    "still_captions": "-0.80 / 10.80",
}
JUDGED = ("t2v/colour", "t2v/shape", "t2v/motion", "t2v/interaction", "t2v/background", "t2v/camera")


def sampler_words(arm: str) -> list[str]:
    """What the arm's recipe says of sampling, for `moviegen generate`."""
    sampler = compose("train", [f"experiments=ablations/{arm}"]).sampler
    return [f"sampler.{name}={sampler[name]}" for name in ("solver", "schedule", "num_steps", "guidance")]


def run_arm(
    arm: str, seed: int, out: Path, latents: Path, prompts: Path, more: Sequence[str], call: Call
) -> dict[str, float]:
    """Train, generate and judge one arm with one seed; its figures by name."""
    folder = out / arm / str(seed)
    train = ["train", f"experiments=ablations/{arm}", f"seed={seed}", f"run_dir={folder / 'run'}"]
    run_stage(call, [*train, f"paths.latents={latents}", *more], folder / "run" / "model.safetensors")
    words = [
        "generate",
        f"model={folder / 'run' / 'model'}",
        f"prompts={prompts}",
        f"run_dir={folder / 'clips'}",
    ]
    words += [*sampler_words(arm), *of_sampling(more)]
    run_stage(call, words, folder / "clips" / "manifest.jsonl")
    judge = ["eval", "judge", f"out={folder / 'judged'}", f"generations={folder / 'clips'}", "level=4"]
    run_stage(call, judge, folder / "judged" / NUMBERS)
    found = {figure.name: figure.value for figure in read_numbers(folder / "judged" / NUMBERS)}
    return {name: found[name] for name in JUDGED if name in found}


def summary(results: dict[str, dict[int, dict[str, float]]]) -> list[Figure]:
    """Of each arm and figure: the mean over seeds, and the mean difference to the base of the same seed."""
    figures = []
    for arm, by_seed in results.items():
        for name in JUDGED:
            values = {seed: found[name] for seed, found in by_seed.items() if name in found}
            if values:
                figures.append(over_seeds(f"ablations/{arm}/{name}", list(values.values()), "share"))
            base = {seed: found[name] for seed, found in results[BASE].items() if name in found}
            both = sorted(values.keys() & base.keys())
            if arm != BASE and both:
                differences = [values[seed] - base[seed] for seed in both]
                figures.append(over_seeds(f"ablations/{arm}/{name}/minus_base", differences, "difference"))
    return figures


def paper_said(figure: Figure) -> str:
    """What the paper found, beside a difference."""
    return PAPER.get(figure.name.split("/")[1], "") if figure.name.endswith("minus_base") else ""


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Run the sweep and write numbers.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True, help="shards of `moviegen encode`")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=96, help="held-out combinations that are judged")
    parser.add_argument("more", nargs="*", help="overrides of every training, e.g. trainer.max_steps=100")
    given = parser.parse_args(arguments)
    if BASE not in given.arms:
        parser.error(f"--arms must name {BASE}, the base that the others are compared with")
    prompts = given.out / "prompts"
    words = [
        "eval",
        "prompts",
        f"out={prompts}",
        f"heldout={given.prompts}",
        "template=0",
        "free=[]",
        "level=4",
    ]
    run_stage(call, words, prompts / "prompts.jsonl")
    still = given.out / "still_latents"
    results: dict[str, dict[int, dict[str, float]]] = {}
    for arm in given.arms:
        if arm == "still_captions":
            text = compose("train", [f"experiments=ablations/{arm}"]).task.conditioners.text
            rewrite(given.latents, still, text.encoder, text.max_tokens)
        latents = still if arm == "still_captions" else given.latents
        results[arm] = {
            seed: run_arm(arm, seed, given.out, latents, prompts / "prompts.jsonl", given.more, call)
            for seed in given.seeds
        }
    report(given.out, summary(results), "seeds", "base over arm, quality / alignment", paper_said)


if __name__ == "__main__":
    main()
