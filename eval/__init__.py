"""Evaluation: works on files (clips, manifests, logs), never on models."""
