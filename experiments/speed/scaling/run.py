"""How much faster a training step is on more processes, layout by layout: python .../speed/scaling/run.py --help

Writes numbers.json into the folder of this file (or --out). Names of figures: scaling/<size>/<layout>/..., speeds in
tokens of video a second, `share_of_ceiling` is the model-FLOPs utilisation against matrix products that the same
processes ran at once in the same round, `speedup` is over one process in the same round.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the harness
sys.path.insert(0, str(Path(__file__).parent))

import torch
import workers
from harness import MOVED, machine, spread
from moviegen_eval.numbers import Figure, write_numbers
from workers import Shape

from moviegen.backbone.counts import forward_flops
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.testing import Ranks

HERE = Path(__file__).parent


def layouts(world: int, heads: int) -> dict[str, ParallelConfig]:
    """One process, and every way to use all of them along one axis; ulysses only where heads divide."""
    found = {
        "one": ParallelConfig(dp_shard=1),
        "replicate": ParallelConfig(dp_replicate=world, dp_shard=1),
        "shard": ParallelConfig(dp_shard=world),
        "tensor": ParallelConfig(dp_shard=1, tp=world),
        "gathered_context": ParallelConfig(dp_shard=1, cp=world),
        "ulysses": ParallelConfig(dp_shard=1, cp=world, context="ulysses"),
        "ring": ParallelConfig(dp_shard=1, cp=world, context="ring"),
    }
    return {name: config for name, config in found.items() if name != "ulysses" or heads % world == 0}


@dataclass(frozen=True)
class Reading:
    """One step of a layout: its seconds, and FLOP/s of all its processes together just before and after."""

    seconds: float
    ceiling: float


def rounds(group: Ranks, names: list[str], count: int, size: int) -> list[dict[str, Reading]]:
    """In turning order, all layouts `count` times; a round in which a ceiling moved too far is left out."""
    found = []
    for index in range(count):
        turn = index % len(names)
        row = {}
        for name in (*names[turn:], *names[:turn]):
            before = sum(group.run(workers.ceiling, name, size, timeout=600))
            seconds = max(group.run(workers.step, name, timeout=600))
            row[name] = Reading(
                seconds, max(before, sum(group.run(workers.ceiling, name, size, timeout=600)))
            )
        found.append(row)
    middles = {name: spread([row[name].ceiling for row in found])[0] for name in names}
    kept = [row for row in found if all(abs(row[n].ceiling / middles[n] - 1) <= MOVED for n in names)]
    if len(kept) < count:
        print(f"{count - len(kept)} of {count} rounds dropped: a ceiling moved by over {MOVED:.0%}")
    if not kept:
        raise SystemExit("no round had steady ceilings: something else runs on this machine")
    return kept


def figures(case: str, kept: list[dict[str, Reading]], tokens: int, flops: float) -> list[Figure]:
    """Speed, utilisation, speed-up and ceiling of each layout; low and high are those of the rounds."""
    found = []
    for name in kept[0]:
        rows = [row[name] for row in kept]
        columns = {
            "speed": ([tokens / row.seconds for row in rows], "token/s"),
            "share_of_ceiling": ([flops / row.seconds / row.ceiling for row in rows], "share"),
            "speedup": ([row["one"].seconds / row[name].seconds for row in kept], "ratio"),
            "ceiling": ([row.ceiling / 1e9 for row in rows], "GFLOP/s"),
        }
        for column, (values, unit) in columns.items():
            found.append(Figure(f"{case}/{name}/{column}", *spread(values), len(values), unit, True))
    return found


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument(
        "--grid", type=int, nargs=3, default=[4, 16, 16], help="tokens: frames, height, width"
    )
    parser.add_argument("--batch", type=int, default=2, help="samples of a step over all processes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--ceiling", type=int, default=2048, help="rows and columns of the ceiling's matrices"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="*", help="layouts beside one process; all by default")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = parsed(words)
    if options.device == "cuda" and torch.cuda.device_count() < options.processes:
        raise SystemExit(
            f"--processes {options.processes}: this machine has {torch.cuda.device_count()} GPUs"
        )
    shape = Shape(options.dim, options.layers, options.heads, tuple(options.grid), options.batch)
    chosen = layouts(options.processes, options.heads)
    chosen = {n: c for n, c in chosen.items() if n == "one" or options.only is None or n in options.only}
    group = Ranks(options.processes, options.device)
    for name, config in chosen.items():
        group.run(workers.prepare, name, config, shape, options.device, options.dtype, timeout=600)
    kept = rounds(group, list(chosen), options.rounds, options.ceiling)
    group.close()
    tokens = shape.batch * shape.tokens
    flops = 3.0 * shape.batch * forward_flops(shape.config, shape.tokens, workers.WORDS)
    case = f"scaling/{shape.dim}x{shape.layers}_{tokens}/{options.dtype}_{options.device}{options.processes}"
    found = figures(case, kept, tokens, flops)
    for figure in found:
        print(f"{figure.name:70s} {figure.value:12.4g} [{figure.low:.4g}, {figure.high:.4g}] {figure.unit}")
    write_numbers(options.out / "numbers.json", found)
    print(machine())


if __name__ == "__main__":
    main()
