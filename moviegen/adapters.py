"""LoRA adapters on disk, in PEFT's format: `adapter_model.safetensors` and `adapter_config.json` in a folder.

`base.json` beside them says which model they were trained on, and how its prompts were read. Reading needs no peft: the
product of the two matrices is added to the weights. Of the jsons, which may come from somebody else, a few values are
read; nothing is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moviegen.conditioning.base import ConditionerSet
from moviegen.conditioning.text import TextCondition
from moviegen.config import UserError
from moviegen.modelfile import locate
from moviegen.runfolder import file_sha256, read_json, write_json
from moviegen.tasks.base import Task
from moviegen.tasks.lora import MARK, Lora

WEIGHTS, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"
PREFIX = "base_model.model."  # before the names of a PeftModel's layers
OTHER_KINDS = (  # which scale or compute differently, or change the model beneath
    "use_dora",
    "use_rslora",
    "lora_bias",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "layer_replication",
)
# values of init_lora_weights that leave the model as it is
SAME_BASE = ("none", "true", "false", "gaussian", "eva", "orthogonal", "mica")
MATRICES = (f".{MARK}A.weight", f".{MARK}B.weight")
PATTERNS = {"lora_alpha": "alpha_pattern", "r": "rank_pattern"}  # what some layers have of their own


def save_adapter(folder: Path, task: Task, lora: Lora, info: Mapping[str, Any]) -> Path:
    """Write the trained matrices of a task that `lora` was injected into; returns the path of the weights.

    `info["init_from"]` is the model that they belong to. Raises UserError where they cannot be written.
    """
    backbone: nn.Module = task.get_submodule("backbone")
    state = {
        PREFIX + name.replace(".default.", "."): parameter.detach().cpu().contiguous()
        for name, parameter in backbone.named_parameters()
        if MARK in name
    }
    base = locate(str(info["init_from"]))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(info["init_from"]),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS}"
    try:
        save_file(state, temporary)
        temporary.chmod(0o644)
        write_json(folder / CONFIG, config)
        digest = file_sha256(base.with_name(base.name + ".safetensors"))
        note = {"model": str(info["init_from"]), "sha256": digest, "info": dict(info)}
        write_json(
            folder / BASE, note | {"text": {n: text.feature_settings() for n, text in _texts(task).items()}}
        )
        temporary.replace(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot write {folder / WEIGHTS} ({error}); the checkpoint is kept") from error
    finally:
        temporary.unlink(missing_ok=True)
    return folder / WEIGHTS


@torch.no_grad()
def merge_adapter(task: Task, folder: Path, model_sha256: str) -> None:
    """Add an adapter to the weights of the generator that it was trained on, and read prompts as it was trained to.

    Raises UserError for a folder that holds none, one of another kind, or one for another model or text encoder; no
    weight has been changed then.
    """
    scales, state = _read(folder)
    known = read_json(folder / BASE) if (folder / BASE).is_file() else {}
    known = known if isinstance(known, dict) else {}
    if known.get("sha256", model_sha256) != model_sha256:
        raise UserError(
            f"{folder} was trained on {known.get('model')}, whose weights are not those of this model"
        )
    layers = {
        name: part
        for name, part in task.get_submodule("backbone").named_modules()
        if isinstance(part, nn.Linear)
    }
    updates = {}
    for name, (scale, rank) in scales.items():
        down, up = (state.get(f"{name}.{MARK}{side}.weight") for side in "AB")
        if name not in layers or down is None or up is None:
            raise UserError(
                f"{folder / WEIGHTS}: {name} is no pair of matrices for a linear layer of this model"
            )
        weight = layers[name].weight
        if (
            down.ndim != 2
            or up.ndim != 2
            or (len(up), down.shape[1]) != weight.shape
            or not up.shape[1] == len(down) == rank
        ):
            shapes = f"{list(up.shape)} x {list(down.shape)}"
            raise UserError(
                f"{folder / WEIGHTS}: {name} is {shapes}, the layer {list(weight.shape)}, the rank {rank}"
            )
        updates[name] = scale * up.float() @ down.float()
    _read_prompts_as(task, known.get("text") or {}, folder)
    for name, update in updates.items():
        layers[name].weight.add_(update.to(layers[name].weight))


def _texts(task: Task) -> dict[str, TextCondition]:
    conditioners = getattr(task, "conditioners", None)
    named = conditioners.named() if isinstance(conditioners, ConditionerSet) else {}
    return {name: one for name, one in named.items() if isinstance(one, TextCondition)}


def _read_prompts_as(task: Task, told: Any, folder: Path) -> None:
    """Give the text conditions the settings that an adapter was trained with, where it tells them."""
    for name, text in _texts(task).items():
        try:
            text.read_as(told.get(name) or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error if isinstance(error, ValueError) else f"no text settings in {BASE} ({error!r})"
            raise UserError(f"{folder}: {reason}") from error


def _read(folder: Path) -> tuple[dict[str, tuple[float, int]], dict[str, Tensor]]:
    """By the names of the backbone's layers: scale and rank of an adapter's products, and its matrices."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no adapter: it has no {name}")
    config = _config(folder / CONFIG)
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} is not a readable safetensors file ({error})") from error
    other = next((name for name in state if not name.endswith(MATRICES)), None)
    if not state or other:
        raise UserError(
            f"{folder / WEIGHTS} holds other tensors than LoRA's matrices, or none ({other or 'it is empty'})"
        )
    state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    layers = sorted({name.rpartition(f".{MARK}")[0] for name in state})
    try:
        told = {
            name: (float(_of(config, "lora_alpha", name)), int(_of(config, "r", name))) for name in layers
        }
        return {name: (alpha / rank, rank) for name, (alpha, rank) in told.items()}, state
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, re.error) as error:
        raise _no_adapter(folder / CONFIG, error) from error


def _config(file: Path) -> dict[str, Any]:
    """What the json of an adapter tells; UserError for another kind than the one that is read."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, start = config["peft_type"], config.get("init_lora_weights")
    except (ValueError, KeyError, TypeError) as error:
        raise _no_adapter(file, error) from error
    other = [name for name in OTHER_KINDS if config.get(name)]
    if kind != "LORA" or other:
        raise UserError(f"{file}: only plain LORA is read, this is {' '.join([str(kind), *other])}")
    if str(start).lower() not in SAME_BASE:
        raise UserError(
            f"{file}: init_lora_weights={start!r} changed the model that the adapter belongs to; "
            "save it as plain LoRA, with path_initial_model_for_weight_conversion of peft"
        )
    return config


def _no_adapter(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} describes no adapter ({type(error).__name__}: {error})")


def _of(config: Mapping[str, Any], key: str, layer: str) -> Any:
    """What holds for a layer: what the first pattern says that the end of its name matches, as in peft, or all have."""
    patterns = config.get(PATTERNS[key]) or {}
    return next(
        (value for end, value in patterns.items() if re.match(rf"(.*\.)?({end})$", layer)), config[key]
    )
