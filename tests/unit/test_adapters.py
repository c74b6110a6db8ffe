"""LoRA: what is trained, what is written, and that the written adapter is the trained model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_backbone import GRID
from test_generate import generate, model  # noqa: F401 (a fixture)
from test_tasks import flow_task, latent_batch

from moviegen.adapters import BASE, CONFIG, WEIGHTS, merge_adapter, save_adapter
from moviegen.config import UserError, build, compose
from moviegen.lineage import check_frame_rate
from moviegen.modelfile import load_task
from moviegen.runfolder import file_sha256
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.lora import Lora

pytest.importorskip("peft")
LORA = Lora(rank=3, alpha=6)


def trained(lora: Lora = LORA) -> FlowTask:
    """A task with an adapter after a few steps on one batch."""
    task, batch = flow_task(), latent_batch()
    lora.inject(task)
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    for step in range(5):
        optimizer.zero_grad()
        task.losses(batch, step).mean().backward()
        optimizer.step()
    return task


def write(folder: Path, path: str, task: FlowTask, lora: Lora = LORA) -> Path:
    save_adapter(folder, task, lora, {"init_from": path, "steps": 5})
    return folder


def test_an_adapter_starts_as_nothing_and_only_it_is_trained() -> None:
    plain, task, batch = flow_task(), flow_task(), latent_batch()
    LORA.inject(task)
    torch.testing.assert_close(task.losses(batch, 0), plain.losses(batch, 0))
    names = {name for name, p in task.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name and name.startswith("backbone.blocks") for name in names)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == set(LORA.targets)
    before = {n: p.clone() for n, p in trained().named_parameters() if "lora_" not in n}
    for name, parameter in plain.named_parameters():
        parts = name.rpartition(".")
        kept = before.get(name, before.get(f"{parts[0]}.base_layer.{parts[2]}"))
        torch.testing.assert_close(kept, parameter, rtol=0, atol=0)


def test_a_written_adapter_merged_into_its_model_is_the_trained_model(model, tmp_path) -> None:  # noqa: F811
    task, batch = trained(), latent_batch()
    folder = write(tmp_path / "adapter", model, task)
    fresh = flow_task()
    before = fresh.losses(batch, 9)
    merge_adapter(fresh, folder, file_sha256(Path(model + ".safetensors")))
    torch.testing.assert_close(fresh.losses(batch, 9), task.losses(batch, 9), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(fresh.losses(batch, 9), before, rtol=1e-3)


def test_peft_itself_reads_the_adapter(model, tmp_path) -> None:  # noqa: F811
    from peft import PeftModel

    task = trained()
    folder = write(tmp_path / "adapter", model, task)
    fresh = flow_task().backbone
    loaded = PeftModel.from_pretrained(fresh, folder)
    batch = latent_batch()
    conditions = task.conditions(batch.inputs, GRID.__class__(1, 1, 1), {})
    x, t = torch.randn(4, 1, 16), torch.rand(4)
    torch.testing.assert_close(
        loaded(x, t, conditions), task.backbone(x, t, conditions), rtol=1e-4, atol=1e-5
    )


def test_an_adapter_samples_in_generate_and_its_clips_are_made_anew_without_it(model, tmp_path) -> None:  # noqa: F811
    task = load_task(model)
    LORA.inject(task)
    torch.manual_seed(0)
    for name, parameter in task.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = write(tmp_path / "adapter", model, task)
    out = tmp_path / "clips"
    assert generate(model, out, ["a red star"], f"adapter={folder}") == 0
    recipe = json.loads((out / "recipe.json").read_text())["recipe"]
    assert recipe["adapter"] == file_sha256(folder / WEIGHTS)
    made = (out / "00001.mp4").stat().st_mtime_ns
    assert generate(model, out, ["a red star"], f"adapter={folder}") == 0
    assert (out / "00001.mp4").stat().st_mtime_ns == made
    assert generate(model, out, ["a red star"]) == 0
    assert (out / "00001.mp4").stat().st_mtime_ns != made


def test_an_adapter_brings_its_own_frame_rates_and_the_way_its_prompts_were_read(model, tmp_path) -> None:  # noqa: F811
    base, folder = str(tmp_path / "base"), tmp_path / "adapter"
    record = json.loads(Path(f"{model}.json").read_text()) | {"info": {"frame_rates": [8.0, 8.0]}}
    Path(f"{base}.json").write_text(json.dumps(record))
    Path(f"{base}.safetensors").write_bytes(Path(f"{model}.safetensors").read_bytes())
    task = load_task(base)
    LORA.inject(task)
    text = task.conditioners.named()["text"]
    text.frame_rate_prefix, text.max_tokens = True, 48
    save_adapter(folder, task, LORA, {"init_from": base, "frame_rates": [8.0, 16.0]})
    check_frame_rate(base, 16, str(folder))
    with pytest.raises(UserError, match="was trained at 8 frames per second"):
        check_frame_rate(base, 16)
    fresh, digest = load_task(base), file_sha256(Path(f"{base}.safetensors"))
    merge_adapter(fresh, folder, digest)
    text = fresh.conditioners.named()["text"]
    assert text.prompts(["a star"], 16) == ["FPS-16 a star"] and text.max_tokens == 48
    note = json.loads((folder / BASE).read_text())
    (other := note["text"]["text"]["text.npy"]).update(encoder="models/other", config_sha256="0" * 64)
    for told, message in (({"text": {"text.npy": other}}, "read by models/other, this model has package:gt"),
                          ({"text": {"text.npy": {"max_tokens": []}}}, "no text settings in base.json"),
                          ("x", "no text settings in base.json")):  # fmt: skip
        (folder / BASE).write_text(json.dumps(note | {"text": told}))
        with pytest.raises(UserError, match=message):
            merge_adapter(load_task(base), folder, digest)
    (folder / BASE).write_text(json.dumps({name: value for name, value in note.items() if name != "text"}))
    merge_adapter(plain := load_task(base), folder, digest)  # an adapter of before, or of somebody else
    assert plain.conditioners.named()["text"].prompts(["a star"], 16) == ["a star"]


def test_an_adapter_of_another_model_or_kind_or_shape_is_refused_and_nothing_changes(model, tmp_path) -> None:  # noqa: F811
    folder, fresh = write(tmp_path / "adapter", model, trained()), flow_task()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    digest = file_sha256(Path(model + ".safetensors"))
    with pytest.raises(UserError, match=r"was trained on .*t2v"):
        merge_adapter(fresh, folder, "0" * 64)
    config, state = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    for change, message in (({"use_dora": True}, "LORA use_dora"), ({"peft_type": "IA3"}, "this is IA3"),
                            ({"r": 0}, "ZeroDivisionError"), ({"lora_alpha": "x"}, "ValueError"),
                            ({"lora_bias": True}, "LORA lora_bias"), ({"alpha_pattern": ["w"]}, "AttributeError"),
                            ({"alpha_pattern": {"(": 1}}, "unterminated"),
                            ({"rank_pattern": {"w[qkvo]": 5}}, "the rank 5"),
                            ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changed the model")):  # fmt: skip
        (folder / CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message):
            merge_adapter(fresh, folder, digest)
    (folder / CONFIG).write_text(json.dumps(config))
    name = next(iter(state))
    cut = state[name][:, :5].contiguous()
    for changed, message in (
        (state | {name: cut}, "the layer"),
        ({"x.lora_A.weight": cut}, "no pair"),
        ({"bias": cut}, "other tensors"),
        (state | {"x.lora_B.bias": cut}, r"other tensors .*x\.lora_B\.bias"),
    ):
        save_file(changed, folder / WEIGHTS)
        with pytest.raises(UserError, match=message):
            merge_adapter(fresh, folder, digest)
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        merge_adapter(fresh, folder, digest)
    with pytest.raises(UserError, match="is no adapter"):
        merge_adapter(fresh, tmp_path, digest)
    for key, value in fresh.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_layers_with_an_alpha_or_a_rank_of_their_own_are_scaled_as_peft_scales_them(tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["wq", "w1"],
        init_lora_weights=False,
        rank_pattern={"self_attn.wq": 2},
        alpha_pattern={r"blocks\.1\..*": 32, "^blocks.0.ffn.w1": 1, "w1": 5},
    )
    theirs, task = get_peft_model(flow_task().backbone, config), flow_task()
    theirs.save_pretrained(tmp_path)
    merge_adapter(task, tmp_path, "")
    merged = theirs.merge_and_unload().state_dict()
    for name, value in task.backbone.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=1e-4, atol=1e-5)


def test_wrong_adapter_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no linear layer is called wx"):
        Lora(targets=("wx",)).inject(flow_task())
    with pytest.raises(ValueError, match="rank and alpha"):
        Lora(rank=0)
    with pytest.raises(ValueError, match="needs targets"):
        Lora(targets=())
    with pytest.raises(UserError, match="add init_from=MODEL"):
        build(compose("train", ["adapter=lora"]))


def test_the_adapter_is_an_option_of_the_training_config() -> None:
    assert build(compose("train", ["adapter=lora", "init_from=x", "adapter.rank=4"]).adapter) == Lora(rank=4)
    assert compose("train").get("adapter") is None
