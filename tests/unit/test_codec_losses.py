"""The autoencoder's losses: closed forms, the perceptual net's own weights, and learning against a discriminator."""

import copy

import pytest
import torch
from torch import nn

from moviegen.codec.discriminators import PatchDiscriminator, VideoDiscriminator
from moviegen.codec.losses import adaptive_weight, discriminator_loss, generator_loss, outlier_penalty
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.modelfile import load_weights, save_model
from moviegen.perceptual import STLPIPS, read_weights
from moviegen.tasks.base import NotFiniteError
from moviegen.tasks.codec_objective import Adversary, CodecLossWeights
from moviegen.tasks.codec_task import CodecTask
from moviegen.types import Batch, VideoClip

pytest.importorskip("torchvision")


def spotted(scale: float = 1.0) -> torch.Tensor:
    """Latents of two clips, the second with one site ten standard deviations out in each frame."""
    torch.manual_seed(0)
    latent = torch.randn(1, 4, 2, 16, 16).repeat(2, 1, 1, 1, 1).clamp(-2, 2)
    latent[1, :, :, 3, 5] = 20.0
    return scale * latent


def test_the_outlier_penalty_is_zero_without_outliers_and_the_papers_formula_with_one() -> None:
    latent = spotted()
    penalty = outlier_penalty(latent)
    assert penalty[0] == 0
    frame = latent[1, :, 0]
    mean, std = frame.mean((1, 2), keepdim=True), frame.std((1, 2), correction=0)
    expected = ((frame - mean).norm(dim=0) - 3 * std.norm()).clamp_min(0).mean()
    assert expected > 0
    other = outlier_penalty(latent[1:, :, :1])
    torch.testing.assert_close(other, expected[None])


def test_the_relative_outlier_penalty_does_not_depend_on_the_latents_scale() -> None:
    absolute = [outlier_penalty(spotted(scale))[1] for scale in (1.0, 10.0)]
    torch.testing.assert_close(absolute[1], 10 * absolute[0])
    relative = [outlier_penalty(spotted(scale), relative=True)[1] for scale in (1.0, 10.0)]
    torch.testing.assert_close(relative[1], relative[0])


def test_adversarial_losses_are_their_closed_forms() -> None:
    real, fake = torch.tensor([[2.0, 0.0]]), torch.tensor([[-2.0, 1.0]])
    assert discriminator_loss(real, fake).tolist() == [0.5 * (0.5 + 1.0)]
    soft = discriminator_loss(torch.zeros(1, 3), torch.zeros(1, 3), "vanilla")
    torch.testing.assert_close(soft, torch.tensor([2.0]).log())
    assert generator_loss(fake).tolist() == generator_loss(fake, "vanilla").tolist() == [0.5]
    assert discriminator_loss(real, fake, "least_squares").tolist() == [0.5 * (1.0 + 2.5)]
    assert generator_loss(fake, "least_squares").tolist() == [0.5 * (9.0 + 0.0)]
    with pytest.raises(ValueError, match="hinge, vanilla or least_squares, got 'soft'"):
        discriminator_loss(real, fake, "soft")  # type: ignore[arg-type]


def test_the_adaptive_weight_makes_both_gradients_as_large() -> None:
    layer = torch.tensor([1.0, -2.0], requires_grad=True)
    reconstruction, adversarial = 3 * layer.sum(), 1e-3 * (layer * torch.tensor([1.0, 2.0])).sum()
    ratio = adaptive_weight(reconstruction, adversarial, layer)
    (given,) = torch.autograd.grad(reconstruction, layer, retain_graph=True)
    (adverse,) = torch.autograd.grad(ratio * adversarial, layer)
    assert adverse.norm() == pytest.approx(float(given.norm()), rel=0.05)
    assert not ratio.requires_grad


@pytest.mark.parametrize("num_frames", [1, 4])
def test_discriminators_score_images_and_videos(num_frames: int) -> None:
    clips = torch.randn(2, 3, num_frames, 32, 32)
    for judge in (PatchDiscriminator(8, 2, 2), PatchDiscriminator(8, 2, 3), VideoDiscriminator(8, 2)):
        scores = judge(clips)
        assert scores.shape[0] == 2 and scores.ndim == 2 and scores.shape[1] > 1


def test_the_motion_discriminator_sees_the_order_of_frames_and_the_frame_discriminator_does_not() -> None:
    torch.manual_seed(0)
    clips = torch.randn(1, 3, 4, 16, 16)
    mixed = clips[:, :, [2, 0, 3, 1]]
    flat, deep = PatchDiscriminator(8, 2, 2), PatchDiscriminator(8, 2, 3)
    torch.testing.assert_close(flat(clips).mean(), flat(mixed).mean())
    assert (deep(clips).mean() - deep(mixed).mean()).abs() > 1e-6


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_st_lpips_has_the_values_of_its_authors_and_a_gradient(net) -> None:
    pytest.importorskip("stlpips_pytorch")
    wave = torch.linspace(-3, 3, 64).sin()
    frames = (wave[:, None] * wave[None]).expand(1, 3, 64, 64).clone()
    other = (0.5 * frames.roll(7, dims=3) + 0.2).requires_grad_()
    distance = STLPIPS(net)(other, frames)
    # what the package `stlpips-pytorch` 0.0.2 says of the same two images
    assert distance.item() == pytest.approx(EXPECTED[net], rel=1e-4)
    distance.sum().backward()
    assert other.grad is not None and other.grad.abs().sum() > 0
    assert STLPIPS(net)(frames, frames).item() == 0


EXPECTED = {"alex": 0.154269, "vgg": 0.326794}


def test_st_lpips_refuses_small_frames_and_other_files(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least 32 pixels, got 16x64"):
        STLPIPS("alex", pretrained=False)(torch.zeros(1, 3, 64, 16), torch.zeros(1, 3, 64, 16))
    torch.save({"net.slice1.0.weight": torch.zeros(3)}, tmp_path / "alex.pth")
    with pytest.raises(ValueError, match=r"alex\.pth is not the ST-LPIPS file of alex: sha256 .* expected"):
        read_weights("alex", str(tmp_path / "alex.pth"))


def adversarial_task(**changes) -> CodecTask:
    torch.manual_seed(0)
    sizes = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1), "temporal_levels": 1}
    codec = TemporalAutoencoder(latent_channels=4, **sizes)
    factory = lambda parameters: torch.optim.Adam(parameters, lr=1e-3)  # noqa: E731
    adversary = Adversary(VideoDiscriminator(8, 2), factory, **({"start_step": 1} | changes))
    return CodecTask(codec, CodecLossWeights(l1=1.0, outlier=1.0), adversary, optimizer=factory)


def video_batch(value: float | None = None) -> Batch:
    torch.manual_seed(1)
    frames = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    if value is not None:
        frames[1, 0, 0, 0, 0] = value
    return Batch(torch.tensor([1, 2]), VideoClip(frames, torch.full((2,), 8.0)), names=("one", "two"))


class OneBatch(nn.Module):
    """An endless loader of one batch."""

    def __iter__(self):
        while True:
            yield video_batch()


def fitted(task: CodecTask, folder, steps: int, resume: str | None = None):
    import lightning.pytorch as L

    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(task, OneBatch(), ckpt_path=resume, weights_only=True)
    return trainer


def test_autoencoder_and_discriminator_learn_in_turns_and_steps_are_counted_once(tmp_path) -> None:
    task = adversarial_task()
    before = copy.deepcopy(task.state_dict())
    trainer = fitted(task, tmp_path, 1)
    changed = {n for n, v in task.state_dict().items() if not torch.equal(v, before[n])}
    assert trainer.global_step == 1
    assert changed and not any(name.startswith("adversary") for name in changed)  # it starts at step 1
    trainer = fitted(task, tmp_path, 3)
    changed = {n for n, v in task.state_dict().items() if not torch.equal(v, before[n])}
    assert trainer.global_step == 3 and any(name.startswith("adversary") for name in changed)


def test_a_resumed_adversarial_run_equals_an_unbroken_one(tmp_path) -> None:
    whole = adversarial_task()
    fitted(whole, tmp_path, 6)
    first = adversarial_task()
    fitted(first, tmp_path, 3).save_checkpoint(tmp_path / "half.ckpt")
    second = adversarial_task()
    fitted(second, tmp_path, 6, resume=str(tmp_path / "half.ckpt"))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_the_discriminator_stays_out_of_the_exported_model(tmp_path) -> None:
    task = adversarial_task()
    save_model(tmp_path / "tae", task, {}, torch.float32, {})
    from safetensors.torch import load_file

    assert {name.split(".")[0] for name in load_file(tmp_path / "tae.safetensors")} == {"codec"}
    other = adversarial_task()
    load_weights(other, str(tmp_path / "tae"))


def test_a_loss_that_is_no_number_stops_the_step_and_names_the_sample() -> None:
    task = adversarial_task()
    losses, *_ = task.reconstructed(video_batch(float("nan")), step=4)
    with pytest.raises(NotFiniteError, match=r"step 4: the loss of sample two is nan; no weight was changed"):
        NotFiniteError.check(losses.total, video_batch(), 4)
    channels = torch.zeros(2 * len(video_batch().names))  # of stereo sounds, a row each
    channels[-1] = torch.nan
    with pytest.raises(NotFiniteError, match=f"sample {video_batch().names[-1]} is nan"):
        NotFiniteError.check(channels, video_batch(), 4)
