"""Upscaled clips on the page: the figures that `eval upscale` wrote, and clips beside source and interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.bars import Bar
from moviegen_eval.files import read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.pairs import load_arrays
from moviegen_eval.report.clips import Budget, strip
from moviegen_eval.report.figures import figure_table, shown
from moviegen_eval.report.markup import folded, note, section, table, tag, text
from moviegen_eval.upscaled import MEASURES, OWN, PLAIN, ROWS, interpolated
from moviegen_eval.verdicts import CLIP_LIMITS

from moviegen.media import MediaError, read_clip

TITLES = {"real": "held-out film", "toyworld": "toyworld"}
MEANT = {
    "toyworld": ("flicker",)
}  # sets and measures that mean nothing: drawn clips that stand still have none
EXPLANATIONS = (
    ("psnr, st_lpips, vmaf", "against the clip before it was made half as large"),
    (
        "flicker",
        "second difference of luma in time against that of the source; of clips that stand still a ratio to nothing",
    ),
    ("seam_space, seam_time", "how much larger the error is where windows meet than elsewhere; 0 is no seam"),
    ("_net", "that, against Lanczos at the same places, where no window is"),
    ("_bound", "the end of its 95 % interval that is farthest from 0"),
    ("windows_apart", "the same model, its windows without overlap"),
    ("psnr_minus_single_window", "one window as part of the whole, less the same window alone"),
)


def upscaled_section(folder: Path, figures: Sequence[Figure], bars: Sequence[Bar], budget: Budget) -> str:
    """A row for each set and way, the bars, all figures, and the clips that were written as marked files."""
    rows = [row for _, row in read_json_lines(folder / ROWS)]
    if not rows:
        return section("Upscaled clips", note("No upscaled clips were judged."), id_="upscaled")
    found = {figure.name.partition("/")[2]: figure for figure in figures}
    lines = []
    for kind in dict.fromkeys(row["set"] for row in rows):
        some = [row for row in rows if row["set"] == kind]
        for way in some[0]["ways"]:
            own = {name: found.get(f"{kind}/{name}/{way.replace(' ', '_')}") for name in MEASURES}
            cells = [_cell(None if name in MEANT.get(kind, ()) else one) for name, one in own.items()]
            lines.append([text(f"{TITLES.get(kind, kind)}: {way}"), *cells, text(len(some))])
    named = {bar.name for bar in bars}
    terms = table(
        ["term", "meaning"], [[tag("code", text(term)), text(words)] for term, words in EXPLANATIONS]
    )
    cards = [_card(folder, row, budget) for row in rows if row["shown"]]
    caption = f"{len(cards)} of {len(rows)} clips, the first of each set, not selected."
    return section(
        "Upscaled clips",
        table(["clips, how made", *MEASURES, "n"], lines, class_="numbers"),
        figure_table([figure for figure in figures if figure.name in named], bars),
        folded("What the figures mean", terms),
        folded("All figures", figure_table(figures, bars)),
        tag("p", text(caption), class_="caption"),
        tag("div", *cards, class_="pairs"),
        id_="upscaled",
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    bounds = "" if figure.low is None else f" ({shown(figure.low)} to {shown(figure.high)})"
    return text(shown(figure.value) + bounds)


def _card(folder: Path, row: dict[str, Any], budget: Budget) -> str:
    """The source, interpolation, and the marked file as it was written, side by side, so that they play in step."""
    try:
        arrays = load_arrays(folder / row["source"], ("source", "low"))
        marked = read_clip(folder / row["shown"], limits=CLIP_LIMITS).frames
    except (MediaError, OSError, ValueError) as error:
        return tag("figure", tag("div", text(error), class_="missing"))
    plain = {name: interpolated(arrays["low"], kind) for name, kind in PLAIN.items()}
    clips = {"source": arrays["source"], **plain, OWN: marked}
    video = budget.embed(strip(list(clips.values()), row["frame_rate"]), small=False)
    picture = video or tag("div", "left out: the page's size limit is reached", class_="missing")
    labels = tag("div", *(tag("span", text(name)) for name in clips), class_="labels")
    height, width = arrays["source"].shape[1:3]
    words = f"{row['name']}: {width // 2}x{height // 2} made {width}x{height}"
    return tag("figure", picture, labels, tag("figcaption", text(words)))
