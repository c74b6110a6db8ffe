"""The seam of prompt rewriting."""

from __future__ import annotations

import unicodedata


class Rewriter:
    """Base class: texts in, as many texts out, in their order. A pure function of the texts and the settings."""

    def rewrite(self, prompts: list[str]) -> list[str]:
        """The rewriting of each prompt, one line each; a prompt for which there is none comes back as it is."""
        raise NotImplementedError


def unbroken(text: str) -> str:
    """A text with a blank for each line break and control character."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def one_line(text: str) -> str:
    """A text without line breaks, runs of blanks and control characters, as prompt files take it."""
    return " ".join(unbroken(text).split())
