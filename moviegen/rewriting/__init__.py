"""Prompt rewriting: short prompts become texts like the captions that a generator was trained on (paper 3.4.1)."""

from moviegen.rewriting.base import Rewriter
from moviegen.rewriting.language_model import LanguageModelRewriter
from moviegen.rewriting.rules import Part, RuleRewriter

__all__ = ["LanguageModelRewriter", "Part", "Rewriter", "RuleRewriter"]
