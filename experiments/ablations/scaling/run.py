"""A scaling law at toy size: `python experiments/ablations/scaling/run.py --latents runs/toy/latents`

Trains four sizes at several compute budgets (the number of steps follows from the FLOPs of a forward pass), and fits
the best size and the loss at it over compute. Finished trainings are not run again. Writes numbers.json, runs.json and
curves.svg into the output folder. Names of figures: scaling/...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import torch
from law import Optimum, Run, Slope, optima, power_law
from moviegen_eval.curves import read_curves
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.report.lines import lines_svg
from sweeps import Call, process, run_stage

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.counts import forward_flops
from moviegen.backbone.transformer import Backbone
from moviegen.runfolder import write_json, write_text
from moviegen.types import Grid

SIZES = {  # dim, layers, heads, feed-forward: the shape of the toy backbone (160, 8, 5, 448), wider and narrower
    "xs": (64, 4, 2, 176),
    "s": (96, 6, 3, 272),
    "m": (160, 8, 5, 448),
    "l": (224, 10, 7, 624),
}
BUDGETS = (1e13, 3e13, 1e14, 3e14)  # our choice: 3e14 is most of an hour on two cores
TRAINING = 3  # FLOPs of forward and backward, in forwards
# steps of warm-up: the recipe's, or this share of a shorter training; our choice
WARMUP, WARMUP_SHARE = 100, 0.1


def backbone_config(size: str, latent_channels: int) -> BackboneConfig:
    """The toy backbone in one of the four sizes."""
    dim, num_layers, num_heads, ffn_dim = SIZES[size]
    return BackboneConfig(
        dim,
        num_layers,
        num_heads,
        ffn_dim,
        latent_channels,
        max_frames=8,
        max_height=16,
        max_width=16,
        qk_norm=True,
    )


def cost(config: BackboneConfig, grid: Grid, num_text_tokens: int) -> tuple[int, int]:
    """Parameters of a backbone, and the FLOPs that training spends on one sample."""
    with torch.device("meta"):
        backbone = Backbone(config)
    forward = forward_flops(config, grid.num_tokens, num_text_tokens)
    return sum(p.numel() for p in backbone.parameters()), TRAINING * forward


def train(
    size: str, steps: int, seed: int, folder: Path, latents: Path, more: Sequence[str], call: Call
) -> float:
    """Train one size for so many steps; its held-out loss at the end."""
    folder = folder / f"{steps}_steps"  # other settings that need other steps are another training
    names = ("dim", "num_layers", "num_heads", "ffn_dim")
    shape = [f"task.backbone.config.{name}={n}" for name, n in zip(names, SIZES[size], strict=True)]
    words = ["train", "experiments=ablations/flow_matching", f"seed={seed}", f"run_dir={folder}"]
    words += [f"paths.latents={latents}", f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}"]
    words += [f"schedule.warmup_steps={max(1, min(WARMUP, round(WARMUP_SHARE * steps)))}"]
    run_stage(call, [*words, *shape, *more], folder / "model.safetensors")
    curve = read_curves(folder).get("val/loss")
    if not curve:
        raise RuntimeError(f"{folder} has no val/loss in its log: delete the folder to train it again")
    return curve[-1][1]


def budget_name(flops: float) -> str:
    """A budget as it stands in names: 3e13, 1.5e13."""
    return f"{flops:g}".replace("+", "")


def figures(found: Sequence[Optimum]) -> list[Figure]:
    """The exponents of the best size and of its loss; of the size only from budgets whose best size is inside."""
    inside = [optimum for optimum in found if optimum.inside]
    rows = [Figure("scaling/budgets_with_an_optimum", len(inside), None, None, len(found), "budgets", True)]
    if len(inside) >= 2:
        sizes = power_law([o.flops for o in inside], [o.num_parameters for o in inside])
        rows.append(_figure("scaling/size_exponent", sizes))
    if len(found) >= 2:
        rows.append(
            _figure("scaling/loss_exponent", power_law([o.flops for o in found], [o.loss for o in found]))
        )
    for optimum in inside:
        name = f"scaling/best_size_{budget_name(optimum.flops)}"
        rows.append(Figure(name, optimum.num_parameters, None, None, 1, "parameters", False))
    return rows


def _figure(name: str, law: Slope) -> Figure:
    return Figure(name, law.exponent, law.low, law.high, law.num_points, "exponent of compute", False)


def main(arguments: Sequence[str] | None = None, call: Call = process) -> None:
    """Train what is missing, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True, help="shards of `moviegen encode`")
    parser.add_argument("--out", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS), help="FLOPs of a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--grid", type=int, nargs=3, default=(2, 4, 4), help="tokens: frames, height, width")
    parser.add_argument("--text-tokens", type=int, default=24, help="of a typical caption")
    parser.add_argument("--latent-channels", type=int, default=16)
    parser.add_argument("more", nargs="*", help="overrides of every training")
    given = parser.parse_args(arguments)
    runs, grid = [], Grid(*given.grid)
    for budget in given.budgets:
        for size in SIZES:
            number, flops = cost(backbone_config(size, given.latent_channels), grid, given.text_tokens)
            steps = max(1, round(budget / (flops * given.batch)))
            for seed in given.seeds:
                folder = given.out / budget_name(budget) / size / str(seed)
                more = [f"data.batch_size={given.batch}", *given.more]
                runs.append(Run(number, budget, train(size, steps, seed, folder, given.latents, more, call)))
    found = optima(runs)
    rows = figures(found)
    write_json(given.out / "runs.json", {"runs": [vars(r) for r in runs], "optima": [vars(o) for o in found]})
    write_numbers(given.out / NUMBERS, rows)
    curves = {
        f"{budget_name(b)} FLOPs": [(r.num_parameters, r.loss) for r in runs if r.flops == b]
        for b in given.budgets
    }
    write_text(given.out / "curves.svg", lines_svg("Held-out loss by size", "parameters", "loss", curves))
    for row in rows:
        print(f"{row.name:34} {row.value:.4g} ({row.low} .. {row.high}) {row.unit}")


if __name__ == "__main__":
    main()
