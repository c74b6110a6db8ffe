"""The toy world's vocabulary: attribute names, their colors, and the words that captions use for them.

Attribute names are used by `truth`, prompt specs and the oracle; synonyms occur in captions only.
"""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (228, 28, 32),
    "orange": (248, 138, 16),
    "yellow": (242, 226, 28),
    "green": (36, 186, 48),
    "cyan": (24, 212, 220),
    "blue": (32, 66, 232),
    "purple": (138, 36, 216),
    "pink": (248, 64, 172),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
SIZES: dict[str, float] = {"small": 9.0, "big": 13.0}  # nominal radius in pixels of a 64-pixel frame
MOTIONS: tuple[str, ...] = ("left", "right", "up", "down", "bounce", "spin", "still")
TURNS: tuple[str, ...] = ("clockwise", "counter-clockwise")  # of what spins
INTERACTIONS: tuple[str, ...] = ("push", "collide", "carry")
ACTIONS: tuple[str, ...] = MOTIONS + INTERACTIONS
BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "texture")
CAMERAS: tuple[str, ...] = ("static", "pan left", "pan right", "zoom in", "zoom out")
POSES: tuple[str, ...] = ("left", "front", "right")
EXPRESSIONS: tuple[str, ...] = ("happy", "sad", "surprised")
HEAD_COLORS: tuple[str, ...] = ("orange", "yellow", "green", "pink")
HAT_COLORS: tuple[str, ...] = ("red", "cyan", "blue", "purple")
HATS: tuple[str, ...] = ("cone", "box")
NUM_CHARACTERS = len(HEAD_COLORS) * len(HAT_COLORS) * len(HATS)
STYLES: tuple[str, ...] = ("normal", "greyscale", "inverted")

SIZE_WORDS = {"small": ("small", "little"), "big": ("big", "large")}
MOTION_WORDS = {
    "left": ("moves left", "slides to the left", "drifts left", "travels to the left"),
    "right": ("moves right", "slides to the right", "drifts right", "travels to the right"),
    "up": ("moves up", "rises", "floats up", "goes upward"),
    "down": ("moves down", "sinks", "descends", "goes downward"),
    "bounce": ("bounces", "bounces on the floor", "falls and bounces"),
    "spin": ("spins", "spins in place", "rotates in place"),
    "still": ("stays still", "does not move", "rests in place"),
}
INTERACTION_WORDS = {  # A, the actor, comes first in the sentence; {b} is the other sprite
    "push": (
        "pushes {b} to the {direction}",
        "shoves {b} to the {direction}",
        "runs into {b} and pushes it {direction}",
    ),
    "collide": ("collides with {b}", "crashes into {b} and bounces back", "hits {b} and bounces off"),
    "carry": (
        "carries {b} to the {direction}",
        "transports {b} on top to the {direction}",
        "carries {b} {direction}",
    ),
}
BACKGROUND_WORDS = {
    "plain": ("a plain background", "a uniform background", "a flat backdrop"),
    "gradient": ("a gradient background", "a shaded background", "a backdrop with a gradient"),
    "texture": ("a textured background", "a wavy background", "a patterned backdrop"),
}
CAMERA_WORDS = {
    "static": ("the camera is still", "the camera does not move", "the camera is static"),
    "pan left": ("the camera pans left", "the camera turns to the left"),
    "pan right": ("the camera pans right", "the camera turns to the right"),
    "zoom in": ("the camera zooms in", "the camera moves closer"),
    "zoom out": ("the camera zooms out", "the camera moves away"),
}
HAT_WORDS = {"cone": ("pointed hat", "cone hat"), "box": ("box hat", "square hat")}


def turn_of(angle: float) -> str:
    """The way round of an angle on screen, or of an angle a second: positive is clockwise, as y points down."""
    return TURNS[0] if angle > 0 else TURNS[1]


def is_held_out(color: str, shape: str, action: str) -> bool:
    """Whether (color, shape, motion or interaction) is kept out of training: one combination in eight.

    The rule is (color + 3 shape + 5 action) mod 8 == 0 on the positions of the names in `COLORS`,
    `SHAPES` and `ACTIONS`. For each pair of attributes at least one completion stays in training.
    """
    color_index = list(COLORS).index(color)
    return (color_index + 3 * SHAPES.index(shape) + 5 * ACTIONS.index(action)) % 8 == 0


def is_held_out_character(character: int) -> bool:
    """Whether a character, by its number (`scene.Face`), is of the half that training may be kept from.

    The rule is (head color + hat color) mod 2 == 1: every head, hat color and hat stays in training, each head with two
    of the hat colors; held-out characters have the other two.
    """
    colors = character // len(HATS)
    return (colors // len(HAT_COLORS) + colors % len(HAT_COLORS)) % 2 == 1
