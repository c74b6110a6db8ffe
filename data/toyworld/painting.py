"""Generative segmentation (paper 5, stage II): the named thing of a clip painted over in a color."""

from dataclasses import replace

import numpy as np
from moviegen_data.toyworld.truth import decode_mask
from moviegen_data.toyworld.world import EditPair, World
from numpy.typing import NDArray

PAINTS = {"white": (255, 255, 255), "black": (0, 0, 0), "magenta": (255, 0, 255), "lime": (0, 255, 0)}

Frames = NDArray[np.uint8]  # [T, H, W, 3] RGB


def painted(frames: Frames, mask: NDArray[np.bool_], color: tuple[int, int, int]) -> Frames:
    """Frames with a mask [T, H, W] filled with one color."""
    return np.where(mask[..., None], np.array(color, dtype=np.uint8), frames)


def segmentation(
    frames: Frames, mask: NDArray[np.bool_], name: str, rng: np.random.Generator
) -> tuple[Frames, str]:
    """The clip with the named thing painted over in a color that is drawn, and the instruction that asks for it."""
    color = str(rng.choice(list(PAINTS)))
    return painted(frames, mask, PAINTS[color]), f"segment the {name} in {color}"


def segment_pair(world: World, seed: int, index: int, rng: np.random.Generator) -> EditPair:
    """A clip of the toy world, and the same with one of its things painted over; `painted` in the truth says which."""
    clip = world.render(seed, index)
    sprites = clip.truth["sprites"]
    place = int(rng.integers(len(sprites)))
    height, width = clip.frames.shape[1:3]
    mask = np.stack([decode_mask(runs, height, width) for runs in sprites[place]["masks"]])
    name = f"{sprites[place]['color']} {sprites[place]['shape']}"
    frames, instruction = segmentation(clip.frames, mask, name, rng)
    color = instruction.rsplit(maxsplit=1)[-1]
    truth = clip.truth | {"painted": {"sprite": place, "color": list(PAINTS[color])}}
    said = clip.caption.replace(f"{sprites[place]['color']} ", f"{color} ", 1)
    return EditPair(clip, replace(clip, frames=frames, truth=truth, caption=said), instruction, "segment")
