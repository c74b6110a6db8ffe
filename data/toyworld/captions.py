"""Captions and edit instructions: what a scene shows, said in one of several ways.

Every caption states size, color, shape and motion of each sprite (or the interaction), the background and the
camera, also when it is still. Four templates are used in training; a fifth is held out.
"""

import numpy as np
from moviegen_data.toyworld.scene import Scene, Sprite
from moviegen_data.toyworld.words import (
    BACKGROUND_WORDS,
    CAMERA_WORDS,
    HAT_WORDS,
    INTERACTION_WORDS,
    MOTION_WORDS,
    SIZE_WORDS,
)

TRAIN_TEMPLATES = (
    "{action} on {background}, {camera}.",
    "on {background}, {action}. {camera}.",
    "{camera}: {action}, {background}.",
    "{action}. {camera}, and there is {background}.",
)
HELDOUT_TEMPLATES = ("a clip where {camera} and, in front of {background}, {action}.",)


def caption(scene: Scene, template: str, rng: np.random.Generator, named: bool = True) -> str:
    """One sentence or two about a scene, from the "train" or the "heldout" templates.

    Unless `named`, a character is "the character": who it is, a reference picture has to say.
    """
    templates = TRAIN_TEMPLATES if template == "train" else HELDOUT_TEMPLATES
    return _pick(templates, rng).format(
        action=_action(scene, rng, named),
        background=_pick(BACKGROUND_WORDS[scene.background.kind], rng),
        camera=_pick(CAMERA_WORDS[scene.camera.kind], rng),
    )


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def noun(sprite: Sprite, rng: np.random.Generator, named: bool = True) -> str:
    """A sprite with its size, color and shape; a character with its head and hat, if it is named."""
    if sprite.face is not None and not named:
        return "the character"
    if sprite.face is not None:
        hat = _pick(HAT_WORDS[sprite.face.hat], rng)
        return f"a character with {_article(sprite.color)} head and {_article(sprite.face.hat_color)} {hat}"
    return f"a {_pick(SIZE_WORDS[sprite.size], rng)} {sprite.color} {sprite.shape}"


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _action(scene: Scene, rng: np.random.Generator, named: bool) -> str:
    nouns = [noun(sprite, rng, named) for sprite in scene.sprites]
    if scene.interaction is not None:
        verb = _pick(INTERACTION_WORDS[scene.interaction.kind], rng)
        return f"{nouns[0]} {verb.format(b=nouns[1], direction=scene.interaction.direction)}"
    clauses = []
    for sprite, name in zip(scene.sprites, nouns, strict=True):
        clause = f"{name} {_pick(MOTION_WORDS[sprite.motion or 'still'], rng)}"
        clause += f" {sprite.turn}" if sprite.turn is not None else ""
        clauses.append(clause + (_mood(sprite) if sprite.face is not None else ""))
    return " and ".join(clauses)


def _mood(sprite: Sprite) -> str:
    """What a face does over time: each pose and expression once, in order."""
    assert sprite.face is not None
    looks = {"left": "to the left", "front": "ahead", "right": "to the right"}
    poses = " then ".join(looks[pose] for pose in dict.fromkeys(_runs(sprite.face.poses)))
    return f", looking {poses}, {' then '.join(_runs(sprite.face.expressions))}"


def _runs(states: tuple[str, ...]) -> list[str]:
    return [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]
