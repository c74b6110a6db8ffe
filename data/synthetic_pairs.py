"""Synthetic cross-pairs: a picture generator shows the person of a clip anew (paper 4.2); the unlike are left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moviegen.faces import Face, FaceFinder, cropped

Picture = NDArray[np.uint8]


class PersonPictures(Protocol):
    """A generator of pictures of a given person; the paper's is not public, so bring one."""

    def picture(self, frame: Picture, prompt: str, seed: int) -> Picture:
        """A new picture [H, W, 3] of the person in a frame [H, W, 3]."""
        ...


@dataclass(frozen=True)
class SyntheticPairs:
    """How synthetic references are asked for and held against the person."""

    generator: PersonPictures
    prompts: tuple[str, ...]  # expression, pose, light; one picture for each
    similarity: float = 0.7  # least cosine with the clip's person (paper: 0.7, of ArcFace)

    def __post_init__(self) -> None:
        if not self.prompts or not -1 <= self.similarity <= 1:
            raise ValueError(
                f"synthetic: needs prompts and a similarity in [-1, 1], not {self.prompts}, {self.similarity}"
            )


def made_crops(
    frame: Picture,
    person: NDArray[np.float32],
    finder: FaceFinder,
    pairs: SyntheticPairs,
    size: int,
    seed: int,
) -> tuple[list[Picture], Counter[str]]:
    """Crops [size, size, 3] of new pictures of the `person` of a frame, and what became of all that were made."""
    crops, counts = [], Counter[str]()
    for number, prompt in enumerate(pairs.prompts):
        picture = pairs.generator.picture(frame, prompt, seed + number)
        faces = finder.find(picture[None])[0]
        rule = _rule(faces, person, pairs.similarity)
        counts[rule] += 1
        if rule == "kept":
            crops.append(cropped(picture, faces[0], size))
    return crops, counts


def _rule(faces: list[Face], person: NDArray[np.float32], similarity: float) -> str:
    if len(faces) != 1:
        return "several faces" if faces else "no face"
    return "kept" if float(faces[0].embedding @ person) >= similarity else "unlike"
