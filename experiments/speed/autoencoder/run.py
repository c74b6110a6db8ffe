"""Time our autoencoders against the public ones: python experiments/speed/autoencoder/run.py --help

Writes numbers.json into the folder of this file (or --out). Names of figures:
autoencoder/<our size>/<encode|decode>_<frames>x<height>x<width>_<dtype>_<device>/...
A case that is there already is replaced as a whole, so that all figures of a case are of one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the harness
sys.path.insert(0, str(Path(__file__).parent))

from contestants import BUILDERS, Codec, ours
from convolutions import Ceiling, Convolution, counted
from harness import Contestant, figures, machine, race
from hydra import compose, initialize_config_dir
from moviegen_eval.numbers import Figure, read_numbers, write_numbers
from omegaconf import OmegaConf

HERE = Path(__file__).parent
THIRD = {
    "fast_third": ("fast", {"channels": [64, 160, 192]})
}  # about a third of the width, for training on a CPU


def our_settings(size: str) -> dict[str, Any]:
    """The arguments of one of ours, by the name of its config in conf/codec/, or fast_third."""
    size, changed = THIRD.get(size, (size, {}))
    with initialize_config_dir(str(HERE.parents[2] / "conf" / "codec"), version_base=None):
        node = OmegaConf.to_container(compose(size))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items() if key != "_target_"} | changed


def entry(
    codec: Codec, operation: str, length: int, side: int, like: torch.Tensor
) -> tuple[Contestant, list[Convolution]]:
    """A codec's encode or decode of one clip; useful pixels are those of the frames that come in or out."""
    clip = torch.rand(1, 3, length, side, side).to(like) * 2 - 1
    codec.module.to(like)
    with torch.no_grad():
        latent = codec.encode(clip)
    run = (lambda: codec.encode(clip)) if operation == "encode" else (lambda: codec.decode(latent))
    flops, convolutions = counted(run)
    return Contestant(codec.name, run, float(length * side * side), flops), convolutions


def peak_bytes(codec: Codec, run: Callable[[], object]) -> int:
    """Most memory of a GPU that a call takes, with the weights of this codec alone."""
    device = next(codec.module.parameters()).device
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.no_grad():
        run()
    torch.cuda.synchronize(device)
    weights = sum(p.numel() * p.element_size() for p in codec.module.parameters())
    return torch.cuda.max_memory_allocated(device) - before + weights


def fitting(codecs: Sequence[Codec], *case: Any) -> list[tuple[Codec, Contestant, list[Convolution]]]:
    """`entry` of each codec; one that a GPU has no room for is left out with a word, ours (the first) is not."""
    found = []
    for codec in codecs:
        try:
            found.append((codec, *entry(codec, case[0], codec.num_frames[case[1]], *case[2:])))
        except torch.OutOfMemoryError:
            if codec is codecs[0]:
                raise
            print(f"{codec.name}: no room for {codec.num_frames[case[1]]} frames, left out")
            torch.cuda.empty_cache()
    return found


def compare(
    own: Codec,
    peers: Sequence[Codec],
    operation: str,
    place: int,
    side: int,
    like: torch.Tensor,
    num_rounds: int,
) -> list[Figure]:
    """All codecs at their natural length number `place`, in turns with the ceiling."""
    entries = fitting((own, *peers), operation, place, side, like)
    shapes = [shape for *_, convolutions in entries for shape in convolutions]
    ceiling = Ceiling(shapes, like.dtype, str(like.device))
    contestants = [contestant for _, contestant, _ in entries]
    rounds = race(contestants, ceiling, num_rounds)
    print(f"ceiling: best of {len(ceiling.cases)} convolutions, the last time {ceiling.best}")
    dtype = str(like.dtype).removeprefix("torch.")
    case = f"{operation}_{own.num_frames[place]}x{side}x{side}_{dtype}_{like.device.type}"
    name = f"autoencoder/{own.name}/{case}"
    found = figures(name, contestants[0], contestants[1:], rounds, "px")
    for codec, contestant, _ in entries if like.is_cuda else ():
        prefix, mib = "" if codec is own else f"{codec.name}_", peak_bytes(codec, contestant.run) / 2**20
        found.append(Figure(f"{name}/{prefix}peak_memory", mib, None, None, 1, "MiB", False))
    for figure in found:
        spread = "" if figure.low is None else f"[{figure.low:.4g}, {figure.high:.4g}] "
        print(f"{figure.name:90s} {figure.value:14.4g} {spread}{figure.unit}")
    return found


def keep(path: Path, found: Sequence[Figure]) -> None:
    """Write the figures of one case; other cases that the file holds stay as they are."""
    case = "/".join(found[0].name.split("/")[:3]) + "/"
    others = read_numbers(path) if path.is_file() else []
    write_numbers(path, [*(one for one in others if not one.name.startswith(case)), *found])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", nargs="+", default=["fast"], help="names in conf/codec/, or fast_third")
    parser.add_argument("--peers", nargs="*", default=["wan", "wan_8x8x8"], choices=sorted(BUILDERS))
    parser.add_argument("--sides", nargs="+", type=int, default=[128, 256])
    parser.add_argument(
        "--places", nargs="+", type=int, default=[0, 1, 2], help="which natural lengths, 0 to 5"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    like = torch.zeros(0, dtype=getattr(torch, options.dtype), device=options.device)
    peers = [BUILDERS[name]() for name in options.peers]
    for size in options.ours:
        own = ours(size, **our_settings(size))
        for side in options.sides:
            for place in options.places:
                for operation in ("encode", "decode"):
                    found = compare(own, peers, operation, place, side, like, options.rounds)
                    keep(options.out / "numbers.json", found)
    print(machine())


if __name__ == "__main__":
    main()
