"""Rewriting by rules: the default, which needs no model. What the words are is configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moviegen.conditioning.text import QUOTED
from moviegen.rewriting.base import Rewriter, one_line, unbroken

BLANKS = re.compile(r"\s+")
MARK = "\0"  # stands before a word that took another's place while a prompt is rewritten; no prompt holds one
# An article, and the word after what was put in or left out; words whose letter is not their sound are told apart
ARTICLE = re.compile(
    rf"\b(a)n?( ?{MARK}[{MARK} ]*)(?:((?!uni|us[eu]|eu|one)[aeiou]|hour|honest)|(?=\w))", re.IGNORECASE
)


@dataclass(frozen=True)
class Part:
    """Something that every caption says: added at the end of a prompt in which none of the words occurs."""

    text: str
    unless: tuple[str, ...]


class RuleRewriter(Rewriter):
    """Plain words for rare ones, without emphasis, and with the parts that every caption has (paper 3.4.1).

    Rewriting twice changes nothing more, as long as no rule's result is a word of another rule.

    Args:
        words: word or phrase -> plain word; whole words, whatever their case.
        dropped: words that are left out, e.g. those that make a motion more than the model can show.
        parts: what is added where it is missing.
    """

    def __init__(
        self, words: Mapping[str, str], dropped: Sequence[str] = (), parts: Sequence[Part] = ()
    ) -> None:
        self.plain = {word.lower(): plain for word, plain in words.items()} | {w.lower(): "" for w in dropped}
        self.parts = tuple(parts)
        longest_first = sorted(self.plain, key=len, reverse=True)
        self.pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)

    def rewrite(self, prompts: list[str]) -> list[str]:
        return [self._rewritten(prompt) for prompt in prompts]

    def _rewritten(self, prompt: str) -> str:
        pieces = QUOTED.split(unbroken(prompt))  # every second one is quoted, and stays as it is
        pieces[::2] = [_tidied(self._in_plain_words(BLANKS.sub(" ", piece))) for piece in pieces[::2]]
        text = "".join(pieces).strip(" ,")
        if not text:
            return one_line(prompt)  # nothing but words that are left out
        said = " ".join(pieces[::2]).lower()
        for part in self.parts:
            if not any(re.search(rf"\b{re.escape(word)}\b", said) for word in part.unless):
                text = f"{text.rstrip('.')}, {part.text}"
        return text

    def _in_plain_words(self, piece: str) -> str:
        """A piece with its words replaced or left out, and the article before them, if any, brought into line."""
        if not self.plain:
            return piece
        changed = self.pattern.sub(lambda found: MARK + self.plain[found[0].lower()], piece)
        return ARTICLE.sub(_with_article, changed).replace(MARK, "")


def _tidied(piece: str) -> str:
    """A piece without runs of blanks, blanks before punctuation, and marks that follow each other."""
    piece = re.sub(r" +([,.;:])", r"\1", BLANKS.sub(" ", piece))
    return re.sub(r"([,;:])[,;:]+", r"\1", piece)


def _with_article(found: re.Match[str]) -> str:
    article, between, vowel = found.groups(default="")
    return article + ("n" if vowel else "") + between + vowel
