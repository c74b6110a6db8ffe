"""Edited clips on the page: the figures that `eval edits` wrote, and sources above what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.bars import Bar
from moviegen_eval.edit_set import counts
from moviegen_eval.files import read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.figures import figure_table
from moviegen_eval.report.markup import folded, note, section, table, tag, text

ROWS = "edits.jsonl"
MAX_STRIPS = 16
EXPLANATIONS = (
    ("changed", "the oracle sees what the instruction asks for"),
    ("attributes", "every other attribute (sprites, background, camera) is as in the source"),
    (
        "pixels",
        "outside of what the edit changes, the clip is within 1 dB of what the codec alone makes of the source; "
        "of a style, all of it is held against the true clip",
    ),
    ("right", "all of these"),
    (
        "the source's own",
        "share of the pixels that moviegen edit took from the source, since the edit differed little there from what "
        "the codec makes of it (keep); - where that was off",
    ),
    ("floor", "the first arm's clips held against other edits than those that they were made for"),
    (
        "ceiling",
        "the true edits after the autoencoder and H.264, without keep",
    ),
)
SHARES = {"changed": "changed", "attributes": "kept_attributes", "pixels": "kept_pixels", "right": "right"}


def edited_section(folder: Path, figures: Sequence[Figure], bars: Sequence[Bar], budget: Budget) -> str:
    """Shares of the arms by kind of edit, their meaning, and strips of the first arm, two of each kind."""
    rows = [row for _, row in read_json_lines(folder / ROWS)]
    if not rows:
        return section("Edited clips", note("No edited clips were judged."), id_="edited")
    arms, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("arm", "kind"))
    first = [row for row in rows if row["arm"] == arms[0]]
    chosen = [row for kind in kinds for row in [r for r in first if r["kind"] == kind][:2]][:MAX_STRIPS]
    cells = [[f"{kind} ({arm})", *_shares(rows, kind, arm)] for kind in (*kinds, "all") for arm in arms]
    terms = table(
        ["term", "meaning"], [[tag("code", text(term)), text(words)] for term, words in EXPLANATIONS]
    )
    count = f"{len(chosen)} of {len(first)}, the first of each kind, not selected"
    caption = f"{count}: the source above, the edit below."
    return section(
        "Edited clips",
        table(
            ["edit (arm)", *SHARES, "n", "the source's own"],
            [[text(str(cell)) for cell in row] for row in cells],
        ),
        folded("What the figures mean", terms),
        folded("All figures", figure_table([one for one in figures if one.low is not None], bars)),
        tag("p", text(caption), class_="caption"),
        tag("div", *[_card(folder, row, budget) for row in chosen], class_="clips"),
        id_="edited",
    )


def _shares(rows: Sequence[dict[str, Any]], kind: str, arm: str) -> list[str]:
    own = [row for row in rows if row["arm"] == arm and counts(row["kind"], kind)]
    count = str(len({row["id"] for row in own}))
    back = [row["put_back"] for row in own if row.get("put_back") is not None]
    shares = (f"{np.mean([row[name] for row in own]):.2f}" for name in SHARES.values())
    return [*shares, count, f"{np.mean(back):.2f}" if back else "-"]


def _card(folder: Path, row: dict[str, Any], budget: Budget) -> str:
    """A strip under its instruction, and what the oracle says."""
    path = folder / row["strip"] if row.get("strip") else None
    picture = (
        budget.embed(path.read_bytes(), small=False) if path and path.is_file() else note("there is no strip")
    )
    said = [name for name, key in SHARES.items() if row[key]]
    verdict = ", ".join(said) if said else "nothing of it"
    return tag("figure", picture or "", tag("figcaption", text(f"{row['instruction']} ({verdict})")))
