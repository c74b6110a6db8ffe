"""Is it the person in the reference, throughout, and more than a copy of the picture: scores of clips (paper 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_eval.manifest import GeneratedSample
from moviegen_eval.verdicts import judge_observation
from numpy.typing import NDArray

from moviegen.faces import Face, FaceFinder, variation

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A clip as its judge saw it."""

    sample: GeneratedSample
    faces: tuple[Face | None, ...]  # one a frame; None where not exactly one was found
    references: tuple[Face, ...]
    verdict: dict[str, bool]  # of the oracle, by what the spec states
    error: str | None = None
    observation: oracle.Observation | None = None  # of a clip that has a spec

    @property
    def person(self) -> str:
        """Who is asked for: the tag of the prompt, or its references."""
        return (self.sample.tags or {}).get("person") or " ".join(self.sample.references or [])


def look(
    sample: GeneratedSample, frames: NDArray[np.uint8], references: Sequence[Face], finder: FaceFinder
) -> Seen:
    """Find the faces in a clip [T, H, W, 3]; ask the oracle of a clip that has a spec."""
    found = tuple(faces[0] if len(faces) == 1 else None for faces in finder.find(frames))
    observed = oracle.observe(frames, sample.frame_rate or 1.0) if sample.spec else None
    verdict = judge_observation(sample.spec, observed) if observed is not None else {}
    return Seen(sample, found, tuple(references), verdict, None, observed)


def likeness(seen: Seen, references: Sequence[Face]) -> Array:
    """Cosine [T] of each frame's face with the nearest of the references; 0 where no face or several were found."""
    wanted = np.stack([face.embedding for face in references])
    values = [0.0 if face is None else float((wanted @ face.embedding).max()) for face in seen.faces]
    return np.array(values, dtype=np.float32)


def clip_scores(seen: Seen) -> dict[str, float]:
    """The scores of one clip.

    Those of `likeness_scores`. consistency: mean cosine of neighboring frames. found: share of frames with exactly one
    face. variation: distance of pose and expression from the reference over the frames that have one, 0 for a copy;
    absent where no frame tells.
    """
    scores = likeness_scores(seen, seen.references) | {
        "consistency": _consistency(seen.faces),
        "found": float(np.mean([face is not None for face in seen.faces])),
    }
    told = [variation(seen.references[0], face) for face in seen.faces if face is not None]
    known = [value for value in told if value is not None]
    return scores | ({"variation": float(np.mean(known))} if known else {})


def _consistency(faces: Sequence[Face | None]) -> float:
    alike = [
        0.0 if one is None or two is None else float(one.embedding @ two.embedding)
        for one, two in pairwise(faces)
    ]
    return float(np.mean(alike)) if alike else 1.0


def gallery(clips: Sequence[Seen]) -> dict[str, Array]:
    """An embedding for each person: the mean of all references of theirs, of length 1."""
    found: dict[str, list[Array]] = {}
    for seen in clips:
        found.setdefault(seen.person, []).extend(face.embedding for face in seen.references)
    means = {person: np.mean(vectors, axis=0) for person, vectors in found.items()}
    return {person: (mean / np.linalg.norm(mean)).astype(np.float32) for person, mean in means.items()}


def nearest(seen: Seen, people: dict[str, Array]) -> str | None:
    """Who of all people is nearest to a clip's mean face; nobody where it shows none."""
    vectors = [face.embedding for face in seen.faces if face is not None]
    if not vectors:
        return None
    alike = {person: float(np.mean(vectors, axis=0) @ vector) for person, vector in people.items()}
    return max(alike, key=lambda person: alike[person])


def retrieved(seen: Seen, people: dict[str, Array]) -> bool:
    """Whether the right person is the nearest of all to a clip's mean face; a clip without a face is wrong."""
    return nearest(seen, people) == seen.person


def likeness_scores(seen: Seen, references: Sequence[Face]) -> dict[str, float]:
    """identity_best, identity_worst, identity_mean: cosine with the references over the frames (paper 4.4)."""
    alike = likeness(seen, references)
    return {
        "identity_best": float(alike.max()),
        "identity_worst": float(alike.min()),
        "identity_mean": float(alike.mean()),
    }
