"""What both tasks share: optimizer and schedule, and the rule that frozen parts stay out of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from torch import Tensor

from moviegen.fields import Field
from moviegen.parallel.mesh import LayoutError
from moviegen.tasks.schedule import DropOnPlateau
from moviegen.tasks.sharded import clip_gradients
from moviegen.types import Batch, PackedBatch

if TYPE_CHECKING:
    from moviegen.parallel.config import ParallelConfig
    from moviegen.parallel.mesh import MeshConfig
    from moviegen.parallel.plan import Plan

OptimizerFactory = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[int], float]


class NotFiniteError(ArithmeticError):
    """A loss or a gradient that is no number; raised before any weight is touched, and in every process."""

    @classmethod
    def check(cls, losses: Tensor, batch: Batch | PackedBatch, step: int) -> None:
        """Raise for the first of the losses [B] that is not finite, naming its sample; stereo has two rows each.

        Where one process finds such a loss, all raise: none is left waiting for another's gradients.
        """
        finite = losses.detach().isfinite()
        found = None
        if not bool(finite.all()):
            index = int((~finite).nonzero()[0])
            row = index * len(batch.names) // len(losses)
            name = batch.names[row] if batch.names else f"number {index} of the batch"
            found = f"step {step}: the loss of sample {name} is {losses[index].item()}; no weight was changed"
        if message := _from_any_process(found, losses.device):
            raise cls(message)

    @classmethod
    def check_norm(cls, norm: Tensor, step: int) -> None:
        """Raise for a gradient norm, the same in every process, that is not finite."""
        if not bool(norm.isfinite()):
            raise cls(f"step {step}: the norm of the gradients is {norm.item()}; no weight was changed")


def _from_any_process(message: str | None, device: torch.device) -> str | None:
    """The first process's message, where one has any; all processes must ask together."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return message
    flag = torch.tensor(0 if message is None else 1, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    if not int(flag):
        return None
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    return next(one for one in messages if one is not None)


class Task(L.LightningModule):
    """A model with its objective. Built without an optimizer, it is a model to sample from.

    Subclasses give `fields`, `training_step` and `validation_step`.
    """

    packs = False  # whether a step may take a PackedBatch

    def __init__(
        self, optimizer: OptimizerFactory | None = None, schedule: Schedule | None = None, seed: int = 0
    ):
        super().__init__()
        self.optimizer_factory, self.schedule, self.seed = optimizer, schedule, seed
        self._laid_out = False  # on a mesh
        self.stage: str | None = None  # of a recipe with several; its checkpoints carry the name

    @property
    def fields(self) -> dict[str, Field]:
        """The files of a sample that training reads: "media" and one per condition."""
        raise NotImplementedError

    def sample_cost(self, frames: int, height: int, width: int) -> tuple[int, float]:
        """Tokens of a sample of so many frames and pixels, and its cost; by default its cost is its pixels.

        Raises ValueError for a size that the model cannot take.
        """
        return 0, float(frames * height * width)

    def num_tokens(self, media: Any) -> int:  # noqa: ARG002
        """Tokens of each sample of a batch's media; 0 where it has none."""
        return 0

    @property
    def training_parts(self) -> tuple[str, ...]:
        """Submodules that only training needs: in checkpoints, but not in the exported model."""
        return ()

    def exported(self) -> dict[str, Tensor]:
        """The state of the model without its training parts."""
        parts = tuple(f"{part}." for part in self.training_parts)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(parts)}

    def described(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config that this task was built from, as an exported model keeps it, without its training parts."""
        return {name: value for name, value in config.items() if name not in self.training_parts}

    def adopted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model that this task starts from, made to fit where it has more inputs; others as they are."""
        return weights

    def check_layout(self, mesh: MeshConfig, config: ParallelConfig) -> None:  # noqa: ARG002
        """Raise LayoutError for a layout that this task cannot take; by default, any of several processes."""
        if mesh.world_size > 1:
            raise LayoutError(
                f"{type(self).__name__} has no layout for {mesh}: use mesh=null trainer.strategy=ddp"
            )

    def check_machine(self, device: str, dtype: torch.dtype) -> None:
        """Raise ValueError for kernels that cannot train on a device type (cpu, cuda) in a type; by default nothing."""

    def parallelize(self, plan: Plan) -> None:
        """Lay the parts of this task out on a mesh, in place, before optimizers are made; by default nothing."""

    def configure_model(self) -> None:
        """Called by Lightning when processes have found each other, before optimizers are made."""
        plan = getattr(self.trainer.strategy, "plan", None)
        if plan is not None and not self._laid_out:
            self.parallelize(plan)
            self._laid_out = True

    def configure_optimizers(self) -> Any:
        if self.optimizer_factory is None:
            raise ValueError("this task was built without an optimizer; give one to train it")
        return self._scheduled(self.optimizer_factory([p for p in self.parameters() if p.requires_grad]))

    def mean_loss(self, losses: Tensor, batch: Batch | PackedBatch) -> Tensor:
        """The mean of a training step's losses [B], logged; raises NotFiniteError for one that is no number."""
        NotFiniteError.check(losses, batch, self.global_step)
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all parameters, sharded ones too; log the norm before it, refuse one that is no number.

        Overrides Lightning's, which drops the norm and fails once parameters lie on different meshes.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(f"gradients are clipped by norm, not by {gradient_clip_algorithm!r}")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = clip_gradients(parameters, gradient_clip_val)
        self.check_norm(norm)
        self.log("train/gradient_norm", norm)

    def check_norm(self, norm: Tensor) -> None:
        """Raise NotFiniteError for a norm of gradients that is no number, before a step is taken with them."""
        if not str(self.trainer.precision).startswith("16"):  # a gradient scaler skips such a step
            NotFiniteError.check_norm(norm, self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.stage is not None:
            checkpoint["stage"] = self.stage
        checkpoint["schedule"] = self.schedule_name

    @property
    def schedule_name(self) -> str:
        """The kind of the schedule; "none" without one."""
        return (
            "none"
            if self.schedule is None
            else getattr(self.schedule, "__name__", type(self.schedule).__name__)
        )

    def on_validation_end(self) -> None:
        loss = self.trainer.callback_metrics.get("val/loss")
        if isinstance(self.schedule, DropOnPlateau) and loss is not None and not self.trainer.sanity_checking:
            self.schedule.observe(float(loss))

    def _scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        """An optimizer with this task's schedule, as Lightning takes it."""
        if self.schedule is None:
            return {"optimizer": optimizer}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
