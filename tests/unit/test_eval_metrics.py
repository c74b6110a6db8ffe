"""PSNR, SSIM and the PCA baseline against closed forms."""

from pathlib import Path

import numpy as np
import pytest
from moviegen_eval.baselines.pca import NUM_VALUES, BlockPca, fit_block_pca, from_blocks, to_blocks
from moviegen_eval.metrics import Psnr, Ssim, StLpips


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_psnr_of_a_constant_offset_is_its_closed_form():
    clip = np.full((3, 16, 16, 3), 100, np.uint8)
    assert Psnr().score(clip, clip + 5) == pytest.approx(20 * np.log10(255 / 5), abs=1e-4)


def test_psnr_takes_one_error_over_all_frames_and_is_capped_for_a_perfect_copy():
    clip = np.full((2, 16, 16, 3), 100, np.uint8)
    half_wrong = clip.copy()
    half_wrong[0] += 10
    assert Psnr().score(clip, half_wrong) == pytest.approx(10 * np.log10(255**2 / 50), abs=1e-4)
    assert Psnr().score(clip, clip) == 100.0


def test_ssim_is_one_for_a_copy_and_falls_with_noise():
    clip, rng = noise(2, 24, 24), np.random.default_rng(1)
    noisy = [
        np.clip(clip + rng.normal(0, spread, clip.shape), 0, 255).astype(np.uint8) for spread in (10, 60)
    ]
    worse = [Ssim().score(clip, copy) for copy in noisy]
    assert Ssim().score(clip, clip) == pytest.approx(1.0, abs=1e-6)
    assert 1 > worse[0] > worse[1] > 0
    with pytest.raises(ValueError, match="24x8"):
        Ssim().score(noise(2, 8, 24), noise(2, 8, 24))


@pytest.mark.parametrize("shape", [(16, 64, 64), (1, 9, 17), (9, 44, 60)])
def test_cutting_into_blocks_and_back_is_exact_for_any_size(shape: tuple[int, int, int]):
    clip = noise(*shape)
    blocks = to_blocks(clip)
    assert blocks.shape == (np.prod([-(-size // 8) for size in shape]), NUM_VALUES)
    assert (from_blocks(blocks, shape) == clip).all()


def test_a_block_is_8_frames_of_8x8_pixels():
    clip = np.zeros((16, 16, 16, 3), np.uint8)
    clip[8:, :8, 8:] = 200
    assert [float(block.max()) > 0 for block in to_blocks(clip)] == [False] * 5 + [True] + [False] * 2


def test_pca_finds_the_subspace_that_clips_lie_in():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(NUM_VALUES, 4)))[0].T
    blocks = (rng.normal(size=(600, 4)) * 400 @ basis).astype(np.float32)
    clips = [from_blocks(part, (8, 80, 80)) for part in blocks.reshape(6, 100, NUM_VALUES)]
    pca = fit_block_pca(clips, num_components=4)
    assert np.abs(pca.components @ pca.components.T - np.eye(4)).max() < 1e-4
    assert np.linalg.svd(pca.components @ basis.T, compute_uv=False).min() > 0.999
    assert (pca.num_clips, pca.num_blocks) == (6, 600)


def test_pca_error_is_the_least_of_any_linear_map_on_its_clips():
    rng = np.random.default_rng(0)
    clip = np.clip(np.cumsum(rng.normal(0, 12, (16, 48, 48, 3)), axis=2) + 128, 0, 255).astype(np.uint8)
    pca = fit_block_pca([clip])
    blocks = to_blocks(clip).astype(np.float64)
    centered = blocks - blocks.mean(axis=0)
    variances = np.linalg.svd(centered, compute_uv=False) ** 2
    errors = centered - centered @ pca.components.T @ pca.components
    assert (errors**2).sum() == pytest.approx(variances[16:].sum(), rel=1e-4)


def test_pca_reconstructs_other_sizes_and_survives_the_disk(tmp_path: Path):
    pca = fit_block_pca([noise(8, 32, 32, seed=seed) // 4 + 90 for seed in range(3)])
    pca.save(tmp_path / "pca.npz")
    clip = noise(9, 44, 60)
    again = BlockPca.load(tmp_path / "pca.npz").reconstruct(clip)
    assert again.shape == clip.shape and again.dtype == np.uint8 and (again == pca.reconstruct(clip)).all()
    (tmp_path / "pca.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"pca\.npz"):
        BlockPca.load(tmp_path / "pca.npz")


def test_pca_without_clips_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        fit_block_pca([])


def test_st_lpips_is_zero_for_a_copy_and_grows_with_noise() -> None:
    pytest.importorskip("stlpips_pytorch")
    rng = np.random.default_rng(0)
    source = rng.integers(60, 190, size=(3, 48, 64, 3), dtype=np.uint8)
    scores = [
        StLpips(batch=2).score(
            source, np.clip(source + rng.normal(0, s, source.shape), 0, 255).astype(np.uint8)
        )
        for s in (0, 10, 60)
    ]
    assert scores[0] == 0 and 0 < scores[1] < scores[2]
