"""The planner against what runs: counts on the meta device, live bytes of training, 6,144 absent processes."""

import importlib
from types import ModuleType

import pytest
import torch
from test_plan import SCRIPTS

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.counts import forward_flops
from moviegen.parallel.mesh import MeshConfig
from moviegen.plan.counting import count
from moviegen.plan.shapes import backbone_shape
from moviegen.types import Grid

CONFIGS = [
    BackboneConfig(64, 2, 4, 176, max_frames=4, max_height=8, max_width=8),
    BackboneConfig(48, 3, 3, 96, max_frames=4, max_height=8, max_width=8, qk_norm=True, concat_channels=24),
    BackboneConfig(64, 2, 4, 256, max_frames=4, max_height=8, max_width=8, block="dit"),
]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("config", CONFIGS)
def test_sizes_by_formula_are_those_counted_on_the_meta_device(config: BackboneConfig) -> None:
    shape, counted = backbone_shape(config), count(config, Grid(2, 4, 4), 5)
    assert shape.parameters == counted.parameters
    assert shape.forward_flops(32, 5) == pytest.approx(
        counted.forward_flops, rel=0.02
    )  # time network left out
    assert forward_flops(config, 32, 5) == counted.forward_flops
    assert counted.step_flops == pytest.approx(3 * counted.forward_flops, rel=0.05)


def test_the_papers_sample_is_counted_whole() -> None:
    counted = count(BackboneConfig(6144, 48, 48, 16384, max_height=96, max_width=96), Grid(32, 48, 48), 640)
    assert counted.parameters == pytest.approx(29.26e9, rel=1e-3)
    assert counted.forward_flops == pytest.approx(10.21e15, rel=1e-3)
    assert counted.step_flops == pytest.approx(3 * counted.forward_flops, rel=1e-3)


def test_live_bytes_are_those_of_storages_that_are_alive(script) -> None:
    live = script("live").LiveBytes()
    with live:
        one = torch.zeros(1000)
        view = one[:10]
        two = torch.zeros(500) + 1  # the zeros are freed with this line
        del one
        three = torch.zeros(100)
        three.untyped_storage().resize_(0)
        four = torch.zeros(1)
    assert live.live() == 4 * (1000 + 500 + 1)  # the view keeps all of its storage
    assert live.peak == 4 * (1000 + 2 * 500)
    assert len(view) == 10 and len(two) == 500 and len(four) == 1


def test_predicted_peak_memory_is_within_10_percent_of_real_runs(script) -> None:
    runs = script("memory_runs")
    wanted = [runs.Setting("long", how, MeshConfig()) for how in ("none", "selective", "full")]
    wanted += [runs.Setting("wide", "none", MeshConfig(dp_shard=2))]
    found = runs.measured(wanted)
    for setting in wanted:
        assert setting.predicted().peak == pytest.approx(found[str(setting)]["peak"], rel=0.1), str(setting)


def test_one_of_6144_processes_is_laid_out_without_the_others_in_under_a_minute(script) -> None:
    scale = script("scale")
    found = scale.laid_out(scale.stage3(), scale.PAPER)
    assert found["cpu_seconds"] < 60
    assert found["parameters"] == pytest.approx(29.26e9, rel=1e-3)
    assert found["local_parameters"] == pytest.approx(found["parameters"] / 6144, rel=0.2)
