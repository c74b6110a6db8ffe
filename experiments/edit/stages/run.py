"""The stages of editing against each other at toy size: `python experiments/edit/stages/run.py --latents FOLDER`

With several seeds: stage I (single frames), stage II (frames in motion, segmentation) and stage III (back-translation
of real clips by stage II), each from the one before, and `longer`: stage II for as long as stage III on other draws,
so that more steps are no explanation. All edit the same videos of held-out scenes and are judged by the oracle. Arms
are compared by the mean over the kinds of edits that every stage is taught: without `segment`, which stage I never saw,
and without pictures; each kind, these two too, has rows of its own. Over seeds means and differences get Student's
interval. All commands are composed before the first runs; finished ones are not run again. Writes numbers.json and
table.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[2]))

from moviegen_data.toyworld.edits import KINDS
from moviegen_eval.edit_set import IMAGE, SEGMENT
from moviegen_eval.edits import SHARES
from moviegen_eval.numbers import NUMBERS, Figure, read_numbers
from sweeps import Call, check_command, of_sampling, over_seeds, process, report, run_stage

STAGES = ("stage1", "stage2", "stage3")
ARMS = (*STAGES, "longer", "copy")
PAIRS = (
    ("stage2", "stage1"),
    ("stage3", "stage2"),
    ("stage3", "longer"),
)  # shown as the first less the second
PAPER = {  # human win rate of the first, 50 is a tie
    "stage2_minus_stage1": "89.29 (Table 22)",
    "stage3_minus_longer": "70.23 against finetuning on its own edits (Table 21)",
}
OF_KINDS = ("changed", "kept", "right")  # what is shown of each kind
OTHER_SEED = (
    1000  # added for `longer`: with stage II's own it would see those batches and that noise once more
)

Step = tuple[list[str], Path]  # a command and the file that it leaves


@dataclass(frozen=True)
class Sweep:
    """What all stages share."""

    out: Path
    latents: Path  # of real clips with captions, for text-to-video and stage III
    per_kind: int
    build: tuple[str, ...]  # overrides of the data
    edit: tuple[str, ...]  # overrides of every editing
    more: tuple[str, ...]  # overrides of every training

    def judged(self, seed: int) -> Path:
        """The folder of one seed's figures."""
        return self.out / str(seed) / "judged"


def data(sweep: Sweep) -> list[Step]:
    """Pairs of stages I and II with their latents, and the videos that all arms edit."""
    pairs, edits, judged = (sweep.out / name for name in ("pairs", "edits", "set"))
    build = ["data", "build", "source=[edit_stages]", f"out={pairs}", *sweep.build]
    encode = ["encode", f"shards={pairs}", "match='*'", f"run_dir={edits}", "num_threads=1"]
    asked = ["eval", "edit_set", f"out={judged}", f"per_kind={sweep.per_kind}", "seed=400"]
    return [
        (build, pairs / "index.json"),
        (encode, edits / "index.json"),
        (asked, judged / "edits.jsonl"),
    ]


def train(sweep: Sweep, seed: int) -> list[Step]:
    """The models of one seed."""
    folder, back = sweep.out / str(seed), sweep.out / str(seed) / "back"
    common = [f"paths.latents={sweep.latents}", f"paths.edits={sweep.out / 'edits'}", *sweep.more]

    def training(arm: str, recipe: str, own_seed: int, *words: str) -> Step:
        told = [f"experiments=edit/toy/{recipe}", f"run_dir={folder / arm}", f"seed={own_seed}"]
        return ["train", *told, *common, *words], folder / arm / "model.safetensors"

    def after(arm: str) -> str:
        return f"init_from={folder / arm / 'model'}"

    loop = ["backtranslate", f"checkpoint={folder / 'stage2' / 'model'}", f"latents={sweep.latents}"]
    loop += [f"run_dir={back}", "match=train-toyworld-*", "max_clips=1500"]
    return [
        training("stage1", "stage1", seed),
        training("stage2", "stage2", seed, after("stage1")),
        ([*loop, *of_sampling(sweep.edit), f"sampler.seed={seed}"], back / "index.json"),
        training("stage3", "stage3", seed, after("stage2"), f"paths.back={back}"),
        training("longer", "stage2", seed + OTHER_SEED, after("stage2"), "after=edit2", "stage=edit2"),
    ]


def judge(sweep: Sweep, seed: int) -> list[Step]:
    """Edit with every model of one seed, and judge."""
    folder, steps = sweep.out / str(seed), []
    words = ["eval", "edits", f"out={sweep.judged(seed)}", f"set={sweep.out / 'set'}", "~bars"]
    for arm in ARMS:
        clips = folder / "clips" / arm
        model = folder / ("stage1" if arm == "copy" else arm) / "model"  # a copy asks its codec alone
        edit = ["edit", f"checkpoint={model}", f"edits={sweep.out / 'set' / 'edits.jsonl'}"]
        edit += [f"run_dir={clips}", "strips=false", *sweep.edit, f"sampler.seed={seed}"]
        steps.append((edit + (["baseline=copy"] if arm == "copy" else []), clips / "manifest.jsonl"))
        words.append(f"+arms.{arm}={clips}")
    return [*steps, (words, sweep.judged(seed) / NUMBERS)]


def summary(results: dict[int, dict[str, Figure]]) -> list[Figure]:
    """Of each arm and share the mean over seeds, and the differences of arms of the same seed; then kind by kind."""
    figures = _of_kinds(results, "", KINDS, (*SHARES, "psnr", "consistency"))
    for kind in (*KINDS, SEGMENT, IMAGE):
        figures += _of_kinds(results, f"{kind}/", (kind,), OF_KINDS)
    return figures


def _of_kinds(
    results: dict[int, dict[str, Figure]], part: str, kinds: Sequence[str], names: Sequence[str]
) -> list[Figure]:
    """Figures of the mean over some kinds; all kinds have as many edits."""
    figures = []
    for name in names:
        values = {
            arm: [
                _mean(found, kinds, name if arm == STAGES[0] else f"{arm}/{name}")
                for found in results.values()
            ]
            for arm in ARMS
        }
        for one, other in PAIRS:
            pairs = zip(values[one], values[other], strict=True)
            values[f"{one}_minus_{other}"] = [mine - theirs for mine, theirs in pairs]
        unit = f"{'dB' if name == 'psnr' else 'share'}, mean over seeds"
        figures += [over_seeds(f"stages/{arm}/{part}{name}", own, unit) for arm, own in values.items()]
    return figures


def _mean(found: dict[str, Figure], kinds: Sequence[str], name: str) -> float:
    return fmean(found[f"edit/{kind}/{name}"].value for kind in kinds)


def paper_said(figure: Figure) -> str:
    """What the paper found, beside a difference over all kinds."""
    _, arm, *rest = figure.name.split("/")
    return PAPER.get(arm, "") if len(rest) == 1 else ""


def asked(arguments: Sequence[str] | None) -> tuple[Sweep, list[int], list[Step]]:
    """The sweep, its seeds and commands in their order; a command that does not compose ends the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--latents", type=Path, required=True, help="shards of `moviegen encode` of toyworld clips"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/edit/stages"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-kind", type=int, default=32, help="edits of each kind that are judged")
    for name, of, example in (
        ("build", "the data", "sources.frames.count=500"),
        ("edit", "every editing (those of the sampler, of back-translation too)", "sampler.num_steps=25"),
    ):
        told = f"an override of {of}, e.g. {example}; may be given several times"
        parser.add_argument(f"--{name}", action="append", default=[], metavar="KEY=VALUE", help=told)
    parser.add_argument("more", nargs="*", help="overrides of every training, e.g. trainer.max_steps=100")
    given = parser.parse_args(arguments)
    words = (tuple(words) for words in (given.build, given.edit, given.more))
    sweep = Sweep(given.out, given.latents, given.per_kind, *words)
    steps = data(sweep)
    for seed in given.seeds:
        steps += [*train(sweep, seed), *judge(sweep, seed)]
    try:
        for command, _ in steps:
            check_command(command)
    except ValueError as error:
        parser.error(str(error))
    return sweep, given.seeds, steps


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Run everything and write numbers.json and table.md."""
    sweep, seeds, steps = asked(arguments)
    for words, output in steps:
        run_stage(call, words, output)
    found = {seed: read_numbers(sweep.judged(seed) / NUMBERS) for seed in seeds}
    results = {seed: {figure.name: figure for figure in own} for seed, own in found.items()}
    report(sweep.out, summary(results), "seeds", "win rate of the first", paper_said)


if __name__ == "__main__":
    main()
