"""Recipes of editing: paper-size stages on the meta device, their mixtures, and the experiment that compares stages."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from moviegen_data.toyworld.words import is_held_out
from omegaconf import OmegaConf

from moviegen.backbone.transformer import Conditions
from moviegen.conditioning.editing import Sources
from moviegen.config import build, compose
from moviegen.keep import Keep
from moviegen.types import Grid

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "edit" / "stages"))
sys.path.insert(0, str(ROOT / "experiments" / "edit" / "keep"))
import measure  # noqa: E402
import run as stages  # noqa: E402


@pytest.mark.parametrize(("stage", "sources"), [
    ("stage1", {"edits": ("train-frames-*", 5.0), "clips": ("train-*", 1.0)}),
    ("stage2", {"edits": ("train-animated-*", 1.0), "segments": ("train-segments-*", 1.0), "clips": ("train-*", 1.0)}),
    ("stage3", {"back": ("*", 3.0), "edits": ("train-animated-*", 1.0), "segments": ("train-segments-*", 1.0),
                "clips": ("train-*", 1.0)}),
])  # fmt: skip
def test_a_paper_size_stage_composes_on_the_meta_device(stage: str, sources: dict) -> None:
    cfg = compose("train", [f"experiments=edit/paper/{stage}"])
    found = {
        name: (source.get("match", "*"), source.get("weight", 1.0)) for name, source in cfg.data.train.items()
    }
    assert found == sources
    before = {"stage1": None, "stage2": "edit1", "stage3": "edit2"}[stage]
    assert (cfg.after, cfg.stage) == (before, f"edit{stage[-1]}") and cfg.task.image_positions == 32
    assert cfg.task.conditioners.source.get("noise", 0.0) == (0.3 if stage == "stage3" else 0.0)
    with torch.device("meta"):
        backbone = build(cfg.task.backbone)
        named = cfg.task.conditioners
        source, task, vector = (build(named[name])(dim=6144) for name in ("source", "task", "task_vector"))
        grid, values = Grid(2, 4, 4), torch.zeros(1, 16, 2, 8, 8)
        given = torch.ones(1, dtype=torch.bool, device="cpu")  # no black, which no codec makes here
        tokens, mask = task(["add"], grid)
        conditions = Conditions(
            grid,
            torch.zeros(1, 7, 6144),
            torch.ones(1, 7, dtype=torch.bool),
            gated=tokens,
            gated_mask=mask,
            concat=source(Sources(values, given, ~given), grid),
            pooled=vector(["add"], grid),
        )
        answer = backbone(torch.zeros(1, 32, 64), torch.zeros(1), conditions)
    assert answer.shape == (1, 32, 64) and answer.is_meta
    gates = [block.gate.numel() for block in backbone.blocks]
    assert gates == [6144] * 48


def test_sdedit_in_the_demo_has_the_guidance_of_the_model_that_it_samples_from() -> None:
    stage = OmegaConf.load(ROOT / "conf" / "stages" / "edits.yaml").edited_sdedit
    own = OmegaConf.load(ROOT / "conf" / "sampler" / "toy.yaml").guidance
    words = [
        word
        for word in OmegaConf.to_container(stage.overrides)
        if not word.startswith(("checkpoint", "edits"))
    ]
    assert compose("edit", words).sampler.guidance == own == 3.0


def test_toy_stages_follow_each_other_and_read_what_the_paper_has() -> None:
    one, two, three = (compose("train", [f"experiments=edit/toy/stage{number}"]) for number in (1, 2, 3))
    assert one.init_from == "experiments/toy/weights/t2v" and one.task.image_positions == 2
    assert two.init_from == f"{one.run_dir}/model" and three.init_from == f"{two.run_dir}/model"
    assert [cfg.stage for cfg in (one, two, three)] == ["edit1", "edit2", "edit3"]
    assert one.data.train.edits.weight == 5 * one.data.train.clips.weight
    assert OmegaConf.to_container(two.data.train).keys() == {"edits", "clips", "segments"}


class Console:
    """Stands for the console: leaves what each command would leave. Edits of a seed are right a little more often."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> int:
        self.commands.append(list(words))
        given = dict(word.split("=", 1) for word in words if "=" in word)
        folder = Path(given.get("run_dir") or given["out"])
        folder.mkdir(parents=True, exist_ok=True)
        made = {"train": "model.safetensors", "edit": "manifest.jsonl", "eval": "edits.jsonl"}
        (folder / made.get(words[0], "index.json")).write_text("")
        if words[1] == "edits":
            (folder / "numbers.json").write_text(json.dumps(self.figures(int(folder.parent.name))))
        return 0

    def figures(self, seed: int) -> list[dict]:
        rows = []
        for number, arm in enumerate(stages.ARMS):
            own = "" if arm == "stage1" else f"{arm}/"
            for kind in (*stages.KINDS, "segment", "image"):
                value = 0.1 * number + 0.01 * seed + (0.5 if kind == "segment" and number else 0)
                for name in (*stages.SHARES, "psnr", "consistency"):
                    row = {"name": f"edit/{kind}/{own}{name}", "value": value, "low": None, "high": None}
                    rows.append(row | {"n": 4, "unit": "share", "higher_is_better": True})
        return rows

    def of(self, command: str) -> list[list[str]]:
        return [words for words in self.commands if words[0] == command]


def test_the_comparison_of_stages_runs_each_command_once_and_writes_a_table(tmp_path: Path) -> None:
    console, more = Console(), ["--build", "sources.frames.count=5", "num_threads=1"]
    words = ["--latents", "l", "--out", str(tmp_path), "--seeds", "0", "1", "--per-kind", "2"]
    words += ["--edit", "keep=null", "--edit", "sampler.num_steps=3", *more]
    stages.main(words, console)
    count = len(console.commands)
    trained = console.of("train")
    recipes = [f"experiments=edit/toy/{one}" for one in ("stage1", "stage2", "stage3", "stage2")]
    assert [call[1] for call in trained] == recipes * 2
    assert all("num_threads=1" in call and "sources.frames.count=5" not in call for call in trained)
    seeds = [next(word for word in call if word.startswith("seed=")) for call in trained]
    assert seeds == ["seed=0"] * 3 + ["seed=1000"] + ["seed=1"] * 3 + [
        "seed=1001"
    ]  # other draws than stage II's
    assert "sources.frames.count=5" in console.of("data")[0]
    assert all("keep=null" in call and "sampler.num_steps=3" in call for call in console.of("edit"))
    assert all(
        "keep=null" not in call and "sampler.num_steps=3" in call for call in console.of("backtranslate")
    )
    judged = next(call for call in console.of("eval") if call[1] == "edits")
    assert "bars" not in compose("edits", judged[2:])
    table = (tmp_path / "table.md").read_text().splitlines()
    less = "| stages/stage2_minus_stage1/"
    assert [line for line in table if "89.29" in line and line.startswith(f"{less}right | 0.100 |")]
    assert [
        line for line in table if line.startswith(f"{less}segment/right | 0.600 |") and "89.29" not in line
    ]
    assert [line for line in table if line.startswith("| stages/copy/image/kept | 0.405 |")]
    stages.main(words, console)
    assert len(console.commands) == count  # finished stages are not run again
    with pytest.raises(
        SystemExit, match=r"edits\.jsonl was made by other settings \(per_kind=2; now per_kind=4\)"
    ):
        stages.main([*words, "--per-kind", "4"], console)
    assert len(console.commands) == count


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--edit", "kep=null"], "unknown key 'kep'; did you mean 'keep'"),
        (["--build", "sources.frame.count=5"], "sources.frame"),
        (["trainer.max_step=5"], "unknown key 'trainer.max_step'"),
    ],
)
def test_a_key_that_a_command_does_not_take_ends_the_comparison_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], said: str
) -> None:
    console = Console()
    with pytest.raises(SystemExit):
        stages.main(["--latents", "l", "--out", str(tmp_path), *wrong], console)
    assert said in capsys.readouterr().err and console.commands == []


def test_settings_of_keep_are_judged_on_scenes_of_training() -> None:
    pair = next(pair for pair in measure.wanted(["recolor"], 1) if pair.kind == "recolor")
    (painted,) = measure.wanted(["segment"], 1)
    assert painted.kind == "segment" and painted.before.truth["spec"]["interaction"] is None
    assert not any(
        is_held_out(sprite["color"], sprite["shape"], sprite["motion"])
        for end in (pair.before, pair.after)
        for sprite in end.truth["sprites"]
    )
    source, noise = pair.before.frames, np.random.default_rng(0).normal(0, 6, pair.before.frames.shape)
    base = (source + noise).clip(0, 255).astype(np.uint8)
    blurred = np.array(
        0.85 * pair.after.frames + 4, dtype=np.uint8
    )  # right, but for what it does to all the rest
    one = measure.Sampled(pair, blurred, base)
    changed, attributes, pixels, right, edited = measure.judged(one, None)
    assert changed and attributes and not pixels and not right and edited == 1
    changed, attributes, pixels, right, edited = measure.judged(one, Keep(low=32, high=64))
    assert changed and attributes and pixels and right and 0 < edited < 0.3
