"""Layouts that do not divide, or that this machine has no devices for, are refused with what would fit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from shard_samples import latent_sample, write_tar

from moviegen import layout
from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.config import UserError, build, compose, validate
from moviegen.data.module import ShardData, Source
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import LayoutError, MeshConfig, divisors
from moviegen.parallel.plan import SplitTokens
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Grid, VideoClip

CPU = {"accelerator": "cpu", "devices": 4, "strategy": "auto", "precision": "32-true"}


def test_divisors() -> None:
    assert divisors(1) == [1] and divisors(48) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]


def test_degrees_multiply() -> None:
    mesh = MeshConfig(dp_replicate=2, dp_shard=3, cp=5, tp=7)
    assert (mesh.world_size, mesh.dp, mesh.fsdp) == (210, 6, 15)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_degree_is_a_whole_number_of_at_least_one(value: Any) -> None:
    with pytest.raises(LayoutError, match=r"mesh\.tp=.*: must be a whole number of at least 1"):
        MeshConfig(tp=value)


@pytest.mark.parametrize(
    ("mesh", "check", "message"),
    [
        (MeshConfig(cp=2, tp=2), ("check_devices", 6), r"4 processes, there are 6: take a cp \* tp that divides 6"),
        (MeshConfig(cp=2, tp=2), ("check_devices", 8), r"there are 8: take dp_replicate \* dp_shard = 2"),
        (MeshConfig(tp=3), ("check_devices", 3, 8), "mesh.tp=3 does not divide the 8 devices of a node: .* 1, 2, 4, 8"),
        (MeshConfig(tp=3), ("check_model", 16, 48), "tp=3 does not divide 16 heads .* 48: take one of 1, 2, 4, 8, 16"),
        (MeshConfig(tp=8), ("check_model", 16, 36), "feed-forward width of 36: take one of 1, 2, 4$"),
        (MeshConfig(cp=8, tp=2), ("check_model", 8, 64, "ulysses"), "the 4 heads that tp=2 leaves .* 1, 2, 4, or "),
        (MeshConfig(cp=2), ("check_model", 8, 64, "rings"), "mesh.context='rings': must be one of all_gather"),
        (MeshConfig(), ("check_model", 8, 64, "ring", 0), "a model of 0 layers cannot be laid out"),
        (MeshConfig(cp=2, tp=2), ("check_tokens", 66, "a bucket"), "a bucket has 66 tokens, which cp=2 x tp=2"),
        (MeshConfig(dp_shard=3), ("check_batch", 8), "a batch of 8 samples .* take a multiple of 3, or .* 1, 2, 4, 8"),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_refused_with_what_would(
    mesh: MeshConfig, check: tuple, message: str
) -> None:
    name, *given = check
    with pytest.raises(LayoutError, match=message):
        getattr(mesh, name)(*given)


def test_layers_are_never_split_and_any_number_fits() -> None:
    MeshConfig(dp_shard=8, tp=4).check_model(48, 16384, num_layers=47)


def test_an_open_degree_takes_the_devices_that_are_left() -> None:
    assert ParallelConfig(tp=2).mesh(8) == MeshConfig(dp_shard=4, tp=2)
    assert ParallelConfig(dp_replicate=None, dp_shard=8).mesh(32) == MeshConfig(dp_replicate=4, dp_shard=8)
    assert ParallelConfig(dp_shard=1).mesh(1) == MeshConfig()
    with pytest.raises(LayoutError, match=r"takes 4, which does not divide 6: take a product of 1, 2, 3, 6"):
        ParallelConfig(cp=2, tp=2).mesh(6)
    with pytest.raises(LayoutError, match="takes 4 processes, there are 1"):
        ParallelConfig(dp_shard=4).mesh(1)
    with pytest.raises(LayoutError, match="are both null: give one of them a number"):
        ParallelConfig(dp_replicate=None, dp_shard=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": "rings"}, "mesh.context='rings': must be one of"),
        ({"checkpointing": "some"}, "mesh.checkpointing='some': must be one of none, selective, full"),
        ({"fp8": True, "tp": 2}, "mesh.fp8=true goes with tp=1 only, got tp=2"),
        ({"fp8": "maybe"}, "mesh.fp8='maybe': must be one of false, true, emulated"),
    ],
)
def test_options_that_do_not_exist_or_go_together_are_refused(given: dict, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        ParallelConfig(**given)


@pytest.mark.parametrize("name", ["single", "node", "replicate", "hybrid", "tensor", "context", "paper"])
def test_every_layout_of_conf_builds(name: str) -> None:
    config = build(compose("train", [f"mesh={name}"]).mesh)
    assert isinstance(config, ParallelConfig)
    assert config.mesh(1 if name == "single" else 16).world_size == (1 if name == "single" else 16)


def test_the_layout_of_the_paper_is_its_table_3() -> None:
    config = build(compose("train", ["mesh=paper"]).mesh)
    mesh = config.mesh(6144)
    mesh.check_model(48, 16384, config.context, 48)
    mesh.check_tokens(73_728)
    assert (mesh.tp, mesh.cp, mesh.dp_shard, config.shard_encoders) == (4, 2, 768, ("ul2",))


def test_a_wrong_key_or_name_of_a_layout_is_one_line() -> None:
    with pytest.raises(UserError, match="pipeline"):
        validate(compose("train", ["mesh=single", "mesh.pipeline=2"]).mesh)
    with pytest.raises(UserError, match=r"mesh"):
        compose("train", ["mesh=cube"])


@pytest.mark.parametrize(
    ("gpus", "trainer", "message"),
    [
        (
            0,
            {"accelerator": "gpu", "devices": 1},
            "trainer.devices=1: this machine has no GPU: take trainer=cpu",
        ),
        (
            2,
            {"accelerator": "gpu", "devices": 8},
            "trainer.devices=8: this machine has 2 GPUs: take trainer.devices=2",
        ),
        (2, {"accelerator": "gpu", "devices": [0, 1, 2]}, "this machine has 2 GPUs"),
    ],
)
def test_gpus_that_are_not_there_are_refused(monkeypatch, gpus: int, trainer: dict, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(LayoutError, match=message):
        layout.num_devices(trainer)


def test_devices_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert layout.num_devices({"accelerator": "gpu", "devices": "auto", "num_nodes": 4}) == (8, 4)
    assert layout.num_devices({"accelerator": "gpu", "devices": -1}) == (8, 1)
    assert layout.num_devices({"accelerator": "cpu", "devices": 2}) == (2, 1)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"strategy": "ddp"}, "trainer.strategy=ddp and a mesh exclude each other"),
        ({"precision": "16-mixed"}, "trainer.precision=16-mixed: a mesh takes 32-true or bf16-mixed"),
        (
            {"devices": 3},
            "mesh.dp_shard=null takes what 3 devices leave, but .* takes 2, which does not divide 3",
        ),
    ],
)
def test_a_trainer_that_does_not_fit_a_layout_is_refused(trainer: dict, message: str) -> None:
    mesh = compose("train", ["mesh=tensor"]).mesh
    with pytest.raises(LayoutError, match=message):
        layout.layout_of(mesh, {**CPU, **trainer})


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "half", 64])
def test_a_precision_that_converts_samples_is_refused(precision) -> None:
    with pytest.raises(
        ValueError, match=rf"trainer\.precision={precision}: training takes 32-true, bf16-mixed, 16-"
    ):
        build(compose("train", [f"trainer.precision={precision}"]))
    assert build(compose("train", ["trainer.precision=16-mixed"])).trainer["precision"] == "16-mixed"


def test_without_a_mesh_there_is_no_layout() -> None:
    assert layout.layout_of(None, CPU) is None


def test_a_lone_process_needs_no_strategy_and_bf16_is_for_products() -> None:
    mesh = compose("train", ["mesh=single"]).mesh
    alone = layout.layout_of(mesh, {**CPU, "devices": 1, "precision": "bf16-mixed"})
    assert alone is not None and alone.strategy() == "auto" and alone.dtype == torch.bfloat16


def data(**given: Any) -> Any:
    """A data module as far as a layout looks at it."""
    row = SimpleNamespace(batch_size=8, bucket="256x256x16", tokens=36)
    values = {"packed_draws": 1, "batch_size": 8, "plan": lambda: SimpleNamespace(rows=[row])}
    return SimpleNamespace(**{**values, **given})


@pytest.mark.parametrize(
    ("mesh", "parts", "message"),
    [
        ({"cp": 4}, {"packed_draws": 2}, "data.packed_draws=2: packed samples are not cut over cp=4 x tp=1"),
        ({"dp_shard": 4}, {"batch_size": 6}, "a batch of 6 samples does not divide over the 4 data-parallel"),
        ({"cp": 8}, {}, "a sample of the bucket 256x256x16 has 36 tokens, which cp=8 x tp=1 does not divide"),
    ],
)
def test_data_that_does_not_divide_is_refused(mesh: dict, parts: dict, message: str) -> None:
    config = ParallelConfig(**{"dp_shard": 1, **mesh})
    degrees = MeshConfig(1, config.dp_shard or 1, config.cp, config.tp)
    task = SimpleNamespace(check_layout=lambda *_: None, optimizer_factory=None)
    with pytest.raises(LayoutError, match=message):
        layout.check_layout(layout.Layout(config, degrees, None), task, data(**parts), None)


def test_shards_that_do_not_say_their_size_are_held_against_a_layout_by_their_first_sample(tmp_path) -> None:
    codec: Any = SimpleNamespace(latent_channels=16, to=None)
    task = FlowTask(Backbone(BackboneConfig(16, 1, 4, 16, 16, (1, 1, 1), 2, 2, 2)), codec, {}, cached=True)
    write_tar(tmp_path / "train-clips-000000.tar", [latent_sample(f"{n}", n) for n in range(4)])
    data = ShardData({"clips": Source(str(tmp_path))}, batch_size=4)
    data.use(task.fields, cost=task.sample_cost)
    layout.check_layout(layout.Layout(ParallelConfig(), MeshConfig(cp=4, tp=2), None), task, data, None)
    words = r"the first sample of .*/train, whose shards have no index\.json .* has 8 tokens, which cp=3 x tp=1 does"
    with pytest.raises(
        LayoutError, match=words + r" not divide: take a cp \* tp of 1, 2, 4, 8, or sizes of other"
    ):
        layout.check_layout(layout.Layout(ParallelConfig(), MeshConfig(cp=3), None), task, data, None)
    clip = VideoClip(torch.zeros(1, 3, 8, 16, 16), torch.ones(1))
    codec.grid = lambda *size: Grid(*(n // 8 for n in size))
    assert task.num_tokens(clip) == 4  # of a clip that is not coded yet


def test_a_later_sample_of_another_size_is_refused_with_what_would_fit() -> None:
    tokens = SplitTokens(SimpleNamespace(size=lambda: 2), SimpleNamespace(size=lambda: 2))  # type: ignore[arg-type]
    with pytest.raises(
        LayoutError, match="a sample has 6 tokens, which cp=2 x tp=2 does not divide: take a cp"
    ):
        tokens.split(torch.zeros(1, 6, 3))


def test_an_optimizer_of_whole_matrices_and_sizes_of_sample_videos_are_held_against_a_layout() -> None:
    from functools import partial

    from moviegen.tasks.muon import Muon

    chosen = layout.Layout(ParallelConfig(cp=2), MeshConfig(cp=2), None)
    task = SimpleNamespace(check_layout=lambda *_: None, optimizer_factory=partial(Muon, lr=1.0))
    with pytest.raises(LayoutError, match="optimizer Muon needs whole matrices, which a mesh cuts"):
        layout.check_layout(chosen, task, data(), None)
    task = SimpleNamespace(
        check_layout=lambda *_: None, optimizer_factory=None, sample_cost=lambda *size: (15, 1.0)
    )
    with pytest.raises(LayoutError, match="a sample video of 16x32x48 has 15 tokens, which cp=2"):
        layout.check_layout(chosen, task, data(), {"num_frames": 16, "height": 32, "width": 48})


def test_what_has_no_layout_of_several_processes_says_so() -> None:
    from moviegen.codec.tae import TemporalAutoencoder
    from moviegen.tasks.base import Task
    from moviegen.tasks.codec_task import CodecTask

    two, config = MeshConfig(dp_shard=2), ParallelConfig()
    codec = CodecTask(
        TemporalAutoencoder(channels=(4, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1), temporal_levels=1)
    )
    with pytest.raises(
        LayoutError, match=r"Task has no layout for dp_replicate=1 x dp_shard=2 .*strategy=ddp"
    ):
        Task().check_layout(two, config)
    Task().check_layout(MeshConfig(), config)
    codec.check_layout(two, config)
    with pytest.raises(LayoutError, match=r"a codec takes data-parallel layouts only: .* not cp=2"):
        codec.check_layout(MeshConfig(cp=2), config)
    codec.adversary = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(
        LayoutError, match="a codec with an adversary asks for gradients in the middle of a step"
    ):
        codec.check_layout(two, config)
    with pytest.raises(LayoutError, match="an adapter has no layout"):
        layout.check_layout(layout.Layout(config, two, None), codec, data(), None, adapter=True)
