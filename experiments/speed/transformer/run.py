"""Time our transformer block, forward and backward, against the public ones: python .../speed/transformer/run.py --help

Writes numbers.json into the folder of this file (or --out). Names of figures:
transformer/<size>/<dtype>_<device>/..., speeds in tokens of video a second, shares of the best matrix product of the
same rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the harness
sys.path.insert(0, str(Path(__file__).parent))

from contestants import BUILDERS, LAYERS, Model, Shape, ours
from harness import Contestant, figures, machine, race
from moviegen_eval.numbers import Figure, write_numbers
from torch.utils.flop_counter import FlopCounterMode

from moviegen.types import Grid

HERE = Path(__file__).parent
PRODUCTS = 3  # of one reading of the ceiling, which takes the best


def ceiling(size: int, like: torch.Tensor) -> Callable[[], float]:
    """A reading of the best FLOP/s of a square matrix product."""
    a, b = (torch.randn(size, size).to(like) for _ in range(2))

    def read() -> float:
        best = 0.0
        for _ in range(PRODUCTS):
            start = time.perf_counter()
            torch.mm(a, b)
            if a.is_cuda:
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
        return best

    return read


def entry(model: Model, shape: Shape, like: torch.Tensor) -> Contestant:
    """Forward and backward of a model's blocks on one sample; all contestants are given the same tokens and text."""
    generator = torch.Generator().manual_seed(0)
    tokens, text = (
        torch.randn(1, count, shape.dim, generator=generator).to(like)
        for count in (shape.grid.num_tokens, shape.num_text_tokens)
    )
    model.blocks.to(like).train()

    @torch.enable_grad()
    def run() -> None:
        model.blocks.zero_grad(set_to_none=True)
        x = tokens.clone().requires_grad_()  # gradients pass through, as between the layers of a model
        model.forward(x, text.clone().requires_grad_()).sum().backward()

    with FlopCounterMode(display=False) as counter:
        run()
    work = float(shape.grid.num_tokens * LAYERS)
    return Contestant(model.name, run, work, float(counter.get_total_flops()))


def compare(
    shape: Shape, peers: list[str], like: torch.Tensor, num_rounds: int, ceiling_size: int, attention: str
) -> list[Figure]:
    """All contestants in turns with the ceiling."""
    with torch.device(like.device):
        models = [ours(shape, attention=attention), *(BUILDERS[name](shape) for name in peers)]
    entries = [entry(model, shape, like) for model in models]
    rounds = race(entries, ceiling(ceiling_size, like), num_rounds)
    dtype = str(like.dtype).removeprefix("torch.")
    case = (
        f"transformer/{shape.dim}_{shape.grid.num_tokens}_{shape.num_text_tokens}/{dtype}_{like.device.type}"
    )
    return figures(case, entries[0], entries[1:], rounds, "token")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument(
        "--grid", type=int, nargs=3, default=[8, 16, 16], help="tokens: frames, height, width"
    )
    parser.add_argument("--text", type=int, default=256, help="tokens of text")
    parser.add_argument("--peers", nargs="*", default=list(BUILDERS), choices=list(BUILDERS))
    parser.add_argument("--attention", default="auto", help="our backend, see moviegen/backbone/attention.py")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--ceiling", type=int, default=2048, help="rows and columns of the ceiling's matrices"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(words)
    if options.threads:
        torch.set_num_threads(options.threads)
    like = torch.zeros(0, dtype=getattr(torch, options.dtype), device=options.device)
    shape = Shape(options.dim, Grid(*options.grid), options.text)
    found = compare(shape, options.peers, like, options.rounds, options.ceiling, options.attention)
    for figure in found:
        print(f"{figure.name:90s} {figure.value:14.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    write_numbers(options.out / "numbers.json", found)
    print(machine())


if __name__ == "__main__":
    main()
