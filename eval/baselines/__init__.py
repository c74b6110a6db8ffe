"""Baselines that a model must beat to be worth its parameters."""

from moviegen_eval.baselines.pca import BlockPca, fit_block_pca

__all__ = ["BlockPca", "fit_block_pca"]
