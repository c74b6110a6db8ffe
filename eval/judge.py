"""`moviegen eval judge`: clips and logs in; numbers.json, verdicts.jsonl, bars.json and the fitted PCAs out.

One core judges 200 clips in well under a minute. Every output is written whole or not at all, after all
inputs have been read; an absent input leaves its figures out, and its bars say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moviegen_data.toyworld import oracle
from moviegen_eval.bars import Bar, check_bars, outcome
from moviegen_eval.baselines.pca import BlockPca, fit_block_pca
from moviegen_eval.config import JudgeConfig, parse_config
from moviegen_eval.curves import csv_figures
from moviegen_eval.fidelity import fidelity_figures, score_pairs
from moviegen_eval.files import write_json
from moviegen_eval.manifest import GeneratedSample, read_manifest
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.pairs import Reconstruction, load_pair, read_reconstructions
from moviegen_eval.shards import count_clips, find_shards, iterate_clips
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
JUDGED_SETS = {"heldout": "", "template": "/template"}  # what follows the generator's name in figures


def judge(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Judge what `conf/judge.yaml` names, print the table, and return the figures of `numbers.json`.

    Raises ValueError of one line for a missing or broken input; then nothing has been written.
    """
    config = parse_config(JudgeConfig, cfg, "judge")
    level = "" if config.level is None else f", toyworld level {config.level}"
    folders = [config.generations] if isinstance(config.generations, str) else config.generations or []
    generated = [(Path(folder), sample) for folder in folders for sample in read_manifest(folder)]
    records = read_reconstructions(config.reconstructions) if config.reconstructions else []
    baselines = fit_baselines(config, {record.set for record in records})

    figures: list[Figure] = []
    ceiling: list[Verdict] = []
    if config.reconstructions:
        folder = Path(config.reconstructions)
        scored = score_pairs(folder, records, baselines)
        figures += fidelity_figures(scored, level, config.bootstrap_count, config.seed)
        ceiling = judge_ceiling(folder, records, config.crf)
    observed = [
        judge_sample(folder, sample, config.out) for folder, sample in tqdm(generated, "oracle", unit="clip")
    ]
    figures += generator_figures(config, observed, ceiling, f"share{level}")
    figures += csv_figures(config.runs, config.csv_figures)
    bars = check_bars(config.bars, figures, reasons(config, observed, figures))
    write_outputs(Path(config.out), figures, [*(item.row for item in observed), *ceiling], bars, baselines)
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
    """Observe one generated clip and hold it against its prompt's spec."""
    path = folder / sample.path
    observation, error = observe_file(path)
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
        verdict=judge_observation(sample.spec, observation),
        seen=describe(observation, sample.spec),
        spec=sample.spec,
        error=error,
        origin=origin,
    )
    return Observed(row, observation)


def judge_ceiling(folder: Path, records: Sequence[Reconstruction], crf: int) -> list[Verdict]:
    """Judge ground truth after the autoencoder and H.264: what a perfect generator could score at most."""
    rows = []
    stated = [record for record in records if record.set == "toyworld" and record.spec]
    for record in tqdm(stated, "ceiling", unit="clip"):
        pair = load_pair(folder / record.path)
        frames, frame_rate = decode_video(encode_video(pair.reconstruction, pair.frame_rate or 1.0, crf=crf))
        observation = oracle.observe(frames, frame_rate)
        verdict = judge_observation(record.spec, observation)
        prompt = record.caption or record.key
        seen = describe(observation, record.spec)
        rows.append(Verdict(record.key, "ceiling", "toyworld", prompt, None, verdict, seen, record.spec))
    return rows


def generator_figures(
    config: JudgeConfig, observed: Sequence[Observed], ceiling: Sequence[Verdict], unit: str
) -> list[Figure]:
    """Accuracies with floors and ceilings, for held-out combinations and for the held-out template."""
    figures: list[Figure] = []
    tops = accuracies(ceiling)
    for name, suffix in JUDGED_SETS.items():
        prefix = f"{config.prefix}{suffix}"
        members = [item for item in observed if item.row.set == name]
        figures += attribute_figures(prefix, members, tops, unit, config.shuffles, config.seed)
    return figures


def reasons(config: JudgeConfig, observed: Sequence[Observed], figures: Sequence[Figure]) -> dict[str, str]:
    """By figure name, what the oracle saw where it disagreed."""
    by_name = {figure.name: figure for figure in figures}
    found: dict[str, str] = {}
    for name, suffix in JUDGED_SETS.items():
        rows = [item.row for item in observed if item.row.set == name]
        for attribute in {key for row in rows for key in row.verdict}:
            figure = f"{config.prefix}{suffix}/{attribute}"
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
