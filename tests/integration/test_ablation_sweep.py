"""The ablation harness, every arm whole, at the smallest size."""

import importlib.util
import json
import sys
from pathlib import Path

from moviegen_eval.numbers import read_numbers
from toy_run import QUICK, SMALL_BACKBONE

from moviegen import cli
from moviegen.data.shards import ShardFolder

FILE = Path(__file__).resolve().parents[2] / "experiments" / "ablations" / "run.py"


def test_every_arm_trains_generates_and_is_judged_in_one_command(world, tmp_path, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("ablations_run", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    small = [word for word in SMALL_BACKBONE if "ffn_dim" not in word]
    more = [
        *small, *QUICK, f"task.codec.path={world['codec']}", "trainer.max_steps=2", "schedule=constant",
        "trainer.val_check_interval=2", "data.batch_size=4", "sampler.num_steps=2", "export_dtype=float32",
    ]  # fmt: skip
    module.main(
        [
            "--latents",
            str(world["latents"]),
            "--out",
            str(tmp_path),
            "--seeds",
            "0",
            "1",
            "--prompts",
            "2",
            *more,
        ],
        lambda words: cli.main(list(words)),
    )
    figures = {figure.name: figure for figure in read_numbers(tmp_path / "numbers.json")}
    for arm in module.ARMS:
        assert figures[f"ablations/{arm}/t2v/colour"].n == 2
        config = json.loads((tmp_path / arm / "0" / "run" / "model.json").read_text())["task"]
        assert (config["path"]["_target_"].endswith("DiffusionPath")) == (arm == "diffusion")
        assert (config["backbone"]["config"].get("block") == "dit") == (arm == "dit_block")
        manifest = (tmp_path / arm / "1" / "clips" / "recipe.json").read_text()
        assert ("ddim" in manifest) == (arm == "diffusion")
    still = [shard for shard in ShardFolder(str(tmp_path / "still_latents")).shards if shard.split == "train"]
    captions = [s.read(row, ("txt",)).files["txt"].decode() for s in still for row in range(len(s))]
    assert len(captions) == 12 and not any("camera" in caption for caption in captions)
    assert "ablations/dit_block/t2v/shape/minus_base" in (tmp_path / "table.md").read_text()
