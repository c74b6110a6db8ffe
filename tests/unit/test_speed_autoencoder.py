"""The bench of autoencoders, at a width that takes no time."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "speed" / "autoencoder" / "run.py"
OURS = {"channels": (8, 8, 8), "latent_channels": 4, "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1)}
OURS |= {"temporal_levels": 2, "fold": 2, "linear": True}
WAN = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
WAN |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    """The script as a module; what it imports is found by name, as another bench finds its own."""
    pytest.importorskip("diffusers")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "contestants", raising=False)
    spec = importlib.util.spec_from_file_location("speed_autoencoder", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys.modules["convolutions"], "SECONDS", 0.001)
    monkeypatch.setattr(sys.modules["harness"], "MOVED", 1e9)  # no speed is asked for here
    return module


def test_wans_autoencoder_made_8x8x8_keeps_the_shape_of_clips(bench: ModuleType) -> None:
    torch.manual_seed(0)
    peer = sys.modules["contestants"].Wan888(**WAN).eval()
    clip = torch.rand(1, 3, 17, 32, 32) * 2 - 1
    with torch.no_grad():
        latent = peer.encode(clip).latent_dist.mode()
        decoded = peer.decode(latent).sample
        assert latent.shape == (1, 4, 3, 4, 4) and decoded.shape == clip.shape
        torch.testing.assert_close(decoded, peer.unclamped(latent).clamp(-1, 1))
        alone = peer.encode(clip[:, :, :9]).latent_dist.mode()
    torch.testing.assert_close(alone, latent[:, :, :2])  # chunks of 8 frames see none that comes later


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_a_case_has_the_figures_of_all_codecs_and_replaces_its_former_ones(
    bench: ModuleType, operation: str, tmp_path: Path
) -> None:
    contestants = sys.modules["contestants"]
    peer = contestants.public("wan_8x8x8", contestants.Wan888(**WAN), (9,))
    own = contestants.ours("tiny", (8,), **OURS)
    found = bench.compare(own, [peer], operation, 0, 32, torch.zeros(0), 3)
    kinds = ("speed", "flops_per_px", "share_of_ceiling")
    names = {*kinds, *(f"wan_8x8x8_{kind}" for kind in kinds), "ratio_to_wan_8x8x8", "ceiling"}
    prefix = f"autoencoder/tiny/{operation}_8x32x32_float32_cpu"
    assert {figure.name: figure.value > 0 for figure in found} == {f"{prefix}/{name}": True for name in names}
    for _ in range(2):
        bench.keep(tmp_path / "numbers.json", found)
    assert len(bench.read_numbers(tmp_path / "numbers.json")) == len(found)
