"""Who is to be seen: reference pictures of a face, as tokens that cross-attention reads after the text's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moviegen.conditioning.base import Conditioner
from moviegen.conditioning.vision import VisionTower
from moviegen.fields import Field, decode_array, decode_record, same_shapes
from moviegen.rng import SampleRng
from moviegen.types import Grid, Movable

KINDS = ("paired", "cross")  # a face from the clip itself, or of the same person from elsewhere


@dataclass(frozen=True)
class References(Movable):
    """The reference pictures of clips, background masked out."""

    pictures: Tensor  # [B, R, 3, S, S] in [-1, 1]
    mask: Tensor  # [B, R] bool, True for a picture

    @classmethod
    def of(cls, pictures: list[Tensor]) -> References:
        """References from a list of [R, 3, S, S] for each clip; R may differ and be 0."""
        most = max(len(each) for each in pictures)
        filled = [torch.cat([one, one.new_zeros(most - len(one), *one.shape[1:])]) for one in pictures]
        mask = torch.arange(most) < torch.tensor([[len(each)] for each in pictures])
        return cls(torch.stack(filled), mask.to(filled[0].device))


@dataclass(frozen=True)
class FaceSet(Movable):
    """What training samples offer as references."""

    faces: Tensor  # [B, N, S, S, 3] uint8
    kinds: Tensor  # [B, N] int64: position in KINDS, -1 for padding


def decode_faces(faces: bytes, record: bytes) -> tuple[np.ndarray, list[int]]:
    """What `moviegen data identities` wrote of a sample: crops uint8 [N, S, S, 3] and the kind of each."""
    values, counts = decode_array(faces), decode_record(record).get("faces")
    if (
        not isinstance(counts, dict)
        or set(counts) - set(KINDS)
        or values.ndim != 4
        or values.dtype != np.uint8
    ):
        raise ValueError(
            f"faces are uint8 [N, S, S, 3] with counts by {KINDS}, got {values.shape} and {counts!r}"
        )
    kinds = [number for number, name in enumerate(KINDS) for _ in range(counts.get(name, 0))]
    if len(kinds) != len(values) or not kinds:
        raise ValueError(
            f"the record counts {len(kinds)} faces, {len(values)} are there; at least one is needed"
        )
    return values, kinds


def collate_faces(items: list[tuple[np.ndarray, list[int]]]) -> FaceSet:
    """Samples with any number of crops of one size."""
    same_shapes([faces.shape[1:] for faces, _ in items], "faces")
    most = max(len(kinds) for _, kinds in items)
    padded = [np.pad(faces, ((0, most - len(faces)), (0, 0), (0, 0), (0, 0))) for faces, _ in items]
    kinds = torch.tensor([kinds + [-1] * (most - len(kinds)) for _, kinds in items])
    return FaceSet(torch.from_numpy(np.stack(padded)), kinds)


FACES = Field("faces.npy", decode_faces, collate_faces, also=("json",))


class Identity(Conditioner):
    """Reference pictures as tokens beside those of the text: a vision tower, a projection and a norm (paper 4.1).

    Without references there are no tokens, so the model is exactly the text-to-video model that it started from.

    Args:
        dim: model width.
        tower: reads the pictures; its weights are part of the checkpoint.
        kinds: how often a training sample takes a reference of its own clip ("paired") or of another ("cross"), as
            weights; one with crops of a single kind takes that, if its weight is above 0. Held-out losses take the
            first of the kind with the largest weight.
        max_references: training gives each sample one to so many.
    """

    port = "context"
    field = FACES

    def __init__(
        self,
        dim: int,
        tower: VisionTower,
        kinds: Mapping[str, float] | None = None,
        max_references: int = 1,
        drop_prob: float = 0.1,
    ):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.kinds = {"paired": 1.0} if kinds is None else dict(kinds)
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"no kind of reference is called {unknown[0]!r}; there are {', '.join(KINDS)}")
        if min(self.kinds.values(), default=0) < 0 or sum(self.kinds.values()) <= 0:
            raise ValueError(f"kinds must have weights from 0, not all of them 0, got {self.kinds}")
        if max_references < 1:
            raise ValueError(f"max_references must be at least 1, got {max_references}")
        self.max_references, self.tower = max_references, tower
        self.proj = nn.Linear(tower.width, dim)
        self.norm = nn.LayerNorm(dim)

    def empty(self, count: int, latent_grid: Grid) -> References:  # noqa: ARG002
        size = self.tower.image_size
        return References(torch.zeros(count, 0, 3, size, size), torch.zeros(count, 0, dtype=torch.bool))

    def vary(self, inputs: FaceSet, rng: SampleRng) -> References:
        draws = torch.stack([rng.rand() for _ in range(2)])  # [2, B]: which kind, how many
        order = rng.rand(inputs.kinds.shape[1])  # [B, N]
        chosen = []
        for kinds, (which, share), ranks in zip(inputs.kinds, draws.T.tolist(), order, strict=True):
            offered = (kinds == self._kind(kinds.tolist(), which)).nonzero()[:, 0].cpu()
            mixed = offered[ranks[offered].argsort()]
            chosen.append(mixed[: 1 + int(share * self.max_references)])
        return _taken(inputs, chosen)

    def _kind(self, offered: list[int], which: float) -> int:
        """The kind that a sample takes, among those that it has; `which` in [0, 1)."""
        weights = {KINDS.index(name): weight for name, weight in self.kinds.items() if weight > 0}
        possible = {kind: weight for kind, weight in weights.items() if kind in offered}
        if not possible:
            wanted = " or ".join(KINDS[kind] for kind in weights)
            raise ValueError(
                f"a sample has no {wanted} face; leave such clips out: moviegen data identities require={wanted}"
            )
        left = which * sum(possible.values())
        for kind, weight in possible.items():
            left -= weight
            if left < 0:
                return kind
        return next(reversed(possible))

    def forward(self, inputs: Any, grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (a face has no grid)
        """Tokens [B, R L, D] and mask [B, R L] of `References`, or of the first face of each sample of a `FaceSet`."""
        if isinstance(inputs, FaceSet):
            best = sorted(self.kinds, key=lambda name: -self.kinds[name])
            wanted = [KINDS.index(name) for name in best]
            inputs = _taken(inputs, [_first(kinds.tolist(), wanted) for kinds in inputs.kinds])
        count, references = inputs.mask.shape
        if not references:
            device = self.proj.weight.device
            none = torch.zeros(count, 0, dtype=torch.bool, device=device)
            return torch.zeros(count, 0, self.proj.out_features, device=device), none
        features = self.tower(inputs.pictures.flatten(0, 1))
        tokens = self.norm(self.proj(features.to(self.proj.weight.dtype)))
        length = tokens.shape[1]
        return tokens.unflatten(0, (count, references)).flatten(1, 2), inputs.mask.repeat_interleave(
            length, dim=1
        )


def _first(offered: list[int], wanted: list[int]) -> Tensor:
    kind = next(kind for kind in [*wanted, *offered] if kind in offered)
    return torch.tensor([offered.index(kind)])


def _taken(inputs: FaceSet, chosen: list[Tensor]) -> References:
    """References from the faces of each sample at the positions `chosen`."""
    pictures = [faces[index.to(faces.device)] for faces, index in zip(inputs.faces, chosen, strict=True)]
    return References.of([one.permute(0, 3, 1, 2).float().div(127.5).sub(1) for one in pictures])
