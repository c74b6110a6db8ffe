"""What a layout does to each block in one process: compiled by the real compiler, or in products of 8 bit."""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.parallel import blocks
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import LayoutError
from moviegen.parallel.plan import Plan
from moviegen.types import Grid


def model(num_layers: int = 1) -> Backbone:
    """A small backbone with weights that leave no gradient zero."""
    torch.manual_seed(0)
    size = BackboneConfig(16, num_layers, 2, 32, 4, max_frames=2, max_height=2, max_width=2)
    backbone = Backbone(size)
    for parameter in backbone.parameters():
        parameter.data += torch.randn(parameter.shape) * 0.1
    return backbone


def gradients(backbone: Backbone) -> dict[str, Tensor]:
    """The output, and the gradients of its mean square."""
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(2, 3, 16, generator=generator)
    conditions = Conditions(Grid(2, 2, 2), context, torch.ones(2, 3, dtype=torch.bool))
    velocity = backbone(torch.randn(2, 8, 16, generator=generator), torch.tensor([0.2, 0.7]), conditions)
    velocity.square().mean().backward()
    found = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    assert found.keys() == dict(backbone.named_parameters()).keys()
    return {"output": velocity.detach(), **found}


def test_selective_checkpointing_keeps_what_attention_gives_packed_or_not() -> None:
    from torch.nn.attention import varlen

    assert varlen.varlen_attn is not None  # defines the operation
    operations = [torch.ops.torch_attn._varlen_attn.default, torch.ops.aten.mm.default]
    names = (
        "flash_attn::_flash_attn_varlen_forward",
        "xformers_flash::flash_fwd",
    )  # packages that need a GPU
    operations += [SimpleNamespace(name=lambda name=name: name) for name in names]
    assert {blocks.kept(None, one) for one in operations} == {CheckpointPolicy.MUST_SAVE}
    assert blocks.kept(None, torch.ops.aten.silu.default) is CheckpointPolicy.PREFER_RECOMPUTE


@pytest.fixture
def fresh() -> None:
    """What other tests have compiled counts for nothing."""
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh")
def test_a_block_of_the_real_compiler_has_the_gradients_of_an_eager_one(monkeypatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")  # C++ is built without optimizing it, in less time
    if shutil.which("g++") is None:
        pytest.skip("torch.compile's inductor needs a C++ compiler, and g++ is not on the PATH")
    eager, compiled = model(), model()
    Plan(None, ParallelConfig(compile="inductor")).backbone(compiled)
    expected, found = gradients(eager), gradients(compiled)
    for name, value in expected.items():
        assert float((found[name] - value).norm() / value.norm()) < 1e-5, name


@pytest.mark.usefixtures("fresh")
def test_blocks_of_one_kind_are_compiled_once(monkeypatch) -> None:
    """More of them than torch compiles one function anew for: beyond that it would run them as they are, in silence."""
    graphs: list[nn.Module] = []

    def counted(graph: nn.Module, inputs: list[Tensor]) -> nn.Module:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(ParallelConfig, "compile", counted, raising=False)
    many = model(torch._dynamo.config.recompile_limit + 2)
    config = ParallelConfig(checkpointing="full")
    object.__setattr__(config, "compile", counted)
    Plan(None, config).backbone(many)
    gradients(many)
    assert len(graphs) == 1


@pytest.mark.parametrize(("found", "refused"), [(None, True), ("/usr/bin/g++", False)])
def test_a_machine_without_a_compiler_is_told_so(monkeypatch, found: str | None, refused: bool) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    blocks.check_compiler("aot_eager")
    if not refused:
        blocks.check_compiler("inductor")
        return
    with pytest.raises(
        LayoutError, match=r"mesh\.compile='inductor' needs a C\+\+ compiler.* or mesh\.compile=null"
    ):
        blocks.check_compiler("inductor")


@pytest.fixture
def torchao(monkeypatch) -> list[nn.Module]:
    """A stand-in for torchao on a GPU with 8-bit products; what it was given to convert. The real one: test_fp8.py."""
    converted: list[nn.Module] = []
    package, part = ModuleType("torchao"), ModuleType("torchao.float8")
    package.__spec__ = ModuleSpec("torchao", None)

    def convert(modules: nn.Module, config: dict[str, bool]) -> None:
        assert config == {"pad_inner_dim": True, "emulate": False}
        converted.append(modules)

    part.convert_to_float8_training = convert  # type: ignore[attr-defined]
    part.Float8LinearConfig = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", package)
    monkeypatch.setitem(sys.modules, "torchao.float8", part)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return converted


def test_products_of_8_bit_are_those_of_the_blocks_alone(torchao: list[nn.Module]) -> None:
    backbone = model()
    Plan(None, ParallelConfig(fp8=True)).backbone(backbone)
    assert len(torchao) == 1 and torchao[0] is backbone.blocks
    Plan(None, ParallelConfig()).backbone(backbone)
    assert len(torchao) == 1


def test_8_bit_without_torchao_or_a_gpu_that_has_it_is_refused_in_one_line(
    torchao: list[nn.Module], monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(LayoutError, match=r"mesh\.fp8=true needs a GPU with 8-bit products") as old:
        blocks.check_8_bit()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        LayoutError, match=r"needs torchao, which is not installed .*, or set mesh.fp8=false"
    ) as none:
        blocks.check_8_bit()
    assert all("\n" not in str(error.value) for error in (old, none)) and not torchao
