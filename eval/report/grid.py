"""Pairs of videos on the page: drawn by a printed seed, never chosen; both play in step, with filters.

Every video is decoded in the sandbox and encoded anew and small, so that no foreign container reaches the reader's
browser. Videos start to load when they come into view.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from moviegen_eval.arms.fair import resized
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.comparison import Comparison
from moviegen_eval.report.markup import section, tag, text
from moviegen_eval.study.analysis import Analysis
from moviegen_eval.study.equalize import PICTURES
from moviegen_eval.study.study import Item, Study
from PIL import Image
from tqdm import tqdm

from moviegen.media import Limits, MediaError, encode_video, read_clip, read_image, to_png_bytes

SCRIPT = Path(__file__).with_name("grid.js")
CLIP_LIMITS = Limits(max_frames=1024, max_bytes=1 << 30)
CRF = 27
OUTCOMES = {1: "first", 0: "tie", -1: "second"}


def grid_section(
    comparison: Comparison, num_items: int, seed: int, height: int, max_seconds: float, budget: Budget
) -> str:
    """The grid with its filters; a note where there is nothing to show."""
    study, analysis = comparison.study, comparison.analysis
    if study is None or num_items == 0:
        return ""
    items = draw_items(study, num_items, seed)
    total = sum(item.gold is None for item in study.items)
    words = f"{len(items)} of {total} pairs, drawn with seed {seed} and not chosen."
    cards = [
        _card(study, analysis, item, height, max_seconds, budget)
        for item in tqdm(items, "page: pairs", unit="pair")
    ]
    kinds = sorted({kind for item in items for kind in item.tags})
    filters = [_filter(kind, sorted({v for item in items for v in values(item, kind)})) for kind in kinds]
    filters.append(_filter("comparison", sorted({f"{item.arm_a} vs {item.arm_b}" for item in items})))
    if analysis is not None:
        filters.append(_filter("outcome", list(OUTCOMES.values())))
        filters.append(_filter("raters", ["agree", "disagree"]))
    controls = tag(
        "div",
        *filters,
        tag("button", "play all", type="button", data_role="play"),
        tag("button", "pause all", type="button", data_role="pause"),
        tag("span", "", data_role="count", class_="caption"),
        class_="controls",
    )
    body = tag("div", *cards, class_="grid", data_role="grid")
    return section("Pairs of videos", tag("p", text(words), class_="caption"), controls, body, id_="grid")


def draw_items(study: Study, count: int, seed: int) -> list[Item]:
    """A seeded sample without gold items, in the study's order."""
    plain = [item for item in study.items if item.gold is None]
    picked = np.random.default_rng(seed).permutation(len(plain))[:count]
    return [plain[position] for position in sorted(picked.tolist())]


def values(item: Item, kind: str) -> list[str]:
    """The values of an item's tag."""
    return [part.strip() for part in item.tags.get(kind, "").split(",") if part.strip()]


def _filter(kind: str, options: Sequence[str]) -> str:
    choices = [tag("option", "all", value="")]
    choices += [tag("option", text(option), value=option) for option in options]
    return tag("label", text(kind.replace("_", " ")), " ", tag("select", *choices, data_filter=kind))


def _card(
    study: Study, analysis: Analysis | None, item: Item, height: int, max_seconds: float, budget: Budget
) -> str:
    """Two videos side by side, the prompt, the arms' names and all votes."""
    sides = []
    if reference := study.reference(item):
        shown = (_picture if reference.suffix.lower() in PICTURES else _video)(
            reference, height, max_seconds, budget
        )
        sides.append(tag("div", shown, tag("span", "reference"), class_="side"))
    for side, arm in (("a", item.arm_a), ("b", item.arm_b)):
        path = study.video(item, side)  # type: ignore[arg-type]
        sides.append(
            tag("div", _video(path, height, max_seconds, budget), tag("span", text(arm)), class_="side")
        )
    facets = {kind: "|".join(values(item, kind)) for kind in item.tags}
    facets["comparison"] = f"{item.arm_a} vs {item.arm_b}"
    votes = []
    if analysis is not None:
        facets |= _outcome(analysis, item)
        votes = _votes(analysis, item)
    parts = [tag("div", *sides, class_="both"), tag("p", text(item.prompt), class_="prompt")]
    parts.append(
        tag("p", text(f"{item.id}: {', '.join(map(': '.join, sorted(item.tags.items())))}"), class_="facts")
    )
    if votes:
        parts.append(tag("ul", *votes, class_="verdict"))
    facts = "\n".join(f"{kind}={value}" for kind, value in facets.items())
    return tag("figure", *parts, data_facets=facts)


def _outcome(analysis: Analysis, item: Item) -> dict[str, str]:
    """The majority on the first axis with votes, and whether its raters were of one mind."""
    for axis in analysis.axes:
        counts = analysis.item(item.id, axis)
        if counts.total:
            tops = [counts.wins, counts.ties, counts.losses]
            leader = [1, 0, -1][tops.index(max(tops))] if tops.count(max(tops)) == 1 else 0
            mind = "agree" if max(tops) == counts.total else "disagree"
            return {"outcome": OUTCOMES[leader], "raters": mind}
    return {}


def _votes(analysis: Analysis, item: Item) -> list[str]:
    found = []
    for axis in analysis.axes:
        counts = analysis.item(item.id, axis)
        if counts.total:
            words = f"{axis.replace('_', ' ')} {counts.wins}-{counts.ties}-{counts.losses}"
            found.append(tag("li", text(words)))
    return found


def _video(path: Path, height: int, max_seconds: float, budget: Budget) -> str:
    """A video element that loads when it is seen, or why there is none."""
    try:
        data = small_copy(path, height, max_seconds)
    except (MediaError, OSError) as error:
        reason = error.reason if isinstance(error, MediaError) else str(error.strerror)
        return tag("div", text(f"cannot be read: {reason}"), class_="missing")
    if len(data) > budget.left:
        budget.num_left_out += 1
        return tag("div", "left out: the page's size limit is reached", class_="missing")
    budget.left -= len(data)
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    return tag("video", data_src=source, loop=True, muted=True, playsinline=True, preload="none")


def _picture(path: Path, height: int, _: float, budget: Budget) -> str:
    """A picture, small and encoded anew, or why there is none."""
    try:
        image = Image.fromarray(read_image(path))
    except (MediaError, OSError) as error:
        return tag("div", text(f"cannot be read: {error}"), class_="missing")
    image.thumbnail((4 * height, height))
    return budget.embed(to_png_bytes(np.asarray(image)), small=False) or tag(
        "div", "left out: the page's size limit is reached", class_="missing"
    )


def small_copy(path: Path, height: int, max_seconds: float) -> bytes:
    """The beginning of a video without sound at no more than a height in pixels, as mp4."""
    clip = read_clip(path, limits=CLIP_LIMITS)
    frames = clip.frames[: max(1, round(max_seconds * clip.frame_rate))]
    tall, wide = frames.shape[1:3]
    if tall > height:
        frames = resized(frames, max(2, round(wide * height / tall / 2) * 2), height // 2 * 2)
    pads = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    return encode_video(np.pad(frames, pads, mode="edge"), clip.frame_rate, crf=CRF)
