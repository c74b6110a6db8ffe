"""`moviegen backtranslate`: clips to pairs of an edited and a real clip, and the instruction that leads back.

Paper 5, stage III. For each clip of a folder of cached latents a change and the way back are written, a model that
edits makes the change, a filter keeps what became of it or not, and the pair (edited clip, instruction back) -> real
clip goes into new shards. So training aims at clean real video, whatever the model did on the way.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm
from webdataset.writer import TarWriter

from moviegen import runfolder, unfinished
from moviegen.codec.tiling import Tiling, decoded
from moviegen.conditioning.editing import BACKTRANSLATED
from moviegen.conditioning.text import TextCondition
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.data.shards import Shard, ShardFolder
from moviegen.edit_filter import EditFilter
from moviegen.encode import text_features, text_recipe
from moviegen.fields import LATENT, decode_record, decode_text
from moviegen.latents import features_note, noted
from moviegen.lineage import check_training, warn_untrained
from moviegen.modelfile import codec_files, load_task, locate
from moviegen.provenance.consent import ConsentStore
from moviegen.rewriting.instructions import InstructionWriter, RoundTrip
from moviegen.tasks.editing import (
    EditBatch,
    EditSampler,
    check_sampling,
    edit_latents,
    source_condition,
    task_conditions,
    window_size,
)
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Latent

TABLE = "filter.json"
SUFFIXES = ("latent.npy", "txt", "json")


@dataclass(frozen=True)
class BacktranslateConfig:
    """The keys of conf/backtranslate.yaml, which says what they are."""

    run_dir: Path
    latents: str
    checkpoint: str
    writer: InstructionWriter
    filter: EditFilter
    sampler: EditSampler
    tiling: Tiling = field(default_factory=Tiling)
    match: str = "*"
    max_clips: int | None = None
    batch_size: int = 32
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, max_clips=1, batch_size=1, num_threads=1)


@dataclass(frozen=True)
class Clip:
    """One clip of a shard."""

    key: str
    latent: torch.Tensor  # [C, T, H, W]
    frame_rate: float
    caption: str
    record: dict[str, Any]
    trip: RoundTrip | None


def backtranslate(cfg: DictConfig) -> None:
    """Write shards that editing is trained on, and the table of what the filter kept; finished shards are kept.

    Raises UserError for a model that takes no source, latents that are not there or would be written over, or where
    nothing is kept.
    """
    config: BacktranslateConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    if config.run_dir.resolve() == Path(config.latents).resolve():
        raise UserError(
            f"run_dir={config.run_dir} holds the latents, whose index.json would be lost; give another folder"
        )
    shards = _shards(config)
    check_training(config.checkpoint, ConsentStore(config.store))
    task = load_task(config.checkpoint)
    if not isinstance(task, FlowTask) or source_condition(task) is None or not task_conditions(task):
        raise UserError(f"{config.checkpoint} takes no source; give a model that was trained with task=edit")
    config.tiling.check(task.codec.spatial_factor, task.codec.temporal_factor)
    _check_windows(shards[0], task, config)
    text: TextCondition = task.conditioners.named()["text"]
    for one in text.encoders.values():
        one.loaded()
    out, stamp = config.run_dir, _stamp(cfg, config, text)
    out.mkdir(parents=True, exist_ok=True)
    unfinished.begin(out)
    runfolder.record(out, cfg, shards=[config.latents])
    records, left = [], config.max_clips
    with tqdm(total=min(left or 10**9, sum(map(len, shards))), desc="backtranslate", unit="clip") as progress:
        for shard in shards:
            count = len(shard) if left is None else min(left, len(shard))
            if not count:
                break
            records.append(_shard(shard, count, stamp, task, config))
            left = None if left is None else left - count
            progress.update(count)
    kept = [record for record in records if record["num_samples"]]
    told = table(records)
    runfolder.write_json(out / TABLE, told)
    print(shown(told))
    if cut := sum(o.get("instruction_tokens_cut", 0) > 0 for record in records for o in record["outcomes"]):
        limits = ", ".join(f"{name or 'max_tokens'}={one.max_tokens}" for name, one in text.encoders.items())
        print(f"{cut} instructions were longer than {limits} and cut there")
    if not kept:
        unfinished.end(out)
        raise UserError(f"{out}: the filter kept none of {told['clips']} clips; see {TABLE}")
    runfolder.write_json(
        out / "index.json", _made_by(config.latents, text) | {"recipe": stamp, "shards": kept}
    )
    unfinished.end(out)


def _shards(config: BacktranslateConfig) -> list[Shard]:
    shards = [s for s in ShardFolder(config.latents).shards if fnmatch(s.path.name, config.match)]
    if not shards or not {"latent.npy", "txt"} <= set(shards[0].table.dtype.names or ()):
        raise UserError(
            f"{config.latents}: no shards of cached latents with captions are named {config.match!r}"
        )
    return shards


def _check_windows(shard: Shard, task: FlowTask, config: BacktranslateConfig) -> None:
    """Raise ValueError for a sampler that will not do; tell on stderr of windows that the model was not trained on."""
    sample = shard.read(0, SUFFIXES)
    latent, rate = LATENT.decode(sample.files["latent.npy"], sample.files["json"])
    frames = decode_record(sample.files["json"]).get("frames", latent.shape[1] * task.codec.temporal_factor)
    check_sampling(task, latent.shape[1], config.sampler)
    warn_untrained(
        config.checkpoint, window_size(task.codec, latent.shape[1:], config.sampler.window, frames, rate)
    )


def _made_by(latents: str, text: TextCondition) -> dict[str, Any]:
    """What index.json says of codec, that of the real clips' latents, and text features, for `check_latents`."""
    codec = noted(latents, "codec")
    return features_note(text) | ({"codec": codec} if codec else {})


def _stamp(cfg: DictConfig, config: BacktranslateConfig, text: TextCondition) -> str:
    """What shards depend on beside their clips."""
    base = locate(config.checkpoint)
    weights = runfolder.file_sha256(base.with_name(base.name + ".safetensors"))
    parts = {name: str(cfg[name]) for name in ("writer", "filter", "sampler", "tiling")} | {
        "text": text_recipe(text)
    }
    others = [OmegaConf.to_container(cfg[name], resolve=True) for name in ("writer", "filter")]
    parts["files"] = " ".join(
        map(runfolder.file_sha256, [*codec_files(config.checkpoint), *_read_files(others)])
    )
    return hashlib.sha256(json.dumps({"weights": weights, **parts}, sort_keys=True).encode()).hexdigest()


def _read_files(node: Any) -> Iterator[Path]:
    """The files of the models that settings name by a `path` or `folder`."""
    if isinstance(node, list):
        for value in node:
            yield from _read_files(value)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("path", "folder") and isinstance(value, str):
                yield from (file for file in sorted(Path(value).rglob("*")) if file.is_file())
            else:
                yield from _read_files(value)


def _shard(
    shard: Shard, count: int, stamp: str, task: FlowTask, config: BacktranslateConfig
) -> dict[str, Any]:
    """Write one tar under a temporary name, then its record; return the record. No tar without samples."""
    name = shard.path.name.replace(f"{shard.split}-", f"{shard.split}-back_", 1)
    target, note = config.run_dir / name, config.run_dir / f"{name}.json"
    stamp = hashlib.sha256(f"{stamp} {shard.content()} {count}".encode()).hexdigest()
    known = runfolder.read_json(note) if note.is_file() else {}
    if known.get("stamp") == stamp and (target.is_file() or not known["num_samples"]):
        return known
    temporary = config.run_dir / f".{name}.part"
    outcomes: list[dict[str, Any]] = []
    try:
        with temporary.open("wb") as file, TarWriter(file) as writer:
            for first in range(0, count, config.batch_size):
                clips = _clips(shard, range(first, min(first + config.batch_size, count)), config)
                for sample in _pairs(clips, task, config, outcomes):
                    writer.write(sample)
            file.flush()
        kept = sum(one["rule"] is None for one in outcomes)
        note.unlink(missing_ok=True)  # of what was made before: it must not vouch for another tar
        if kept:
            os.replace(temporary, target)  # noqa: PTH105
        else:
            target.unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)
    record = {k: v for k, v in shard.record.items() if k not in ("sha256", "num_samples", "stamp", "name")}
    record |= {"name": name, "split": shard.split, "num_samples": kept, "stamp": stamp, "outcomes": outcomes}
    record["sha256"] = runfolder.file_sha256(target) if kept else None
    runfolder.write_json(note, record)
    return record


def _clips(shard: Shard, rows: range, config: BacktranslateConfig) -> list[Clip]:
    samples = [shard.read(row, SUFFIXES) for row in rows]
    captions = [decode_text(sample.files["txt"]) for sample in samples]
    choices = [(key_number(f"{sample.key}\n{config.sampler.seed}") % 2**32) / 2**32 for sample in samples]
    trips = config.writer.write(captions, choices)
    clips = []
    for sample, caption, trip in zip(samples, captions, trips, strict=True):
        latent, rate = LATENT.decode(sample.files["latent.npy"], sample.files["json"])
        record = decode_record(sample.files["json"])
        clips.append(Clip(sample.key, torch.from_numpy(latent).float(), rate, caption, record, trip))
    return clips


def _pairs(
    clips: list[Clip],
    task: FlowTask,
    config: BacktranslateConfig,
    outcomes: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The samples that the filter keeps; what became of each clip is added to `outcomes`."""
    asked = [(clip, clip.trip) for clip in clips if clip.trip is not None]
    outcomes += [_outcome(clip, {}, "no instruction") for clip in clips if clip.trip is None]
    if not asked:
        return
    source = Latent(
        torch.stack([clip.latent for clip, _ in asked]), torch.tensor([c.frame_rate for c, _ in asked])
    )
    batch = EditBatch(
        source,
        [trip.forward.text for _, trip in asked],
        [trip.forward.name for _, trip in asked],
        torch.tensor([key_number(clip.key) for clip, _ in asked]),
    )
    with torch.no_grad():
        edited = edit_latents(task, batch, config.sampler)
    text: TextCondition = task.conditioners.named()["text"]
    back = [trip.backward.text for _, trip in asked]
    features, cut = text_features(text.prompts(back, [clip.frame_rate for clip, _ in asked]), text)
    for row, (clip, trip) in enumerate(asked):
        before, after = (_frames(task, latent, row, config.tiling) for latent in (source, edited))
        shown = slice(clip.record.get("frames"))  # the codec's last latent frame may hold more
        captions = (clip.caption, trip.caption)
        scores, rule = config.filter.judge(before[:, shown], after[:, shown], captions)
        outcomes.append(_outcome(clip, scores, rule) | {"instruction_tokens_cut": cut[row]})
        if rule is None:
            edit = {"task": trip.backward.name, "form": BACKTRANSLATED, "forward": trip.forward.text}
            record = clip.record | ({"caption_tokens_cut": cut[row]} if cut[row] else {})
            yield {
                "__key__": f"{clip.key}-back",
                "latent.npy": _npy(clip.latent.numpy()),
                "source.npy": _npy(edited.values[row].float().numpy()),
                **{suffix: _npy(each[row]) for suffix, each in features.items()},
                "txt": trip.backward.text,
                "json": json.dumps({**record, "edit": edit, "scores": scores}, ensure_ascii=False).encode(),
            }


@torch.no_grad()
def _frames(task: FlowTask, latent: Latent, row: int, tiling: Tiling) -> torch.Tensor:
    """Frames [3, T, H, W] of one clip of latents."""
    one = Latent(latent.values[row : row + 1], latent.frame_rate[row : row + 1])
    return torch.cat(list(decoded(task.codec, one, tiling)), dim=2)[0]


def _outcome(clip: Clip, scores: dict[str, float], rule: str | None) -> dict[str, Any]:
    task = clip.trip.forward.name if clip.trip else None
    trip = asdict(clip.trip) if clip.trip else None
    return {"key": clip.key, "task": task, "trip": trip, "scores": scores, "rule": rule}


def table(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of the clips: by task how many were kept, what took the others, and the mean of each score."""
    outcomes = [one for record in records for one in record["outcomes"]]
    tasks: dict[str, Any] = {}
    for name in sorted({one["task"] or "none" for one in outcomes}):
        own = [one for one in outcomes if (one["task"] or "none") == name]
        names = sorted({score for one in own for score in one["scores"]})
        tasks[name] = {
            "clips": len(own),
            "kept": sum(one["rule"] is None for one in own),
            "rules": dict(Counter(one["rule"] for one in own if one["rule"]).most_common()),
            "scores": {
                n: float(np.mean([one["scores"][n] for one in own if n in one["scores"]])) for n in names
            },
        }
    return {"clips": len(outcomes), "kept": sum(one["rule"] is None for one in outcomes), "tasks": tasks}


def shown(told: dict[str, Any]) -> str:
    """The table as text."""
    lines = [f"{'task':<12} {'clips':>6} {'kept':>6}  left out; mean scores"]
    for name, row in told["tasks"].items():
        rules = ", ".join(f"{count} {rule}" for rule, count in row["rules"].items()) or "none"
        scores = ", ".join(f"{key} {value:.3f}" for key, value in row["scores"].items())
        lines.append(f"{name:<12} {row['clips']:>6} {row['kept']:>6}  {rules}; {scores}")
    return "\n".join([*lines, f"{'all':<12} {told['clips']:>6} {told['kept']:>6}"])


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()
