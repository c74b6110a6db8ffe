"""The toy world's characters behind the seam of `moviegen.faces`: the oracle finds them and tells them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.identity import find_character
from moviegen_data.toyworld.words import EXPRESSIONS, HAT_COLORS, HATS, HEAD_COLORS, POSES
from numpy.typing import NDArray

from moviegen.faces import Face


class ToyFaces:
    """Characters, as the oracle sees them. It finds nothing else, so what it finds is nobody's face.

    Args:
        neighbors: least cosine of one character's embeddings in neighboring frames.
        same: cosine of the oracle's embeddings from which on two characters count as one.
        smallest: pixels of a character's shorter side.
    """

    synthetic = drawings = True

    def __init__(self, neighbors: float = 0.9, same: float = 0.9, smallest: int = 16):
        self.neighbors, self.same, self.smallest = neighbors, same, smallest

    def find(self, frames: NDArray[np.uint8]) -> list[list[Face]]:
        """The character in each of the frames of one clip [T, H, W, 3]."""
        seen = find_character(frames)
        if seen is None:
            return [[] for _ in frames]
        rows = zip(seen.present, seen.masks, seen.embeddings, seen.poses, seen.expressions, strict=True)
        return [
            [Face(mask, vector, () if "none" in (pose, mood) else (pose, mood))] if there else []
            for there, mask, vector, pose, mood in rows
        ]


class ToyPictures:
    """Draws the character of a frame again, as a prompt says: left, right or ahead; its expression is drawn by lot."""

    def picture(self, frame: NDArray[np.uint8], prompt: str, seed: int) -> NDArray[np.uint8]:
        """A new picture [H, W, 3]; the frame itself where no character is seen in it."""
        seen = find_character(frame[None])
        if seen is None:
            return frame
        config = WorldConfig(size=len(frame), num_frames=2, character_share=1.0)
        scene = World(config).scene(seed, 0)
        rng, (sprite,) = np.random.default_rng(seed), scene.sprites
        assert sprite.face is not None
        colors, hat = divmod(seen.character, len(HATS))
        head, hat_color = divmod(colors, len(HAT_COLORS))
        pose = next((name for name in POSES if name in prompt), "front")
        mood = EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))]
        face = replace(
            sprite.face,
            hat=HATS[hat],
            hat_color=HAT_COLORS[hat_color],
            character=seen.character,
            poses=(pose, pose),
            expressions=(mood, mood),
        )
        who = replace(sprite, color=HEAD_COLORS[head], face=face)
        return World(config).clip(replace(scene, sprites=(who,)), "").frames[0]
