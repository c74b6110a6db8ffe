"""`moviegen eval judge`: clips and logs in; numbers.json, verdicts.jsonl, bars.json and the fitted PCAs out.

One core judges 200 clips in well under a minute. Every output is written whole or not at all, after all
inputs have been read; an absent input leaves its figures out, and its bars say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from moviegen_data.toyworld import oracle
from moviegen_eval.bars import Bar, check_bars, outcome
from moviegen_eval.baselines.pca import BlockPca, fit_block_pca
from moviegen_eval.config import JudgeConfig, parse_config
from moviegen_eval.curves import csv_figures
from moviegen_eval.fidelity import fidelity_figures, score_pairs
from moviegen_eval.files import write_json
from moviegen_eval.manifest import MANIFEST, GeneratedSample, read_manifest
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.pairs import Reconstruction, load_pair, read_reconstructions
from moviegen_eval.shards import count_clips, find_shards, iterate_clips
from moviegen_eval.stills import (
    OF_STILLS,
    first_frame_figures,
    frame_psnr,
    is_still,
    observe_image,
    read_given,
    still_spec,
)
from moviegen_eval.verdicts import (
    Observed,
    Verdict,
    accuracies,
    attribute_figures,
    describe,
    judge_observation,
    observe_file,
    reason,
    relative_to,
    write_verdicts,
)
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import decode_video, encode_video

BARS = "bars.json"
# What follows the generator's name in figures.
JUDGED_SETS = {"heldout": "", "template": "/template", "free": "/free"}


def judge(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Judge what `conf/judge.yaml` names, print the table, and return the figures of `numbers.json`.

    Raises ValueError of one line for a missing or broken input; then nothing has been written.
    """
    config = parse_config(JudgeConfig, cfg, "judge")
    level = "" if config.level is None else f", toyworld level {config.level}"
    folders = [config.generations] if isinstance(config.generations, str) else config.generations or []
    generated = [(Path(folder), sample) for folder in folders for sample in read_manifest(folder)]
    check_given(generated)
    records = read_reconstructions(config.reconstructions) if config.reconstructions else []
    baselines = fit_baselines(config, {record.set for record in records})

    figures: list[Figure] = []
    ceiling = Ceiling()
    if config.reconstructions:
        folder = Path(config.reconstructions)
        scored = score_pairs(folder, records, baselines)
        figures += fidelity_figures(scored, level, config.bootstrap_count, config.seed)
        ceiling = judge_ceiling(folder, records, config.crf)
    observed = [
        judge_sample(folder, sample, config.out) for folder, sample in tqdm(generated, "oracle", unit="clip")
    ]
    figures += generator_figures(config, observed, ceiling, f"share{level}")
    figures += csv_figures(config.runs, config.csv_figures, config.level)
    bars = check_bars(asked_bars(config, observed), figures, reasons(config, observed, figures))
    rows = [*(item.row for item in observed), *ceiling.clips]
    write_outputs(Path(config.out), figures, rows, bars, baselines)
    print(table(figures, bars))
    return figures


def fit_baselines(config: JudgeConfig, sets: set[str]) -> dict[str, BlockPca]:
    """Fit one PCA on toyworld's training clips and one on the other training clips, for the sets present."""
    fitted: dict[str, BlockPca] = {}
    if config.train_shards is None:
        return fitted
    for name in sorted(sets):
        shards = find_shards(config.train_shards, config.train_split, toyworld=name == "toyworld")
        if shards:
            num = min(config.pca_max_clips, count_clips(shards))
            clips = iterate_clips(shards, num)
            progress = tqdm(clips, f"pca on {name} training clips", total=num, unit="clip")
            fitted[name] = fit_block_pca(progress, seed=config.seed)
    return fitted


def judge_sample(folder: Path, sample: GeneratedSample, out: str) -> Observed:
    """Observe one generated clip or still and hold it against its prompt's spec, and against the image it was given."""
    path, still = folder / sample.path, is_still(sample.path)
    observation, frame, error = observe_file(path, sample.image_frame)
    spec = still_spec(sample.spec) if still else sample.spec
    seen = describe(observation, spec)
    origin = {
        name: getattr(sample, name)
        for name in ("system", "seed", "steps", "guidance", "checkpoint", "commit")
    }
    row = Verdict(
        id=sample.id,
        kind="generated",
        set=sample.set,
        prompt=sample.prompt,
        path=relative_to(out, path) if error is None else None,
        verdict=judge_observation(spec, observation),
        seen={name: seen[name] for name in OF_STILLS} if still else seen,
        spec=spec,
        error=error,
        origin=origin,
        original=sample.original,
        image=relative_to(out, folder / sample.image) if sample.image else None,
        still=still,
    )
    given = read_given(folder / sample.image, *frame.shape[:2]) if sample.image else None
    return Observed(row, observation, None if given is None else (given, frame))


def check_given(generated: Sequence[tuple[Path, GeneratedSample]]) -> None:
    """Raise ValueError where the manifest names a given image that is not there."""
    for folder, sample in generated:
        if sample.image and not (folder / sample.image).is_file():
            raise ValueError(
                f"{folder}/{MANIFEST}: the image {sample.image} of clip {sample.id} does not exist"
            )


@dataclass(frozen=True)
class Ceiling:
    """What ground truth through the autoencoder scores: as clips, as stills, and in dB of the first frame."""

    clips: list[Verdict] = field(default_factory=list)
    stills: list[Verdict] = field(default_factory=list)
    first_frames: list[float] = field(default_factory=list)


def judge_ceiling(folder: Path, records: Sequence[Reconstruction], crf: int) -> Ceiling:
    """Judge ground truth after the autoencoder and H.264: what a perfect generator could score at most.

    The ceiling of stills is the first frame after the autoencoder alone, for PNG loses nothing.
    """
    found = Ceiling()
    stated = [record for record in records if record.set == "toyworld" and record.spec]
    for record in tqdm(stated, "ceiling", unit="clip"):
        pair = load_pair(folder / record.path)
        frames, frame_rate = decode_video(encode_video(pair.reconstruction, pair.frame_rate or 1.0, crf=crf))
        observation = oracle.observe(frames, frame_rate)
        verdict = judge_observation(record.spec, observation)
        prompt = record.caption or record.key
        seen = describe(observation, record.spec)
        row = Verdict(record.key, "ceiling", "toyworld", prompt, None, verdict, seen, record.spec)
        found.clips.append(row)
        still = still_spec(record.spec)
        verdict = judge_observation(still, observe_image(pair.reconstruction[0]))
        found.stills.append(replace(row, verdict=verdict, spec=still))
        found.first_frames.append(frame_psnr(pair.source[0], frames[0]))
    return found


def by_kind(config: JudgeConfig, observed: Sequence[Observed]) -> dict[str, list[Observed]]:
    """The clips by the first part of their figures' names: from text, stills from text, from an image and text."""
    kinds: dict[str, list[Observed]] = {config.prefix: [], config.image_prefix: [], config.given_prefix: []}
    for item in observed:
        without = config.image_prefix if item.row.still else config.prefix
        kinds[config.given_prefix if item.row.image else without].append(item)
    return kinds


def asked_bars(config: JudgeConfig, observed: Sequence[Observed]) -> dict[str, float | str]:
    """The bars, without those of stills and of given images where there are none."""
    kinds = by_kind(config, observed)
    absent = [name for name in (config.image_prefix, config.given_prefix) if not kinds[name]]
    return {name: bar for name, bar in config.bars.items() if name.split("/")[0] not in absent}


def generator_figures(
    config: JudgeConfig, observed: Sequence[Observed], ceiling: Ceiling, unit: str
) -> list[Figure]:
    """Accuracies with floors and ceilings, for held-out combinations, the held-out template and free-form prompts.

    Of clips that were given an image, also the PSNR of their first frames.
    """
    figures: list[Figure] = []
    for kind, items in by_kind(config, observed).items():
        tops = accuracies(ceiling.stills if kind == config.image_prefix else ceiling.clips)
        for name, suffix in JUDGED_SETS.items():
            members = [item for item in items if item.row.set == name]
            figures += attribute_figures(f"{kind}{suffix}", members, tops, unit, config.shuffles, config.seed)
        pairs = [item.pair for item in items if item.pair is not None]
        firsts = first_frame_figures(kind, pairs, ceiling.first_frames, config.bootstrap_count, config.seed)
        figures += [replace(one, unit=one.unit + unit.removeprefix("share")) for one in firsts]
    return figures


def reasons(config: JudgeConfig, observed: Sequence[Observed], figures: Sequence[Figure]) -> dict[str, str]:
    """By figure name, what the oracle saw where it disagreed."""
    by_name = {figure.name: figure for figure in figures}
    found: dict[str, str] = {}
    kinds = by_kind(config, observed)
    for kind, (name, suffix) in product(kinds, JUDGED_SETS.items()):
        rows = [item.row for item in kinds[kind] if item.row.set == name]
        for attribute in {key for row in rows for key in row.verdict}:
            figure = f"{kind}{suffix}/{attribute}"
            found[figure] = reason(attribute, rows, by_name.get(f"{figure}/ceiling"))
    difference = by_name.get("tae/toyworld/psnr_minus_pca")
    if difference is not None:
        bounds = f" ({difference.low:+.2f} to {difference.high:+.2f})" if difference.low is not None else ""
        found["tae/toyworld/psnr"] = f"clip by clip {difference.value:+.2f} dB{bounds} against the PCA"
    return found


def write_outputs(
    out: Path,
    figures: Sequence[Figure],
    rows: Sequence[Verdict],
    bars: Sequence[Bar],
    baselines: Mapping[str, BlockPca],
) -> None:
    """Write all files of a judgment, numbers.json last: where it exists, the others do."""
    for name, baseline in baselines.items():
        baseline.save(out / f"pca-{name}.npz")
    write_verdicts(out, rows)
    write_json(out / BARS, [asdict(bar) for bar in bars])
    write_numbers(out / NUMBERS, figures)


def table(figures: Sequence[Figure], bars: Sequence[Bar]) -> str:
    """The figures as text, each bar beside its figure, and the bars of figures that were not measured."""
    by_name = {bar.name: bar for bar in bars}
    width = max((len(figure.name) for figure in figures), default=10)
    lines = [f"{'figure':<{width}}  {'value':>8}  {'95 % interval':^18}  {'n':>5}  unit; bar"]
    for figure in figures:
        interval = f"{figure.low:8.4g} .. {figure.high:<6.4g}" if figure.low is not None else ""
        bar = by_name.pop(figure.name, None)
        note = f"; {outcome(bar)}" if bar else ""
        lines.append(
            f"{figure.name:<{width}}  {figure.value:8.4g}  {interval:<18}  {figure.n:5d}  {figure.unit}{note}"
        )
    lines += [f"{name:<{width}}  {outcome(bar)}" for name, bar in by_name.items()]
    return "\n".join(lines)
