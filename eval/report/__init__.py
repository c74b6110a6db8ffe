"""The report: one html file that shows what was run, what it reached, and the clips themselves."""

from moviegen_eval.report.build import report

__all__ = ["report"]
