"""A table of plain text that becomes html, Markdown, LaTeX or csv; every text is escaped for where it goes."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from moviegen_eval.report.markup import note, tag, text

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_ONE = r"[+-]?[\d.]+(e[+-]?\d+)?"
_NUMBER = re.compile(rf"<?{_ONE}( to {_ONE}| \[{_ONE}, {_ONE}\])?( ?%)?|\d+-\d+-\d+")
SHORT = 30  # characters of a cell that stays on one line


@dataclass(frozen=True)
class Table:
    """Rows of text under a head. `faint` marks rows that are greyed."""

    name: str  # part of file names and ids
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    faint: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"table {self.name}: {len(row)} cells under {len(self.head)} heads")


def to_html(table: Table) -> str:
    """A section's content: the title, the table, its notes."""
    top = tag("tr", *(tag("th", text(cell), scope="col") for cell in table.head))
    body = [
        tag("tr", *(tag("td", text(cell), class_=_kind(cell)) for cell in row), class_=_faint(table, n))
        for n, row in enumerate(table.rows)
    ]
    whole = tag("table", tag("thead", top), tag("tbody", *body), class_="data", id_=None)
    parts = [tag("h3", text(table.title)), tag("div", whole, class_="scroll")]
    return "".join([*parts, *(note(line) for line in table.notes)])


def _kind(cell: str) -> str | None:
    return "number" if _NUMBER.fullmatch(cell) else "short" if len(cell) <= SHORT else None


def _faint(table: Table, number: int) -> str | None:
    return "faint" if number in table.faint else None


def to_markdown(table: Table) -> str:
    """A heading, a pipe table and the notes; no cell can open html, a link or another column."""
    lines = [f"## {_markdown(table.title)}", "", _pipes(table.head), "|" + "---|" * len(table.head)]
    lines += [_pipes(row) for row in table.rows]
    lines += [f"\n{_markdown(line)}" for line in table.notes]
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_markdown, cells)) + " |"


def _markdown(cell: str) -> str:
    words = html.escape(" ".join(str(cell).split()), quote=False)
    return re.sub(r"([\\`*\[\]|!])", r"\\\1", words)


def to_latex(table: Table) -> str:
    """A booktabs table with caption and label."""
    columns = "l" + "r" * (len(table.head) - 1)
    lines = [r"\begin{table}", rf"\caption{{{_latex(table.title)}}}", rf"\label{{tab:{table.name}}}"]
    lines += [r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(table.head), r"\midrule"]
    lines += [_row(row) for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\\ {{\footnotesize {_latex(line)}}}" for line in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(str(cell).split()))


def to_csv(table: Table) -> str:
    """RFC 4180 with a header; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.head)
    writer.writerows([_safe(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def _safe(cell: str) -> str:
    plain = cell in ("", "-") or cell[0] not in "=+-@\t\r" or _NUMBER.fullmatch(cell)
    return cell if plain else f"'{cell}"
