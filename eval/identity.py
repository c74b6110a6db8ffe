"""`moviegen eval identity`: clips of given people, judged against their references, with baselines, floors, a ceiling.

Floor: the same clips held against other people's references and other prompts; ceiling: true clips of the people after
the codec and H.264. Intervals are over prompts: clips of one prompt count as one observation. Writes numbers.json and
identity.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_eval.bars import Bar, check_bars
from moviegen_eval.files import write_json, write_json_lines
from moviegen_eval.identity_scores import (
    Seen,
    clip_scores,
    gallery,
    likeness_scores,
    look,
    nearest,
    retrieved,
)
from moviegen_eval.judge import BARS, table
from moviegen_eval.manifest import GeneratedSample, read_manifest
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean, derangement, prompt_share
from moviegen_eval.verdicts import (
    CLIP_LIMITS,
    Observed,
    Verdict,
    relative_to,
    share_figure,
    shuffled_floor,
    spread,
)
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from moviegen.faces import Face, FaceError, FaceFinder, one_face
from moviegen.faces.parts import FINDERS, build_part
from moviegen.media import MediaError, read_clip, read_image
from moviegen.provenance.consent import ConsentStore, file_sha256

ROWS = "identity.jsonl"
STILL = "reference_frame"  # the arm that shows the reference and nothing else
EQUAL = 0.05  # identities nearer than this count as equal
PARTS = (*FINDERS, "moviegen_data.toyworld.finder.ToyFaces")
UNITS = {"variation": "distance from the reference's pose and expression", "found": "share of frames"}


@dataclass(frozen=True)
class IdentityConfig:
    """The keys of conf/identity.yaml, which says what they are."""

    out: str
    arms: dict[str, str]
    faces: dict[str, Any]
    store: str = "consents"
    prefix: str = "personalize"
    ceiling: str | None = None
    level: int | None = None
    compare: list[str] = field(default_factory=list)
    bars: dict[str, float | str] = field(default_factory=dict)
    bootstrap_count: int = 2000
    shuffles: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms or STILL in self.arms:
            raise ValueError(
                f"identity: give arms.<name>=FOLDER of generated clips, none of them named {STILL}"
            )
        if unknown := sorted({name for pair in self.compare for name in pair.split(",")} - set(self.arms)):
            raise ValueError(f"identity: compare names {unknown[0]!r}; the arms are {', '.join(self.arms)}")


def identity(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Judge the arms that conf/identity.yaml names, print the table and return the figures of numbers.json.

    The first arm says who is meant by each clip id: the others are held against the same references and specs, whatever
    they were given. Raises ValueError of one line for a missing or broken input; nothing has been written then.
    """
    config = _parse(cfg)
    finder: FaceFinder = build_part(config.faces, PARTS)
    first = Path(next(iter(config.arms.values())))
    wanted = {sample.id: sample for sample in read_manifest(first) if sample.references}
    if not wanted:
        raise ValueError(
            f"{first}: no clip of its manifest names references; moviegen personalize writes them"
        )
    faces = _references(first, wanted, finder, ConsentStore(config.store))
    arms = {
        name: _look_at(_clips_of(Path(path), wanted), wanted, faces, finder)
        for name, path in config.arms.items()
    }
    arms[STILL] = [_still(sample, faces[sample.id]) for sample in wanted.values()]
    people = gallery(arms[STILL])
    tops = _ceiling(config, wanted, faces, finder, people)
    figures: list[Figure] = []
    for name, clips in arms.items():
        prefix = config.prefix if name == next(iter(arms)) else f"{config.prefix}/{name}"
        for one in arm_figures(prefix, clips, people, config):
            top = tops.get(one.name.removeprefix(f"{prefix}/")) if name != STILL else None
            figures += [one, *([replace(top, name=f"{one.name}/ceiling")] if top else [])]
    for pair in config.compare:
        one, other = pair.split(",")
        figures += difference_figures(f"{config.prefix}/{one}_minus_{other}", arms[one], arms[other], config)
    if config.level is not None:
        figures = [replace(one, unit=f"{one.unit}, toyworld level {config.level}") for one in figures]
    bars = check_bars(config.bars, figures, {})
    _write(config, arms, figures, bars)
    print(table(figures, bars))
    return figures


def _parse(cfg: DictConfig | Mapping[str, Any]) -> IdentityConfig:
    values: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    return IdentityConfig(**{name: value for name, value in values.items() if name != "_target_"})


def _references(
    folder: Path, samples: Mapping[str, GeneratedSample], finder: FaceFinder, store: ConsentStore
) -> dict[str, list[Face]]:
    """The faces in the references of each clip; of real people only under their consent."""
    known: dict[str, Face] = {}
    found: dict[str, list[Face]] = {}
    for sample in samples.values():
        for name in sample.references or []:
            path = folder / name
            if not path.is_file():
                raise ValueError(f"{folder}: the reference {name} of clip {sample.id} does not exist")
            if not finder.synthetic:
                store.check(sample.consent, [file_sha256(path)], "sampling")
            if name not in known:
                try:
                    known[name] = one_face(
                        finder.find(read_image(path, plain=True)[None])[0], finder.smallest
                    )
                except FaceError as error:
                    raise ValueError(f"{path}: {error}") from None
            found.setdefault(sample.id, []).append(known[name])
    return found


def _clips_of(folder: Path, wanted: Mapping[str, GeneratedSample]) -> dict[str, Path]:
    """The clips of an arm by id; ValueError where ids differ."""
    own = {sample.id: sample for sample in read_manifest(folder)}
    if missing := sorted(set(wanted) - set(own)):
        raise ValueError(
            f"{folder}: has no clip {missing[0]}, which the first arm has; arms need the same prompts"
        )
    return {name: folder / own[name].path for name in wanted}


def _look_at(
    clips: Mapping[str, Path],
    wanted: Mapping[str, GeneratedSample],
    faces: Mapping[str, list[Face]],
    finder: FaceFinder,
) -> list[Seen]:
    """The clips of an arm; one that is missing or unreadable shows nobody."""
    seen = []
    for name, sample in tqdm(wanted.items(), desc=clips[next(iter(wanted))].parent.name, unit="clip"):
        try:
            frames = read_clip(clips[name], limits=CLIP_LIMITS).frames
        except (MediaError, OSError) as error:
            wrong = dict.fromkeys(("motion", "background", "camera"), False) if sample.spec else {}
            blank = oracle.Observation() if sample.spec else None
            seen.append(Seen(sample, (None,), tuple(faces[name]), wrong, str(error), blank))
            continue
        seen.append(look(sample, frames, faces[name], finder))
    return seen


def _ceiling(
    config: IdentityConfig,
    wanted: Mapping[str, GeneratedSample],
    faces: Mapping[str, list[Face]],
    finder: FaceFinder,
    people: Mapping[str, Any],
) -> dict[str, Figure]:
    """By name within an arm, the figures of true clips of the prompts; ValueError where one cannot be read."""
    if config.ceiling is None:
        return {}
    clips = {name: Path(config.ceiling) / f"{name}.mp4" for name in wanted}
    seen = _look_at(clips, wanted, faces, finder)
    if broken := next((one for one in seen if one.error), None):
        raise ValueError(f"{clips[broken.sample.id]}: is no true clip that can be read ({broken.error})")
    figures = {one.name.removeprefix("x/"): one for one in arm_figures("x", seen, people, config)}
    return {name: one for name, one in figures.items() if not name.endswith(("/floor", "/chance"))}


def _still(sample: GeneratedSample, faces: list[Face]) -> Seen:
    """The reference's face for a clip's length: what a model that copies would show at best."""
    return Seen(sample, (faces[0], faces[0]), tuple(faces), {})


def arm_figures(
    prefix: str, clips: Sequence[Seen], people: Mapping[str, Any], config: IdentityConfig
) -> list[Figure]:
    """Means and shares of an arm with their intervals, the floors of shuffled references, retrieval and its chance."""
    figures = []
    scores = [clip_scores(seen) for seen in clips]
    for name in dict.fromkeys(name for row in scores for name in row):
        told = [(seen, row[name]) for seen, row in zip(clips, scores, strict=True) if name in row]
        values = by_prompt([seen for seen, _ in told], [value for _, value in told])
        figures.append(mean_figure(f"{prefix}/{name}", values, UNITS.get(name, "cosine"), config))
    prompts = [seen.sample.prompt for seen in clips]
    top = prompt_share(prompts, [retrieved(seen, dict(people)) for seen in clips])
    assert top is not None
    figures.append(share_figure(f"{prefix}/identity_top1", top, f"share, of {len(people)} people"))
    if len(people) > 1:
        chance = 1 / len(people)
        figures.append(
            Figure(f"{prefix}/identity_top1/chance", chance, None, None, len(people), "share", True)
        )
    for name in dict.fromkeys(name for seen in clips for name in seen.verdict):
        stated = [seen for seen in clips if name in seen.verdict]
        share = prompt_share([seen.sample.prompt for seen in stated], [seen.verdict[name] for seen in stated])
        assert share is not None
        figures.append(share_figure(f"{prefix}/{name}", share, "share"))
    floors = _floors(clips, people, config)
    about = f"mean and spread of {config.shuffles} shuffles"
    return [
        each
        for one in figures
        for each in (one, *_floor_of(one, floors.get(one.name.removeprefix(f"{prefix}/")), about))
    ]


def _floor_of(one: Figure, found: tuple[float, float, float] | None, about: str) -> list[Figure]:
    """The floor of a figure as a figure, where there is one."""
    return [Figure(f"{one.name}/floor", *found, one.n, f"{one.unit}, {about}", True)] if found else []


def _floors(
    clips: Sequence[Seen], people: Mapping[str, Any], config: IdentityConfig
) -> dict[str, tuple[float, float, float]]:
    """Mean and spread over shuffles, by figure: likeness to other people's references, verdicts on other prompts."""
    stands_for = {seen.person: seen for seen in reversed(clips)}
    names = list(stands_for)
    if len(names) < 2:
        return {}
    rng, means = np.random.default_rng(config.seed), []
    found = [nearest(seen, dict(people)) for seen in clips]
    for _ in range(config.shuffles):
        other = dict(zip(names, (names[int(n)] for n in derangement(len(names), rng)), strict=True))
        rows = [likeness_scores(seen, stands_for[other[seen.person]].references) for seen in clips]
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        hits = [who == other[seen.person] for who, seen in zip(found, clips, strict=True)]
        means.append(mean | {"identity_top1": float(np.mean(hits))})
    floors = {name: spread([mean[name] for mean in means]) for name in means[0]}
    judged = [Observed(_verdict(seen), seen.observation) for seen in clips if seen.observation is not None]
    return floors | shuffled_floor(judged, config.shuffles, config.seed)


def _verdict(seen: Seen) -> Verdict:
    sample = seen.sample
    return Verdict(
        sample.id, "generated", sample.set, sample.prompt, None, seen.verdict, {}, spec=sample.spec
    )


def by_prompt(clips: Sequence[Seen], values: Sequence[float]) -> dict[str, float]:
    """The mean value of each prompt's clips."""
    found: dict[str, list[float]] = {}
    for seen, value in zip(clips, values, strict=True):
        found.setdefault(seen.sample.prompt, []).append(value)
    return {prompt: float(np.mean(each)) for prompt, each in found.items()}


def mean_figure(name: str, values: Mapping[str, float], unit: str, config: IdentityConfig) -> Figure:
    """A mean over prompts with its bootstrap interval."""
    interval = bootstrap_mean(list(values.values()), config.bootstrap_count, config.seed)
    low, high = interval or (None, None)
    return Figure(name, float(np.mean(list(values.values()))), low, high, len(values), unit, True)


def difference_figures(
    prefix: str, ones: Sequence[Seen], others: Sequence[Seen], config: IdentityConfig
) -> list[Figure]:
    """Prompt by prompt, one arm less another: identity and variation, and whether their identity is equal.

    All over the same prompts: those of which both arms have a clip whose pose and expression can be read.
    """
    figures = []
    for name in ("identity_mean", "variation"):
        pairs = [
            by_prompt(told, [clip_scores(seen)[name] for seen in told])
            for told in (
                [seen for seen in clips if "variation" in clip_scores(seen)] for clips in (ones, others)
            )
        ]
        both = {prompt: value - pairs[1][prompt] for prompt, value in pairs[0].items() if prompt in pairs[1]}
        if both:
            figures.append(mean_figure(f"{prefix}/{name}", both, "difference, prompt by prompt", config))
    equal = [f for f in figures if f.name.endswith("identity_mean")]
    if equal:
        same = float(abs(equal[0].value) <= EQUAL)
        unit = f"1 where identities are within {EQUAL}"
        figures.append(Figure(f"{prefix}/equal_identity", same, None, None, equal[0].n, unit, True))
    return figures


def _write(
    config: IdentityConfig, arms: Mapping[str, Sequence[Seen]], figures: Sequence[Figure], bars: Sequence[Bar]
) -> None:
    """Write scores, not embeddings: those of people are biometric data."""
    out, paths = Path(config.out), {name: Path(path) for name, path in config.arms.items()}
    first = next(iter(paths))
    rows = [
        {
            "arm": arm,
            "id": seen.sample.id,
            "prompt": seen.sample.prompt,
            "person": seen.person,
            "path": relative_to(out, paths[arm] / seen.sample.path) if arm in paths else None,
            "references": [relative_to(out, paths[first] / name) for name in seen.sample.references or []],
            "consent": seen.sample.consent,
            "scores": clip_scores(seen),
            "verdict": seen.verdict,
            "error": seen.error,
        }
        for arm, clips in arms.items()
        for seen in clips
    ]
    write_json_lines(out / ROWS, rows)
    write_json(out / BARS, [vars(bar) for bar in bars])
    write_numbers(out / NUMBERS, figures)
