"""The order of samples: permutations, mixtures, and what a step's batch is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from moviegen.data.batches import rank_slice
from moviegen.data.mixture import BLOCK, Mixture, shares
from moviegen.data.order import epoch_order, permuted


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 4096, 4097, 16384, 65537])
def test_a_permutation_visits_every_sample_once(size):
    assert sorted(permuted(np.arange(size), size, (5, 1)).tolist()) == list(range(size))


def test_a_permutation_of_many_samples_is_computed_in_place():
    places = np.array([0, 1, 10**9 - 1])
    found = permuted(places, 10**9, (3,))
    assert found.tolist() == [934213870, 643311083, 493543074]
    assert ((found >= 0) & (found < 10**9)).all() and len(set(found.tolist())) == 3


def test_permutations_put_each_sample_everywhere_equally_often():
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), permuted(np.arange(5), 5, (0, epoch))] += 1
    # 2000 draws of probability 1/5: sigma is 18
    assert abs(counts - 400).max() < 5 * 18


def test_the_order_never_changes_between_versions():
    assert permuted(np.arange(8), 8, (0, 1)).tolist() == [0, 3, 6, 7, 1, 2, 4, 5]
    assert Mixture([100, 100], [1, 3], 4, seed=7).at(12345)[1].tolist() == [89, 32, 37, 84]


def test_each_epoch_visits_all_samples_in_an_order_of_its_own():
    order = epoch_order(0, 30, 10, (1,))
    epochs = order.reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert epoch_order(13, 9, 10, (1,)).tolist() == order[13:22].tolist()


def test_a_mixture_keeps_its_weights_exactly_in_every_block():
    mixture = Mixture([50, 50], [1, 3], batch_size=2, seed=0)
    for block in (0, 3):
        drawn = [mixture.draw(step)[0] for step in range(block * BLOCK, (block + 1) * BLOCK)]
        assert (drawn.count(0), drawn.count(1)) == (250, 750)


def test_a_mixture_walks_each_set_without_gaps_or_repeats():
    mixture = Mixture([37, 11], [2, 1], batch_size=3, seed=4)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for step in range(1200):
        source, samples = mixture.at(step)
        seen[source] += samples.tolist()
    for source, size in enumerate(mixture.sizes):
        assert seen[source] == epoch_order(0, len(seen[source]), size, (4, 1 + source)).tolist()


def test_another_seed_gives_another_order():
    first, second = (Mixture([1000], [1], 64, seed).at(0)[1].tolist() for seed in (0, 1))
    assert first != second


def test_a_rare_set_is_still_drawn():
    assert shares([1e-9, 1]).tolist() == [1, BLOCK - 1]
    assert shares([1] * 3).sum() == BLOCK
    assert shares([1, 1, 9998]).tolist() == [1, 1, BLOCK - 2]
    assert shares([1, 1, 30, 9968]).tolist() == [1, 1, 3, BLOCK - 5]
    assert shares([1] * 500 + [100, 9400]).tolist() == [1] * 500 + [6, 494]
    assert shares([1] * (BLOCK - 1) + [1e9]).tolist() == [1] * BLOCK


def test_a_weight_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"must be positive, got \[1, 0\]"):
        Mixture([5, 5], [1, 0], 2, seed=0)


def test_ranks_share_out_the_batch_of_one_process():
    samples = np.arange(8)
    for world in (1, 2, 4):
        parts = [rank_slice(samples, rank, world) for rank in range(world)]
        assert [sample for part in parts for sample in part] == list(range(8))


def test_a_mixture_travels_to_a_worker():
    mixture = Mixture([9], [1], 2, seed=0)
    mixture.at(3)
    assert pickle.loads(pickle.dumps(mixture)).at(5)[1].tolist() == mixture.at(5)[1].tolist()
