"""What the toyworld oracle says of clips: one verdict a clip, and the figures, floors and ceilings from them.

The oracle measures pixels; a model never sees its answers. A clip that cannot be read is judged as a black
one, so that a missing or broken file counts as wrong and never as absent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_eval.files import read_json_lines, write_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.records import parse_record
from moviegen_eval.stats import Share, derangement, prompt_share
from moviegen_eval.stills import is_still, observe_image

from moviegen.media import Limits, read_clip, read_image

VERDICTS = "verdicts.jsonl"
CLIP_LIMITS = Limits(max_frames=4096, max_bytes=1 << 30)
NOTHING = "none"
OF_SPRITES = {
    "colour": "color",
    "shape": "shape",
    "size": "size",
    "motion": "motion",
}  # figure: the world's word
OF_CLIP = ("background", "camera", "interaction")


@dataclass(frozen=True)
class Verdict:
    """The oracle's judgment of one clip; one line of `verdicts.jsonl`."""

    id: str
    kind: str  # "generated", or "ceiling": ground truth through the autoencoder and H.264
    set: str  # "heldout", "template", "free"; "toyworld" for the ceiling
    prompt: str
    path: str | None  # relative to the file's folder
    verdict: dict[str, bool]  # by attribute, only those that the spec states
    seen: dict[str, str]  # by attribute, what the oracle saw
    spec: dict[str, Any] | None = None
    error: str | None = None  # why the clip could not be read
    origin: dict[str, Any] = field(default_factory=dict)  # system, seed, steps, guidance, checkpoint, commit
    original: str | None = None  # what the user wrote, where `prompt` is a rewriting of it
    image: str | None = None  # the first frame that was given, relative to the file's folder
    still: bool = False  # a picture, not a clip


@dataclass(frozen=True)
class Observed:
    """A verdict with the oracle's observation, which other specs can be held against (the floor)."""

    row: Verdict
    observation: oracle.Observation
    pair: tuple[np.ndarray, np.ndarray] | None = None  # the image that was given, and the clip's first frame


def observe_file(path: Path, number: int = 0) -> tuple[oracle.Observation, np.ndarray, str | None]:
    """Observe a clip or a still on disk: the observation, frame `number` or the last (uint8 [H, W, 3]), and None.

    Where it cannot be read: those of a black clip, and the reason. The clip may be of another system, so it is decoded
    in the sandbox.
    """
    try:
        if is_still(path):
            image = read_image(path, limits=CLIP_LIMITS)
            return observe_image(image), image, None
        clip = read_clip(path, limits=CLIP_LIMITS)
    except (ValueError, OSError) as error:
        black = np.zeros((8, 64, 64, 3), np.uint8)
        return oracle.observe(black, 8.0), black[0], " ".join(str(error).split())
    return oracle.observe(clip.frames, clip.frame_rate), clip.frames[min(number, len(clip.frames) - 1)], None


def describe(observation: oracle.Observation, spec: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What the oracle saw, in words by attribute; sprites in the order of the spec's colors if they match."""
    wanted = [sprite.get("color") for sprite in (spec or {}).get("sprites") or []]
    colors = {color: index for index, color in reversed(list(enumerate(wanted)))}
    sprites = sorted(observation.sprites, key=lambda sprite: colors.get(sprite.color, len(wanted)))
    seen = {
        key: " + ".join(getattr(sprite, name) for sprite in sprites) or NOTHING
        for key, name in OF_SPRITES.items()
    }
    return seen | {name: str(getattr(observation, name)) for name in OF_CLIP}


def judge_observation(spec: dict[str, Any] | None, observation: oracle.Observation) -> dict[str, bool]:
    """The oracle's answer per attribute that `spec` states; empty without a spec."""
    return {name: bool(right) for name, right in oracle.verdict(spec, observation).items()} if spec else {}


def attribute_figures(
    prefix: str,
    observed: Sequence[Observed],
    ceilings: Mapping[str, Share],
    unit: str,
    num_shuffles: int,
    seed: int,
) -> list[Figure]:
    """Accuracy `<prefix>/<attribute>` of the clips, each followed by its floor and its ceiling."""
    figures = []
    floors = shuffled_floor(observed, num_shuffles, seed)
    for attribute, share in accuracies([item.row for item in observed]).items():
        name = f"{prefix}/{attribute}"
        figures.append(share_figure(name, share, unit))
        if attribute in floors:
            value, low, high = floors[attribute]
            about = f"{unit}, mean and spread of {num_shuffles} shuffles"
            figures.append(Figure(f"{name}/floor", value, low, high, share.num_prompts, about, True))
        if attribute in ceilings:
            figures.append(share_figure(f"{name}/ceiling", ceilings[attribute], unit))
    return figures


def share_figure(name: str, share: Share, unit: str) -> Figure:
    """A proportion over prompts as a figure."""
    low, high = share.interval
    return Figure(name, share.value, low, high, share.num_prompts, unit, True)


def accuracies(rows: Sequence[Verdict]) -> dict[str, Share]:
    """Share of right answers by attribute, over the prompts that state it."""
    found: dict[str, Share] = {}
    for attribute in _attributes(rows):
        stated = [row for row in rows if attribute in row.verdict]
        share = prompt_share([row.prompt for row in stated], [row.verdict[attribute] for row in stated])
        assert share is not None
        found[attribute] = share
    return found


def _attributes(rows: Iterable[Verdict]) -> list[str]:
    """Attributes in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.verdict))


def shuffled_floor(
    observed: Sequence[Observed], num_shuffles: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Accuracy when every clip is held against another prompt's spec: mean, 2.5 % and 97.5 % over shuffles.

    A shuffle moves every prompt, with all its clips; the mean is what a model that ignores its prompt but
    makes clips like these would score. Empty below two prompts.
    """
    prompts = list(dict.fromkeys(item.row.prompt for item in observed))
    if len(prompts) < 2:
        return {}
    clips = {prompt: [item for item in observed if item.row.prompt == prompt] for prompt in prompts}
    rng = np.random.default_rng(seed)
    cache: dict[tuple[int, int], dict[str, list[bool]]] = {}
    shares: dict[str, list[float]] = {}
    for _ in range(num_shuffles):
        total: dict[str, list[float]] = {}
        for own, other in enumerate(derangement(len(prompts), rng)):
            pair = (own, int(other))
            if pair not in cache:
                cache[pair] = _answers(clips[prompts[own]], clips[prompts[other]][0].row.spec)
            for attribute, answers in cache[pair].items():
                total.setdefault(attribute, []).append(sum(answers) / len(answers))
        for attribute, values in total.items():
            shares.setdefault(attribute, []).append(sum(values) / len(values))
    return {attribute: spread(values) for attribute, values in shares.items()}


def _answers(clips: Sequence[Observed], spec: dict[str, Any] | None) -> dict[str, list[bool]]:
    answers: dict[str, list[bool]] = {}
    for clip in clips:
        for attribute, right in judge_observation(spec, clip.observation).items():
            answers.setdefault(attribute, []).append(right)
    return answers


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, 2.5 % and 97.5 % of values; the mean lies between."""
    mean = float(np.mean(values))
    low, high = np.quantile(values, (0.025, 0.975))
    return mean, min(float(low), mean), max(float(high), mean)


def reason(attribute: str, rows: Sequence[Verdict], ceiling: Figure | None) -> str:
    """Why an attribute falls short, from what was seen: unreadable clips and the commonest mistakes."""
    stated = [row for row in rows if attribute in row.verdict]
    wrong = [row for row in stated if not row.verdict[attribute]]
    if not wrong:
        return ""
    parts = [f"{len(wrong)} of {len(stated)} clips wrong"]
    broken = sum(row.error is not None for row in wrong)
    if broken:
        parts.append(f"{broken} unreadable")
    pairs = Counter((wanted(row, attribute), row.seen.get(attribute, "?")) for row in wrong)
    mistakes = [f"{count} x {wanted} seen as {seen}" for (wanted, seen), count in pairs.most_common(3)]
    parts.append("most often " + ", ".join(mistakes))
    if ceiling is not None:
        parts.append(f"ground truth through the autoencoder reaches {ceiling.value:.3f}")
    return "; ".join(parts)


def wanted(row: Verdict, attribute: str) -> str:
    """What the spec asks of an attribute, in the words of `describe`."""
    spec = row.spec or {}
    if attribute in OF_SPRITES:
        return (
            " + ".join(str(sprite.get(OF_SPRITES[attribute])) for sprite in spec.get("sprites") or [])
            or NOTHING
        )
    return str(spec.get(attribute, NOTHING))


def write_verdicts(folder: Path | str, rows: Sequence[Verdict]) -> None:
    """Write `<folder>/verdicts.jsonl` atomically."""
    write_json_lines(Path(folder) / VERDICTS, (asdict(row) for row in rows))


def read_verdicts(folder: Path | str) -> list[Verdict]:
    """Read what `write_verdicts` wrote; errors name file and line."""
    return [parse_record(Verdict, row, where) for where, row in read_json_lines(Path(folder) / VERDICTS)]


def relative_to(folder: Path | str, path: Path | str) -> str:
    """`path` as seen from `folder`, so that both can move together."""
    return os.path.relpath(Path(path).resolve(), Path(folder).resolve())
