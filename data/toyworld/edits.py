"""Edits: one change to a scene, with an instruction; what it does not name stays the same."""

from dataclasses import dataclass, replace

import numpy as np
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.paths import motion_path
from moviegen_data.toyworld.scene import Background, Scene, Sprite
from moviegen_data.toyworld.script import draw_background, draw_scene, fits, place
from moviegen_data.toyworld.words import BACKGROUND_WORDS, COLORS, SHAPES, SIZES, is_held_out

KINDS = ("add", "remove", "replace", "recolor", "background", "style")
NUM_ATTEMPTS = 100


@dataclass(frozen=True)
class Edit:
    """Two scenes that differ in one thing."""

    before: Scene
    after: Scene
    instruction: str
    kind: str


def draw_edit(config: WorldConfig, rng: np.random.Generator) -> Edit:
    """An edit of a scene without interactions; every kind is as likely as the others."""
    kind = str(rng.choice(KINDS))
    make = {
        "add": _add, "remove": _remove, "replace": _replace,
        "recolor": _recolor, "background": _background, "style": _style,
    }[kind]  # fmt: skip
    for _ in range(NUM_ATTEMPTS):
        scene = draw_scene(replace(config, character_share=0.0), rng)
        edit = make(scene, config, rng) if scene.interaction is None else None
        if edit is not None and _obeys(edit, config):
            return edit
    raise RuntimeError(f"no scene of level {config.level} took the edit {kind!r} in {NUM_ATTEMPTS} attempts")


def _obeys(edit: Edit, config: WorldConfig) -> bool:
    """Whether neither scene shows a held-out combination, where the config asks for training's."""
    sprites = (*edit.before.sprites, *edit.after.sprites)
    shown = (is_held_out(sprite.color, sprite.shape, str(sprite.motion)) for sprite in sprites)
    return config.combos != "train" or not any(shown)


def _name(sprite: Sprite) -> str:
    return f"{sprite.color} {sprite.shape}"


def _pick(names: list[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _with_newcomer(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Scene | None:
    """The scene and one more small sprite that stays where it is."""
    color = _pick([c for c in COLORS if c not in {s.color for s in scene.sprites}], rng)
    path = motion_path("still", config.duration_seconds, rng)
    newcomer = Sprite(color, _pick(list(SHAPES), rng), "small", SIZES["small"], path, "still")
    placed = place([newcomer], scene.camera, config, rng, list(scene.sprites))
    return None if placed is None else replace(scene, sprites=(*scene.sprites, *placed))


def _add(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:
    fuller = _with_newcomer(scene, config, rng)
    return fuller and Edit(scene, fuller, f"add a small {_name(fuller.sprites[-1])}", "add")


def _remove(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:
    fuller = _with_newcomer(scene, config, rng)
    return fuller and Edit(fuller, scene, f"remove the {_name(fuller.sprites[-1])}", "remove")


def _replace(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:
    old = scene.sprites[0]
    shapes = [s for s in SHAPES if s != old.shape and not (s == "circle" and old.motion == "spin")]
    new = replace(old, shape=_pick(shapes, rng))
    after = replace(scene, sprites=(new, *scene.sprites[1:]))
    if not fits(new, scene.camera, config, list(scene.sprites[1:])):
        return None
    return Edit(scene, after, f"replace the {_name(old)} with a {new.shape}", "replace")


def _recolor(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:  # noqa: ARG001
    old = scene.sprites[0]
    color = _pick([c for c in COLORS if c not in {s.color for s in scene.sprites}], rng)
    after = replace(scene, sprites=(replace(old, color=color), *scene.sprites[1:]))
    return Edit(scene, after, f"make the {_name(old)} {color}", "recolor")


def _background(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:
    """Level 1 knows plain backgrounds only; a moving camera needs its texture."""
    kinds = [kind for kind in BACKGROUND_WORDS if kind != scene.background.kind]
    if config.level == 1:
        return Edit(
            scene,
            replace(scene, background=_shade(scene, rng)),
            "change the shade of the background",
            "background",
        )
    if scene.camera.kind != "static":
        return None
    kind = _pick(kinds, rng)
    after = replace(scene, background=draw_background(kind, rng))
    return Edit(scene, after, f"change the backdrop to {BACKGROUND_WORDS[kind][0]}", "background")


def _shade(scene: Scene, rng: np.random.Generator) -> Background:
    shift = float(rng.uniform(40, 60)) * (-1 if scene.background.base[0] > 125 else 1)
    return replace(scene.background, base=tuple(channel + shift for channel in scene.background.base))


def _style(scene: Scene, config: WorldConfig, rng: np.random.Generator) -> Edit | None:  # noqa: ARG001
    style = _pick(["greyscale", "inverted"], rng)
    words = {"greyscale": "make the video black and white", "inverted": "invert the colors"}
    return Edit(scene, replace(scene, style=style), words[style], "style")
