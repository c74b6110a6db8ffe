"""The kinds of edits a model is told apart (paper 5, after Emu Edit): a new one is one entry of `EDIT_TASKS`.

Whoever gives an instruction may name its task; otherwise it is recognised by words. Text-to-video is a task too, of
training: it has no source.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TEXT_TO_VIDEO = "t2v"


@dataclass(frozen=True)
class EditTask:
    """One kind of edit: what it does, and the words by which an instruction asks for it.

    Both are regular expressions without regard to case; "" is never found.
    """

    about: str
    words: str = ""  # searched anywhere, where no task knows how the instruction begins
    begins: str = ""  # how an instruction begins that asks for nothing else, whatever follows


BACKGROUNDS = r"(background|backdrop|scenery|surroundings|setting|sky)\b"
STYLES = r"(styles?|black and white|gr[ae]yscale|invert|sepia|cartoon|anime|painting|sketch|watercolou?r|pixel art)\b"
# What an instruction says that it leaves alone asks for nothing: "make it red without changing the background".
LEFT_ALONE = (
    r"\b((without( any)?|do not|don['\u2019]?t|never) (chang|touch|alter|affect|modif|edit|remov|delet)"
    r"|with the same\b|(keep|leav|preserv)(e|ing)?\b)"
    r".*?(?=[,.;]|\b(but|yet|then)\b"  # to what is asked for again
    r"|\b(and|while) (add|insert|put|remove|delete|erase|take|make|turn|change|replace|paint)|$)"
)
NOT_INSTEAD = r"(?!.*\b(instead|in place) of\b)"
POLITE = r"\W*((please|now|then|(can|could) you)\b\W*)*"  # may stand before the beginning
# In the order in which they are tried: "make it black and white" is a style before it is a color.
EDIT_TASKS: dict[str, EditTask] = {
    TEXT_TO_VIDEO: EditTask("no edit: a video of a text"),
    "segment": EditTask("paint the named thing in a color", begins=r"(segment|mark|highlight|mask)\b"),
    "add": EditTask(
        "put something in",
        rf"\b(add|insert|include|let there be)\b{NOT_INSTEAD}",
        rf"(add|insert|include|put|place|give(?!.*\b(style|look|colou?r|texture)\b))\b{NOT_INSTEAD}",
    ),
    "remove": EditTask(
        "take something out",
        rf"\b(remove|delete|erase|take (away|out)|get rid of)\b|^(?!.*\b({BACKGROUNDS}|{STYLES})).*\bwithout\b",
        r"(remove|delete|erase|take (away|out)|get rid of)\b",
    ),
    "background": EditTask(
        "another background",
        rf"\b{BACKGROUNDS}",
        rf"(replace|swap|exchange) ((the|its) )?((whole|entire) )?{BACKGROUNDS}",
    ),
    "style": EditTask(
        "another look of the whole",
        rf"\b{STYLES}",
    ),
    "replace": EditTask(
        "one thing in place of another",
        r"\b(replace|swap|exchange|turn .+ into|(instead|in place) of"
        r"|change (?!.*\b(colou?r|texture)\b).+ (in)?to an?)\b",
        r"(replace|swap|exchange)\b",
    ),
    "color": EditTask(
        "another color or texture of a thing",
        r"\b(make|paint|dye|recolou?r|colou?r|texture|change .+ to|turn)\b",
    ),
}
OF_EDITS = tuple(name for name in EDIT_TASKS if name != TEXT_TO_VIDEO)
# Words in a public set's name of an edit, and the task; TGVE's "multiple" changes have none of their own.
PUBLIC_TASKS = {
    "add": "add",
    "remov": "remove",
    "background": "background",
    "style": "style",
    "color": "color",
    "colour": "color",
    "textur": "color",
    "object": "replace",
    "subject": "replace",
    "replac": "replace",
    "multiple": "replace",
}


def task_named(name: str) -> str | None:
    """The task that a list means by its name of an edit: one of ours, or by a word of the public sets; None if none."""
    lowered = name.strip().lower()
    if lowered in OF_EDITS:
        return lowered
    return next((task for word, task in PUBLIC_TASKS.items() if word in lowered), None)


def recognised(instruction: str, known: Collection[str] | None = None) -> str:
    """The task that an instruction asks for: by how it begins, else by the words in it.

    Args:
        known: names of the tasks of a model, which was trained before some were entered here; None for all.

    Raises:
        ValueError: it asks for none that is known.
    """
    tasks = {name: task for name, task in EDIT_TASKS.items() if known is None or name in known}
    for name, task in tasks.items():
        if task.begins and re.match(POLITE + task.begins, instruction, re.IGNORECASE):
            return name
    asked = re.sub(LEFT_ALONE, " ", instruction, flags=re.IGNORECASE)
    for name, task in tasks.items():
        if task.words and re.search(task.words, asked, re.IGNORECASE):
            return name
    raise ValueError(
        f"{instruction!r} asks for no edit that is known by its words; name its task, one of "
        f"{', '.join(name for name in tasks if name != TEXT_TO_VIDEO)}"
    )
