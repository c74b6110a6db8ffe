"""The autoencoder's sizes in conf/codec: shapes and parameter counts, on the meta device."""

from pathlib import Path

import pytest
import torch
import yaml

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.config import build, compose

CODECS = Path(__file__).resolve().parents[2] / "conf" / "codec"
# name -> millions of parameters, factor in time, latent channels, full 3D
SIZES = {
    "toy": (3.41, 8, 16, False),
    "small": (77.62, 8, 16, False),
    "fast": (123.49, 8, 16, False),
    "paper": (115.29, 8, 16, False),
    "paper_4x8": (115.18, 4, 8, False),
    "paper_3d": (246.15, 4, 8, True),
    "paper_image": (115.29, 1, 16, False),
}


def built(name: str) -> TemporalAutoencoder:
    cfg = compose("train", ["task=codec_video", f"codec@task.codec={name}"])
    with torch.device("meta"):
        return build(cfg["task"]["codec"])


@pytest.mark.parametrize("name", SIZES)
def test_each_size_has_the_shapes_and_parameters_that_it_states(name: str) -> None:
    millions, factor, channels, full_3d = SIZES[name]
    codec = built(name)
    assert sum(p.numel() for p in codec.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert (codec.temporal_factor, codec.spatial_factor, codec.latent_channels) == (factor, 8, channels)
    assert codec.encoder.middle[1].full_3d == full_3d
    for frames, height, width in ((1, 256, 256), (17, 320, 192)):
        clip = torch.empty(2, 3, frames, height, width, device="meta")
        latent = codec.posterior(clip).mean
        assert latent.shape == (2, channels, -(-frames // factor), height // 8, width // 8)
        assert codec.reconstruct(latent, frames).shape == clip.shape


def test_every_size_of_the_configuration_is_tested_here() -> None:
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in CODECS.glob("*.yaml")}
    ours = {name for name, node in nodes.items() if node.get("_target_", "").endswith("TemporalAutoencoder")}
    assert ours | {name for name in nodes if name.startswith("paper")} == set(SIZES)
