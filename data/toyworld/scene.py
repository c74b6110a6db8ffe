"""A scene: what moves where. World coordinates are pixels of a 64-pixel frame, y down.

A camera with offset o and zoom z shows the world point p at c + z (p - c - o), where c is the frame's center.
"""

import math
from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.words import turn_of
from numpy.typing import NDArray

FRAME = 64.0  # world units across the frame
LAST_SECONDS = 0.05  # at the end of a clip, in which no impact is sounded
CENTER = np.array([FRAME / 2, FRAME / 2])
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bounce:
    """A fall from `height` onto the floor in `fall_seconds`, then ever lower hops."""

    height: float
    fall_seconds: float
    restitution: float = 0.84

    def impacts(self, duration_seconds: float) -> list[float]:
        """Times in seconds at which the floor is hit, before the end of the clip."""
        times, hop, t = [], self.fall_seconds, self.fall_seconds
        while t < duration_seconds and hop > 0.02:
            times.append(t)
            hop *= self.restitution
            t += 2 * hop
        return times

    def heights(self, times: Array) -> Array:
        """Height above the floor at times [T]."""
        gravity = 2 * self.height / self.fall_seconds**2
        hits = self.impacts(float(times.max()) + 1.0)
        heights = self.height - gravity * times**2 / 2
        speed = gravity * self.fall_seconds
        for hit in hits:
            speed *= self.restitution
            after = times >= hit
            since = times[after] - hit
            heights[after] = speed * since - gravity * since**2 / 2
        return np.maximum(heights, 0.0)


@dataclass(frozen=True)
class Path:
    """Where a sprite's center is: straight pieces between knots (t, x, y), plus hops and a turn."""

    knots: tuple[tuple[float, float, float], ...]
    spin_rate: float = 0.0  # radians per second, counter-clockwise on screen is negative
    bounce: Bounce | None = None

    def positions(self, times: Array) -> Array:
        """Center [T, 2] in world units at times [T] in seconds."""
        t, x, y = np.array(self.knots, dtype=np.float64).T
        points = np.stack([np.interp(times, t, x), np.interp(times, t, y)], axis=1)
        if self.bounce is not None:
            points[:, 1] -= self.bounce.heights(times)
        return points

    def shifted(self, offset: Array) -> "Path":
        """The same path, moved by offset [2]."""
        dx, dy = float(offset[0]), float(offset[1])
        return Path(tuple((t, x + dx, y + dy) for t, x, y in self.knots), self.spin_rate, self.bounce)


@dataclass(frozen=True)
class Face:
    """What a character shows over time; who it is lies in the sprite's color and the hat."""

    hat_color: str
    hat: str
    character: int
    poses: tuple[str, ...]  # one a frame
    expressions: tuple[str, ...]  # one a frame


@dataclass(frozen=True)
class Sprite:
    color: str
    shape: str  # one of words.SHAPES, or "character"
    size: str
    radius: float
    path: Path
    motion: str | None = None  # None where an interaction says how it moves
    face: Face | None = None

    @property
    def turn(self) -> str | None:
        """Which way round it spins, one of words.TURNS."""
        return turn_of(self.path.spin_rate) if self.path.spin_rate else None


@dataclass(frozen=True)
class Wave:
    """One plane wave of a texture: wave vector in radians per world unit, phase, amplitude in grey levels."""

    kx: float
    ky: float
    phase: float
    amplitude: float


@dataclass(frozen=True)
class Background:
    kind: str
    base: tuple[float, float, float]  # RGB in [0, 255]
    slope: tuple[float, float] = (0.0, 0.0)  # grey levels per world unit
    waves: tuple[Wave, ...] = ()


@dataclass(frozen=True)
class Camera:
    kind: str
    amount: float = 0.0  # pan: world units over the clip; zoom: factor over the clip
    duration_seconds: float = 2.0

    def offsets(self, times: Array) -> Array:
        """World offset [T, 2] of the view at times [T]."""
        sign = {"pan left": -1.0, "pan right": 1.0}.get(self.kind, 0.0)
        x = sign * self.amount * times / self.duration_seconds
        return np.stack([x, np.zeros_like(x)], axis=1)

    def zooms(self, times: Array) -> Array:
        """Magnification [T]; never below 1, so that sprites stay measurable."""
        share = times / self.duration_seconds
        if self.kind == "zoom in":
            return self.amount**share
        if self.kind == "zoom out":
            return self.amount ** (1.0 - share)
        return np.ones_like(times)

    def project(self, points: Array, times: Array) -> Array:
        """World points [..., T, 2] to frame coordinates [..., T, 2]."""
        return CENTER + self.zooms(times)[:, None] * (points - CENTER - self.offsets(times))


@dataclass(frozen=True)
class Event:
    """A moment of contact: when, what, which sprite's shape is heard, who takes part."""

    seconds: float
    kind: str  # "bounce", "push" or "collide"
    shape: str
    sprites: tuple[int, ...]


@dataclass(frozen=True)
class Interaction:
    kind: str
    direction: str | None = None  # of the actor, for push and carry
    contact_seconds: float | None = None


@dataclass(frozen=True)
class Scene:
    """Everything a clip is made of; sprite 0 is the actor, later sprites are drawn on top."""

    sprites: tuple[Sprite, ...]
    background: Background
    camera: Camera
    interaction: Interaction | None
    noise_seed: int  # of the sound's noise floor
    style: str = "normal"

    def events(self, duration_seconds: float) -> list[Event]:
        """Impacts in order of time, but for those too close to the end of the clip to be heard."""
        events = []
        for index, sprite in enumerate(self.sprites):
            if sprite.path.bounce is not None:
                hits = sprite.path.bounce.impacts(duration_seconds)
                events += [Event(t, "bounce", sprite.shape, (index,)) for t in hits]
        action = self.interaction
        if action is not None and action.contact_seconds is not None:
            events.append(Event(action.contact_seconds, action.kind, self.sprites[0].shape, (0, 1)))
        heard = [event for event in events if event.seconds <= duration_seconds - LAST_SECONDS]
        return sorted(heard, key=lambda event: event.seconds)


# Outlines around a center at (0, 0) for radius 1: equal-looking sizes, tips upward.
SQUARE_SIDE = 0.9  # half a side
TRIANGLE_RADIUS = 1.32  # of the circle through the corners
STAR_RADIUS = 1.3
STAR_INNER = 0.5  # of the outer radius


def outline(shape: str) -> Array:
    """Corners [N, 2] of a shape of radius 1, in order, y down."""
    if shape == "square":
        return SQUARE_SIDE * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    if shape == "character":  # the head's box with the hat on top
        return np.array([[-1.0, -1.62], [1.0, -1.62], [1.0, 1.0], [-1.0, 1.0]])
    num, radii = {
        "circle": (48, (1.0,)),
        "triangle": (3, (TRIANGLE_RADIUS,)),
        "star": (10, (STAR_RADIUS, STAR_RADIUS * STAR_INNER)),
    }[shape]
    angles = -math.pi / 2 + 2 * math.pi * np.arange(num) / num
    radius = np.resize(radii, num)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def extent(sprite: Sprite) -> Array:
    """Reach [4] of a sprite from its center: left, up, right, down (all positive), over all its angles."""
    corners = sprite.radius * outline(sprite.shape)
    if sprite.path.spin_rate:
        return np.full(4, np.hypot(*corners.T).max())
    return np.concatenate([-corners.min(axis=0), corners.max(axis=0)])


def contact_distance(left: Sprite, right: Sprite, drop: float) -> float:
    """Horizontal distance of centers at which two sprites touch, `right` lying `drop` lower."""
    a, b = left.radius * outline(left.shape), right.radius * outline(right.shape) + [0.0, drop]
    rows = np.linspace(max(a[:, 1].min(), b[:, 1].min()), min(a[:, 1].max(), b[:, 1].max()), 65)[1:-1]
    reach = [_edge(a, y, side=1.0) + _edge(b, y, side=-1.0) for y in rows]
    return float(max(reach))


def _edge(corners: Array, y: float, side: float) -> float:
    """How far an outline reaches to one side (1 right, -1 left) on the row y."""
    start, end = corners, np.roll(corners, -1, axis=0)
    crosses = (start[:, 1] <= y) != (end[:, 1] <= y)
    start, end = start[crosses], end[crosses]
    share = (y - start[:, 1]) / (end[:, 1] - start[:, 1])
    return float((side * (start[:, 0] + share * (end[:, 0] - start[:, 0]))).max())
