"""Movie Gen: training and evaluation code (arXiv 2410.13720)."""
