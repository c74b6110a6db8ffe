"""Does the long text tower read what stands past 77 tokens? `python experiments/text/run.py --shards runs/text/shards`

Trains the tiny CLIP of clip_toy.yaml on pictures of the toy world with short captions, stretches its text tower to
256 tokens and finetunes it on long captions; beside it the tower of 77 tokens, which cuts them, is finetuned alike.
Each finds the pictures of held-out captions and the captions of held-out pictures among all. Finished trainings are
not run again. Writes numbers.json, and the table of the README, beside this file (or into --out). Names of figures:
text/...
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.nn.functional as F
from long_captions import write_pictures
from measured import fill, machine, today
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean, wilson
from sweeps import Call, process, run_stage
from torch import Tensor

from moviegen.data.batches import FixedBatches, Reader
from moviegen.data.shards import ShardFolder
from moviegen.runfolder import git_state
from moviegen.tasks.contrastive_task import ContrastiveTask
from moviegen.types import Batch

HERE = Path(__file__).parent
BATCH = 64  # pairs that are told from each other in the loss, as in training
BOOTSTRAP, SEED = 2000, 0
STATES = {  # state -> folder of its model, tokens that it reads, captions (bare: short ones without places)
    "base, short captions": ("base", 77, "short"),
    "base, short captions without their places": ("base", 77, "bare"),
    "base, long captions cut at 77 tokens": ("base", 77, "long"),
    "stretched to 256, before finetuning": ("base", 256, "long"),
    "finetuned at 77 tokens, long captions cut": ("cut", 77, "long"),
    "stretched to 256 and finetuned": ("long", 256, "long"),
}
CUT, LONG = list(STATES)[-2:]
PLACE = re.compile(
    r" the \w+ \w+ is in the \w+ column and in the \w+ row\."
)  # as long_captions ends a caption


@dataclass(frozen=True)
class Result:
    """What one state does on the held-out pairs."""

    loss: float  # of batches of BATCH pairs
    pictures: Tensor  # [N] bool: the caption's own picture is the nearest
    captions: Tensor  # [N] bool: the picture's own caption is the nearest


def train(out: Path, steps: int, finetuning: int, more: Sequence[str], call: Call) -> None:
    """The base on short captions, then both finetunings on long ones."""
    words = ["train", "experiments=text/clip_toy", "data.cache_bytes=1_000_000_000", *more]
    done = Path("clip") / "open_clip_model.safetensors"
    models, pictures = out / "models", out / "pictures"
    base = [f"run_dir={models / 'base'}", f"paths.shards={pictures / 'short'}", f"trainer.max_steps={steps}"]
    run_stage(call, [*words, *base, f"trainer.val_check_interval={steps}"], models / "base" / done)
    start = [
        "task.sizes=null",
        f"task.clip={models / 'base' / 'clip'}",
        "task.train_images=false",
        "optimizer.lr=2e-4",
    ]
    length = [f"trainer.max_steps={finetuning}", f"trainer.val_check_interval={finetuning}"]
    for name, tokens in (("cut", 77), ("long", 256)):
        own = [
            f"run_dir={models / name}",
            f"paths.shards={pictures / 'long'}",
            f"task.context_length={tokens}",
        ]
        run_stage(call, [*words, *start, *length, *own], models / name / done)


def held_out(folder: Path, fields: ContrastiveTask) -> Batch:
    """All validation pairs of a folder of shards, as one batch."""
    sets = ShardFolder(str(folder)).sets("val", "*")
    batches = FixedBatches(sets, 10**6, Reader(fields.fields))
    assert len(batches) == 1, f"{folder}: held-out pictures of several sizes"
    return batches[0]


@torch.no_grad()
def measure(model: Path, tokens: int, folder: Path, kind: str) -> Result:
    """The held-out pairs with a kind of captions, under the model in a folder, which reads so many tokens."""
    task = ContrastiveTask(clip=str(model), context_length=tokens).eval()
    batch = held_out(folder / ("short" if kind == "bare" else kind), task)
    texts = [PLACE.sub("", text) if kind == "bare" else text for text in batch.inputs["text"]]
    seen = task.pictures(batch).split(BATCH)
    pictures = torch.cat([_normal(task.clip.encode_image(part)) for part in seen])
    words = task.tokenize(texts)
    captions = torch.cat([_normal(task.clip.encode_text(part)) for part in words.split(BATCH)])
    scale = task.clip.logit_scale.exp()
    losses = [
        (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        for one, other in zip(pictures.split(BATCH), captions.split(BATCH), strict=True)
        for logits, own in [(scale * one @ other.T, torch.arange(len(one)))]
    ]
    near, own = pictures @ captions.T, torch.arange(len(pictures))
    return Result(float(torch.stack(losses).mean()), near.argmax(0) == own, near.argmax(1) == own)


def _normal(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def figures(results: dict[str, Result]) -> list[Figure]:
    """Loss and share of nearest pictures and captions of every state; long less cut with a paired interval."""
    found = []
    for state, result in results.items():
        name = f"text/{state.replace(',', '').replace(' ', '_')}"
        found.append(Figure(f"{name}/loss", result.loss, None, None, len(result.pictures), "nats", False))
        for kind in ("pictures", "captions"):
            hits = getattr(result, kind)
            low, high = wilson(int(hits.sum()), len(hits)) or (None, None)
            share = float(hits.double().mean())
            found.append(Figure(f"{name}/{kind}", share, low, high, len(hits), "share", True))
    for kind in ("pictures", "captions"):
        more = (getattr(results[LONG], kind).double() - getattr(results[CUT], kind).double()).numpy()
        low, high = bootstrap_mean(more, BOOTSTRAP, SEED) or (None, None)
        found.append(
            Figure(f"text/long_minus_cut/{kind}", float(more.mean()), low, high, len(more), "share", True)
        )
    return found


def rows(found: Sequence[Figure]) -> list[tuple[str, str]]:
    """The figures as lines of the README's table."""
    lines = []
    for figure in found:
        interval = "" if figure.low is None else f" ({figure.low:.3f} .. {figure.high:.3f})"
        lines.append((figure.name, f"{figure.value:.3f}{interval}"))
    return lines


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Train what is missing, measure, and write numbers.json and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="toyworld clips of `moviegen data build`")
    parser.add_argument("--work", type=Path, default=Path("runs/text"), help="pictures and models")
    parser.add_argument("--steps", type=int, default=2000, help="of the base")
    parser.add_argument("--finetuning", type=int, default=500, help="steps on long captions")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("more", nargs="*", help="overrides of every training, e.g. num_threads=1")
    given = parser.parse_args(arguments)
    busy, begin = machine(), time.monotonic()
    for name in ("short", "long"):
        write_pictures(given.shards, given.work / "pictures" / name, long=name == "long")
    train(given.work, given.steps, given.finetuning, given.more, call)
    results = {
        state: measure(given.work / "models" / model / "clip", tokens, given.work / "pictures", captions)
        for state, (model, tokens, captions) in STATES.items()
    }
    found = figures(results)
    write_numbers(given.out / NUMBERS, found)
    facts = (
        f"{today()}, {(time.monotonic() - begin) / 60:.0f} minutes, {busy}, commit {git_state()['commit']}"
    )
    if (given.out / "README.md").is_file():
        fill(given.out / "README.md", [("measured", facts), *rows(found)])
    for name, value in rows(found):
        print(f"{name:62} {value}")


if __name__ == "__main__":
    main()
