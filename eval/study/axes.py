"""The axes of the Movie Gen paper's human studies (sections 3.5, 4.4, 5.3, 6.3) with its numbers of raters.

The questions are our wording. A study file may name an axis of this table by its key alone, or define its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One question about a pair of videos, and how many raters answer it for each item.

    With `sound` the rating page plays the sound of one video at a time; other axes are judged muted. With `reference`
    it shows the item's reference beside the two videos.
    """

    key: str
    question: str
    raters: int = 3
    sound: bool = False
    reference: bool = False

    def __post_init__(self) -> None:
        if self.raters < 1:
            raise ValueError(f"axis {self.key!r}: raters is {self.raters}; expected 1 or more")


TEXT_TO_VIDEO = (
    Axis("overall", "Which video is better, all in all?"),
    Axis(
        "consistency", "In which video do people, things and the scene stay themselves from frame to frame?"
    ),
    Axis("motion_completeness", "In which video does more of the motion that the text asks for happen?"),
    Axis("motion_naturalness", "In which video do things move more as they would in the real world?"),
    Axis(
        "text_alignment", "Which video shows more faithfully what the text says: its subjects and its motion?"
    ),
    Axis("realness", "Which video looks more as if a camera had filmed it?", 6),
    Axis("aesthetics", "Which video is more pleasing: its light, colors and composition?", 6),
)
PERSONALIZATION = (
    Axis(
        "identity",
        "In which video does the person look more like the person of the reference picture?",
        reference=True,
    ),
    Axis("face_consistency", "In which video does the face stay the same person more throughout?"),
)
EDITING = (
    Axis("edit_text", "Which video carries out the instruction better?", reference=True),
    Axis(
        "edit_structure",
        "Which video keeps better what the instruction does not ask to change?",
        reference=True,
    ),
    Axis("edit_quality", "Which video has the better picture, with fewer faults?"),
)
AUDIO = (
    Axis("audio_quality", "Which sound is better, all in all?", sound=True),
    Axis("audio_naturalness", "Which sound is more natural, with fewer artifacts?", sound=True),
    Axis(
        "audio_professionalness",
        "Which sound is more as a professional would have recorded and mixed it?",
        sound=True,
    ),
    Axis(
        "diegetic_correctness",
        "In which video do the sounds fit the things that are seen to make them?",
        sound=True,
    ),
    Axis(
        "diegetic_sync",
        "In which video do the sounds come more exactly when they are seen to happen?",
        sound=True,
    ),
    Axis("non_diegetic_mood", "In which video does the music fit the mood better?", sound=True),
    Axis(
        "non_diegetic_motion",
        "In which video does the music go better with the motion and the cuts?",
        sound=True,
    ),
    Axis("audio_text", "Which sound fits its description better?", sound=True),
)
AXES = {axis.key: axis for axis in (*TEXT_TO_VIDEO, *PERSONALIZATION, *EDITING, *AUDIO)}
