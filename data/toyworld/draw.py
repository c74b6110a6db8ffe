"""Scenes to pixels: anti-aliased coverage from signed distances, as smooth as supersampling.

Arrays are [T, H, W] float32 with pixel centers at half-integers; lengths are pixels of the rendered frame.
"""

import math

import numpy as np
from moviegen_data.toyworld.scene import (
    CENTER,
    FRAME,
    SQUARE_SIDE,
    STAR_INNER,
    STAR_RADIUS,
    TRIANGLE_RADIUS,
    Array,
    Background,
    Camera,
    Scene,
    Sprite,
)
from moviegen_data.toyworld.words import COLORS
from numpy.typing import NDArray

Image = NDArray[np.float32]
INK = (24, 20, 28)  # eyes and mouths
TURNS = {"left": -0.36, "front": 0.0, "right": 0.36}  # shift of a face's features, in radii


def pixel_grid(size: int) -> tuple[Image, Image]:
    """Pixel centers x [1, 1, W] and y [1, H, 1] in pixels."""
    centers = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return centers[None, None, :], centers[None, :, None]


def distance(shape: str, x: Image, y: Image, radius: Image) -> Image:
    """Signed distance (negative inside) to a shape's edge at points x, y relative to its center."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_SIDE * radius
    if shape == "triangle":
        slanted = np.float32(math.sqrt(0.75)) * np.abs(x) - np.float32(0.5) * y
        return np.maximum(slanted, y) - np.float32(TRIANGLE_RADIUS / 2) * radius
    return _star_distance(x, y, radius)


def _star_distance(x: Image, y: Image, radius: Image) -> Image:
    """One edge suffices: the plane is folded onto the half-sector of a tip."""
    sector = 2 * math.pi / 5
    angle = np.arctan2(x, -y)
    folded = np.abs(angle - np.float32(sector) * np.round(angle / np.float32(sector)))
    length = np.hypot(x, y)
    along, across = length * np.cos(folded), length * np.sin(folded)
    inner_x, inner_y = STAR_INNER * math.cos(sector / 2), STAR_INNER * math.sin(sector / 2)
    edge = math.hypot(1 - inner_x, inner_y)
    normal_x, normal_y = inner_y / edge, (1 - inner_x) / edge
    outer = np.float32(STAR_RADIUS) * radius
    return np.float32(normal_x) * (along - outer) + np.float32(normal_y) * across


def coverage(signed: Image) -> Image:
    """Share of each pixel that a shape covers, from the distance of its center to the edge."""
    return np.clip(np.float32(0.5) - signed, 0, 1)


def background_frames(background: Background, camera: Camera, times: Array, size: int) -> Image:
    """Frames [T, H, W, 3] of the background alone; one frame [1, ...] when the camera is static."""
    if camera.kind == "static":
        times = times[:1]
    x, y = pixel_grid(size)
    unit = FRAME / size
    zoom = camera.zooms(times).astype(np.float32)[:, None, None]
    offset = camera.offsets(times).astype(np.float32)
    center = np.float32(CENTER[0])
    world_x = (x * unit - center) / zoom + center + offset[:, 0, None, None]
    world_y = (y * unit - center) / zoom + center + offset[:, 1, None, None]
    grey = background.slope[0] * (world_x - center) + background.slope[1] * (world_y - center)
    for wave in background.waves:
        grey = grey + wave.amplitude * np.sin(wave.kx * world_x + wave.ky * world_y + wave.phase)
    grey = np.broadcast_to(grey, (len(times), size, size)).astype(np.float32)
    return grey[..., None] + np.array(background.base, dtype=np.float32)


def sprite_layers(
    sprite: Sprite, camera: Camera, times: Array, size: int
) -> tuple[list[tuple[tuple[int, int, int], Image]], Image]:
    """Colored coverages [T, H, W] to paint in order, and the coverage of the whole sprite."""
    scale = size / FRAME
    centers = (scale * camera.project(sprite.path.positions(times), times)).astype(np.float32)
    zoom = (scale * camera.zooms(times)).astype(np.float32)[:, None, None]
    x, y = pixel_grid(size)
    x, y = x - centers[:, 0, None, None], y - centers[:, 1, None, None]
    radius = np.float32(sprite.radius) * zoom
    if sprite.face is not None:
        return _character_layers(sprite, x, y, radius)
    if sprite.path.spin_rate:
        angle = (sprite.path.spin_rate * times).astype(np.float32)[:, None, None]
        x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    alpha = coverage(distance(sprite.shape, x, y, radius))
    return [(COLORS[sprite.color], alpha)], alpha


def _character_layers(
    sprite: Sprite, x: Image, y: Image, radius: Image
) -> tuple[list[tuple[tuple[int, int, int], Image]], Image]:
    """Head, hat, eyes and mouth; the pose moves the features sideways, the expression changes the mouth."""
    face = sprite.face
    assert face is not None
    head = coverage(np.hypot(x, y) - radius)
    hat = coverage(_hat_distance(face.hat, x, y, radius))
    turn = np.array([TURNS[pose] for pose in face.poses], dtype=np.float32)
    fx = np.asarray(x - turn[:, None, None] * radius, dtype=np.float32)
    ink = np.zeros_like(head)
    for expression in set(face.expressions):
        shown = np.array([name == expression for name in face.expressions])
        ink[shown] = face_ink(expression, fx, y, radius)[shown]
    layers = [(COLORS[sprite.color], head), (COLORS[face.hat_color], hat), (INK, np.minimum(ink, head))]
    return layers, np.maximum(head, hat)


def face_ink(expression: str, x: Image, y: Image, radius: Image | np.float32) -> Image:
    """Coverage by eyes and mouth at points x, y relative to the middle of a face (turned by its pose)."""
    eyes = np.hypot(np.abs(x) - 0.34 * radius, y + 0.12 * radius) - 0.15 * radius
    if expression == "surprised":
        mouth = np.hypot(x, y - 0.48 * radius) - 0.24 * radius
    elif expression == "happy":
        mouth = _arc_distance(x, y - 0.22 * radius, radius, downward=True)
    else:
        mouth = _arc_distance(x, y - 0.68 * radius, radius, downward=False)
    return coverage(np.minimum(eyes, mouth))


def _hat_distance(hat: str, x: Image, y: Image, radius: Image) -> Image:
    """A cone or a box that stands on the head, its brim at 0.55 radii above the head's center."""
    brim, top, half = -0.55 * radius, -1.62 * radius, 0.8 * radius
    if hat == "box":
        half = 0.62 * radius
        return np.maximum(np.maximum(y - brim, top - y), np.abs(x) - half)
    height = brim - top
    edge = np.hypot(half, height)
    slanted = (height * np.abs(x) - half * (y - top)) / edge
    return np.maximum(slanted, y - brim)


def _arc_distance(x: Image, y: Image, radius: Image | np.float32, downward: bool) -> Image:
    """A thick half circle: a smile opens upward, a frown downward."""
    ring = np.abs(np.hypot(x, y) - 0.4 * radius) - 0.1 * radius
    return np.maximum(ring, -y if downward else y)


def render_scene(scene: Scene, times: Array, size: int) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Frames uint8 [T, H, W, 3] and each sprite's visible mask [T, H, W] (occlusion applied)."""
    frames = background_frames(scene.background, scene.camera, times, size)
    frames = np.repeat(frames, len(times) // len(frames), axis=0)
    masks: list[NDArray[np.bool_]] = []
    for sprite in scene.sprites:
        layers, whole = sprite_layers(sprite, scene.camera, times, size)
        for color, alpha in layers:
            _paint(frames, np.array(color, dtype=np.float32), alpha)
        solid = whole >= 0.5
        masks = [mask & ~solid for mask in masks] + [solid]
    return _styled(frames, scene.style), masks


def _paint(frames: Image, color: Image, alpha: Image) -> None:
    """Blend a color over frames in place, inside the box that alpha touches."""
    touched = alpha.max(axis=0) > 0
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    if not len(rows):
        return
    box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    part = alpha[box][..., None]
    frames[box] += part * (color - frames[box])


def _styled(frames: Image, style: str) -> NDArray[np.uint8]:
    """Round to 8 bits, after the whole-frame style of an edit."""
    if style == "greyscale":
        luma = frames @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        frames = np.repeat(luma[..., None], 3, axis=-1)
    elif style == "inverted":
        frames = 255 - frames
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)
