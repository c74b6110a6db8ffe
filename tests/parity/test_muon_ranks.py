"""Muon on several processes takes the steps that it takes on one: exactly, where it iterates matrices in 64 bits."""

import muon_cases as cases
import numpy as np

from moviegen.parallel.testing import Ranks


def furthest(found: list[dict[str, np.ndarray]]) -> float:
    """The largest relative difference of any weight, on any rank, to those of one process."""
    true = cases.trained()
    assert all(one.keys() == true.keys() for one in found)
    norm = np.linalg.norm
    return max(float(norm(one[name] - true[name]) / norm(true[name])) for one in found for name in true)


def test_muon_on_four_processes_ends_with_the_weights_of_one(ranks: Ranks) -> None:
    assert furthest(ranks.run(cases.trained)) < 1e-10


def test_gradients_that_are_not_averaged_are_found(ranks: Ranks) -> None:
    assert furthest(ranks.run(cases.trained, False)) > 1e-3
