"""`moviegen edit`: a video or picture with what an instruction changes; frames, rate and sound stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from moviegen import runfolder
from moviegen.codec.base import VideoCodec
from moviegen.codec.tiling import Tiling
from moviegen.conditioning.edit_tasks import TEXT_TO_VIDEO, recognised
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.edit_files import (
    SourceClip,
    changed_share,
    edited_frames,
    kept_frames,
    read_source,
    remembered,
    strip,
    write_like,
)
from moviegen.edit_outputs import MANIFEST, Edit, check_outputs, finished, outdated, reserved, tell_replaced
from moviegen.edit_sizes import check_size, check_sources, edited_size
from moviegen.keep import Keep
from moviegen.lineage import check_training, warn_untrained
from moviegen.modelfile import Dtype, codec_files, edit_tasks, load_task, weights_file
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.tasks.editing import (
    Baseline,
    EditBatch,
    EditSampler,
    edit_latents,
    source_condition,
    task_conditions,
    window_size,
)
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.limits import check_lengths
from moviegen.types import Latent

UNSIGNED = ("model", "marking", "codec", "tiling")  # of a recipe: not among the settings of the manifest
UNCHANGED = 0.002  # share of pixels below which an edit is said to have done nothing; ours
PLAIN_RATE = 24.0  # stands for any frame rate where the length of an instruction is counted


@dataclass(frozen=True)
class EditConfig:
    """The keys of conf/edit.yaml, which says what they are."""

    run_dir: Path
    checkpoint: str
    sampler: EditSampler
    video: str | None = None
    image: str | None = None
    instruction: str | None = None
    edit_task: str | None = None
    edits: str | None = None
    baseline: Baseline | None = None
    height: int | None = None
    width: int | None = None
    tiling: Tiling = field(default_factory=Tiling)
    keep: Keep | None = None
    max_frames: int = 20_000
    batch_size: int = 16
    crf: int = 18
    strips: bool = True
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    precision: Dtype = "float32"
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, crf=0, num_threads=1, max_frames=1, height=1, width=1)
        given = [name for name in ("video", "image", "edits") if getattr(self, name)]
        if len(given) != 1:
            raise UserError(
                f"give video=in.mp4, image=in.png or edits=FILE, one of them; given: {', '.join(given) or 'none'}"
            )
        if self.edits is None and not (self.instruction or "").strip():
            raise UserError("say what to change: instruction='make the red star blue'")

    @property
    def kept(self) -> Keep | None:
        """How the source is put back; not into `copy`, which shows the codec, and `ignore`, which knows no source."""
        return self.keep if self.baseline in (None, "sdedit") else None


def edit(cfg: DictConfig) -> None:
    """Write each edited file, marked as generated, `<id>.json` beside it, a strip and `manifest.jsonl` into run_dir.

    Finished edits are kept. Raises UserError or ValueError, before anything is written, for instructions that ask for
    no edit, a model that takes no source, a size that it cannot make, or files that would replace a source or somebody
    else's; MediaError for sources that cannot be read, of which the contents show only when they are.
    """
    config: EditConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    edits, out = asked(config), config.run_dir
    check_outputs(out, edits, config.edits)
    runfolder.check_same_command(out, cfg)
    exporter = Exporter(config.marking, config.filters)
    check_training(config.checkpoint, ConsentStore(config.store))
    config.filters.check_prompts({one.id: one.instruction for one in edits})
    task = _model(config)
    _check(task, edits, config)
    recipe = _recipe(config)
    todo = [one for one in edits if not finished(out, one, recipe, config.strips)]
    check_sources(todo, task, (config.height, config.width), config.sampler, config.baseline)
    batches = _warned(_batches(todo, task, config), task, config)
    first = [batch for batch in (next(batches, None),) if batch]  # read before anything is written
    out.mkdir(parents=True, exist_ok=True)
    tell_replaced(out, todo)
    runfolder.record(out, cfg)
    with tqdm(total=len(edits), initial=len(edits) - len(todo), desc="edit", unit="clip") as progress:
        for batch in chain(first, batches):
            _write(batch, task, config, recipe, exporter)
            progress.update(len(batch))
    rows = [{**asdict(one), "file": one.file, **_told(config)} for one in edits]
    runfolder.write_text(out / MANIFEST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if len(edits) == 1:
        print(f"{out / edits[0].file} written")


def asked(config: EditConfig) -> list[Edit]:
    """The edits of a command; tells which tasks were recognised. Raises UserError naming one that cannot be used."""
    known = edit_tasks(config.checkpoint)
    if config.edits is None:
        source = str(config.video or config.image)
        row = {"id": "edited", "instruction": config.instruction, "task": config.edit_task}
        rows = [row | {"image" if config.image else "video": source}]
        edits = [_edit(rows[0], "instruction", Path(), known)]
    else:
        rows, edits = _listed(Path(config.edits), known)
    unnamed = Counter(one.task for one, row in zip(edits, rows, strict=True) if not row.get("task"))
    if unnamed:
        told = ", ".join(f"{name} ({count})" for name, count in unnamed.most_common())
        print(f"edit tasks, by the words of instructions that name none: {told}")
    return edits


def _listed(path: Path, known: list[str] | None) -> tuple[list[dict[str, Any]], list[Edit]]:
    """The rows of a file of edits, and what each asks for."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a json object a line ({error})") from None
    if not rows:
        raise UserError(f"{path}: asks for no edits")
    edits = [_edit(row, f"{path} line {number}", path.parent, known) for number, row in enumerate(rows, 1)]
    ids = [one.id for one in edits]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise UserError(f"{path}: two edits are called {twice}; give other ids")
    return rows, edits


def _edit(row: Any, where: str, folder: Path, known: list[str] | None) -> Edit:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("id", "instruction")):
        raise UserError(f"{where}: needs id, instruction, and video or image, each a text")
    source = row.get("video") or row.get("image")
    name = row["id"]
    if not isinstance(source, str) or not name.strip() or Path(name).name != name or name.startswith("."):
        raise UserError(f"{where}: needs a video or an image, and an id that is a plain file name")
    try:
        named = row.get("task") or recognised(row["instruction"], known)
    except ValueError as error:
        key = "edit_task=..." if where == "instruction" else "task in its row"
        raise UserError(f"{where}: {error} ({key})") from None
    return Edit(
        row["id"], str(folder / source), not row.get("video"), row["instruction"], named, row.get("caption")
    )


def _model(config: EditConfig) -> FlowTask:
    task = load_task(config.checkpoint)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(f"{config.checkpoint} is a {type(task).__name__} without text input")
    if config.baseline is None and source_condition(task) is None:
        raise UserError(
            f"{config.checkpoint} takes no source; give a model that was trained with task=edit, or baseline=sdedit"
        )
    known = {"text", source_condition(task), *task_conditions(task)}
    others = sorted(set(task.conditioners.items) - known)
    if others and config.baseline != "copy":  # which asks the codec alone
        raise UserError(f"{config.checkpoint} wants the input {others[0]!r} too, which edit does not give")
    return task


def _check(task: FlowTask, edits: list[Edit], config: EditConfig) -> None:
    """Refuse tasks and instructions that the model cannot take, and tiles that do not fit its codec."""
    config.tiling.check(task.codec.spatial_factor, task.codec.temporal_factor)
    for name in task_conditions(task):
        known = [one for one in task.conditioners.named()[name].tasks if one != TEXT_TO_VIDEO]
        if wrong := next((one for one in edits if one.task not in known), None):
            raise UserError(f"{wrong.id}: task={wrong.task} is none of this model's: {', '.join(known)}")
    check_lengths(task, {one.id: _text(one, config) for one in edits}, PLAIN_RATE)
    if config.height is not None and config.width is not None:
        check_size(task, (config.height, config.width))


def _text(one: Edit, config: EditConfig) -> str:
    """What the text condition is told: the instruction, or what is to be seen, of a model that knows no source."""
    return one.instruction if config.baseline is None else one.caption or one.instruction


def _batches(
    edits: list[Edit], task: FlowTask, config: EditConfig
) -> Iterator[list[tuple[Edit, SourceClip]]]:
    """Sources in the order of the edits, as many at a time as have one size and frame rate."""
    batch: list[tuple[Edit, SourceClip]] = []
    for one in edits:
        with torch.no_grad():
            size = edited_size(one, task, (config.height, config.width))
            source = read_source(one.source, task.codec, size, config.tiling, config.max_frames, one.still)
        first = batch[0][1] if batch else source
        same = (first.latent.shape, first.frame_rate) == (source.latent.shape, source.frame_rate)
        if batch and (not same or len(batch) == config.batch_size):
            yield batch
            batch = []
        batch.append((one, source))
    if batch:
        yield batch


def _warned(
    batches: Iterable[list[tuple[Edit, SourceClip]]], task: FlowTask, config: EditConfig
) -> Iterator[list[tuple[Edit, SourceClip]]]:
    """The batches; what their windows ask of the model beyond its training is told on stderr, each thing once."""
    told = []
    for batch in batches:
        source = batch[0][1]
        asked = window_size(
            task.codec, source.latent.shape[2:], config.sampler.window, source.num_frames, source.frame_rate
        )
        if config.baseline != "copy" and asked not in told:  # which asks the codec alone
            warn_untrained(config.checkpoint, asked)
            told.append(asked)
        yield batch


def _write(
    batch: list[tuple[Edit, SourceClip]],
    task: FlowTask,
    config: EditConfig,
    recipe: dict[str, Any],
    exporter: Exporter,
) -> None:
    edits, sources = zip(*batch, strict=True)
    values = torch.cat([source.latent for source in sources]).to(task.device)
    rates = torch.tensor([source.frame_rate for source in sources])
    request = EditBatch(
        Latent(values, rates),
        [_text(one, config) for one in edits],
        [one.task for one in edits],
        torch.tensor([_key(one) for one in edits]),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        made = edit_latents(task, request, config.sampler, config.baseline).values.float()
        for one, source, latent in zip(edits, sources, made, strict=True):
            _export(one, source, latent[None], task.codec, config, recipe, exporter)


def _export(
    one: Edit,
    source: SourceClip,
    edited: Tensor,
    codec: VideoCodec,
    config: EditConfig,
    recipe: dict[str, Any],
    exporter: Exporter,
) -> None:
    shown: list[np.ndarray] = []
    parts: list[float] = []

    def card() -> dict[str, Any]:  # asked when the file is there
        told = {"edit": asdict(one), "frames": source.num_frames, "frame_rate": source.frame_rate}
        told |= {"edited_share": float(np.mean(parts))} if parts else {}
        return {**told, "changed": changed_share(source.shown, shown), "recipe": recipe}

    settings = {name: value for name, value in recipe.items() if name not in UNSIGNED}
    settings |= {"task": one.task, "noise_key": _key(one)}
    origin = Origin(
        config.checkpoint,
        recipe["model"],
        one.instruction,
        config.sampler.seed,
        settings,
        (Path(one.source),),
    )
    if (keep := config.kept) is None or one.task in keep.spare:
        frames = edited_frames(edited, source, codec, config.tiling)
    else:
        frames = kept_frames(edited, source, codec, config.tiling, keep.of(one.task), parts)
    write = None if one.still else write_like(source, config.crf)
    frames = remembered(frames, source.num_frames, shown)
    made = Made(frames, source.frame_rate or 1.0, crf=config.crf, write=write)
    for name in one.strip:  # an earlier one is of another edit
        (config.run_dir / name).unlink(missing_ok=True)
    before = outdated(config.run_dir, one)
    with reserved(config.run_dir, one):
        exporter.export(config.run_dir / one.file, made, origin, card)
    for path in before:
        path.unlink(missing_ok=True)
    if config.strips:
        picture = Made([strip(source.shown, shown)])
        exporter.export(config.run_dir / one.strip[0], picture, origin, {"strip_of": one.id})
    if config.baseline is None and changed_share(source.shown, shown) < UNCHANGED:
        faint = (
            f" Or is the edit fainter than keep.high={keep.of(one.task).high:g}?" if keep and parts else ""
        )
        print(f"{one.id}: nothing was changed; is what the instruction names in {one.source}?{faint}")


def _key(one: Edit) -> int:
    return key_number(f"{one.id}\n{one.instruction}")


def _recipe(config: EditConfig) -> dict[str, Any]:
    """What all edits of a run share; if it changes, all are made anew."""
    names = ("baseline", "height", "width", "crf", "precision")
    return {
        "model": runfolder.file_sha256(weights_file(config.checkpoint)),
        "codec": " ".join(map(runfolder.file_sha256, codec_files(config.checkpoint))) or None,
        "sampler": asdict(config.sampler),
        "tiling": asdict(config.tiling),
        **{name: getattr(config, name) for name in names},
        "marking": config.marking.recipe(),
        **_told(config),
    }


def _told(config: EditConfig) -> dict[str, Any]:
    """What is said of `keep`: nothing where it is off, so that files stay those that were made without it."""
    return {"keep": asdict(config.kept)} if config.kept else {}
