"""The figures of the page: one chart of the proportions, one table of everything, and what the words mean."""

from __future__ import annotations

from collections.abc import Sequence

from moviegen_eval.bars import Bar
from moviegen_eval.numbers import Figure
from moviegen_eval.report.charts import figure_chart
from moviegen_eval.report.markup import folded, note, section, table, tag, text

ENDS = ("/floor", "/ceiling")
EXPLANATIONS = (
    ("value", "a mean over n clips, or a share of n prompts (several clips of a prompt count as one)"),
    ("95 % interval", "bootstrap over clips for means, Wilson's score interval for shares"),
    ("floor", "the same clips held against other prompts: what ignoring the prompt would score"),
    ("ceiling", "ground truth through the autoencoder and H.264: what a perfect generator could score"),
    (
        "psnr",
        "dB, one squared error over all frames, pixels and colors of a clip, data range 255, mean over clips",
    ),
    ("ssim", "mean over frames and clips; Gaussian window of 11 pixels, sigma 1.5, on RGB"),
    (
        "psnr_pca",
        "the best linear autoencoder of the same rate: PCA of 8x8x8 RGB blocks to 16 numbers, fitted on "
        "training clips",
    ),
    ("t2v, t2i, i2v", "clips from text, single images from text, clips that were given their first frame"),
    ("first_frame_psnr", "dB, first frame of a clip against the image that it was given; mean over clips"),
    ("psnr_minus_pca", "the difference clip by clip; its interval says whether the autoencoder is ahead"),
)


def figures_section(figures: Sequence[Figure], bars: Sequence[Bar]) -> str:
    """Chart, table and legend; a note where nothing was measured."""
    if not figures:
        return section("Figures", note("numbers.json holds no figures."), id_="figures")
    targets = {bar.name: bar.target for bar in bars if bar.target is not None}
    chart = figure_chart(figures, targets)
    legend = ""
    if chart:
        words = (
            "Dot: value with its 95 % interval. Band: from floor to ceiling. Upright tick: the bar to reach."
        )
        legend = tag("p", text(words), class_="caption")
    terms = table(
        ["term", "meaning"], [[tag("code", text(term)), text(words)] for term, words in EXPLANATIONS]
    )
    return section(
        "Figures",
        chart,
        legend,
        figure_table(figures, bars),
        folded("What the figures mean", terms),
        id_="figures",
    )


def figure_table(figures: Sequence[Figure], bars: Sequence[Bar]) -> str:
    """One row a figure, floor and ceiling beside it; bars of figures that were not measured come last."""
    by_name = {figure.name: figure for figure in figures}
    bar_of = {bar.name: bar for bar in bars}
    rows = []
    for figure in figures:
        if figure.name.endswith(ENDS) and figure.name.rpartition("/")[0] in by_name:
            continue
        ends = [by_name.get(figure.name + end) for end in ENDS]
        interval = "" if figure.low is None else f"{shown(figure.low)} to {shown(figure.high)}"
        cells = [
            shown(figure.value),
            interval,
            *(shown(end.value) if end else "" for end in ends),
            str(figure.n),
        ]
        name = tag("code", text(figure.name))
        bar = bar_cell(bar_of.pop(figure.name, None))
        rows.append([name, *map(text, cells), text(figure.unit), bar])
    for bar in bar_of.values():
        rows.append([tag("code", text(bar.name)), *[""] * 6, bar_cell(bar)])
    head = ["figure", "value", "95 % interval", "floor", "ceiling", "n", "unit", "to reach"]
    return table(head, rows, class_="numbers")


def bar_cell(bar: Bar | None) -> str:
    """The target with a tick or a cross, and the reason where it was missed."""
    if bar is None:
        return ""
    named = "" if bar.target_name.replace(".", "", 1).isdigit() else f", {bar.target_name}"
    target = "" if bar.target is None else f" (bar: {shown(bar.target)}{named})"
    if bar.reached:
        return tag("span", "&#10003; reached", text(target), class_="yes")
    why = tag("span", text(bar.why), class_="why") if bar.why else ""
    return tag("span", "&#10007; not reached", text(target), class_="no") + why


def shown(value: float | None) -> str:
    """Three decimals below 10, two above."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
