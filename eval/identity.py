"""`moviegen eval identity`: clips of given people, judged against their references, with baselines and floors.

Intervals are over prompts: clips of one prompt count as one observation. Writes numbers.json and identity.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.bars import Bar, check_bars
from moviegen_eval.files import write_json, write_json_lines
from moviegen_eval.identity_scores import Seen, clip_scores, gallery, look, retrieved, shuffled
from moviegen_eval.judge import BARS, table
from moviegen_eval.manifest import GeneratedSample, read_manifest
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean, derangement, prompt_share
from moviegen_eval.verdicts import CLIP_LIMITS, relative_to, share_figure
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
    arms = {name: _look_at(Path(path), wanted, faces, finder) for name, path in config.arms.items()}
    arms[STILL] = [_still(sample, faces[sample.id]) for sample in wanted.values()]
    figures: list[Figure] = []
    for name, clips in arms.items():
        prefix = config.prefix if name == next(iter(arms)) else f"{config.prefix}/{name}"
        figures += arm_figures(prefix, clips, gallery(arms[STILL]), config)
    for pair in config.compare:
        one, other = pair.split(",")
        figures += difference_figures(f"{config.prefix}/{one}_minus_{other}", arms[one], arms[other], config)
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


def _look_at(
    folder: Path, wanted: Mapping[str, GeneratedSample], faces: Mapping[str, list[Face]], finder: FaceFinder
) -> list[Seen]:
    """The clips of an arm; one that is missing or unreadable shows nobody. ValueError where ids differ."""
    own = {sample.id: sample for sample in read_manifest(folder)}
    if missing := sorted(set(wanted) - set(own)):
        raise ValueError(
            f"{folder}: has no clip {missing[0]}, which the first arm has; arms need the same prompts"
        )
    seen = []
    for name, sample in tqdm(wanted.items(), desc=folder.name, unit="clip"):
        try:
            frames = read_clip(folder / own[name].path, limits=CLIP_LIMITS).frames
        except (MediaError, OSError) as error:
            wrong = dict.fromkeys(("motion", "background", "camera"), False) if sample.spec else {}
            seen.append(Seen(sample, (None,), tuple(faces[name]), wrong, str(error)))
            continue
        seen.append(look(sample, frames, faces[name], finder))
    return seen


def _still(sample: GeneratedSample, faces: list[Face]) -> Seen:
    """The reference's face for a clip's length: what a model that copies would show at best."""
    return Seen(sample, (faces[0], faces[0]), tuple(faces), {})


def arm_figures(
    prefix: str, clips: Sequence[Seen], people: Mapping[str, Any], config: IdentityConfig
) -> list[Figure]:
    """Means and shares of an arm with their intervals, the floor of shuffled references, retrieval and its chance."""
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
        figures.append(_floor(prefix, clips, config))
    for name in dict.fromkeys(name for seen in clips for name in seen.verdict):
        stated = [seen for seen in clips if name in seen.verdict]
        share = prompt_share([seen.sample.prompt for seen in stated], [seen.verdict[name] for seen in stated])
        assert share is not None
        figures.append(share_figure(f"{prefix}/{name}", share, "share"))
    return figures


def _floor(prefix: str, clips: Sequence[Seen], config: IdentityConfig) -> Figure:
    """Mean likeness to other people's references, over shuffles of the people."""
    people = list(dict.fromkeys(seen.person for seen in clips))
    stands_for = {
        person: next(n for n, seen in enumerate(clips) if seen.person == person) for person in people
    }
    rng, means = np.random.default_rng(config.seed), []
    for _ in range(config.shuffles):
        other = dict(zip(people, (people[int(n)] for n in derangement(len(people), rng)), strict=True))
        means.append(float(np.mean(shuffled(clips, [stands_for[other[seen.person]] for seen in clips]))))
    low, high = np.quantile(means, (0.025, 0.975))
    unit = f"cosine, mean and spread of {config.shuffles} shuffles"
    mean = float(np.mean(means))
    bounds = (min(float(low), mean), max(float(high), mean))
    return Figure(f"{prefix}/identity_mean/floor", mean, *bounds, len(clips), unit, True)


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
    """Prompt by prompt, one arm less another: identity and variation, and whether their identity is equal."""
    figures = []
    for name in ("identity_mean", "variation"):
        pairs = [
            by_prompt(told, [clip_scores(seen)[name] for seen in told])
            for told in ([seen for seen in clips if name in clip_scores(seen)] for clips in (ones, others))
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
