"""The one generator task: every generator is a backbone, a frozen codec and a set of conditioners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moviegen.backbone.attention import choose
from moviegen.backbone.counts import forward_flops, token_grid
from moviegen.backbone.packing import packed_velocities
from moviegen.backbone.patchify import patchify
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.codec.base import LatentCodec
from moviegen.conditioning.base import Conditioner, ConditionerSet, Ports
from moviegen.conditioning.text import Text, TextCondition
from moviegen.fields import LATENT, VIDEO, Field
from moviegen.flow.path import MinSNR, OTPath, Path, PathSample
from moviegen.flow.times import LogitNormal, Times
from moviegen.parallel.blocks import check_sizes_in_8_bit
from moviegen.parallel.mesh import LayoutError
from moviegen.rng import SampleRng
from moviegen.tasks.base import OptimizerFactory, Schedule, Task
from moviegen.types import Batch, Grid, Latent, PackedBatch, VideoClip

if TYPE_CHECKING:
    from moviegen.parallel.config import ParallelConfig
    from moviegen.parallel.mesh import MeshConfig
    from moviegen.parallel.plan import Plan

RING_KERNELS = ("auto", "sdpa_flash")  # names of attention backends that ring attention goes with
VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # held-out loss is averaged over these (paper 3.2.2)


class FlowTask(Task):
    """Train a backbone to predict the velocity of latent tokens under this task's conditions.

    On another path than the straight one it predicts what that path asks for (v, for diffusion).

    Tasks differ in what they are built from (codec, conditioners, data), never in this code.

    Args:
        backbone: the network that is trained.
        codec: its frozen autoencoder; not part of the checkpoint.
        conditioners: name -> factory that is given the model width `dim`.
        times: distribution of the training times.
        weighting: weights of the training losses by time; None weighs all alike. Held-out losses are never weighted.
        image_positions: in training, samples of one latent frame stand at a random one of so many places in time
            (paper 5: image edits); 1 for the first.
        cached: train on latents written by `moviegen encode` instead of encoding clips on the fly.
        chunk: train on so many latent frames of a longer sample, from a frame on that each step draws (paper 4.3, 6);
            None for whole samples.
        drop_all: chance that a training sample loses all its conditions at once, beside those of each (paper 6: 0.2).
    """

    packs = True

    def __init__(  # noqa: PLR0913 (the parts of a model, each built by its config)
        self,
        backbone: Backbone,
        codec: LatentCodec,
        conditioners: Mapping[str, Callable[..., Conditioner]],
        path: Path = OTPath(),  # noqa: B008 (frozen)
        times: Times = LogitNormal(),  # noqa: B008 (frozen)
        weighting: MinSNR | None = None,
        cached: bool = False,
        chunk: int | None = None,
        drop_all: float = 0.0,
        image_positions: int = 1,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        super().__init__(optimizer, schedule, seed)
        self.backbone, self.path, self.times, self.cached = backbone, path, times, cached
        self.weighting, self.chunk, self.image_positions = weighting, chunk, image_positions
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1 or null, got {chunk}")
        most = backbone.config.max_frames
        if not 1 <= image_positions <= most:
            raise ValueError(
                f"image_positions must be 1 to the backbone's {most} frames, got {image_positions}"
            )
        self._frozen = (codec,)  # a tuple, so that the module tree does not own it
        built = {name: factory(dim=backbone.config.dim) for name, factory in conditioners.items()}
        self.conditioners = ConditionerSet(built, drop_all)
        self.use_codec(codec)
        joined = sum(c.null.numel() for c in built.values() if c.port == "concat" and c.null is not None)
        config = backbone.config
        if joined != config.input_channels - config.token_channels:
            raise ValueError(
                f"conditions join {joined} channels to each token, backbone.config.concat_channels="
                f"{config.concat_channels} makes room for {config.input_channels - config.token_channels}"
            )

    @property
    def codec(self) -> Any:
        return self._frozen[0]

    def use_codec(self, codec: LatentCodec) -> None:
        """Decode with another codec than the one that was configured."""
        self._frozen = (codec,)
        for conditioner in self.conditioners.named().values():
            conditioner.use_codec(codec)

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": LATENT if self.cached else VIDEO, **self.conditioners.fields}

    def sample_cost(self, frames: int, height: int, width: int) -> tuple[int, float]:
        tokens = self._tokens(self.codec.grid(frames, height, width))
        return tokens, float(forward_flops(self.backbone.config, tokens))

    def num_tokens(self, media: Any) -> int:
        if isinstance(media, VideoClip):
            return self.sample_cost(*media.frames.shape[2:])[0]
        return self._tokens(Grid(*media.values.shape[2:]))

    def _tokens(self, cells: Grid) -> int:
        """Tokens of a latent, or of the chunk of it that is trained on."""
        if self.chunk is not None:
            cells = replace(cells, frames=min(cells.frames, self.chunk))
        return token_grid(self.backbone.config, cells).num_tokens

    def text_encoders(self) -> dict[str, Text]:
        """The text encoders that run during training, by the name of their part or else of their condition."""
        texts = {n: c for n, c in self.conditioners.named().items() if isinstance(c, TextCondition)}
        running = {name: text for name, text in texts.items() if not text.reads_features}
        return {part or name: one for name, text in running.items() for part, one in text.encoders.items()}

    def check_machine(self, device: str, dtype: torch.dtype) -> None:
        choose(self.backbone.config.attention, device, dtype, masked=False, num_pairs=1)

    def check_layout(self, mesh: MeshConfig, config: ParallelConfig) -> None:
        size = self.backbone.config
        mesh.check_model(size.num_heads, size.ffn_dim, config.context, size.num_layers)
        if mesh.cp > 1 and config.context == "ring" and size.attention not in RING_KERNELS:
            raise LayoutError(
                f"mesh.context=ring has a kernel of its own, torch's flash attention, and backbone.config.attention="
                f"{size.attention}: take {' or '.join(RING_KERNELS)}, or mesh.context=all_gather or ulysses"
            )
        if config.fp8:
            check_sizes_in_8_bit(self.backbone.blocks)
        encoders = self.text_encoders()
        if unknown := [name for name in config.shard_encoders if name not in encoders]:
            raise LayoutError(
                f"mesh.shard_encoders names {unknown[0]!r}; the text encoders that run in this training are "
                f"{sorted(encoders) or 'none: features are cached'}"
            )

    def parallelize(self, plan: Plan) -> None:
        plan.backbone(self.backbone)
        plan.shard(self.conditioners, methods=("encode",))
        encoders = self.text_encoders()
        for name in plan.config.shard_encoders:
            plan.layers(encoders[name].loaded().model)

    def on_fit_start(self) -> None:
        self.codec.to(self.device)

    def latents(self, batch: Batch) -> Tensor:
        """Normalised latents [B, C, T, H, W] of a batch; cached ones are not coded."""
        if isinstance(batch.media, Latent):
            return batch.media.values
        with torch.no_grad():
            return self.codec.encode(batch.media).values

    def described(self, config: Mapping[str, Any]) -> dict[str, Any]:
        node, named = super().described(config), self.conditioners.named()
        if given := node.get("conditioners"):
            node["conditioners"] = {name: named[name].described(one) for name, one in given.items()}
        return node

    def adopted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model without some of this one's conditions, which are new.

        Input weights of `concat` ones and gates of `gated` ones are zero, so the model answers as the one that it
        starts from, whatever those conditions say; where new `context` ones are dropped it does so too.
        """
        own, name = self.state_dict(), "backbone.embed.weight"
        for condition, module in self.conditioners.named().items():
            inside = {n for n in own if n.startswith(f"conditioners.items.{condition}.")}
            if module.port != "concat" and not inside & set(weights):
                weights = weights | {n: own[n] for n in inside}
        gates = {n for n in own if n.startswith("backbone.blocks.") and n.endswith(".gate")}
        weights = weights | {n: own[n] for n in gates if n not in weights}
        new = {n for n in own if n.startswith("conditioners.items.") and n not in weights}
        new &= {
            f"conditioners.items.{n}.null" for n, c in self.conditioners.named().items() if c.port == "concat"
        }
        missing = own[name].shape[1] - weights[name].shape[1] if name in weights else 0
        if missing <= 0 or missing != sum(own[n].numel() for n in new):
            return weights
        widened = torch.nn.functional.pad(weights[name], (0, missing))
        return {**weights, name: widened, **{n: own[n] for n in new}}

    def conditions(self, inputs: Mapping[str, Any], grid: Grid, drop: Mapping[str, Tensor]) -> Conditions:
        """Encode inputs into the backbone's five ports."""
        ports: Ports = self.conditioners.encode(inputs, grid, drop)
        tokens, masks = zip(*(ports.context or [self.no_context(ports)]), strict=True)
        gated, gated_masks = zip(*ports.gated, strict=True) if ports.gated else ((), ())
        return Conditions(
            grid=grid,
            context=torch.cat(tokens, dim=1),
            context_mask=torch.cat(masks, dim=1),
            gated=torch.cat(gated, dim=1) if gated else None,
            gated_mask=torch.cat(gated_masks, dim=1) if gated else None,
            concat=torch.cat(ports.concat, dim=-1) if ports.concat else None,
            aligned=sum(ports.aligned[1:], ports.aligned[0]) if ports.aligned else None,
            pooled=sum(ports.pooled[1:], ports.pooled[0]) if ports.pooled else None,
        )

    def no_context(self, ports: Ports) -> tuple[Tensor, Tensor]:
        """Tokens [B, 0, D] and their mask, of a model without text or anything else that enters that port."""
        others = [*ports.concat, *ports.aligned, *ports.pooled, *(tokens for tokens, _ in ports.gated)]
        if not others:
            raise ValueError("a generator needs at least one condition; task.conditioners has none")
        count = len(others[0])
        tokens = others[0].new_zeros(count, 0, self.backbone.config.dim)
        return tokens, tokens.new_zeros(count, 0, dtype=torch.bool)

    def losses(
        self,
        batch: Batch | PackedBatch,
        step: int,
        time: float | None = None,
        drop: frozenset[str] = frozenset(),
    ) -> Tensor:
        """Mean squared velocity error of each sample, [B], weighted by time and token as training asks.

        At a fixed time, if `time` is given, nothing is weighted, varied or dropped but the conditions named by `drop`.
        """
        noisy = [self._noisy(part, step, time, drop) for part in batch.parts]
        samples, conditions = [sample for sample, _ in noisy], [one for _, one in noisy]
        velocities = packed_velocities(
            self.backbone, [sample.x_t for sample in samples], [sample.t for sample in samples], conditions
        )
        pairs = zip(velocities, samples, strict=True)
        errors = [velocity.to(sample.target.dtype) - sample.target for velocity, sample in pairs]
        losses = torch.cat(
            [self._means(e, sample.weights) for e, sample in zip(errors, samples, strict=True)]
        )
        if self.weighting is None or time is not None:
            return losses
        return losses * self.weighting(self.path, torch.cat([sample.t for sample in samples]))

    @staticmethod
    def _means(errors: Tensor, weights: Tensor | None) -> Tensor:
        """Mean squares [B] of errors [B, S, C], each token's times its weight [B, S]."""
        squares = errors.square()
        return (squares if weights is None else squares * weights[..., None]).flatten(1).mean(dim=1)

    def _noisy(
        self, batch: Batch, step: int, time: float | None, drop: frozenset[str]
    ) -> tuple[PathSample, Conditions]:
        """Samples of one size on the path, and their conditions."""
        rng = SampleRng(
            self.seed if time is None else 0, step, batch.keys
        )  # runs of any seed are held out alike
        latents, inputs = self._chunk(self.latents(batch), batch.inputs, step if time is None else None)
        x_1, grid = patchify(latents, self.backbone.config.patch)
        t = self.times(rng.randn()) if time is None else torch.full((len(batch),), time)
        sample = self.path.sample(x_1=x_1, x_0=rng.randn(*x_1.shape[1:]).to(x_1), t=t.to(x_1))
        if time is not None:
            dropped = {name: torch.ones(len(batch), dtype=torch.bool) for name in drop}
            return sample, self.conditions(inputs, grid, dropped)
        dropped = self.conditioners.random_drop(rng)
        conditions = self.conditions(self.conditioners.vary(inputs, rng), grid, dropped)
        sample = replace(sample, weights=self.conditioners.emphasis(inputs, x_1, grid))
        if self.image_positions > 1 and grid.frames == 1:
            places = (rng.rand() * self.image_positions).long().to(x_1.device)
            conditions = replace(conditions, first_frame=places)
        return sample, conditions

    def _chunk(
        self, latents: Tensor, inputs: Mapping[str, Any], step: int | None
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """A chunk of latents [B, C, T, H, W] and of what goes with it, the first one where `step` is None."""
        room = 0 if self.chunk is None else latents.shape[2] - self.chunk
        if room <= 0:
            return latents, inputs
        of_step = SampleRng(self.seed, step or 0, torch.zeros(1, dtype=torch.int64))
        start = 0 if step is None else int(of_step.rand(1).item() * (room + 1))
        stop = start + (self.chunk or 0)
        return latents[:, :, start:stop], self.conditioners.window(inputs, start, stop)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        return self.mean_loss(self.losses(batch, step=self.global_step), batch)

    def held_out(self, batch: Batch, drop: frozenset[str] = frozenset()) -> Tensor:
        """Losses [B, len(VALIDATION_TIMES)], without the conditions in `drop`; noise depends on the sample alone."""
        losses = [self.losses(batch, step=0, time=time, drop=drop) for time in VALIDATION_TIMES]
        return torch.stack(losses, dim=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        losses = self.held_out(batch)
        self.log("val/loss", losses.mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)
        return losses
