"""The oracle's sense of form: shape by matching templates over rotation, size from the area, and the turn.

Patches are resampled so that a thing's area becomes pi: templates then need no scale. Shapes with n tips have
an n-fold moment, whose phase tells the angle.
"""

from functools import lru_cache

import numpy as np
from moviegen_data.toyworld.draw import coverage, distance
from moviegen_data.toyworld.masks import blurred
from moviegen_data.toyworld.scene import SQUARE_SIDE, STAR_INNER, STAR_RADIUS, TRIANGLE_RADIUS
from moviegen_data.toyworld.segment import Thing
from moviegen_data.toyworld.words import SHAPES, SIZES
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
FOLDS = {"circle": 0, "square": 4, "triangle": 3, "star": 5}
UNIT_AREAS = {  # of radius 1
    "circle": np.pi,
    "square": 4 * SQUARE_SIDE**2,
    "triangle": 0.75 * 3**0.5 * TRIANGLE_RADIUS**2,
    "star": 5 * STAR_INNER * np.sin(np.pi / 5) * STAR_RADIUS**2,
}
GRID, REACH = 28, 1.75  # cells, and half the width in terms of the equal-area radius
TURNS = 10  # templates over a shape's symmetry angle
MIN_SCORE, MIN_LEAD = 0.8, 0.008
SIZE_BORDER = float(np.sqrt(SIZES["small"] * SIZES["big"]))


def _cells() -> NDArray[np.float32]:
    return ((np.arange(GRID) + 0.5) / GRID * 2 - 1).astype(np.float32) * np.float32(REACH)


@lru_cache(maxsize=16)
def _bank(radius: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Templates [N, cells] of all shapes and turns at an equal-area radius in pixels; their shapes [N]."""
    x, y = _cells()[None, :] * np.float32(radius), _cells()[:, None] * np.float32(radius)
    rows, shapes = [], []
    for index, shape in enumerate(SHAPES):
        size = np.float32(radius * np.sqrt(np.pi / UNIT_AREAS[shape]))
        for angle in np.arange(TURNS if FOLDS[shape] else 1) * 2 * np.pi / max(FOLDS[shape], 1) / TURNS:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            template = coverage(distance(shape, c * x + s * y, c * y - s * x, size))
            rows.append(_normalized(blurred(template, 0.8 * GRID / (2 * REACH * radius))))
            shapes.append(index)
    return np.stack(rows), np.array(shapes)


def _normalized(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = patch.reshape(-1) - patch.mean()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)


def shape_scores(thing: Thing, clear: NDArray[np.bool_]) -> Array:
    """Mean correlation [4] of a thing with each shape's best template, over frames where it is clear [T]."""
    centers, areas = thing.centers(), thing.areas()
    usable = np.flatnonzero(clear & thing.present)
    if not len(usable):
        usable = np.flatnonzero(thing.present)
    usable = usable[:: max(1, len(usable) // 10)]
    scores = np.zeros(len(SHAPES))
    for index in usable:
        radius = float(np.sqrt(areas[index] / np.pi))
        ys = (centers[index, 1] - 0.5 + radius * _cells())[:, None] + np.zeros((1, GRID))
        xs = (centers[index, 0] - 0.5 + radius * _cells())[None, :] + np.zeros((GRID, 1))
        patch = ndimage.map_coordinates(thing.alphas[index], [ys, xs], order=1)
        templates, shapes = _bank(round(2 * radius) / 2)
        match = templates @ _normalized(patch.astype(np.float32))
        scores += [match[shapes == kind].max() for kind in range(len(SHAPES))]
    return scores / max(len(usable), 1)


def shape_of(thing: Thing, clear: NDArray[np.bool_]) -> str:
    """The shape, or "none" where no template fits or two fit alike."""
    scores = shape_scores(thing, clear)
    order = np.argsort(-scores)
    if scores[order[0]] < MIN_SCORE or scores[order[0]] - scores[order[1]] < MIN_LEAD:
        return "none"
    return SHAPES[int(order[0])]


def radius_of(thing: Thing, shape: str, zooms: Array, unit: float) -> float:
    """World radius of a thing whose magnification was zooms [T]; unit is pixels per world unit."""
    area = float(np.median((thing.areas() / zooms**2)[thing.present])) / unit**2
    return float(np.sqrt(area / UNIT_AREAS.get(shape, 3.0)))


def size_of(radius: float) -> str:
    """Small or big by the nearer of the two radii, "none" where neither is near."""
    if not 0.7 * SIZES["small"] < radius < 1.4 * SIZES["big"]:
        return "none"
    return "small" if radius < SIZE_BORDER else "big"


def angles_of(thing: Thing, shape: str) -> Array:
    """Turn [T] in radians since the first frame, clockwise on screen; zeros for circles."""
    folds = FOLDS.get(shape, 0)
    if folds == 0 or not thing.present.all():
        return np.zeros(len(thing.masks))
    size_y, size_x = thing.alphas.shape[1:]
    centers = thing.centers()
    x = np.arange(size_x)[None, None, :] + 0.5 - centers[:, 0, None, None]
    y = np.arange(size_y)[None, :, None] + 0.5 - centers[:, 1, None, None]
    moment = (thing.alphas * (x + 1j * y) ** folds).sum(axis=(1, 2))
    phase = np.unwrap(np.angle(moment)) / folds
    return phase - phase[0]
