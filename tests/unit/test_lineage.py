"""What a model's json says of its training, and what is asked of the model beyond that."""

import json
import shutil
from pathlib import Path

import pytest
from test_generate import generate, model  # noqa: F401 (a fixture)

from moviegen.lineage import relied_on, trained_at, warn_untrained
from moviegen.runfolder import describe_shards, write_json

TOLD = {
    "num_frames": [16.0, 32.0],
    "height": [64.0, 64.0],
    "width": [64.0, 128.0],
    "frame_rates": [8.0, 30.0],
    "coded_frames": [0, 7, 31],
}
SIZE = {"num_frames": 16, "height": 64, "width": 64}


def noted(folder: Path, info: dict, name: str = "m") -> str:
    (folder / f"{name}.safetensors").write_bytes(b"")
    write_json(folder / f"{name}.json", {"task": {}, "info": info})
    return str(folder / name)


@pytest.mark.parametrize(
    ("asked", "given", "words"),
    [
        (SIZE, [], None),
        (SIZE | {"num_frames": 32, "width": 128}, [0, 31], None),
        ({"height": 64, "width": 64}, [], None),  # a still has no length
        (SIZE | {"num_frames": 8}, [], "num_frames=8 (trained: 16 to 32)"),
        (SIZE | {"height": 128, "width": 16}, [], "height=128 (trained: 64), width=16 (trained: 64 to 128)"),
        ({"frame_rates": 8000 / 1001}, [], None),
        ({"frame_rates": 6.0}, [], "frame_rates=6 (trained: 8 to 30)"),
        (SIZE, [0, 3], "image_frame=3 (trained: 0, 7, 31)"),
    ],
)
def test_what_training_did_not_see_is_told_in_one_line(tmp_path, capsys, asked, given, words) -> None:
    told, silent = noted(tmp_path, TOLD), noted(tmp_path, {"steps": 3}, "silent")
    warn_untrained(told, asked, given)
    line = f"warning: {told} knows no {words}: such clips may be poor\n"
    assert capsys.readouterr().err == (line if words else "")
    warn_untrained(silent, asked, given)
    assert capsys.readouterr().err == ""


def test_an_adapter_widens_what_its_model_knows(tmp_path: Path, capsys) -> None:
    told, adapter = noted(tmp_path, TOLD), tmp_path / "adapter"
    adapter.mkdir()
    write_json(adapter / "base.json", {"info": {"height": [128.0, 128.0]}})
    warn_untrained(told, {"height": 128}, adapter=str(adapter))
    assert capsys.readouterr().err == ""


def test_sizes_and_coded_frames_of_the_shards_reach_the_model_and_an_average(tmp_path: Path) -> None:
    tars = [
        {"name": "a.tar", "frames": 16, "height": 64, "width": 96, "fps": 8.0, "coded_frames": [0, 15]},
        {"name": "b.tar", "frames": 32, "height": 64, "width": 64, "fps": 16.0, "coded_frames": [0, 31]},
        {"name": "c.tar", "frames": 1, "height": 32, "width": 32, "fps": 0.0},
    ]
    write_json(tmp_path / "index.json", {"shards": tars})
    write_json(tmp_path / "run.json", {"shards": [describe_shards(tmp_path)]})
    told = trained_at(tmp_path)
    rates, sizes = (
        {"frame_rates": [8.0, 16.0], "num_frames": [16.0, 32.0]},
        {"height": [32.0, 64.0], "width": [32.0, 96.0]},
    )
    assert told == rates | sizes | {"coded_frames": [0, 15, 31]}
    parents = [noted(tmp_path, told, "a"), noted(tmp_path, TOLD, "b")]
    assert relied_on(parents)["coded_frames"] == [0, 7, 15, 31] and relied_on(parents)["width"] == [
        32.0,
        128.0,
    ]


def test_generate_warns_and_makes_the_clip(model: str, tmp_path: Path, capsys) -> None:  # noqa: F811
    for suffix in (".safetensors", ".json"):
        shutil.copy(f"{model}{suffix}", tmp_path / f"m{suffix}")
    record = json.loads((tmp_path / "m.json").read_text())
    write_json(tmp_path / "m.json", record | {"info": {"height": [64.0, 64.0], "num_frames": [4.0, 4.0]}})
    assert generate(str(tmp_path / "m"), tmp_path / "out", ["a star"]) == 0
    assert "knows no height=16 (trained: 64): such clips" in capsys.readouterr().err
    assert (tmp_path / "out" / "00001.mp4").is_file()


@pytest.mark.parametrize(
    ("name", "coded"), [("t2v", None), ("i2v", [0, 7, 8, 15]), ("sft", [0, 7, 8, 15, 31])]
)
def test_the_shipped_models_tell_what_they_were_trained_on(name: str, coded: list[int] | None) -> None:
    told = relied_on([f"experiments/toy/weights/{name}"])
    assert told["height"] == told["width"] == [64.0, 64.0] and told.get("coded_frames") == coded
    assert told["num_frames"] == ([16.0, 32.0] if name == "sft" else [16.0, 16.0])
