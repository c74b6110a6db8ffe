"""The figure of latent norms before and after the outlier penalty, on tiny models with a planted spot."""

import importlib.util
from pathlib import Path

import pytest
import torch
from media_samples import moving
from shard_samples import write_tar

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.media import write_video
from moviegen.modelfile import save_model
from moviegen.tasks.codec_task import CodecTask

FILE = Path(__file__).resolve().parents[2] / "experiments" / "codec" / "latent_norms.py"
SPEC = importlib.util.spec_from_file_location("latent_norms", FILE)
assert SPEC is not None and SPEC.loader is not None
latent_norms = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(latent_norms)

CODEC = {
    "channels": [8, 8, 8],
    "encoder_blocks": [1, 1, 1],
    "decoder_blocks": [1, 1, 1],
    "temporal_levels": 2,
}
NODE = {
    "_target_": "moviegen.tasks.codec_task.CodecTask",
    "codec": {
        "_target_": "moviegen.codec.tae.TemporalAutoencoder",
        **CODEC,
        "latent_channels": 4,
        "linear": True,
    },
}


def model(path: Path, gain: float) -> str:
    """A tiny autoencoder whose linear part answers to brightness with so much strength."""
    torch.manual_seed(0)
    task = CodecTask(TemporalAutoencoder(**CODEC, latent_channels=4, linear=True))
    with torch.no_grad():
        assert task.codec.linear is not None
        task.codec.linear.analysis.fill_(gain)
    save_model(path, task, NODE, torch.float32, {})
    return str(path)


def test_a_lit_spot_is_the_one_outlier_that_is_counted_and_drawn(tmp_path, capsys) -> None:
    frames = moving(4, seed=1) * 0
    frames[:, 8:12, 16:20] = 255  # one latent site of 16x16
    write_video(tmp_path / "clip.mp4", frames, 8.0, crf=0)
    sample = {"__key__": "one", "mp4": (tmp_path / "clip.mp4").read_bytes(), "json": b"{}"}
    write_tar(tmp_path / "val-toy-000000.tar", [sample])
    paths = [model(tmp_path / name, gain) for name, gain in (("before", 1.0), ("after", 0.0))]
    out = tmp_path / "figure.svg"
    latent_norms.main([*paths, "--shards", str(tmp_path), "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("before: 0.391 % of 256 sites beyond 3 sigma")
    assert lines[1].startswith("after: 0.000 % of 256 sites beyond 3 sigma")
    assert out.read_text().count("<rect") == 2 * 256 and out.read_text().count("#d9662b") == 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_share_does_not_depend_on_the_latents_scale(scale: float) -> None:
    torch.manual_seed(0)
    codec = TemporalAutoencoder((8, 8), 4, (1, 1), (1, 1), 1)
    frames = torch.rand(2, 3, 4, 32, 32)
    maps = latent_norms.norm_maps(codec, frames)
    with torch.no_grad():
        for parameter in codec.encoder.conv_out.spatial.parameters():
            parameter.mul_(scale)
    torch.testing.assert_close(latent_norms.norm_maps(codec, frames), maps, rtol=1e-3, atol=1e-3)
