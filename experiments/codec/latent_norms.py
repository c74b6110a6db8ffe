"""Maps of latent norms before and after finetuning with the outlier penalty (paper 3.1.1), as one svg.

    python experiments/codec/latent_norms.py BEFORE AFTER --shards FOLDER [--out latent_norms.svg] [--clips 4]

BEFORE and AFTER are models on disk without suffix. A cell is a latent site: its distance from its frame's mean in units
of |Std(X)|, as the penalty sees it; sites beyond 3, the paper's r, are orange. Printed: the share of such sites.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from moviegen.codec.losses import site_distances
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.data.batches import Reader
from moviegen.data.shards import ShardFolder
from moviegen.fields import VIDEO
from moviegen.modelfile import load_codec

RADIUS = 3.0  # the paper's r, in standard deviations
SIDE, GAP, TOP = 180, 16, 44  # pixels of the figure


@torch.no_grad()
def norm_maps(codec: TemporalAutoencoder, frames: Tensor) -> Tensor:
    """Distances of all sites in units of |Std(X)|: frames [B, 3, T, H, W] -> [B, T', H', W']."""
    latent = codec.posterior(frames).mean
    distance, spread = site_distances(latent)
    return (distance / spread.clamp_min(1e-6)).unflatten(2, latent.shape[3:])


def outlier_share(maps: Tensor) -> float:
    """The share of sites beyond `RADIUS`."""
    return float((maps > RADIUS).float().mean())


def read_clips(folder: str, split: str, count: int) -> Tensor:
    """The first clips of a split, [count, 3, T, H, W] in [-1, 1]; fewer where the folder has fewer of one size."""
    samples = max(ShardFolder(folder).sets(split), key=len)
    return Reader({"media": VIDEO}).batch(samples, range(min(count, len(samples)))).video().frames


def _map(values: Tensor, x: float, y: float) -> str:
    """One map [H, W] as squares, white at 0 to blue at `RADIUS`, orange beyond."""
    height, width = values.shape
    size = SIDE / max(height, width)
    cells = []
    for row in range(height):
        for column in range(width):
            value = float(values[row, column])
            shade = round(255 * (1 - min(value / RADIUS, 1.0)))
            color = "#d9662b" if value > RADIUS else f"rgb({shade},{shade},255)"
            place = f'x="{x + column * size:.1f}" y="{y + row * size:.1f}"'
            cells.append(f'<rect {place} width="{size:.1f}" height="{size:.1f}" fill="{color}"/>')
    return "".join(cells)


def figure(before: Tensor, after: Tensor) -> str:
    """An svg of the middle latent frame of each clip: before on the left, after on the right, [B, T', H', W'] each."""
    parts, columns = [], {"before": before, "after": after}
    for column, (name, maps) in enumerate(columns.items()):
        x = GAP + column * (SIDE + GAP)
        title = f"{name}: {100 * outlier_share(maps):.2f} % of sites"
        parts.append(
            f'<text x="{x}" y="20">{title}</text><text x="{x}" y="36">beyond {RADIUS:g} deviations</text>'
        )
        for row, clip in enumerate(maps):
            parts.append(_map(clip[len(clip) // 2], x, TOP + row * (SIDE + GAP)))
    size = f'width="{2 * SIDE + 3 * GAP}" height="{TOP + len(before) * (SIDE + GAP)}"'
    style = "<style>text { font: 12px sans-serif; fill: #62656d; }</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n'


def main(argv: list[str] | None = None) -> None:
    """Draw the figure and print a line for each model. Raises UserError or ShardError for what cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("latent_norms.svg"))
    given = parser.parse_args(argv)
    frames = read_clips(given.shards, given.split, given.clips)
    maps = [norm_maps(load_codec(path), frames) for path in (given.before, given.after)]
    for name, path, values in zip(("before", "after"), (given.before, given.after), maps, strict=True):
        share, largest = 100 * outlier_share(values), float(values.max())
        print(
            f"{name}: {share:.3f} % of {values.numel()} sites beyond {RADIUS:g} sigma, largest {largest:.2f} ({path})"
        )
    given.out.write_text(figure(*maps), encoding="utf-8")
    print(f"{given.out} written")


if __name__ == "__main__":
    main()
