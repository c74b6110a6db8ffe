"""LPIPS, DISTS, VMAF, Frechet distances and their extractors: closed forms, torchmetrics, and no downloads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from moviegen_eval.metrics import Psnr, Ssim, StLpips, Vmaf
from moviegen_eval.metrics.extractors import I3dFvd, InceptionFid
from moviegen_eval.metrics.frechet import bootstrap_distance, frechet_distance, polynomial_mmd
from moviegen_eval.metrics.perceptual import Dists, Lpips
from scipy.linalg import sqrtm
from torchvision.models import AlexNet, vgg

from moviegen.media import vmaf_missing


def pair(frames: int = 3, size: int = 64, spread: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    source = rng.integers(60, 190, (frames, size, size, 3), dtype=np.uint8)
    return source, np.clip(source + rng.normal(0, spread, source.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("metric", [Psnr(), Ssim()], ids=lambda metric: metric.name)
def test_scores_of_frames_are_the_metric_of_each_frame_alone(metric) -> None:
    source, copy = pair(frames=18)
    alone = [metric.score(source[i : i + 1], copy[i : i + 1]) for i in range(18)]
    np.testing.assert_allclose(metric.frames(source, copy), alone, rtol=1e-5)


def test_st_lpips_of_frames_does_not_depend_on_the_batch() -> None:
    pytest.importorskip("stlpips_pytorch")
    source, copy = pair()
    np.testing.assert_allclose(StLpips(1).frames(source, copy), StLpips(3).frames(source, copy), rtol=1e-4)


def features_of_vgg16() -> torch.nn.Module:
    return torch.nn.ModuleDict({"features": vgg.make_layers(vgg.cfgs["D"])})


@pytest.mark.parametrize(("metric", "net"), [(Lpips, AlexNet), (Dists, features_of_vgg16)])
def test_backbones_come_from_a_torchvision_file_and_nothing_is_fetched(
    metric, net, tmp_path: Path, monkeypatch
) -> None:
    def refuse(*arguments, **settings):
        raise AssertionError("fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    torch.manual_seed(0)
    torch.save(net().state_dict(), tmp_path / "net.pth")
    source, copy = pair(2)
    first, second = (metric(tmp_path / "net.pth").frames(source, copy) for _ in range(2))
    assert (first == second).all() and first.shape == (2,) and (first > 0).all()
    assert metric(tmp_path / "net.pth").score(source, source) == pytest.approx(0, abs=1e-5)
    torch.manual_seed(1)
    assert metric(None).score(source, copy) != pytest.approx(first.mean(), rel=1e-6)
    (tmp_path / "net.pth").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"net\.pth: holds no plain tensors"):
        metric(tmp_path / "net.pth")


@pytest.mark.skipif(vmaf_missing() is not None, reason=str(vmaf_missing()))
def test_vmaf_is_near_100_for_a_copy_and_falls_with_noise() -> None:
    source, copy = pair(4)
    scores = Vmaf().frames(source, source)
    assert scores.shape == (4,) and scores.min() > 90 > Vmaf().score(source, copy)


@pytest.mark.parametrize(("num", "dim"), [(200, 6), (5, 40)])
def test_the_frechet_distance_is_the_one_with_a_matrix_root(num: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(num, dim)), 1.5 * rng.normal(size=(num + 3, dim)) + 0.5
    root = np.trace(sqrtm(np.cov(a.T) @ np.cov(b.T) + 1e-12 * np.eye(dim))).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * dim)
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(a[:1], b)


def test_the_mmd_of_equal_distributions_is_about_zero_and_the_interval_holds_the_distance() -> None:
    rng = np.random.default_rng(0)
    a, b, far = (rng.normal(shift, 1, (300, 8)) for shift in (0, 0, 1))
    assert abs(polynomial_mmd(a, b)) < 0.1 < polynomial_mmd(a, far)
    interval = bootstrap_distance(a, far, np.arange(300) // 10, count=50, seed=0)
    assert interval is not None and interval.low < frechet_distance(a, far) < interval.high
    assert bootstrap_distance(a, far, np.zeros(300), 50, 0) is None


def test_the_inception_of_fid_takes_its_own_weights_file_only(tmp_path: Path) -> None:
    net = InceptionFid(None)
    source, _ = pair(2)
    assert net.features(source).shape == (2, 2048)
    names = {name for name, _ in net.net.named_modules()}
    assert "Mixed_7c.branch_pool" in names
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="is not FID's Inception"):
        InceptionFid(tmp_path / "x.pth")


class Script(torch.nn.Module):
    """The signature of StyleGAN-V's file, with the clip's mean as its features."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        return x.mean([2, 3, 4])


def test_fvd_takes_16_consecutive_frames_and_the_file_s_own_scaling(tmp_path: Path) -> None:
    torch.jit.script(Script()).save(str(tmp_path / "i3d.pt"))
    clip = np.zeros((35, 8, 8, 3), np.uint8)
    clip[16:] = 100
    features = I3dFvd(tmp_path / "i3d.pt").features(clip)
    np.testing.assert_allclose(features, [[0, 0, 0], [100, 100, 100]])
    (tmp_path / "no.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match="is no TorchScript file"):
        I3dFvd(tmp_path / "no.pt")
