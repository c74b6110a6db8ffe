"""What `moviegen edit keep=` is set to, on scenes of TRAINING: `python experiments/edit/keep/measure.py --out FOLDER`

Edits of the toy world with combinations of attributes that training shows (and a seed that neither training nor the
judged set uses) are sampled once, without `keep`, and their latents kept in FOLDER; then every setting is judged by the
oracle on what the codec makes of them. No H.264 and no watermark are between, as `moviegen edit` would have them.
Prints a table, best first, and the kinds of the best; writes both into FOLDER/table.md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.edit_oracle import look
from moviegen_data.toyworld.edits import KINDS
from moviegen_data.toyworld.world import EditPair
from moviegen_eval.edit_set import SEGMENT, TASKS, judged_pair
from moviegen_eval.edits import psnr

from moviegen.config import build, compose
from moviegen.keep import Keep, blended, shares
from moviegen.modelfile import load_task, locate
from moviegen.pixels import from_uint8, to_uint8
from moviegen.runfolder import file_sha256, write_text
from moviegen.tasks.editing import EditBatch, EditSampler, edit_latents
from moviegen.types import Latent, VideoClip

SEED, LEVEL, MARGIN = 301, 4, 1.0  # of the pairs; dB that may be lost, as conf/edits.yaml
COLUMNS = ("changed", "attributes", "pixels", "right", "edited")


@dataclass(frozen=True)
class Sampled:
    """An edit that was sampled, and what the codec makes of its source; frames uint8 [T, H, W, 3]."""

    pair: EditPair
    edited: np.ndarray
    base: np.ndarray


def task(pair: EditPair) -> str:
    """What the model calls this kind of edit."""
    return TASKS.get(pair.kind, pair.kind)


def wanted(kinds: Sequence[str], per_kind: int) -> list[EditPair]:
    """The first edits of each kind; of painting, of scenes in which nothing acts on another."""
    world = World(WorldConfig(level=LEVEL, combos="train"))
    left, pairs = dict.fromkeys(kinds, per_kind), []
    for index in itertools.count():
        if not any(left.values()):
            return pairs
        for pair in (judged_pair(world, "", SEED, index), judged_pair(world, SEGMENT, SEED, index)):
            alone = pair.kind != SEGMENT or pair.before.truth["spec"]["interaction"] is None
            if left.get(pair.kind) and alone:
                left[pair.kind] -= 1
                pairs.append(pair)
    raise AssertionError


def digest(checkpoint: str, *others: object) -> str:
    """Names what latents depend on: other weights, another sampler or other edits make others."""
    base = locate(checkpoint)
    weights = file_sha256(base.with_name(base.name + ".safetensors"))
    return hashlib.sha256(f"{weights} {others}".encode()).hexdigest()[:8]


def sampled(checkpoint: str, pairs: Sequence[EditPair], file: Path, sampler: EditSampler) -> list[Sampled]:
    """All edits by one model; latents that are in the file are not made again."""
    model = load_task(checkpoint).eval()
    with torch.no_grad():
        clips = [from_uint8(pair.before.frames)[None] for pair in pairs]
        sources = torch.cat(
            [model.codec.encode(VideoClip(clip, torch.tensor([8.0]))).values for clip in clips]
        )
        parts = [np.load(file, allow_pickle=False)] if file.is_file() else []
        done = len(parts[0]) if parts else 0
        for start in range(done, len(pairs), 16):
            part, source = pairs[start : start + 16], sources[start : start + 16]
            batch = EditBatch(
                Latent(source, torch.full((len(part),), 8.0)),
                [pair.instruction for pair in part],
                [task(pair) for pair in part],
                torch.arange(start, start + len(part)),
            )
            parts.append(edit_latents(model, batch, sampler).values.float().numpy())
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, np.concatenate(parts))
            print(f"{start + len(part)} of {len(pairs)} sampled", flush=True)
        edited = torch.from_numpy(np.concatenate(parts))

        def decoded(latents: torch.Tensor) -> list[np.ndarray]:
            return [
                to_uint8(model.codec.decode(Latent(one[None], torch.ones(1))).frames[0]) for one in latents
            ]

        shown = zip(pairs, decoded(edited), decoded(sources), strict=False)
        return [Sampled(*one) for one in shown]


def judged(one: Sampled, keep: Keep | None) -> list[float]:
    """COLUMNS of one edit: the last is the share of its pixels that are the edit's."""
    kind, source, ends = one.pair.kind, one.pair.before.frames, (one.pair.before.truth, one.pair.after.truth)
    frames, part = one.edited, 1.0
    if keep is not None:
        frames, part = kept(one, keep)
    seen = look(kind, *ends, frames, source)
    like = one.pair.after.frames if kind == "style" else source
    pixels = psnr(frames, like, seen.same) >= psnr(one.base, source, seen.same) - MARGIN
    return [seen.changed, seen.kept, pixels, seen.changed and seen.kept and pixels, part]


def kept(one: Sampled, keep: Keep) -> tuple[np.ndarray, float]:
    """The frames of an edit with its source where nothing was changed, and the share that is the edit's."""
    found = list(shares(zip(one.edited, one.base, strict=True), keep))
    part = float(np.mean([mask.mean() for _, mask in found]))
    sources = one.pair.before.frames
    return np.stack(
        [blended(edited, source, mask) for (edited, mask), source in zip(found, sources, strict=True)]
    ), part


def line(name: str, rows: Sequence[Sequence[float]]) -> str:
    means = np.mean(np.array(rows, dtype=float), axis=0)
    return f"| {name} | {len(rows)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="latents and table.md go here")
    parser.add_argument("--checkpoint", default="experiments/toy/weights/edit")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, SEGMENT], choices=[*KINDS, SEGMENT])
    parser.add_argument("--per-kind", type=int, default=16)
    parser.add_argument(
        "--more", nargs="*", default=[], help="overrides of moviegen edit: sampler.guidance=2"
    )
    for name, default in (("low", [32, 48, 64]), ("high", [64, 80, 96])):
        parser.add_argument(f"--{name}", type=float, nargs="+", default=default)
    for name, default in (("slack", [1]), ("smooth", [3]), ("grow", [1]), ("soft", [1])):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=default)
    parser.add_argument("--spare", nargs="*", default=["background", "style"], help="tasks left as they are")
    asked = parser.parse_args(argv)
    words = ["video=x", "instruction=x", f"checkpoint={asked.checkpoint}", *asked.more]
    sampler = build(compose("edit", words)).sampler
    file = asked.out / f"latents-{digest(asked.checkpoint, sampler, asked.kinds, asked.per_kind)}.npy"
    edits = sampled(asked.checkpoint, wanted(asked.kinds, asked.per_kind), file, sampler)
    names = ("low", "high", "slack", "smooth", "grow", "soft")
    rows: dict[str, list[list[float]]] = {"off": [judged(one, None) for one in edits]}
    for values in itertools.product(*(getattr(asked, name) for name in names)):
        if values[0] > values[1]:
            continue
        keep = Keep(**dict(zip(names, values, strict=True)), spare=tuple(asked.spare))
        title = " ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
        rows[title] = [
            same if task(one.pair) in keep.spare else judged(one, keep)
            for one, same in zip(edits, rows["off"], strict=True)
        ]
        print(line(title, rows[title]), flush=True)
    order = sorted(rows, key=lambda title: -np.mean(rows[title], axis=0)[COLUMNS.index("right")])
    head = [f"| keep | n | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    kinds = [
        line(
            f"{kind}: {title}",
            [row for row, one in zip(rows[title], edits, strict=True) if one.pair.kind == kind],
        )
        for kind in asked.kinds
        for title in ("off", order[0])
    ]
    text = "\n".join([*head, *(line(title, rows[title]) for title in order), "", *head, *kinds]) + "\n"
    write_text(asked.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
