"""Prompt suites: our own, toyworld's, and readers for public ones whose files are read from a path, never shipped."""

from moviegen_eval.suites.base import (
    CONCEPT,
    FAMILY,
    MOTION,
    MOTION_LEVELS,
    SourceFile,
    Suite,
    SuitePrompt,
    count_tags,
    cross_counts,
    prompts_digest,
)
from moviegen_eval.suites.catalog import SUITES, open_suite

__all__ = [
    "CONCEPT",
    "FAMILY",
    "MOTION",
    "MOTION_LEVELS",
    "SUITES",
    "SourceFile",
    "Suite",
    "SuitePrompt",
    "count_tags",
    "cross_counts",
    "open_suite",
    "prompts_digest",
]
