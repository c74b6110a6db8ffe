"""The oracle's sense of motion: what a track is called, and what two tracks do to each other.

Tracks are centers [T, 2] in world units (pixels of a 64-pixel frame) with the camera's motion taken out.
"""

import numpy as np
from moviegen_data.toyworld.masks import dilated
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
MIN_WAY = 9.0  # world units, of a motion
MAX_REST = 6.5  # world units, that a thing at rest may seem to wander
MIN_HOP = 5.0  # world units, that a bounce rises again
MIN_TURN = np.radians(75.0)
MAX_TURN = np.radians(30.0)
SMOOTH = np.array([0.25, 0.5, 0.25])


def smoothed(track: Array) -> Array:
    """A track [T, 2] less its jitter."""
    return ndimage.convolve1d(track, SMOOTH, axis=0, mode="nearest")


def motion_of(track: Array, angles: Array) -> str:
    """The motion's name from centers [T, 2] and turns [T], or "none"."""
    if len(track) < 3 or not np.isfinite(track).all():
        return "none"
    way = track[-1] - track[0]
    reach = track.max(axis=0) - track.min(axis=0)
    if reach[0] < 0.6 * reach[1] and _rise_after_fall(track[:, 1]) >= MIN_HOP:
        return "bounce"
    if reach.max() <= MAX_REST:
        turn = abs(angles[-1] - angles[0])
        if MAX_TURN < turn < MIN_TURN:
            return "none"
        return "spin" if turn >= MIN_TURN else "still"
    axis = int(np.abs(way).argmax())
    back = reach[axis] - abs(way[axis])  # how much of the reach was given back
    steady = back < 0.25 * reach[axis] and reach[1 - axis] < 0.45 * reach[axis]
    if abs(way[axis]) < MIN_WAY or not steady:
        return "none"
    return (("left", "right"), ("up", "down"))[axis][int(way[axis] > 0)]


def _rise_after_fall(y: Array) -> float:
    """The most that heights y [T] (down is positive) first fall and then rise again."""
    fall = y - np.minimum.accumulate(y)
    rise = y - np.minimum.accumulate(y[::-1])[::-1]
    return float(np.minimum(fall, rise).max())


def touching(a: NDArray[np.bool_], b: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Frames [T] in which two masks [T, H, W] are at most `reach` pixels apart."""
    grown = dilated(a, reach)
    return np.any(grown & b, axis=(1, 2))


def interaction_of(tracks: list[Array], contact: NDArray[np.bool_]) -> tuple[str, int | None]:
    """What two tracks [T, 2] in contact in some frames [T] do, and the actor's index, or ("none", None)."""
    a, b = (smoothed(track) for track in tracks)
    if len(a) < 6 or not contact.any() or not np.isfinite(np.concatenate([a, b])).all():
        return "none", None
    way_a, way_b = a[-1] - a[0], b[-1] - b[0]
    apart = b - a
    if contact.mean() > 0.5 and _rides(apart, way_a, way_b):
        return "carry", 0 if apart[:, 1].mean() < 0 else 1
    if np.abs(apart[:, 1]).max() > np.abs(apart[:, 0]).max():
        return "none", None
    hit = _hit_frame(np.abs(apart[:, 0]), contact)
    if not 1 <= hit <= len(a) - 3:
        return "none", None
    before = np.array([a[hit, 0] - a[0, 0], b[hit, 0] - b[0, 0]])
    after = np.array([a[-1, 0] - a[hit, 0], b[-1, 0] - b[hit, 0]])
    return _blow(before, after, toward=np.sign(apart[0, 0]))


def _rides(apart: Array, way_a: Array, way_b: Array) -> bool:
    """One above the other, both going the same way together."""
    stacked = np.abs(apart[:, 0]).max() < 6 and np.abs(apart[:, 1]).min() > 8
    together = np.abs(apart - apart.mean(axis=0)).max() < 4
    far = min(abs(way_a[0]), abs(way_b[0])) >= MIN_WAY and way_a[0] * way_b[0] > 0
    return bool(stacked and together and far)


def _hit_frame(gap: Array, contact: NDArray[np.bool_]) -> int:
    """The first frame in contact at which two things are about as close as they ever get."""
    near = contact & (gap <= gap.min() + 1.5)
    return int(np.flatnonzero(near)[0]) if near.any() else -1


def _blow(before: Array, after: Array, toward: float) -> tuple[str, int | None]:
    """Push or collision from both ways before and after the hit; `toward` is the side of a that b lies on."""
    approach = before * np.array([toward, -toward])  # how far each came toward the other
    leave = after * np.array([-toward, toward])  # how far each went away
    if approach.min() >= 3 and leave.min() >= 3:
        return "collide", 0
    actor = int(approach.argmax())
    pushed = -leave[actor] >= 4 and leave[1 - actor] >= 4
    if approach[actor] >= 5 and abs(approach[1 - actor]) < 3 and pushed:
        return "push", actor
    return "none", None
