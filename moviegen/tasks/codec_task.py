"""Train an autoencoder: image stage first, then inflated to video, then images and videos together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.fields import VIDEO, Field
from moviegen.parallel.mesh import LayoutError
from moviegen.rng import SampleRng
from moviegen.tasks.base import NotFiniteError, OptimizerFactory, Schedule, Task
from moviegen.tasks.codec_objective import Adversary, CodecLosses, CodecLossWeights, CodecObjective
from moviegen.tasks.sharded import clip_gradients, everywhere
from moviegen.types import Batch

if TYPE_CHECKING:
    from moviegen.parallel.config import ParallelConfig
    from moviegen.parallel.mesh import MeshConfig
    from moviegen.parallel.plan import Plan


def _busiest(clip: Tensor, corners: list[list[int]], size: int) -> Tensor:
    """Of square crops of a clip [3, T, H, W] the one whose values spread most."""
    crops = [clip[..., y : y + size, x : x + size] for y, x in corners]
    return max(crops, key=lambda crop: float(crop.std())) if len(crops) > 1 else crops[0]


class CodecTask(Task):
    """Train a variational autoencoder, alone or against a discriminator (paper 3.1.1).

    Args:
        codec: the autoencoder that is trained.
        weights: of the terms of the loss.
        adversary: the discriminator; with one, optimization is manual and `gradient_clip` replaces the Trainer's.
        gradient_clip: largest norm of the gradients of either network, None for no limit; only with an adversary.
        image_steps: for so many steps the model is an image autoencoder that sees `image_frames` single frames of
            each clip; then its temporal layers, which start as the identity, are switched on (inflation).
        image_frames: frames drawn from each clip in the image stage.
        crop: after the image stage, train on square crops of so many pixels; null trains on whole frames.
        crop_choices: so many places are drawn for each crop and the one with the largest spread of values is taken, so
            that less time goes into flat ground.
        crop_until: the step from which whole frames are used anyway; null for never.
        clip_lengths: after the image stage, each step draws one of these numbers of frames, and a longer clip is cut
            to it from a random frame on; () trains on whole clips.
        fit_stats: estimate the latents' per-channel mean and scale while training. Off when finetuning a codec
            that other models already read.
        decoder_only: train the decoder alone, so that latents stay as they are for other models; wants `fit_stats` off.
    """

    def __init__(  # noqa: PLR0913 (settings, given by name from a config)
        self,
        codec: TemporalAutoencoder,
        weights: CodecLossWeights = CodecLossWeights(),  # noqa: B008 (frozen)
        adversary: Adversary | None = None,
        gradient_clip: float | None = 1.0,
        image_steps: int = 0,
        image_frames: int = 4,
        crop: int | None = None,
        crop_choices: int = 1,
        crop_until: int | None = None,
        clip_lengths: tuple[int, ...] = (),
        fit_stats: bool = True,
        decoder_only: bool = False,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        super().__init__(optimizer, schedule, seed)
        self.codec, self.adversary, self.gradient_clip = codec, adversary, gradient_clip
        self.objective = CodecObjective(weights)
        self.automatic_optimization = adversary is None
        self.image_steps, self.image_frames, self.fit_stats = image_steps, image_frames, fit_stats
        self.crop, self.crop_choices, self.crop_until = crop, crop_choices, crop_until
        self.clip_lengths = clip_lengths
        if min(clip_lengths, default=1) < 1:
            raise ValueError(f"clip_lengths must be at least 1, got {list(clip_lengths)}")
        if decoder_only and fit_stats:
            raise ValueError("decoder_only leaves the latents as they are: set fit_stats=false")
        if decoder_only:
            codec.requires_grad_(False)
            codec.decoder.requires_grad_(True)
        self.stats_momentum = 0.02

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": VIDEO}

    def in_image_stage(self, step: int) -> bool:
        return step < self.image_steps

    @property
    def training_parts(self) -> tuple[str, ...]:
        return ("adversary",)

    def check_layout(self, mesh: MeshConfig, config: ParallelConfig) -> None:
        if mesh.cp > 1 or mesh.tp > 1 or config.shard_encoders:
            raise LayoutError(
                f"a codec takes data-parallel layouts only: set mesh.cp=1, mesh.tp=1 and mesh.shard_encoders=[], not "
                f"cp={mesh.cp}, tp={mesh.tp}, {list(config.shard_encoders)}"
            )
        if config.fp8:
            raise LayoutError("mesh.fp8: a codec has no 8-bit products; set mesh.fp8=false")
        if self.adversary is not None and mesh.world_size > 1:
            raise LayoutError(
                "a codec with an adversary asks for gradients in the middle of a step, which shards do not have: use "
                "mesh=null trainer.strategy=ddp_find_unused_parameters_true, or task.adversary=null"
            )

    def parallelize(self, plan: Plan) -> None:
        plan.shard(self.codec, [self.codec.encoder, self.codec.decoder], methods=("posterior", "reconstruct"))

    def on_fit_start(self) -> None:
        self.objective.to(self.device)

    def losses(self, batch: Batch, step: int) -> CodecLosses:
        """The objective of each sample but for the adversary's, see `reconstructed`."""
        return self.reconstructed(batch, step)[0]

    def reconstructed(self, batch: Batch, step: int) -> tuple[CodecLosses, Tensor, Tensor, Tensor]:
        """Losses, frames and reconstructions [B, 3, T, H, W], latents that count for `codec.stats` [B, C, t, h, w].

        Noise and views are keyed by (seed, step, sample).
        """
        rng = SampleRng(self.seed, step, batch.keys)
        self.codec.temporal = not self.in_image_stage(step)
        frames = self._view(batch.video().frames, step, rng)
        posterior = self.codec.posterior(frames)
        latent = posterior.sample(rng.randn(*posterior.mean.shape[1:]).to(posterior.mean))
        decoded = self.codec.reconstruct(latent, frames.shape[2])
        return self.objective(decoded, frames, posterior), frames, decoded, posterior.mean.detach()

    def _view(self, frames: Tensor, step: int, rng: SampleRng) -> Tensor:
        """What a training step sees of its clips: some frames in the image stage, then shorter or cropped clips."""
        if not self.training:
            return frames
        if self.in_image_stage(step) and frames.shape[2] > self.image_frames:
            order = rng.rand(frames.shape[2]).argsort(1)[:, : self.image_frames].to(frames.device)
            return torch.stack([clip[:, chosen] for clip, chosen in zip(frames, order, strict=True)])
        if self.in_image_stage(step):
            return frames
        frames = self._cut(frames, step, rng)
        if self.crop is None or (self.crop_until is not None and step >= self.crop_until):
            return frames
        room = (torch.tensor(frames.shape[3:]) - self.crop).clamp_min(0)
        corners = (rng.rand(self.crop_choices, 2) * (room + 1)).long().tolist()
        return torch.stack(
            [_busiest(clip, places, self.crop) for clip, places in zip(frames, corners, strict=True)]
        )

    def _cut(self, frames: Tensor, step: int, rng: SampleRng) -> Tensor:
        """Clips [B, 3, T, H, W] cut to a length that the step draws, alike on all ranks, each at its own place."""
        if not self.clip_lengths:
            return frames
        of_step = SampleRng(self.seed, step, torch.zeros(1, dtype=torch.int64))
        length = self.clip_lengths[int(of_step.rand(1).item() * len(self.clip_lengths))]
        room = frames.shape[2] - length
        if room <= 0:
            return frames
        starts = (rng.rand(1) * (room + 1)).long().flatten().tolist()
        return torch.stack(
            [clip[:, start : start + length] for clip, start in zip(frames, starts, strict=True)]
        )

    @torch.no_grad()
    def _update_stats(self, latents: Tensor) -> None:
        stats = self.codec.stats
        per_channel = latents.transpose(0, 1).flatten(1)
        stats.mean.lerp_(everywhere(per_channel.mean(1)), self.stats_momentum)
        spread = everywhere((per_channel - stats.mean[:, None]).square().mean(1)).sqrt()
        stats.scale.lerp_(spread.clamp_min(1e-6), self.stats_momentum)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:  # noqa: ARG002
        losses, frames, decoded, latents = self.reconstructed(batch, self.global_step)
        NotFiniteError.check(losses.total, batch, self.global_step)
        if self.fit_stats:
            self._update_stats(latents)
        means = {f"train/{name}": term.mean() for name, term in losses.terms.items()}
        self.log_dict(means, batch_size=len(batch))
        self.log("train/loss", losses.total.mean(), prog_bar=True, batch_size=len(batch))
        if self.adversary is None:
            return losses.total.mean()
        self._adversarial_step(self.adversary, batch, losses.total.mean(), frames, decoded)
        return None

    def _adversarial_step(
        self, adversary: Adversary, batch: Batch, total: Tensor, frames: Tensor, decoded: Tensor
    ) -> None:
        """One step of each network; the losses and the gradients of both are checked before either."""
        optimizers: Any = self.optimizers()
        step, logged = self.global_step, {}
        loss, own = total, None
        if adversary.is_active(step):
            adversary.requires_grad_(False)
            terms, ratio = adversary.penalty(decoded, frames, total, self.codec.last_layer, step)
            adversary.requires_grad_(True)
            judged = adversary.own_loss(frames, decoded)
            NotFiniteError.check(judged, batch, step)  # first: a ratio that all share spoils every term
            NotFiniteError.check(terms, batch, step)
            loss, own = total + terms.mean(), judged.mean()
            logged = {"train/adversarial": terms.mean(), "train/adversarial_ratio": ratio}
            logged["train/discriminator"] = own
        both = [optimizers[0]]
        norms = [self._gradients(optimizers[0], loss, self.codec)]
        if own is not None:
            both.append(optimizers[1].optimizer)  # the bare one: Lightning would count a step of training
            norms.append(self._gradients(both[1], own, adversary))
        for norm in norms:
            self.check_norm(norm)
        for optimizer in both:
            optimizer.step()
        # each counts the steps of its own optimizer
        for scheduler in self._schedulers()[: 1 if own is None else 2]:
            scheduler.step()
        self.log_dict(logged, batch_size=len(frames))

    def _gradients(self, optimizer: Any, loss: Tensor, module: torch.nn.Module) -> Tensor:
        """Clipped gradients of a network's parameters, in place; their norm before that."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        return clip_gradients(list(module.parameters()), self.gradient_clip or None)

    def _schedulers(self) -> list[Any]:
        given: Any = self.lr_schedulers()
        return given if isinstance(given, list) else [given] if given is not None else []

    def configure_optimizers(self) -> Any:
        if self.adversary is None:
            return super().configure_optimizers()
        if self.optimizer_factory is None:
            raise ValueError("this task was built without an optimizer; give one to train it")
        both = (
            self.optimizer_factory([p for p in self.codec.parameters() if p.requires_grad]),
            self.adversary.optimizer_factory(self.adversary.parameters()),
        )
        return [self._scheduled(optimizer) for optimizer in both]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        clip = batch.video()
        self.codec.temporal = not self.in_image_stage(self.global_step)
        decoded = self.codec.decode(self.codec.encode(clip), clip.frames.shape[2])
        mse = (decoded.frames - clip.frames).square().flatten(1).mean(1)
        psnr = 10 * torch.log10(4 / mse.clamp_min(1e-10))  # range -1..1
        self.log("val/loss", mse.mean(), batch_size=len(batch), sync_dist=True)
        self.log("val/psnr", psnr.mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)

    def sample_videos(self, batch: Batch) -> dict[str, Any]:
        """Reconstructions of a validation batch, for the sample callback: name -> frames [3, T, H, W]."""
        clip = batch.video()
        decoded = self.codec.decode(self.codec.encode(clip), clip.frames.shape[2])
        both = torch.cat([clip.frames, decoded.frames], dim=-1)  # source beside reconstruction
        return {f"{key % 2**64:016x}": frames for key, frames in zip(batch.keys.tolist(), both, strict=True)}
