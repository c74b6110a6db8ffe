"""A few helpers to write html: every text goes through `text`, every element through `tag`."""

from __future__ import annotations

import html
from typing import Any


def text(value: Any) -> str:
    """The value as html text, safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def tag(name: str, *children: str, **attributes: Any) -> str:
    """An element around html children; `class_` gives class, `_` inside a name a hyphen, True a bare one."""
    parts = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(attribute)
        elif value is not None and value is not False:
            parts.append(f'{attribute}="{text(value)}"')
    return f"<{' '.join(parts)}>{''.join(children)}</{name}>"


def table(head: list[str], rows: list[list[str]], class_: str | None = None) -> str:
    """A table of html cells; it scrolls sideways on a narrow screen."""
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", top, body, class_=class_), class_="scroll")


def section(title: str, *children: str, id_: str | None = None) -> str:
    """A section with a heading."""
    return tag("section", tag("h2", text(title)), *children, id_=id_)


def note(message: str) -> str:
    """A line that says why something is not here."""
    return tag("p", text(message), class_="note")


def folded(title: str, *children: str) -> str:
    """Content behind a heading that opens on a click."""
    return tag("details", tag("summary", text(title)), *children)
