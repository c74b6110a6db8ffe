"""What a toy world is asked for: difficulty level, clip format, which combinations and captions."""

from dataclasses import dataclass

from moviegen_data.toyworld.words import MOTIONS

LEVELS = (1, 2, 3, 4, 5)
COMBOS = ("train", "heldout", "all")
TEMPLATES = ("train", "heldout")


@dataclass(frozen=True)
class WorldConfig:
    """Settings of a `World`; two worlds with equal settings render equal clips.

    Levels: 1 one sprite, plain background, static camera; 2 adds gradient and texture; 3 adds camera motion;
    4 adds a second sprite and interactions; 5 has one to three sprites, any camera, characters.

    Raises:
        ValueError: a setting is out of range; the message names the value and the allowed ones.
    """

    level: int = 4
    size: int = 64  # pixels, frames are square
    num_frames: int = 16
    frame_rate: float = 8.0  # frames per second
    combos: str = "train"  # "train", "heldout" or "all": see `words.is_held_out`
    template: str = "train"  # "train" or "heldout": see `captions`
    character_share: float | None = None  # share of clips that show a character; None: 0.3 at level 5, else 0
    characters: str = "all"  # "train", "heldout" or "all": see `words.is_held_out_character`
    named_characters: bool = (
        True  # captions tell a character's looks; else it is "the character", whoever it is
    )
    motions: tuple[str, ...] = MOTIONS  # of sprites that move on their own: one of these, all alike often

    def __post_init__(self) -> None:
        for name, allowed in (
            ("level", LEVELS),
            ("combos", COMBOS),
            ("characters", COMBOS),
            ("template", TEMPLATES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"toyworld {name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not self.motions or set(self.motions) - set(MOTIONS):
            raise ValueError(f"toyworld motions must be some of {MOTIONS}, got {self.motions!r}")
        if not 32 <= self.size <= 1024:
            raise ValueError(f"toyworld size must be 32 to 1024 pixels, got {self.size}")
        if not 1 <= self.num_frames <= 4096:
            raise ValueError(f"toyworld num_frames must be 1 to 4096, got {self.num_frames}")
        if not 1.0 <= self.frame_rate <= 120.0:
            raise ValueError(f"toyworld frame_rate must be 1 to 120 frames/s, got {self.frame_rate}")
        if self.character_share is not None and not 0.0 <= self.character_share <= 1.0:
            raise ValueError(f"toyworld character_share must be 0 to 1, got {self.character_share}")

    @property
    def duration_seconds(self) -> float:
        return self.num_frames / self.frame_rate

    @property
    def share_of_characters(self) -> float:
        if self.character_share is not None:
            return self.character_share
        return 0.3 if self.level == 5 else 0.0
