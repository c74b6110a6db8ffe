"""Judging: toyworld clips in, figures, verdicts and bars out."""
