"""`moviegen eval edits`: edited toyworld clips in; was the change made, is the rest as it was. Writes numbers.json.

An arm is a folder of `moviegen edit`, or of any other system's files named `<id>.mp4`, `<id>.png` where the sources are
pictures. The arm `reference` is what the
codec makes of the sources (baseline=copy): outside of what an edit changes, an arm may lose at most `margin` dB
against it, and its ST-LPIPS is taken with the truth in the place of what the edit changes. By kind of edit, with
Wilson's intervals; arms are compared edit by edit.

The first arm's figures stand between a floor, its clips held against other edits than those they were made for
(source and instruction shuffled), and a ceiling, the true edits after the codec and H.264. An arm with `keep` may be
above that ceiling in what is kept: its pixels there are the source's own, those of the ceiling the codec's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.edit_oracle import STILL_FRAMES, Frames, look, still_truth
from moviegen_eval.bars import Bar, check_bars
from moviegen_eval.config import parse_config
from moviegen_eval.edit_set import TRUTHS, counts, judged_pair
from moviegen_eval.files import read_json_lines, write_json, write_json_lines
from moviegen_eval.judge import BARS, table
from moviegen_eval.metrics.stlpips import StLpips
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean, derangement, prompt_share
from moviegen_eval.stills import is_still
from moviegen_eval.verdicts import CLIP_LIMITS, relative_to
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import MediaError, read_clip, read_image

ROWS = "edits.jsonl"
SHARES = ("changed", "kept_attributes", "kept_pixels", "kept", "right")
BEST_PSNR = 100.0  # dB of a perfect copy
FLOOR, CEILING = "floor", "ceiling"


@dataclass(frozen=True)
class EditsConfig:
    """The keys of conf/edits.yaml, which says what they are."""

    out: str
    set: str
    arms: dict[str, str]
    reference: str = "copy"
    ceiling: str | None = None
    margin: float = 1.0
    prefix: str = "edit"
    bars: dict[str, float | str] = field(default_factory=dict)
    kind_bars: dict[str, float] = field(default_factory=dict)
    kind_bars_from: int = 64
    bootstrap_count: int = 2000
    shuffles: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms or {FLOOR, CEILING} & {*self.arms}:
            raise ValueError(
                f"edits: give arms.<name>=FOLDER of edited clips, none of them named {FLOOR} or {CEILING}"
            )
        if self.shuffles < 0:
            raise ValueError(f"edits: shuffles must be at least 0, got {self.shuffles}")
        if self.reference not in self.arms:
            raise ValueError(
                f"edits: reference={self.reference} is none of the arms {', '.join(self.arms)}; make it with "
                "moviegen edit baseline=copy"
            )


@dataclass(frozen=True)
class Judged:
    """One clip of one arm."""

    arm: str  # or the floor, the ceiling
    id: str
    kind: str
    changed: bool
    kept_attributes: bool
    psnr: float  # dB against the source, where the edit had no reason to touch it
    psnr_reference: float  # of the codec's own reconstruction, in the same place
    kept_pixels: bool
    instruction: str
    strip: str | None  # picture of frames before and after, from the folder of the results
    consistency: float  # see `consistency`
    st_lpips: float | None  # from the source, where the edit had no reason to touch it; None without a clip
    error: str | None = None
    put_back: float | None = None  # share of its pixels that are the source's own; None where keep was off

    @property
    def kept(self) -> bool:
        return self.kept_attributes and self.kept_pixels

    @property
    def right(self) -> bool:
        return self.changed and self.kept


def edits(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Judge the arms that conf/edits.yaml names, print the table, return the figures of numbers.json.

    A clip that is missing or unreadable counts as wrong. Raises ValueError of one line for a broken input.
    """
    config = parse_config(EditsConfig, cfg, "edits")
    truths = [row for _, row in read_json_lines(Path(config.set) / TRUTHS)]
    if not truths:
        raise ValueError(f"{config.set}: {TRUTHS} holds no edit")
    rows: list[Judged] = []
    distance, others = StLpips(), _others(truths, config)
    for truth, places in zip(tqdm(truths, desc="judging", unit="edit"), others, strict=True):
        rows += judge_edit(truth, config, distance, [truths[place]["id"] for place in places])
    levels = " and ".join(map(str, sorted({truth["level"] for truth in truths})))
    figures = [replace(one, unit=f"{one.unit}, toyworld level {levels}") for one in _figures(rows, config)]
    wanted = config.bars | _bars_of_kinds(rows, config)
    bars = check_bars({f"{config.prefix}/{name}": bar for name, bar in wanted.items()}, figures, {})
    out = Path(config.out)
    write_numbers(out / NUMBERS, figures)
    kept = [{**vars(row), "kept": row.kept, "right": row.right} for row in rows]
    write_json_lines(out / ROWS, kept)
    write_json(out / BARS, [vars(bar) for bar in bars])
    print(by_kind(rows, bars))
    print(table([one for one in figures if _plain(one).count("/") < 3], bars))
    return figures


def _bars_of_kinds(rows: Sequence[Judged], config: EditsConfig) -> dict[str, float]:
    """The bars of each kind of edit of which there are enough for a figure of its own to say something."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(row.kind, set()).add(row.id)
    enough = [kind for kind, ids in kinds.items() if len(ids) >= config.kind_bars_from]
    return {f"{kind}/{name}": bar for kind in enough for name, bar in config.kind_bars.items()}


def _others(truths: Sequence[Mapping[str, Any]], config: EditsConfig) -> list[list[int]]:
    """For each edit the numbers of others, whose clips are held against it: a video for a video."""
    rng = np.random.default_rng(config.seed)
    found: list[list[int]] = [[] for _ in truths]
    for still in (False, True):
        alike = [number for number, truth in enumerate(truths) if is_still(str(truth.get("source"))) is still]
        for _ in range(config.shuffles if len(alike) > 1 else 0):
            order = derangement(len(alike), rng)
            for number, other in zip(alike, order, strict=True):
                found[number].append(alike[int(other)])
    return found


@dataclass(frozen=True)
class _Asked:
    """An edit: what is known of it, and what its clips are held against."""

    truth: Mapping[str, Any]
    ends: tuple[dict[str, Any], dict[str, Any]]
    source: Frames
    target: Frames
    codec: Frames | None  # what the codec alone makes of the source
    instruction: str


def judge_edit(
    truth: Mapping[str, Any], config: EditsConfig, distance: StLpips, others: Sequence[str] = ()
) -> list[Judged]:
    """One edit in every arm, in the ceiling, and, for the floor, with the first arm's clips of the edits `others`."""
    world = World(WorldConfig(level=truth["level"], combos=truth["combos"]))
    pair = judged_pair(world, truth["kind"], truth["seed"], truth["index"])
    source, target, ends = pair.before.frames, pair.after.frames, (truth["before"], truth["after"])
    suffix = Path(truth.get("source") or ".mp4").suffix
    if is_still(f"a{suffix}"):
        source, target = (_still(frames[0]) for frames in (source, target))
        ends = (still_truth(ends[0]), still_truth(ends[1]))
    name = f"{truth['id']}{suffix}"
    clips = {arm: _read(Path(folder) / name) for arm, folder in config.arms.items()}
    asked = _Asked(truth, ends, source, target, clips[config.reference][0], pair.instruction)
    if config.ceiling is not None:
        clips[CEILING] = _read(Path(config.ceiling) / name)
        if clips[CEILING][0] is None:
            raise ValueError(
                f"{config.ceiling}: has no true edit {name} that can be read ({clips[CEILING][1]})"
            )
    found = [_judged(arm, asked, clip, config, distance) for arm, clip in clips.items()]
    first = Path(next(iter(config.arms.values())))
    shuffled = [_read(first / f"{other}{suffix}") for other in others]
    return found + [_judged(FLOOR, asked, clip, config, None) for clip in shuffled]


def _judged(
    arm: str,
    asked: _Asked,
    clip: tuple[Frames | None, str | None],
    config: EditsConfig,
    distance: StLpips | None,
) -> Judged:
    """A clip held against an edit; without a `distance` no ST-LPIPS is taken."""
    frames, error = clip
    name, kind, source = asked.truth["id"], asked.truth["kind"], asked.source
    told = asked.truth.get("row", kind)  # the row of the table that it counts for
    if frames is None or frames.shape != source.shape or asked.codec is None:
        error = error or f"is {None if frames is None else frames.shape}, its source {source.shape}"
        return Judged(
            arm, name, told, False, False, 0.0, 0.0, False, asked.instruction, None, 0.0, None, error
        )
    seen = look(kind, *asked.ends, frames, source)
    wanted = asked.target if kind == "style" else source  # nothing of a style's clip is as before
    own, limit = psnr(frames, wanted, seen.same), psnr(asked.codec, source, seen.same)
    rest = np.where(seen.same[..., None], frames, wanted)
    return Judged(
        arm,
        name,
        told,
        seen.changed,
        seen.kept,
        own,
        limit,
        own >= limit - config.margin,
        asked.instruction,
        _strip(config, arm, name) if arm in config.arms else None,
        consistency(frames, asked.target),
        distance.score(wanted, rest) if distance else None,
        put_back=_put_back(Path(config.arms[arm]) / f"{name}.json") if arm in config.arms else None,
    )


def _put_back(sidecar: Path) -> float | None:
    """What `moviegen edit` says of it beside the clip; another system's clips have nothing there."""
    try:
        share = json.loads(sidecar.read_text(encoding="utf-8")).get("edited_share")
    except (OSError, ValueError, AttributeError):
        return None
    return 1 - share if isinstance(share, int | float) else None


def _strip(config: EditsConfig, arm: str, name: str) -> str | None:
    path = Path(config.arms[arm]) / f"{name}_strip.png"
    return relative_to(config.out, path) if path.is_file() else None


def _still(picture: np.ndarray) -> Frames:
    return np.repeat(picture[None], STILL_FRAMES, axis=0)


def _read(path: Path) -> tuple[Frames | None, str | None]:
    try:
        if is_still(path):
            return _still(read_image(path, limits=CLIP_LIMITS)), None
        return read_clip(path, limits=CLIP_LIMITS).frames, None
    except (MediaError, OSError) as error:
        return None, str(error)


def psnr(frames: Frames, wanted: Frames, where: np.ndarray) -> float:
    """dB over the pixels `where` [T, H, W], range 255, at most `BEST_PSNR`; of no pixel, that."""
    error = np.square(frames.astype(np.float64) - wanted)[where]
    mean = float(error.mean()) if error.size else 0.0
    return min(BEST_PSNR, float(10 * np.log10(255**2 / mean))) if mean > 0 else BEST_PSNR


def consistency(frames: Frames, wanted: Frames) -> float:
    """How much less the frames flicker against each other than against what was wanted: 1 is as steady as the truth.

    One less the mean change, from frame to frame, of the error; in levels of 255 / 10.
    """
    error = frames.astype(np.float32) - wanted
    return float(1 - np.abs(np.diff(error, axis=0)).mean() / 25.5)


def _figures(rows: Sequence[Judged], config: EditsConfig) -> list[Figure]:
    kinds = list(dict.fromkeys(row.kind for row in rows))
    figures: list[Figure] = []
    first = next(iter(config.arms))
    for arm, kind in product(config.arms, (*kinds, "all")):
        chosen = [row for row in rows if counts(row.kind, kind)]
        name = f"{config.prefix}/{kind}" if arm == first else f"{config.prefix}/{kind}/{arm}"
        own = _of_arm(name, [row for row in chosen if row.arm == arm], config)
        ends = [
            replace(one, name=f"{one.name}/{end}")
            for end in ((FLOOR, CEILING) if arm == first else ())
            for one in _of_arm(name, [row for row in chosen if row.arm == end], config)
        ]
        for one in own:
            figures += [one, *(end for end in ends if _plain(end) == one.name)]
    for arm in [one for one in config.arms if one != first]:
        figures += _differences(rows, first, arm, config)
    return figures


def _of_arm(prefix: str, rows: Sequence[Judged], config: EditsConfig) -> list[Figure]:
    """Shares and means of rows of one arm; none without rows."""
    if not rows:
        return []
    figures = [_share(f"{prefix}/{name}", name, rows) for name in SHARES]
    figures.append(_mean(f"{prefix}/psnr", _by_edit(rows, "psnr"), "dB", config))
    figures.append(_mean(f"{prefix}/consistency", _by_edit(rows, "consistency"), "1 is steady", config))
    if there := _by_edit(rows, "st_lpips"):
        figures.append(_mean(f"{prefix}/st_lpips", there, "distance", config, better=False))
    return figures


def _by_edit(rows: Sequence[Judged], attribute: str) -> list[float]:
    """The mean of each edit's clips that have a value."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if (value := getattr(row, attribute)) is not None:
            found.setdefault(row.id, []).append(value)
    return [float(np.mean(values)) for values in found.values()]


def _plain(figure: Figure) -> str:
    """The name of the figure that this one is, or bounds."""
    return figure.name.removesuffix(f"/{FLOOR}").removesuffix(f"/{CEILING}")


def _differences(rows: Sequence[Judged], one: str, other: str, config: EditsConfig) -> list[Figure]:
    """Edit by edit, the first arm less another."""
    mine, theirs = (
        {row.id: row for row in rows if row.arm == arm and counts(row.kind, "all")} for arm in (one, other)
    )
    name = f"{config.prefix}/all/{one}_minus_{other}"
    return [
        _mean(
            f"{name}/{key}",
            [float(getattr(mine[i], key)) - getattr(theirs[i], key) for i in mine],
            "share",
            config,
        )
        for key in ("changed", "kept", "right")
    ]


def _share(name: str, attribute: str, rows: Sequence[Judged]) -> Figure:
    """The share of edits of which an attribute is true; several clips held against one edit count as one."""
    share = prompt_share([row.id for row in rows], [getattr(row, attribute) for row in rows])
    assert share is not None
    return Figure(name, share.value, *share.interval, share.num_prompts, "share", True)


def _mean(name: str, values: Sequence[float], unit: str, config: EditsConfig, better: bool = True) -> Figure:
    """The mean with its interval; `better` says whether higher is."""
    low, high = bootstrap_mean(values, config.bootstrap_count, config.seed) or (None, None)
    return Figure(name, float(np.mean(values)), low, high, len(values), unit, better)


def by_kind(rows: Sequence[Judged], bars: Sequence[Bar] = ()) -> str:  # noqa: ARG001
    """A table: arms by kind of edit, each with the shares changed, kept and right."""
    kinds, arms = (list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("kind", "arm"))
    lines = [f"{'changed / attributes / pixels / right':<40}" + "".join(f"{arm:>28}" for arm in arms)]
    for kind in [*kinds, "all"]:
        cells = []
        for arm in arms:
            own = [row for row in rows if row.arm == arm and counts(row.kind, kind)]
            shares = [np.mean([getattr(row, name) for row in own]) for name in SHARES if name != "kept"]
            cells.append(" / ".join(f"{share:.2f}" for share in shares))
        title = f"{kind} (n = {len({row.id for row in rows if counts(row.kind, kind)})})"
        lines.append(f"{title:<40}" + "".join(f"{cell:>28}" for cell in cells))
    for arm in arms:
        if shares := [row.put_back for row in rows if row.arm == arm and row.put_back is not None]:
            lines.append(f"{arm}: {np.mean(shares):.0%} of the pixels are the source's own (keep)")
    return "\n".join(lines)
