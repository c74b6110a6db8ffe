"""Where an autoencoder's time goes on one thread, by kind of work: python .../kinds_of_work.py --help

Shares are of processor time, so that other work on the machine does them little harm. The ceiling here is the 3x3
convolution 256 -> 256 alone, in processor time too; `run.py` has the one that counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from contestants import ours
from convolutions import REFERENCE, counted
from run import our_settings

KINDS = {
    "convolutions": ("aten::mkldnn_convolution",),
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "mkldnn::_linear_pointwise"),
    "copies": ("aten::copy_",),
    "joining": ("aten::cat",),
    "SiLU": ("aten::silu", "aten::silu_"),
    "norms": ("aten::native_group_norm",),
}


def seconds(run: Callable[[], object], count: int) -> float:
    """Median processor time of a call."""
    found = []
    for _ in range(count):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return median(found)


def shares(run: Callable[[], object], count: int = 3) -> dict[str, float]:
    """Share of processor time of each kind, and of the rest."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(count):
            run()
    times = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    total = sum(times.values())
    found = {kind: sum(times.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    return found | {"rest": 1 - sum(found.values())}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", default="fast", help="a name in conf/codec/, or fast_third")
    parser.add_argument("--frames", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--side", type=int, default=128, help="pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = ours(options.ours, **our_settings(options.ours))
    x, weight = (
        torch.randn(size).contiguous(memory_format=torch.channels_last)
        for size in (REFERENCE.x, REFERENCE.weight)
    )
    print("| case | share of the ceiling | MFLOP a pixel | " + " | ".join(KINDS) + " | rest |")
    for frames in options.frames:
        clip = torch.rand(1, 3, frames, options.side, options.side) * 2 - 1
        latent = codec.encode(clip)
        cases = {"encode": lambda clip=clip: codec.encode(clip), "decode": lambda z=latent: codec.decode(z)}
        for name, run in cases.items():
            flops, _ = counted(run)
            rates = []
            for _ in range(5):
                best = REFERENCE.flops / seconds(
                    lambda: torch.nn.functional.conv2d(x, weight, padding=REFERENCE.padding), 5
                )
                rates.append(flops / seconds(run, 1) / best)
            parts = " | ".join(f"{100 * share:.1f} %" for share in shares(run).values())
            print(
                f"| {name}, {frames} | {median(rates):.3f} | {flops / clip[0, 0].numel() / 1e6:.3f} | {parts} |"
            )


if __name__ == "__main__":
    main()
