"""Adapters: other projects' metrics, each in an environment of its own, through files."""
