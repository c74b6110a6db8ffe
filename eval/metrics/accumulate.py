"""Scores that merge across processes (torchmetrics): every process updates with its samples, `compute` sees them all.

A sample that several processes scored, because a sampler padded its last batch, counts once. Means are over prompts:
several clips of one prompt are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from moviegen_eval.metrics.registry import FeatureDistance
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class SampleScores(Metric):
    """Scores of samples by output name; one that does not apply to a sample is not a number there.

    Every process must call `update` once at least, with no samples if it has none: torchmetrics cannot gather a list
    that is empty in one process alone.
    """

    full_state_update = False
    higher_is_better = None
    samples: list[Tensor]
    prompts: list[Tensor]
    values: list[Tensor]

    def __init__(self, outputs: Sequence[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.outputs = tuple(outputs)
        for name in ("samples", "prompts", "values"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, samples: Sequence[int], prompts: Sequence[int], rows: Sequence[Mapping[str, float]]
    ) -> None:
        """Add samples.

        Args:
            samples: a number for each sample, the same in every process.
            prompts: the number of its prompt.
            rows: its scores by output name.
        """
        values = [[float(row.get(name, float("nan"))) for name in self.outputs] for row in rows]
        device = self.device
        self.samples.append(torch.tensor(list(samples), dtype=torch.int64, device=device))
        self.prompts.append(torch.tensor(list(prompts), dtype=torch.int64, device=device))
        table = torch.tensor(values, dtype=torch.float64, device=device)
        self.values.append(table.reshape(len(rows), len(self.outputs)))

    def compute(self) -> dict[str, Tensor]:
        """The mean of each output over prompts; outputs that no sample has are left out."""
        means = {name: values for name in self.outputs if (values := self.by_prompt(name)).size}
        return {name: torch.tensor(values.mean()) for name, values in means.items()}

    def by_prompt(self, output: str) -> np.ndarray:
        """The mean of an output for each prompt that has it, float64 [prompts], in order of the prompts' numbers."""
        prompts, values = self._columns(output)
        return np.array([values[prompts == prompt].mean() for prompt in np.unique(prompts)], np.float64)

    def _columns(self, output: str) -> tuple[np.ndarray, np.ndarray]:
        """(prompt numbers, values) of the samples that have an output, each sample once."""
        if not len(self.samples):
            return np.empty(0, np.int64), np.empty(0)
        samples = dim_zero_cat(self.samples).cpu().numpy()
        _, first = np.unique(samples, return_index=True)
        values = dim_zero_cat(self.values).cpu().numpy()[first, self.outputs.index(output)]
        prompts = dim_zero_cat(self.prompts).cpu().numpy()[first]
        there = ~np.isnan(values)
        return prompts[there], values[there]


class SetScores(Metric):
    """A distance between features of generated clips and of reference clips."""

    full_state_update = False
    higher_is_better = False
    made: list[Tensor]
    made_owners: list[Tensor]
    wanted: list[Tensor]
    wanted_owners: list[Tensor]

    def __init__(self, distance: FeatureDistance, **kwargs: Any):
        super().__init__(**kwargs)
        self.distance = distance
        for name in ("made", "made_owners", "wanted", "wanted_owners"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, side: str, owner: int, features: np.ndarray) -> None:
        """Add a clip's rows.

        Args:
            side: "made" or "wanted".
            owner: the number of the clip's prompt, the same in every process.
            features: [N, D].
        """
        rows = torch.from_numpy(np.asarray(features, np.float32)).to(self.device)
        getattr(self, side).append(rows)
        getattr(self, f"{side}_owners").append(torch.full((len(rows),), owner, device=self.device))

    def sides(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """((made, wanted) features, (made, wanted) owners); rows that two processes added count once."""
        features, owners = [], []
        for side in ("made", "wanted"):
            rows = dim_zero_cat(getattr(self, side)).cpu().numpy()
            owner = dim_zero_cat(getattr(self, f"{side}_owners")).cpu().numpy()
            both = np.concatenate([owner[:, None].astype(np.float64), rows], axis=1)
            _, first = np.unique(both, axis=0, return_index=True)
            first.sort()
            order = np.argsort(owner[first], kind="stable")
            features.append(rows[first][order])
            owners.append(owner[first][order])
        return (features[0], features[1]), (owners[0], owners[1])

    def compute(self) -> Tensor:
        """The distance."""
        (made, wanted), _ = self.sides()
        return torch.tensor(self.distance.measure(made, wanted))
