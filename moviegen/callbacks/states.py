"""What a checkpoint holds: everything that the next step of a training depends on, as tensors by name and plain values.

Tensors keep their sharding (DTensor): every rank gives its own part, and reads its own part on any other layout. All
else is json. A tensor of a rank alone (its random numbers) has the rank in its name.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.loops.evaluation_loop import RestartStage
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from moviegen.callbacks.manifest import CheckpointError, Entry

log = logging.getLogger(__name__)
Tensors = dict[str, Tensor]
MODEL = "model/"
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


def plain_name(name: str) -> str:
    """A parameter's name as it is without compilation and activation checkpointing."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def encode(value: Any, path: str, tensors: Tensors) -> Any:
    """A nested state as json; its tensors are added to `tensors` under their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"__tensor__": path}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"__float__": repr(value)}
    if isinstance(value, list | tuple):
        items = [encode(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
        return items if isinstance(value, list) else {"__tuple__": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: encode(item, f"{path}/{key}", tensors) for key, item in value.items()}
        pairs = enumerate(value.items())
        return {"__items__": [encode(list(pair), f"{path}/{number}", tensors) for number, pair in pairs]}
    raise CheckpointError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `encode` was given."""
    if isinstance(node, list):
        return [decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    if "__tensor__" in node:
        return tensors[node["__tensor__"]]
    if "__float__" in node:
        return float(node["__float__"])
    if "__tuple__" in node:
        return tuple(decode(node["__tuple__"], tensors))
    if "__items__" in node:
        return {decode(key, tensors): decode(item, tensors) for key, item in node["__items__"]}
    return {key: decode(item, tensors) for key, item in node.items()}


def rng_state() -> Tensors:
    """The generators of torch (also of this process's GPU), numpy and Python, as tensors."""
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    _, words, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*np.asarray(keys).tolist(), int(place), int(has_gauss)], dtype=torch.int64),
        "python": torch.tensor(words, dtype=torch.int64),
        "gauss": torch.tensor([gauss, math.nan if next_gauss is None else next_gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Put back what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    gauss, next_gauss = state["gauss"].tolist()
    *keys, place, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, gauss))
    random.setstate((3, tuple(state["python"].tolist()), None if math.isnan(next_gauss) else next_gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_anew(seed: int, step: int, rank: int) -> None:
    """Generators for a rank whose state no checkpoint holds: the run has another number of ranks than it had."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(3, np.uint32).tolist()
    torch.manual_seed(words[0])
    np.random.seed(words[1])
    random.seed(words[2])


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """An optimizer's state by the names of the parameters, `names` by id."""
    groups = [
        {**{key: value for key, value in group.items() if key != "params"}, "params": _names(group, names)}
        for group in optimizer.param_groups
    ]
    return {"groups": groups, "state": {names[id(p)]: dict(kept) for p, kept in optimizer.state.items()}}


def set_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], parameters: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_state` gave, but for the settings, such as the rate: those stay, and a change is told.

    Raises CheckpointError for an optimizer of other parameters.
    """
    names = {id(p): name for name, p in parameters.items()}
    settings, theirs = {}, {}
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        if _names(group, names) != saved["params"]:
            raise CheckpointError("the checkpoint's optimizer has other parameters than this one")
        kept = {"params", "initial_lr", *optimizer.defaults}
        group.update({key: value for key, value in saved.items() if key not in kept})
        settings |= {key: group[key] for key in optimizer.defaults}
        settings |= {"lr": group["initial_lr"]} if "initial_lr" in group else {}  # that of the config
        theirs |= saved | ({"lr": saved["initial_lr"]} if "initial_lr" in saved else {})
    _tell_changed("optimizer", theirs, settings)
    for name, kept in state["state"].items():
        optimizer.state[parameters[name]] = dict(kept)


def set_schedule_state(scheduler: LambdaLR, state: Mapping[str, Any]) -> None:
    """Put back how far a schedule is, and the rates; where its settings or the optimizer's rate changed, the new rates.

    Of a schedule's attributes those that its class names in STATE are put back, the others are settings.
    """
    schedule, rates = scheduler.lr_lambdas[0], list(scheduler.base_lrs)  # all groups have the same
    settings = {n: v for n, v in vars(schedule).items() if n not in getattr(schedule, "STATE", ())}
    scheduler.load_state_dict(dict(state))
    vars(schedule).update(settings)
    scheduler.base_lrs = rates
    if _tell_changed("schedule", state["lr_lambdas"][0] or {}, settings) or rates != state["base_lrs"]:
        scheduler._last_lr = [rate * schedule(scheduler.last_epoch) for rate in rates]
    for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate


def _tell_changed(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Warn of each of the `new` settings that was another before; whether there is one."""
    changed = [name for name, value in new.items() if old.get(name, value) != value]
    for name in changed:
        log.warning("%s.%s was %s and is now %s, from this step on", part, name, old[name], new[name])
    return bool(changed)


def _names(group: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    return [names[id(p)] for p in group["params"]]


def named_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by their plain names."""
    return {plain_name(name): p for name, p in module.named_parameters()}


def model_tensors(module: nn.Module) -> Tensors:
    """The module's state under the names that it has in a checkpoint; these share memory with the module."""
    return {MODEL + plain_name(name): value for name, value in module.state_dict().items()}


def collect(trainer: L.Trainer, task: L.LightningModule) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name and plain values; the random numbers are not among them."""
    tensors = model_tensors(task)
    names = {id(p): name for name, p in named_parameters(task).items()}
    more: dict[str, Any] = {}
    task.on_save_checkpoint(more)
    state = {
        "global_step": trainer.global_step,
        "more": more,  # of the task's own, such as the stage
        "loops": trainer.fit_loop.state_dict(),
        "optimizers": [optimizer_state(optimizer, names) for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
        "data": _data_state(trainer),
        "callbacks": {c.state_key: s for c in _callbacks(trainer) if (s := c.state_dict())},
    }
    return tensors, {name: encode(value, name, tensors) for name, value in state.items()}


def targets(trainer: L.Trainer, task: L.LightningModule, entries: Mapping[str, Entry], rank: int) -> Tensors:
    """Tensors for a checkpoint's values to be read into: those of the run itself where it has them already.

    Raises CheckpointError for a checkpoint of another model.
    """
    own = collect(trainer, task)[0]
    parameters = named_parameters(task)
    shapes = {name: tuple(value.shape) for name, value in own.items() if name.startswith(MODEL)}
    saved = {name: entry.shape for name, entry in entries.items() if name.startswith(MODEL)}
    if shapes != saved:
        wrong = next(name for name in [*shapes, *saved] if shapes.get(name) != saved.get(name))
        raise CheckpointError(
            f"the checkpoint is of another model: {wrong.removeprefix(MODEL)} is {saved.get(wrong, 'absent')} there, "
            f"{shapes.get(wrong, 'absent')} here"
        )
    found: Tensors = {}
    for name, entry in entries.items():
        if name.startswith("rng/") and not name.startswith(f"rng/{rank}/"):
            continue
        mine = own.get(name)
        if mine is not None and mine.shape == torch.Size(entry.shape) and mine.dtype == entry.torch_dtype:
            found[name] = mine
        else:
            found[name] = _empty(name, entry, parameters, trainer.optimizers)
    return found


def _empty(
    name: str, entry: Entry, parameters: Mapping[str, Tensor], optimizers: Iterable[torch.optim.Optimizer]
) -> Tensor:
    """Room for a tensor that a fresh run does not have: optimizers make their state in the first step.

    What has its parameter's shape is placed and sharded as the parameter is.
    """
    shape = torch.Size(entry.shape)
    if name.startswith("optimizers/") and "/state/" in name:
        number, _, rest = name.removeprefix("optimizers/").partition("/state/")
        parameter = parameters.get(rest.rpartition("/")[0])
        if parameter is not None and parameter.shape == shape and len(shape):
            return torch.empty_like(parameter, dtype=entry.torch_dtype, requires_grad=False)
        group = list(optimizers)[int(number)].param_groups[0]
        if parameter is not None and (group.get("fused") or group.get("capturable")):
            return torch.empty(shape, dtype=entry.torch_dtype, device=parameter.device)
    return torch.empty(shape, dtype=entry.torch_dtype)


def restore(
    trainer: L.Trainer, task: L.LightningModule, node: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put back the plain values of `collect`, and with them all tensors that the run did not have yet."""
    state = {name: decode(value, tensors) for name, value in node.items()}
    task.on_load_checkpoint(state["more"])
    trainer.fit_loop.load_state_dict(state["loops"])
    parameters = named_parameters(task)
    for optimizer, kept in zip(trainer.optimizers, state["optimizers"], strict=True):
        set_optimizer_state(optimizer, kept, parameters)
    for config, kept in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        set_schedule_state(config.scheduler, kept)  # type: ignore[arg-type]
    if state["precision"]:
        trainer.precision_plugin.load_state_dict(state["precision"])
    if state["data"] and trainer.datamodule is not None:  # type: ignore[attr-defined]
        trainer.datamodule.load_state_dict(state["data"])  # type: ignore[attr-defined]
    for callback in _callbacks(trainer):
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])


def validate_first(trainer: L.Trainer) -> None:
    """Have a run that goes on begin with the validation of the checkpoint's step, if one was due and not over then.

    A checkpoint within an epoch was written before that validation or in the middle of it. Lightning would leave it
    out, or go on with the batch where it broke off, from a loader that begins anew. Called in `on_train_start`, when
    the loops know how they restart and have not begun.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    progress = epoch.val_loop.batch_progress
    progress.total.reset_on_restart()
    progress.current.reset()
    epoch.val_loop.reset_restart_stage()
    if not epoch._should_check_val_fx(fit._data_fetcher):  # type: ignore[arg-type]
        return
    if fit.restarted_mid_epoch:
        epoch.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION  # type: ignore[assignment]
    # the loop's first round trains nothing then, but counts a step for the loggers; one is missing in mid-validation
    if not (fit.restarted_mid_epoch and epoch.restarted_on_last):
        epoch._batches_that_stepped -= 1


def _data_state(trainer: L.Trainer) -> dict[str, Any]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data.state_dict() if data is not None else {}


def _callbacks(trainer: L.Trainer) -> list[L.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]


def rank_and_world() -> tuple[int, int]:
    """This process among all."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
