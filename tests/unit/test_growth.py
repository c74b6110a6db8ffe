"""From stage to stage: position tables grow, everything else must fit, and no other stage's model will do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from moviegen import cli
from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.positions import Positions, grown
from moviegen.backbone.transformer import Backbone
from moviegen.config import UserError
from moviegen.modelfile import save_model
from moviegen.stages import check_stage, start_from
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Grid


def tables(frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
    positions = Positions(6, frames, height, width)
    return {f"backbone.positions.{name}": p.detach() for name, p in positions.named_parameters()}


def test_height_and_width_are_stretched_and_frames_are_appended() -> None:
    old, own = tables(2, 4, 5), tables(3, 12, 10)
    old["backbone.positions.height"] = torch.arange(4.0)[:, None].expand(4, 6)
    new = grown(old, own)
    assert [len(new[f"backbone.positions.{name}"]) for name in ("frames", "height", "width")] == [3, 12, 10]
    thirds = [0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 7 / 3, 8 / 3, 3, 3]
    assert new["backbone.positions.height"][:, 0].tolist() == pytest.approx(thirds)
    frames = new["backbone.positions.frames"]
    assert torch.equal(frames[:2], old["backbone.positions.frames"])
    assert torch.equal(frames[2:], own["backbone.positions.frames"][2:])


def test_tables_of_the_right_size_or_larger_and_all_else_stay_as_they_are() -> None:
    old = tables(4, 4, 4) | {"backbone.out.weight": torch.randn(2, 3)}
    new = grown(old, tables(2, 4, 4) | {"backbone.out.weight": torch.randn(5, 3)})
    assert new.keys() == old.keys() and all(new[name] is old[name] for name in old)


def flow_task(frames: int = 1, side: int = 2, dim: int = 16) -> FlowTask:
    config = BackboneConfig(
        dim, 1, 2, 24, latent_channels=2, max_frames=frames, max_height=side, max_width=side
    )
    return FlowTask(Backbone(config), None, {}, cached=True)  # type: ignore[arg-type]


def saved(folder: Path, task: FlowTask, stage: str | None) -> str:
    save_model(folder / "model", task, {"_target_": "x"}, torch.float32, {"stage": stage} if stage else {})
    return str(folder / "model")


def test_a_stage_starts_from_the_one_before_and_an_image_keeps_its_positions(tmp_path) -> None:
    first, second = flow_task(), flow_task(frames=3, side=4)
    start_from(second, saved(tmp_path, first, "stage1"), "stage2", "stage1")
    old, new = first.state_dict(), second.state_dict()
    for name, value in old.items():
        if "positions" not in name:
            assert torch.equal(new[name], value)
    whole = first.backbone.positions(Grid(1, 2, 2)).mean(0)
    torch.testing.assert_close(second.backbone.positions(Grid(1, 4, 4)).mean(0), whole)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("stage3", r"model is the output of stage3; stage2 starts from that of stage1"),
        (None, r"model is the output of no stage; stage2 starts from that of stage1"),
    ],
)
def test_the_model_of_another_stage_is_refused(tmp_path, stage, message) -> None:
    with pytest.raises(UserError, match=message):
        start_from(flow_task(3, 4), saved(tmp_path, flow_task(), stage), "stage2", "stage1")


def test_a_missing_model_and_one_that_does_not_fit_are_refused(tmp_path) -> None:
    with pytest.raises(
        UserError, match=r"stage2 starts from the output of stage1: give its model as init_from"
    ):
        start_from(flow_task(), None, "stage2", "stage1")
    with pytest.raises(
        UserError, match=r"stage2 starts from the output of stage1, train that first: no model at"
    ):
        start_from(flow_task(), str(tmp_path / "none"), "stage2", "stage1")
    with pytest.raises(
        UserError, match=r"another architecture.*positions\.height: \[4, 16\] in the file, \[2, 16\]"
    ):
        start_from(flow_task(), saved(tmp_path, flow_task(side=4), "stage1"), "stage2", "stage1")
    with pytest.raises(
        UserError, match=r"another architecture.*\[\d+, 16\] in the file, \[\d+, 32\] in the model"
    ):
        start_from(flow_task(dim=32), saved(tmp_path, flow_task(), "stage1"), "stage2", "stage1")
    (tmp_path / "model.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="the output of no stage"):
        start_from(flow_task(), str(tmp_path / "model"), "stage2", "stage1")


def test_the_wrong_stage_is_refused_before_a_large_model_is_built(tmp_path, monkeypatch, capsys) -> None:
    path = saved(tmp_path, flow_task(), "stage1")

    def built(*sizes, **more) -> None:
        raise AssertionError("a backbone of 30B was built")

    monkeypatch.setattr(Backbone, "__init__", built)
    words = ["train", "experiments=t2v/paper/stage3", "trainer=cpu", f"run_dir={tmp_path / 'run'}"]
    assert cli.main([*words, f"init_from={path}"]) == 2
    said = "is the output of stage1; stage3 starts from that of stage2b"
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_without_a_stage_before_it_weights_must_fit_exactly(tmp_path) -> None:
    path = saved(tmp_path, flow_task(), "stage1")
    task = flow_task()
    start_from(task, path, None, None)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), _reloaded(path), strict=True))
    with pytest.raises(UserError, match="another architecture"):
        start_from(flow_task(frames=3), path, None, None)


def _reloaded(path: str) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    state = load_file(path + ".safetensors")
    return [state[name] for name, _ in flow_task().named_parameters()]


def test_an_adapter_is_trained_on_exactly_its_base(tmp_path) -> None:
    path = saved(tmp_path, flow_task(), "stage1")
    start_from(flow_task(), path, None, None, frozen=True)
    with pytest.raises(
        UserError, match=r"no base for this adapter.*positions\.frames is \[1, 16\] there and \[3, 16\]"
    ):
        start_from(flow_task(frames=3), path, "stage2", "stage1", frozen=True)


def test_a_checkpoint_of_another_stage_is_refused() -> None:
    task, checkpoint = flow_task(), {}
    task.stage = "stage2"
    task.on_save_checkpoint(checkpoint)
    check_stage(checkpoint, "stage2", Path("last.ckpt"))
    with pytest.raises(
        UserError, match=r"last\.ckpt is a checkpoint of stage2, this run is stage2b: use another"
    ):
        check_stage(checkpoint, "stage2b", Path("last.ckpt"))
    with pytest.raises(UserError, match="is a checkpoint of no stage, this run is stage2"):
        check_stage({}, "stage2", Path("last.ckpt"))
    check_stage({}, None, Path("last.ckpt"))
