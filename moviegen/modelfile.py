"""Models on disk: `NAME.safetensors` (weights) beside `NAME.json` (what to build). Nothing is pickled.

Frozen parts (codec of a generator, text encoders) are named in the json and not stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moviegen.codec.audio import AudioAutoencoder
from moviegen.codec.dacvae import load_dacvae
from moviegen.codec.layers import lay_out_for_inference
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.config import REPOSITORY, UserError, build, check_targets
from moviegen.runfolder import read_json, write_json
from moviegen.targets import MODEL_TARGETS
from moviegen.tasks.base import Task
from moviegen.tasks.sharded import whole

FORMAT = 1
Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Weights = dict[str, Tensor]  # by name


def locate(path: str) -> Path:
    """The model `path` without suffix: as given, else relative to the repository. Raises UserError if absent."""
    given = Path(path).with_suffix("") if Path(path).suffix in (".json", ".safetensors") else Path(path)
    for base in (given, REPOSITORY / given):
        if (
            base.with_name(base.name + ".json").is_file()
            and base.with_name(base.name + ".safetensors").is_file()
        ):
            return base
    raise UserError(f"no model at {path}: {given}.json and {given}.safetensors must both exist")


def weights_file(path: str) -> Path:
    """The safetensors file of a model on disk. Raises as `locate`."""
    base = locate(path)
    return base.with_name(base.name + ".safetensors")


def read_record(path: str) -> dict[str, Any]:
    """The json of a model on disk: {"task", "info", ...}; empty where it holds something else. Raises as `locate`."""
    base = locate(path)
    record = read_json(base.with_name(base.name + ".json"))
    return record if isinstance(record, dict) else {}


def save_model(
    path: Path,
    task: Task,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    info: Mapping[str, Any],
    *,
    write: bool = True,
) -> None:
    """Write a task's weights (floating ones as `dtype`) and its config node, for `any_machine`: both files or neither.

    Sharded weights are gathered: all processes call together, and one of them writes. Raises UserError where they
    cannot be written.
    """
    exported = task.exported()
    state = {}
    for name, value in exported.items():
        one = whole(value.detach())
        if write:  # the others only lend their shards
            state[name] = one.cpu()
    if not write:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in as_stored(state, dtype).items()}
    parameters = sum(p.numel() for name, p in task.named_parameters() if name in exported)
    node = any_machine(task.described(config))
    record = {"format": FORMAT, "task": node, "num_parameters": parameters, "info": dict(info)}
    temporary = path.with_name(f".{path.name}.safetensors")
    try:
        save_file(state, temporary)
        temporary.chmod(0o644)
        write_json(path.with_name(path.name + ".json"), record)
        # last, because a rename needs no room: what can fail has not touched the model that was there
        os.replace(temporary, path.with_name(path.name + ".safetensors"))  # noqa: PTH105
    except (SafetensorError, OSError) as error:  # a full disk is the first of the two
        raise UserError(
            f"cannot write {path}.safetensors ({error}); the checkpoint is kept: "
            "make room and give the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def any_machine(node: Mapping[str, Any]) -> dict[str, Any]:
    """A task's node without the attention kernel that its training named, which belongs to that machine."""
    backbone = node.get("backbone")
    if not (isinstance(backbone, Mapping) and isinstance(backbone.get("config"), Mapping)):
        return dict(node)
    kept = {name: value for name, value in backbone["config"].items() if name != "attention"}
    return {**node, "backbone": {**backbone, "config": kept}}


def as_stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> Weights:
    """Tensors as `save_model` writes them: floating ones rounded to `dtype`, others as they are."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


def read_weights(path: str) -> Weights:
    """The tensors of a model on disk; a damaged file raises UserError naming it."""
    file = weights_file(path)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file ({error})") from error


def load_weights(task: Task, path: str, fit: Callable[[Weights], Weights] | None = None) -> None:
    """Copy a model's weights into a task; raises UserError if the architectures differ.

    `fit` makes those of another model fit first: `Task.adopted`, or what `stages.start_from` does.
    """
    weights, own = read_weights(path), task.exported()
    if all(
        value.is_meta for value in own.values()
    ):  # a task without memory for weights, to be held against them
        weights = {name: value.to("meta") for name, value in weights.items()}
    weights = fit(weights) if fit else weights
    check_architecture(weights, own, path)
    task.load_state_dict(weights, strict=False)  # names and shapes were compared above


def check_architecture(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str, advice: str = ""
) -> None:
    """Raise UserError, with `advice`, if the tensors of the file `path` differ in name or shape from a model's own."""
    wrong = [n for n in own if n not in weights or weights[n].shape != own[n].shape]
    wrong += [n for n in weights if n not in own]
    if wrong:
        name = wrong[0]
        shapes = [list(part[name].shape) if name in part else "absent" for part in (weights, own)]
        raise UserError(
            f"{path} is of another architecture: {len(wrong)} tensors differ, first {name}: "
            f"{shapes[0]} in the file, {shapes[1]} in the model" + (f"; {advice}" if advice else "")
        )


def read_info(path: str) -> dict[str, Any]:
    """What the json of a model on disk tells of its training: steps, commit, consents, frame_rates; maybe nothing."""
    return read_record(path).get("info") or {}


def codec_files(path: str) -> list[Path]:
    """The weights files of the codec that a model on disk names: one of ours, those of a diffusers folder, or none."""
    named = ((read_record(path).get("task") or {}).get("codec") or {}).get("path")
    if named is None:
        return []
    if Path(named).is_dir():
        return sorted(Path(named).rglob("*.safetensors"))
    return [weights_file(named)]


def condition_nodes(path: str) -> dict[str, dict[str, Any]]:
    """What the conditions of a model on disk are built from, by name; maybe nothing. Raises as `locate`."""
    node = read_record(path).get("task")
    found = node.get("conditioners") if isinstance(node, dict) else None
    return {n: one for n, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def edit_tasks(path: str) -> list[str] | None:
    """Names of the edit tasks of a model on disk; None where it has none, or does not name them. Raises as `locate`."""
    named = (node.get("tasks") for node in condition_nodes(path).values())
    return next((tasks for tasks in named if isinstance(tasks, list)), None)


def load_task(path: str, **overrides: Any) -> Task:
    """Build the task that a model on disk describes, in evaluation mode, with its weights.

    Raises UserError for a json that describes no task or names what a model may not, before anything is built.
    """
    file = locate(path)
    try:
        record = json.loads(file.with_name(file.name + ".json").read_text(encoding="utf-8"))
        node = any_machine(dict(record["task"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}.json does not describe a model ({type(error).__name__}: {error})") from error
    try:
        check_targets(node, MODEL_TARGETS)  # a downloaded file, which must not choose what runs
        task = build({**node, **overrides})
    except UserError as error:
        raise UserError(f"{file}.json: {error}") from error
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]  # torch's texts have many lines
        raise UserError(
            f"{file}.json: no model can be built from it: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(task, Task):
        raise UserError(f"{file}.json describes a {type(task).__name__}, not a task")
    load_weights(task, str(file))
    return task.eval()


def load_codec(path: str) -> TemporalAutoencoder:
    """The frozen autoencoder of a model on disk, or the one that a generator keeps; raises UserError without one."""
    codec = getattr(load_task(path), "codec", None)
    if not isinstance(codec, TemporalAutoencoder):
        raise UserError(f"{path} holds no codec; give a model that was trained by CodecTask")
    lay_out_for_inference(codec)
    return codec.requires_grad_(False).eval()


def any_codec(given: Any) -> Any:
    """A frozen codec of videos: ours by its path on disk (without suffix), others built or by their `_target_` node.

    Raises UserError for a model that has no codec, or another thing than a codec.
    """
    if isinstance(given, str):
        return load_codec(given)
    codec = build(given) if isinstance(given, Mapping) else given
    if not all(hasattr(codec, name) for name in ("encode", "decode", "spatial_factor", "temporal_factor")):
        raise UserError(f"{type(codec).__name__} is no codec of videos")
    return codec


def load_audio_codec(path: str) -> AudioAutoencoder:
    """The frozen sound autoencoder of a model on disk, or of a file of Meta's DACVAE (.pth, or .safetensors alone).

    Raises UserError if there is none.
    """
    file = Path(path)
    if file.is_file() and not file.with_suffix(".json").is_file():
        try:
            return load_dacvae(file).requires_grad_(False)
        except ValueError as error:
            raise UserError(str(error)) from error
    codec = getattr(load_task(path), "codec", None)
    if not isinstance(codec, AudioAutoencoder):
        raise UserError(f"{path} holds no sound codec; give a model that was trained by AudioCodecTask")
    return codec.requires_grad_(False).eval()
