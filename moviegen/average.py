"""`moviegen average`: the weights of several finetuning runs averaged, as the paper finishes its model (3.3).

Runs that differ in data, settings or start have different strengths; the held-out loss of each parent and of the
average says whether the average keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from scipy.special import stdtrit
from torch import Tensor
from tqdm import tqdm

from moviegen import runfolder
from moviegen.config import UserError, build, check_least
from moviegen.latents import check_latents
from moviegen.lineage import check_training, note_model, relied_on
from moviegen.modelfile import (
    DTYPES,
    Dtype,
    any_machine,
    as_stored,
    check_architecture,
    load_task,
    locate,
    read_weights,
    save_model,
)
from moviegen.provenance.consent import ConsentStore
from moviegen.tasks.flow_task import FlowTask

SAME = (
    "_target_",
    "backbone",
    "codec",
    "conditioners",
    "path",
)  # parts of a model's json that averaging assumes equal


@dataclass(frozen=True)
class AverageConfig:
    """The keys of conf/average.yaml, which says what they are."""

    run_dir: Path
    models: list[str]
    data: dict[str, Any]
    paths: dict[str, Any]  # what data nodes refer to
    weights: tuple[float, ...] = ()
    seed: int = 0
    num_threads: int | None = None
    export_dtype: Dtype = "float32"
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, seed=0, num_threads=1)
        if len(self.models) < 2:
            raise UserError(f"models={self.models}: an average wants two models or more")
        if self.weights and (len(self.weights) != len(self.models) or sum(self.weights) <= 0):
            given = f"weights={list(self.weights)}"
            raise UserError(f"{given}: give one for each of the {len(self.models)} models, of a positive sum")


def average(cfg: DictConfig) -> None:
    """Write the averaged model and numbers.json into run_dir.

    Raises UserError for models that are no generators of one architecture, ConsentError for one that was trained on
    people of whom one has revoked, before anything is written.
    """
    config: AverageConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    node, store = _common_node(config.models), ConsentStore(config.store)
    for path in config.models:
        check_training(path, store)
    states = [read_weights(path) for path in config.models]
    for path, state in zip(config.models[1:], states[1:], strict=True):
        check_architecture(
            state, states[0], path, f"average models of the architecture of {config.models[0]}"
        )
    task = load_task(config.models[0])
    if not isinstance(task, FlowTask):
        raise UserError(f"{config.models[0]} is a {type(task).__name__}; only generators are averaged")
    data = build(config.data)
    data.use(task.fields)
    folders = {source.path for source in data.val_sources.values()}
    check_latents(node, sorted(folders), task.conditioners.named())
    loader = data.val_dataloader()
    if not loader:
        raise UserError("data has no held-out clips: add a source to data.val")
    dtype = DTYPES[config.export_dtype]
    mean = as_stored(
        averaged(states, config.weights or (1.0,) * len(states)), dtype
    )  # what is written is measured
    losses = [held_out_losses(task, state, loader) for state in tqdm([*states, mean], "held-out loss")]
    rows = figures(config.models, losses)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    runfolder.record(config.run_dir, cfg, shards=sorted(folders))
    info = {
        "average_of": _parents(config, losses),
        "held_out_loss": float(losses[-1].mean()),
        **relied_on(config.models),
        **runfolder.git_state(),
    }
    save_model(config.run_dir / "model", task, node, dtype, info)
    note_model(config.run_dir / "model.safetensors", info.get("consents", ()), store)
    runfolder.write_json(config.run_dir / "numbers.json", rows)
    for row in rows:
        print(f"{row['name']:40} {row['value']:.5f} ({row['low']:.5f} .. {row['high']:.5f})")


def averaged(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of tensors of the same names, in float32; those that are no floats must be equal.

    Raises UserError for one that is not.
    """
    total = sum(weights)
    mean = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            if any(not torch.equal(state[name], first) for state in states):
                raise UserError(f"{name} holds {first.dtype} that differ from model to model: no average")
            mean[name] = first
            continue
        parts = (w / total * state[name].float() for w, state in zip(weights, states, strict=True))
        mean[name] = torch.stack(list(parts)).sum(0)
    return mean


@torch.no_grad()
def held_out_losses(task: FlowTask, state: dict[str, Tensor], loader: Any) -> Tensor:
    """The loss of each held-out clip [N] under some weights, averaged over fixed times, with fixed noise (3.2.2).

    The weights stay in the task.
    """
    task.load_state_dict(state, strict=False)  # names and shapes were compared before
    return torch.cat([task.held_out(batch).mean(1) for batch in loader])


def figures(models: Sequence[str], losses: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Rows of numbers.json: each parent's mean loss, the average's, and how far the average is from each parent.

    `losses` holds those of the parents [N] and, last, those of the average. Differences are taken clip by clip.
    """
    names = [f"parent_{number}" for number in range(len(models))] + ["mean"]
    rows = [_row(f"average/{n}/held_out_loss", loss, "loss") for n, loss in zip(names, losses, strict=True)]
    for name, loss in zip(names[:-1], losses[:-1], strict=True):
        rows.append(_row(f"average/mean/minus_{name}", losses[-1] - loss, "difference of the loss"))
    return rows


def _row(name: str, values: Tensor, unit: str) -> dict[str, Any]:
    """A figure with Student's interval over clips; a single clip has none to speak of."""
    count, mean = len(values), float(values.double().mean())
    spread = float(values.double().std()) if count > 1 else 0.0
    half = float(stdtrit(count - 1, 0.975)) * spread / math.sqrt(count) if count > 1 else 0.0
    ends = {"low": mean - half, "high": mean + half}
    return {"name": name, "value": mean, **ends, "n": count, "unit": unit, "higher_is_better": False}


def _common_node(models: Sequence[str]) -> dict[str, Any]:
    """The task node of the first model; raises UserError where another one's json says another model."""
    nodes = []
    for path in models:
        base = locate(path)
        try:
            nodes.append(any_machine(dict(runfolder.read_json(base.with_name(base.name + ".json"))["task"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{base}.json does not describe a model ({type(error).__name__}: {error})"
            ) from error
    for path, node in zip(models, nodes, strict=True):
        for part in SAME:
            if node.get(part) != nodes[0].get(part):
                raise UserError(
                    f"{path} differs from {models[0]} in {part}: only models that differ in training average"
                )
    return nodes[0]


def _parents(config: AverageConfig, losses: Sequence[Tensor]) -> list[dict[str, Any]]:
    weights, found = config.weights or (1.0,) * len(config.models), []
    for path, weight, loss in zip(config.models, weights, losses[:-1], strict=True):
        base = locate(path)
        digest = runfolder.file_sha256(base.with_name(base.name + ".safetensors"))
        share = weight / sum(weights)
        found.append({"model": path, "sha256": digest, "weight": share, "held_out_loss": float(loss.mean())})
    return found
