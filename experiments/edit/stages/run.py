"""The stages of editing against each other at toy size: `python experiments/edit/stages/run.py --latents FOLDER`

With several seeds: stage I (single frames), stage II (frames in motion, segmentation) and stage III (back-translation
of real clips by stage II), each from the one before, and `longer`: stage II for as long as stage III, so that more
steps are no explanation. All edit the same videos of held-out scenes and are judged by the oracle. Over seeds means and
differences get Student's interval. Finished stages are not run again. Writes numbers.json and table.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from moviegen_eval.edits import SHARES
from moviegen_eval.numbers import NUMBERS, Figure, read_numbers
from sweeps import Call, over_seeds, process, report, run_stage

STAGES = ("stage1", "stage2", "stage3")
PAIRS = (
    ("stage2", "stage1"),
    ("stage3", "stage2"),
    ("stage3", "longer"),
)  # shown as the first less the second
PAPER = {  # human win rate of the first, 50 is a tie
    "stage2_minus_stage1": "89.29 (Table 22)",
    "stage3_minus_longer": "70.23 against finetuning on its own edits (Table 21)",
}


@dataclass(frozen=True)
class Sweep:
    """What all stages share."""

    out: Path
    latents: Path  # of real clips with captions, for text-to-video and stage III
    per_kind: int
    more: tuple[str, ...]  # overrides of every training
    edit: tuple[str, ...]  # overrides of every editing
    call: Call

    def run(self, words: Sequence[str], output: Path) -> None:
        """As `sweeps.run_stage`."""
        run_stage(self.call, words, output)


def data(sweep: Sweep, build: Sequence[str]) -> None:
    """Pairs of stages I and II with their latents, and the videos that all arms edit."""
    pairs = sweep.out / "pairs"
    sweep.run(["data", "build", "source=[edit_stages]", f"out={pairs}", *build], pairs / "index.json")
    words = ["encode", f"shards={pairs}", "match='*'", f"run_dir={sweep.out / 'edits'}", "num_threads=1"]
    sweep.run(words, sweep.out / "edits" / "index.json")
    words = ["eval", "edit_set", f"out={sweep.out / 'set'}", f"per_kind={sweep.per_kind}", "seed=400"]
    sweep.run(words, sweep.out / "set" / "edits.jsonl")


def train(sweep: Sweep, seed: int) -> dict[str, Path]:
    """The models of one seed by arm."""
    folder = sweep.out / str(seed)
    common = [
        f"seed={seed}",
        f"paths.latents={sweep.latents}",
        f"paths.edits={sweep.out / 'edits'}",
        *sweep.more,
    ]
    for stage, before in zip(STAGES, (None, *STAGES), strict=False):
        words = ["train", f"experiments=edit/toy/{stage}", f"run_dir={folder / stage}", *common]
        words += [f"init_from={folder / before / 'model'}"] if before else []
        if stage == "stage3":
            back = folder / "back"
            loop = ["backtranslate", f"checkpoint={folder / 'stage2' / 'model'}", f"latents={sweep.latents}"]
            loop += [
                f"run_dir={back}",
                "match=train-toyworld-*",
                f"sampler.seed={seed}",
                "max_clips=1500",
                *sweep.edit,
            ]
            sweep.run(loop, back / "index.json")
            words.append(f"paths.back={back}")
        sweep.run(words, folder / stage / "model.safetensors")
    longer = ["train", "experiments=edit/toy/stage2", f"run_dir={folder / 'longer'}", *common]
    longer += [f"init_from={folder / 'stage2' / 'model'}", "after=edit2", "stage=edit2"]
    sweep.run(longer, folder / "longer" / "model.safetensors")
    return {arm: folder / arm / "model" for arm in (*STAGES, "longer")}


def judge(sweep: Sweep, seed: int, models: dict[str, Path]) -> dict[str, Figure]:
    """Edit with every model of one seed and judge; figures by name."""
    folder, edits = sweep.out / str(seed), f"edits={sweep.out / 'set' / 'edits.jsonl'}"
    arms = {}
    for arm, model in models.items():
        arms[arm] = folder / "clips" / arm
        words = ["edit", f"checkpoint={model}", edits, f"run_dir={arms[arm]}", "strips=false", *sweep.edit]
        sweep.run([*words, f"sampler.seed={seed}"], arms[arm] / "manifest.jsonl")
    copy = sweep.out / "copy"
    words = [
        "edit",
        f"checkpoint={models['stage1']}",
        edits,
        f"run_dir={copy}",
        "baseline=copy",
        "strips=false",
    ]
    sweep.run(words, copy / "manifest.jsonl")
    words = ["eval", "edits", f"out={folder / 'judged'}", f"set={sweep.out / 'set'}", "bars={}"]
    words += [f"+arms.{arm}={path}" for arm, path in (*arms.items(), ("copy", copy))]
    sweep.run(words, folder / "judged" / NUMBERS)
    return {figure.name: figure for figure in read_numbers(folder / "judged" / NUMBERS)}


def summary(results: dict[int, dict[str, Figure]]) -> list[Figure]:
    """Of each arm and share the mean over seeds, and the differences of arms of the same seed."""
    figures = []

    def value(found: dict[str, Figure], arm: str, name: str) -> float:
        return found[f"edit/all/{name}" if arm == "stage1" else f"edit/all/{arm}/{name}"].value

    for name in (*SHARES, "psnr", "consistency"):
        for arm in (*STAGES, "longer", "copy"):
            values = [value(found, arm, name) for found in results.values()]
            figures.append(_over_seeds(f"stages/{arm}/{name}", values))
        for one, other in PAIRS:
            each = [value(found, one, name) - value(found, other, name) for found in results.values()]
            figures.append(_over_seeds(f"stages/{one}_minus_{other}/{name}", each))
    return figures


def _over_seeds(name: str, values: Sequence[float]) -> Figure:
    return over_seeds(name, values, f"{'dB' if name.endswith('psnr') else 'share'}, mean over seeds")


def paper_said(figure: Figure) -> str:
    """What the paper found, beside a difference."""
    return PAPER.get(figure.name.split("/")[1], "")


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Run everything and write numbers.json and table.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--latents", type=Path, required=True, help="shards of `moviegen encode` of toyworld clips"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/edit/stages"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-kind", type=int, default=32, help="edits of each kind that are judged")
    parser.add_argument(
        "--build", nargs="*", default=[], help="overrides of the data, e.g. sources.frames.count=500"
    )
    parser.add_argument(
        "--edit", nargs="*", default=[], help="overrides of editing, e.g. sampler.num_steps=25"
    )
    parser.add_argument("more", nargs="*", help="overrides of every training, e.g. trainer.max_steps=100")
    given = parser.parse_args(arguments)
    sweep = Sweep(given.out, given.latents, given.per_kind, tuple(given.more), tuple(given.edit), call)
    data(sweep, given.build)
    results = {seed: judge(sweep, seed, train(sweep, seed)) for seed in given.seeds}
    report(given.out, summary(results), "seeds", "win rate of the first", paper_said)


if __name__ == "__main__":
    main()
