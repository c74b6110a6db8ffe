"""Draws scenes: which sprites, motions, interactions, backgrounds and cameras a clip of some level has.

Everything stays inside the frame at all times, sprites never overlap unless they interact, and only textured
scenes have a moving camera, since elsewhere it could not be seen; for the same reason no circle spins.
"""

from dataclasses import replace

import numpy as np
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.paths import interaction_sprites, motion_path
from moviegen_data.toyworld.scene import (
    FRAME,
    Array,
    Background,
    Camera,
    Face,
    Interaction,
    Path,
    Scene,
    Sprite,
    Wave,
    extent,
)
from moviegen_data.toyworld.words import (
    COLORS,
    EXPRESSIONS,
    HAT_COLORS,
    HATS,
    HEAD_COLORS,
    INTERACTIONS,
    POSES,
    SHAPES,
    SIZES,
    is_held_out,
    is_held_out_character,
)

MARGIN = 0.5  # world units kept free inside the frame's edge
GAP = 5.5  # world units kept free between sprites that do not interact: more than thin tips can hide
NUM_STARTS = 192  # places tried for a sprite before its path is drawn again
NUM_PATHS = (
    40  # paths tried before the cast is drawn again, so that no motion is rarer where it fits less easily
)
NUM_CASTS = 100  # casts tried before giving up; five are ample
REST = Path(((0.0, 0.0, 0.0),))  # stands in until a path is drawn
CHARACTER_MOTIONS = ("left", "right", "up", "down", "still")
INTERACTION_SHARE = {4: 0.3, 5: 0.3}
PAN, ZOOM = 16.8, 1.35  # over the whole clip
PAN_TIGHT, ZOOM_TIGHT = 12.0, 1.25  # where two or three sprites have to stay in the frame


def draw_scene(config: WorldConfig, rng: np.random.Generator) -> Scene:
    """A scene of the config's level; the actor's combination obeys `config.combos`."""
    has_face = rng.random() < config.share_of_characters
    interacts = not has_face and rng.random() < INTERACTION_SHARE.get(config.level, 0.0)
    num = 2 if interacts else 1
    if config.level == 5 and not interacts and not has_face:
        num = int(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25]))
    background = draw_background(_background_kind(config, rng), rng)
    camera = _draw_camera(config, rng, background.kind, num, fixed=interacts and config.level < 5)
    for _ in range(NUM_CASTS):
        if interacts:
            placed, interaction = _interacting(config, rng, camera)
        else:
            cast = [_draw_character(config, rng)] if has_face else _draw_crowd(config, rng, num)
            placed, interaction = _moving(cast, camera, config, rng), None
        if placed is not None:
            return Scene(tuple(placed), background, camera, interaction, int(rng.integers(2**31)))
    raise RuntimeError(f"no cast of level {config.level} fitted the frame in {NUM_CASTS} attempts")


def _background_kind(config: WorldConfig, rng: np.random.Generator) -> str:
    if config.level == 1:
        return "plain"
    shares = [0.34, 0.33, 0.33] if config.level == 2 else [0.3, 0.3, 0.4]
    return str(rng.choice(["plain", "gradient", "texture"], p=shares))


def draw_background(kind: str, rng: np.random.Generator) -> Background:
    """A dim or bright backdrop whose colorfulness stays far below a sprite's."""
    tint = rng.uniform(-9, 9, size=3)
    grey = rng.uniform(70, 180) if kind == "plain" else rng.uniform(100, 155)
    base = tuple(float(grey + t) for t in tint)
    if kind == "gradient":
        angle, span = rng.uniform(0, 2 * np.pi), rng.uniform(70, 110)
        slope = (float(span / FRAME * np.cos(angle)), float(span / FRAME * np.sin(angle)))
        return Background(kind, base, slope=slope)
    if kind == "texture":
        return Background(kind, base, waves=_draw_waves(rng))
    return Background(kind, base)


def _draw_waves(rng: np.random.Generator) -> tuple[Wave, ...]:
    """Two or three waves that cross at wide angles, so that a shift in any direction shows."""
    num = int(rng.integers(2, 4))
    first, waves = rng.uniform(0, np.pi), []
    for index in range(num):
        angle = first + np.pi * index / num + rng.uniform(-0.2, 0.2)
        k = 2 * np.pi / rng.uniform(14, 28)
        amplitude = rng.uniform(10, 14) * (2 / num) ** 0.5
        phase = rng.uniform(0, 2 * np.pi)
        waves.append(Wave(float(k * np.cos(angle)), float(k * np.sin(angle)), float(phase), float(amplitude)))
    return tuple(waves)


def _draw_camera(
    config: WorldConfig, rng: np.random.Generator, background: str, num: int, fixed: bool
) -> Camera:
    kinds, shares = ["static", "pan left", "pan right", "zoom in", "zoom out"], [0.28] + [0.18] * 4
    kind = str(rng.choice(kinds, p=shares))
    if config.level < 3 or background != "texture" or fixed:
        kind = "static"
    pan, zoom = (PAN, ZOOM) if num == 1 else (PAN_TIGHT, ZOOM_TIGHT)
    amount = {"p": pan, "z": zoom}.get(kind[0], 0.0)
    return Camera(kind, amount, config.duration_seconds)


def _draw_look(
    config: WorldConfig, rng: np.random.Generator, action: str, actor: bool, taken: set[str]
) -> tuple[str, str]:
    """A (color, shape) for an action under the hold-out rule, in a color no other sprite has."""
    wanted = {"train": False, "heldout": True if actor else None, "all": None}[config.combos]
    looks = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if color not in taken
        and not (action == "spin" and shape == "circle")
        and (wanted is None or is_held_out(color, shape, action) == wanted)
    ]
    return looks[int(rng.integers(len(looks)))]


def _draw_crowd(config: WorldConfig, rng: np.random.Generator, num: int) -> list[Sprite]:
    """Sprites that move on their own; three are all small."""
    sprites: list[Sprite] = []
    for index in range(num):
        motion = str(rng.choice(config.motions))
        color, shape = _draw_look(config, rng, motion, index == 0, {s.color for s in sprites})
        size = "small" if num == 3 else str(rng.choice(list(SIZES)))
        radius = SIZES[size] * rng.uniform(0.97, 1.03)
        sprites.append(Sprite(color, shape, size, float(radius), REST, motion))
    return sprites


def _draw_character(config: WorldConfig, rng: np.random.Generator) -> Sprite:
    wanted = {"train": False, "heldout": True, "all": None}[config.characters]
    while True:
        head, hat_color, hat = (int(rng.integers(len(names))) for names in (HEAD_COLORS, HAT_COLORS, HATS))
        character = (head * len(HAT_COLORS) + hat_color) * len(HATS) + hat
        if wanted is None or is_held_out_character(character) == wanted:
            break
    face = Face(
        hat_color=HAT_COLORS[hat_color],
        hat=HATS[hat],
        character=character,
        poses=_draw_states(POSES, config.num_frames, rng),
        expressions=_draw_states(EXPRESSIONS, config.num_frames, rng),
    )
    motion = str(rng.choice(CHARACTER_MOTIONS))
    return Sprite(HEAD_COLORS[head], "character", "big", float(rng.uniform(13.5, 14.5)), REST, motion, face)


def _draw_states(names: tuple[str, ...], num_frames: int, rng: np.random.Generator) -> tuple[str, ...]:
    """One to three states in a row, each held for at least a quarter of the clip."""
    num = int(rng.integers(1, 4))
    order = [int(rng.integers(len(names)))]
    for _ in range(num - 1):
        order.append((order[-1] + int(rng.integers(1, len(names)))) % len(names))
    cuts = np.sort(rng.uniform(0, 1 - 0.25 * num, size=num - 1)) + 0.25 * np.arange(1, num)
    position = np.arange(num_frames) / num_frames
    return tuple(names[order[int(np.sum(p >= cuts))]] for p in position)


def _interacting(
    config: WorldConfig, rng: np.random.Generator, camera: Camera
) -> tuple[list[Sprite] | None, Interaction | None]:
    """A pair under an interaction, placed in the frame."""
    kind = str(rng.choice(INTERACTIONS))
    sizes = [str(rng.choice(list(SIZES))), "small"]
    rng.shuffle(sizes)
    if camera.kind != "static" and kind != "carry":
        sizes = ["small", "small"]
    looks: list[tuple[str, str]] = []
    for index in range(2):
        looks.append(_draw_look(config, rng, kind, index == 0, {color for color, _ in looks}))
    pair = [
        Sprite(color, shape, size, SIZES[size] * float(rng.uniform(0.97, 1.03)), REST)
        for (color, shape), size in zip(looks, sizes, strict=True)
    ]
    narrow = camera.kind != "static"
    for _ in range(NUM_PATHS):
        sprites, interaction = interaction_sprites(kind, pair, config.duration_seconds, rng, narrow)
        offset = _fitting_offset(sprites, [], camera, config, rng)
        if offset is not None:
            return [replace(sprite, path=sprite.path.shifted(offset)) for sprite in sprites], interaction
    return None, None


def _moving(
    cast: list[Sprite], camera: Camera, config: WorldConfig, rng: np.random.Generator
) -> list[Sprite] | None:
    """The cast with paths for their motions, placed in the frame; None where no path drawn fits."""
    crowded = len(cast) > 1 or cast[0].face is not None
    for _ in range(NUM_PATHS):
        paths = [motion_path(s.motion or "still", config.duration_seconds, rng, crowded) for s in cast]
        moving = [replace(sprite, path=path) for sprite, path in zip(cast, paths, strict=True)]
        placed = place(moving, camera, config, rng, [])
        if placed is not None:
            return placed
    return None


def frame_times(config: WorldConfig) -> Array:
    """Times [T] in seconds at which frames are taken; the first is 0."""
    return np.arange(config.num_frames) / config.frame_rate


def place(
    sprites: list[Sprite], camera: Camera, config: WorldConfig, rng: np.random.Generator, beside: list[Sprite]
) -> list[Sprite] | None:
    """The sprites, shifted into the frame and off each other and the others; None where none fits."""
    placed: list[Sprite] = []
    for sprite in sprites:
        offset = _fitting_offset([sprite], beside + placed, camera, config, rng)
        if offset is None:
            return None
        placed.append(replace(sprite, path=sprite.path.shifted(offset)))
    return placed


def fits(sprite: Sprite, camera: Camera, config: WorldConfig, beside: list[Sprite]) -> bool:
    """Whether a sprite, where it is, stays in the frame and off the others."""
    return bool(_good_starts([sprite], beside, camera, config, np.zeros((1, 2)))[0])


def _fitting_offset(
    group: list[Sprite], placed: list[Sprite], camera: Camera, config: WorldConfig, rng: np.random.Generator
) -> Array | None:
    """A shift [2] that keeps a group in the frame and off the sprites already placed, or None."""
    starts = rng.uniform(0, FRAME, size=(NUM_STARTS, 2))
    if any(sprite.path.bounce for sprite in group):
        floor = FRAME - extent(group[0])[3] - rng.uniform(1.0, 6.0, size=NUM_STARTS)
        starts[:, 1] = floor if camera.kind[0] != "z" else starts[:, 1]
    choices = np.flatnonzero(_good_starts(group, placed, camera, config, starts))
    return starts[choices[0]] if len(choices) else None


def _good_starts(
    group: list[Sprite], placed: list[Sprite], camera: Camera, config: WorldConfig, starts: Array
) -> np.ndarray:
    """Which shifts [N, 2] keep a group in the frame and off the others, [N]."""
    times = frame_times(config)
    good = np.ones(len(starts), dtype=bool)
    zoom = camera.zooms(times)[:, None]
    for sprite in group:
        points = starts[:, None] + sprite.path.positions(times)
        reach = extent(sprite)
        image = camera.project(points, times)
        low, high = image - zoom * reach[:2], image + zoom * reach[2:]
        good &= (low.min(axis=(1, 2)) >= MARGIN) & (high.max(axis=(1, 2)) <= FRAME - MARGIN)
        for other in placed:
            good &= _apart(points, reach, other.path.positions(times), extent(other))
    return good


def _apart(points: Array, reach: Array, other: Array, other_reach: Array) -> np.ndarray:
    """Which of the tracks [N, T, 2] keep their boxes off another track's boxes [T, 2] in every frame."""
    after = points - reach[:2] - GAP >= other + other_reach[2:]
    before = points + reach[2:] + GAP <= other - other_reach[:2]
    return (after | before).any(axis=2).all(axis=1)
