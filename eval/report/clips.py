"""The clips of the page, inside it: generated ones with their verdicts, real ones beside reconstructions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moviegen_eval.baselines.pca import BlockPca
from moviegen_eval.pairs import ClipPair, Reconstruction, load_pair
from moviegen_eval.report.markup import note, section, tag, text
from moviegen_eval.verdicts import Verdict, wanted
from tqdm import tqdm

from moviegen.media import MediaError, encode_video, read_image, to_png_bytes

SET_TITLES = {
    "heldout": "Attribute combinations that were never trained on",
    "template": "A caption template that was never trained on",
    "free": "Free-form prompts, judged by what they say",
}
GIVEN = "image"  # kinds of generated files, for the titles
STILL = "still"
KIND_TITLES = {"": "", GIVEN: ": clips that were given their first frame", STILL: ": images"}
PNG = b"\x89PNG"
GAP = 4  # pixels between the clips of a strip
STRIP_CRF = 12  # finer than generation's, so that the page shows the autoencoder's losses and not H.264's


@dataclass
class Budget:
    """Bytes of video that may still go on the page, and how many clips were left out for their size."""

    left: int
    num_left_out: int = 0

    def embed(self, data: bytes, small: bool) -> str | None:
        """A playing video element, or a picture for a PNG; None when the page would grow too large."""
        if len(data) > self.left:
            self.num_left_out += 1
            return None
        self.left -= len(data)
        encoded = base64.b64encode(data).decode()
        size = "small" if small else None
        if data.startswith(PNG):
            return tag("img", src=f"data:image/png;base64,{encoded}", alt="", class_=size).removesuffix(
                "</img>"
            )
        source = f"data:video/mp4;base64,{encoded}"
        return tag(
            "video",
            src=source,
            autoplay=True,
            loop=True,
            muted=True,
            playsinline=True,
            class_=size,
        )


def generated_section(judged: Path, rows: Sequence[Verdict], max_clips: int, budget: Budget) -> str:
    """Generated clips by set, each under its prompt and what the oracle saw."""
    made = [row for row in rows if row.kind == "generated"]
    if not made:
        return section("Generated clips", note("No generated clips were judged."), id_="generated")
    titles = {
        (name, kind): SET_TITLES[name] + KIND_TITLES[kind] for kind in KIND_TITLES for name in SET_TITLES
    }
    groups = {group: [row for row in made if (row.set, kind_of(row)) == group] for group in titles}
    allowed = share_out(max_clips, {titles[group]: len(members) for group, members in groups.items()})
    parts = []
    for group, members in groups.items():
        name, title = group[0], titles[group]
        chosen = members[: allowed[title]]
        if not chosen:
            continue
        count = f"{len(chosen)} of {len(members)}, the first in the manifest's order, not selected."
        progress = tqdm(chosen, f"page: {name} clips", unit="clip")
        cards = (clip_card(judged, row, budget) for row in progress)
        grid = tag("div", *cards, class_="clips")
        parts += [tag("h3", text(title)), tag("p", text(count), class_="caption"), grid]
    return section("Generated clips", *parts, id_="generated")


def kind_of(row: Verdict) -> str:
    """Whether a clip was given an image or is one."""
    return GIVEN if row.image else STILL if row.still else ""


def share_out(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Split `total` places evenly; what a small group does not need goes to the larger ones."""
    places: dict[str, int] = {}
    left = total
    for done, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        places[name] = min(sizes[name], left // (len(sizes) - done))
        left -= places[name]
    return places


def clip_card(judged: Path, row: Verdict, budget: Budget) -> str:
    """One generated clip: the image it was given, the video, its prompt as written and as rewritten, the verdict."""
    picture = embedded(row.path and judged / row.path, row.error or "no clip", budget)
    given = embedded(judged / row.image, "", budget, other=True) if row.image else ""
    prompt = tag("p", text(row.prompt), class_="prompt")
    if row.original is not None:
        written = tag("p", text(row.original), class_="prompt")
        prompt = tag("span", "written") + written + tag("span", "rewritten") + prompt
    return tag("figure", given, picture, tag("figcaption", prompt, verdict_list(row)))


def embedded(path: Path | str | None, reason: str, budget: Budget, other: bool = False) -> str:
    """A clip or picture inside the page, or a box with the reason why not; a picture of `other` origin as a new PNG."""
    element = None
    if path:
        try:
            data = to_png_bytes(read_image(path)) if other else Path(path).read_bytes()
            element = budget.embed(data, small=True)
            reason = "left out: the page's size limit is reached"
        except MediaError as error:
            reason = str(error)
        except OSError as error:
            reason = f"clip cannot be read: {error.strerror}"
    return element or tag("div", text(reason), class_="missing")


def verdict_list(row: Verdict) -> str:
    """A tick or cross for each attribute that the prompt states, with what was asked and seen."""
    items = []
    for attribute, right in row.verdict.items():
        seen, asked = row.seen.get(attribute, "?"), wanted(row, attribute)
        mark = tag("b", "&#10003;" if right else "&#10007;", class_="yes" if right else "no")
        words = text(seen) if right else f"{text(seen)} <span>(asked: {text(asked)})</span>"
        items.append(tag("li", mark, f"<span>{text(attribute)}</span> ", words))
    if not items:
        items = [tag("li", f"<span>{text(name)}</span> {text(seen)}") for name, seen in row.seen.items()]
    return tag("ul", *items, class_="verdict")


def pairs_section(
    folder: Path,
    records: Sequence[Reconstruction],
    pcas: Mapping[str, BlockPca],
    max_pairs: int,
    budget: Budget,
) -> str:
    """Held-out clips beside their reconstructions, real ones first, taken evenly from all files."""
    parts = []
    for name, title in (("real", "Real video"), ("toyworld", "Toyworld")):
        members = spread([record for record in records if record.set == name], max_pairs)
        progress = tqdm(members, f"page: {name} pairs", unit="pair", disable=not members)
        figures = [pair_figure(folder, record, pcas.get(name), budget) for record in progress]
        if figures:
            parts += [tag("h3", text(title)), tag("div", *figures, class_="pairs")]
    if not parts:
        parts = [note("No reconstructions were given.")]
    return section("Clips beside their reconstructions", *parts, id_="reconstructions")


def spread(records: Sequence[Reconstruction], limit: int) -> list[Reconstruction]:
    """Up to `limit` records, the first of every source before the second of any."""
    rounds: dict[str, int] = {}
    keyed = []
    for position, record in enumerate(records):
        turn = rounds.get(record.source_name, 0)
        rounds[record.source_name] = turn + 1
        keyed.append((turn, position, record))
    return [record for _, _, record in sorted(keyed, key=lambda item: item[:2])[:limit]]


def pair_figure(folder: Path, record: Reconstruction, pca: BlockPca | None, budget: Budget) -> str:
    """One video of source, reconstruction and PCA side by side, so that they play in step."""
    try:
        pair = load_pair(folder / record.path)
    except ValueError as error:
        return tag("figure", tag("div", text(error), class_="missing"))
    labels = ["held-out clip", "autoencoder"]
    clips = [pair.source, pair.reconstruction]
    if pca is not None:
        labels.append("PCA, same rate")
        clips.append(pca.reconstruct(pair.source))
    height = pair.source.shape[1]
    video = budget.embed(strip(clips, pair.frame_rate or 1.0), small=height <= 96)
    picture = video or tag("div", "left out: the page's size limit is reached", class_="missing")
    names = tag("div", *(tag("span", text(label)) for label in labels), class_="labels")
    words = f"{record.source_name}, {size_of(pair)}" + (f": {record.caption}" if record.caption else "")
    return tag("figure", picture, names, tag("figcaption", text(words)))


def strip(clips: Sequence[np.ndarray], frame_rate: float) -> bytes:
    """uint8 [T, H, W, 3] clips side by side as one mp4; sides made even by repeating the edge."""
    gap = np.full((*clips[0].shape[:2], GAP, 3), 128, np.uint8)
    joined = np.concatenate([part for clip in clips for part in (clip, gap)][:-1], axis=2)
    pads = [(0, 0), (0, joined.shape[1] % 2), (0, joined.shape[2] % 2), (0, 0)]
    return encode_video(np.pad(joined, pads, mode="edge"), frame_rate, crf=STRIP_CRF)


def size_of(pair: ClipPair) -> str:
    """Frames, size and rate in words."""
    num, height, width = pair.source.shape[:3]
    return f"{width}x{height}" + (f", {num} frames at {pair.frame_rate:g} per second" if num > 1 else "")
