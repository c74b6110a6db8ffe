"""Clips of given people on the page: the figures that `eval identity` wrote, and references beside what was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.bars import Bar
from moviegen_eval.files import read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.figures import figure_table, shown
from moviegen_eval.report.markup import folded, note, section, table, tag, text

from moviegen.media import MediaError, read_image, to_png_bytes

ROWS = "identity.jsonl"
MAX_CLIPS = 16
EXPLANATIONS = (
    (
        "identity_best, _worst, _mean",
        "cosine of the faces in a clip's frames with the reference's; a frame without is 0",
    ),
    ("floor", "the same clips held against other people's references, and against other prompts"),
    ("ceiling", "true clips of the people after the autoencoder and H.264"),
    ("consistency", "cosine of neighboring frames"),
    ("variation", "how far pose and expression are from the reference's; 0 is a copy"),
    (
        "identity_top1",
        "share of clips whose person is nearest to the right reference of all people asked for",
    ),
    ("reference_frame", "what would score who showed the reference itself, and nothing else"),
)


def people_section(folder: Path, figures: Sequence[Figure], bars: Sequence[Bar], budget: Budget) -> str:
    """Figures, their meaning, and for each person the first clip of the first arm."""
    rows = [row for _, row in read_json_lines(folder / ROWS)]
    if not rows:
        return section("Clips of given people", note("No clips of given people were judged."), id_="people")
    arm = rows[0]["arm"]
    firsts = {row["person"]: row for row in reversed([row for row in rows if row["arm"] == arm])}
    cards = [_card(folder, row, budget) for row in list(reversed(firsts.values()))[:MAX_CLIPS]]
    caption = f"The first clip of {len(cards)} of {len(firsts)} people, not selected."
    terms = table(
        ["term", "meaning"], [[tag("code", text(term)), text(words)] for term, words in EXPLANATIONS]
    )
    return section(
        "Clips of given people",
        figure_table(figures, bars),
        folded("What the figures mean", terms),
        tag("p", text(caption), class_="caption"),
        tag("div", *cards, class_="clips"),
        id_="people",
    )


def _card(folder: Path, row: dict[str, Any], budget: Budget) -> str:
    """A clip under its prompt; its reference too, unless that shows a real person."""
    parts = []
    if row["consent"] is None and row["references"]:
        try:
            parts.append(budget.embed(to_png_bytes(read_image(folder / row["references"][0])), small=True))
        except MediaError as error:
            parts.append(note(str(error)))
    path = folder / row["path"]
    parts.append(
        budget.embed(path.read_bytes(), small=True) if path.is_file() else note("the clip is missing")
    )
    likeness = f"{row['person']}: identity {shown(row['scores']['identity_mean'])}"
    return tag(
        "figure", *(part or "" for part in parts), tag("figcaption", text(f"{row['prompt']} ({likeness})"))
    )
