"""Paths of single motions and of interacting pairs, around an origin that is placed in the frame later."""

import math
from dataclasses import replace

import numpy as np
from moviegen_data.toyworld.scene import Bounce, Interaction, Path, Sprite, contact_distance, extent

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SPIN_TURN = math.pi  # radians in a clip: one for all, since no caption says how far (experiments/toy)


def motion_path(
    motion: str, duration_seconds: float, rng: np.random.Generator, crowded: bool = False
) -> Path:
    """The path of a motion over the whole clip; crowded scenes have shorter ways."""
    if motion in DIRECTIONS:
        way = rng.uniform(20, 24) if crowded or rng.random() < 0.4 else rng.uniform(24, 36)
        dx, dy = (float(way * d) for d in DIRECTIONS[motion])
        return Path(((0.0, 0.0, 0.0), (duration_seconds, dx, dy)))
    rest = ((0.0, 0.0, 0.0),)
    if motion == "spin":
        return Path(rest, spin_rate=float(SPIN_TURN * rng.choice([-1.0, 1.0]) / duration_seconds))
    if motion == "bounce":
        height = rng.uniform(18, 22) if crowded else rng.uniform(22, 32)
        fall = duration_seconds * rng.uniform(0.2, 0.3)
        return Path(rest, bounce=Bounce(float(height), float(fall)))
    if motion == "still":
        return Path(rest)
    raise ValueError(f"unknown motion {motion!r}")


def interaction_sprites(
    kind: str, pair: list[Sprite], duration_seconds: float, rng: np.random.Generator, narrow: bool
) -> tuple[list[Sprite], Interaction]:
    """Give a pair (the actor first) the paths of an interaction; `narrow` keeps them close together."""
    if kind == "carry":
        return _carry(pair, duration_seconds, rng)
    direction = str(rng.choice(["left", "right"]))
    sign = 1.0 if direction == "right" else -1.0
    actor, other = pair
    drop = float(extent(actor)[3] - extent(other)[3])  # both stand on one floor
    left, right = (actor, other) if sign > 0 else (other, actor)
    touch = sign * contact_distance(left, right, drop if sign > 0 else -drop)
    contact = duration_seconds * float(rng.uniform(0.36, 0.5))
    near = float(rng.uniform(8, 10) if narrow else rng.uniform(9, 11))
    if kind == "push":
        after = float(rng.uniform(8, 10) if narrow else rng.uniform(9, 11))
        paths = _push_paths(sign, touch, drop, near, after, contact, duration_seconds)
        interaction = Interaction(kind, direction, contact)
    else:
        paths = _collide_paths(sign, touch, drop, 0.72 * near, contact, duration_seconds)
        interaction = Interaction(kind, None, contact)
    return [replace(s, path=path) for s, path in zip(pair, paths, strict=True)], interaction


def _push_paths(
    sign: float, touch: float, drop: float, near: float, after: float, contact: float, end: float
) -> tuple[Path, Path]:
    """The actor closes the gap `near` until contact, then both go on for `after`."""
    a = ((0.0, -sign * near, 0.0), (contact, 0.0, 0.0), (end, sign * after, 0.0))
    b = ((0.0, touch, drop), (contact, touch, drop), (end, touch + sign * after, drop))
    return Path(a), Path(b)


def _collide_paths(
    sign: float, touch: float, drop: float, near: float, contact: float, end: float
) -> tuple[Path, Path]:
    """Both come from `near` away, touch, and fly back as fast as they came, at most as far as they came."""
    back = min(1.0, (end - contact) / contact) * near
    a = ((0.0, -sign * near, 0.0), (contact, 0.0, 0.0), (end, -sign * back, 0.0))
    b = ((0.0, touch + sign * near, drop), (contact, touch, drop), (end, touch + sign * back, drop))
    return Path(a), Path(b)


def _carry(
    pair: list[Sprite], duration_seconds: float, rng: np.random.Generator
) -> tuple[list[Sprite], Interaction]:
    """The second sprite rides on top of the actor."""
    direction = str(rng.choice(["left", "right"]))
    base = motion_path(direction, duration_seconds, rng)
    rise = extent(pair[0])[1] + extent(pair[1])[3]
    top = base.shifted(np.array([0.0, -rise]))
    return [replace(pair[0], path=base), replace(pair[1], path=top)], Interaction("carry", direction)
