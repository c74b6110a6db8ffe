"""The temporal autoencoder: shapes for any length, inflation, gradients, tiling-safe layers."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moviegen.codec.base import LatentStats
from moviegen.codec.folding import fold, unfold
from moviegen.codec.frame_sums import sums_of_frames
from moviegen.codec.layers import (
    Attention,
    Conv,
    FullConv,
    TemporalConv,
    Up,
    from_frames,
    lay_out_for_inference,
    repeat_frames,
    to_frames,
)
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.types import Grid, VideoClip


def tiny(**changes) -> TemporalAutoencoder:
    torch.manual_seed(0)
    sizes = {
        "linear": True,
        "channels": (8, 8, 16, 16),
        "encoder_blocks": (1, 1, 1, 1),
        "decoder_blocks": (1, 1, 1, 1),
    }
    return TemporalAutoencoder(latent_channels=4, **(sizes | changes))


def folded(**changes) -> TemporalAutoencoder:
    """As `tiny`, with its first halving of time, height and width done by folding."""
    sizes = {"channels": (8, 16, 16), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1)}
    return tiny(**(sizes | {"temporal_levels": 2, "fold": 2} | changes))


def full_3d(**changes) -> TemporalAutoencoder:
    """As `tiny`, with 3D convolutions and 3D attention."""
    return tiny(**({"full_3d": True} | changes))


@pytest.mark.parametrize("size", [2, 4])
def test_unfolding_undoes_folding(size: int) -> None:
    frames = torch.rand(2, 3, 8, 8, 12)
    assert torch.equal(unfold(fold(frames, size, True), size, True), frames)
    assert torch.equal(unfold(fold(frames, size, False), size, False), frames)
    odd = unfold(fold(frames[:, :, :5], size, True), size, True)
    assert torch.equal(odd[:, :, :5], frames[:, :, :5]) and torch.equal(odd[:, :, 5], frames[:, :, 4])


@pytest.mark.parametrize("make", [tiny, folded, full_3d])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 16, 17])
def test_any_number_of_frames_codes_to_an_eighth_and_decodes_to_as_many(num_frames: int, make) -> None:
    codec = make().eval()
    clip = VideoClip(torch.rand(2, 3, num_frames, 16, 24) * 2 - 1, torch.full((2,), 8.0))
    with torch.no_grad():
        latent = codec.encode(clip)
        decoded = codec.decode(latent, num_frames)
    assert latent.values.shape == (2, 4, -(-num_frames // 8), 2, 3)
    assert codec.grid(num_frames, 16, 24) == Grid(-(-num_frames // 8), 2, 3)
    assert decoded.frames.shape == clip.frames.shape and decoded.frames.abs().max() <= 1


def test_the_papers_factors_are_8x8x8_with_16_channels() -> None:
    with torch.device("meta"):
        codec = TemporalAutoencoder()
    assert (codec.temporal_factor, codec.spatial_factor, codec.latent_channels) == (8, 8, 16)
    assert codec.grid(256, 768, 768) == Grid(32, 96, 96)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("make", [tiny, folded, full_3d])
def test_inflation_changes_nothing_on_a_single_frame(make, linear: bool) -> None:
    codec = make(linear=linear).double().eval()
    image = torch.rand(2, 3, 1, 16, 16, dtype=torch.float64) * 2 - 1
    codec.temporal = False
    before = codec.posterior(image)
    decoded_before = codec.reconstruct(before.mean, 1)
    codec.temporal = True
    after = codec.posterior(image)
    torch.testing.assert_close(after.mean, before.mean, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(after.log_variance, before.log_variance, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(codec.reconstruct(after.mean, 1), decoded_before, rtol=1e-11, atol=1e-12)


def test_inflation_of_the_papers_layout_keeps_every_bit_of_a_single_frame() -> None:
    """2.5D without our linear transform; with it, and in full 3D, the sums are in another order: equal to rounding."""
    codec = tiny(linear=False).eval()
    image = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    found = []
    with torch.no_grad():
        for codec.temporal in (False, True):
            posterior = codec.posterior(image)
            found.append((posterior.mean, posterior.log_variance, codec.reconstruct(posterior.mean, 1)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_full_3d_convolution_is_torchs_with_the_last_frames_repeated() -> None:
    torch.manual_seed(0)
    conv, reference = FullConv(4, 6, temporal_stride=2), nn.Conv3d(4, 6, 3, (2, 1, 1), (0, 1, 1))
    with torch.no_grad():
        assert conv.outer is not None
        conv.outer.normal_()
        first, last = conv.outer.unbind(2)
        reference.weight.copy_(torch.stack([first, conv.spatial.weight, last], dim=2))
        assert reference.bias is not None and conv.spatial.bias is not None
        reference.bias.copy_(conv.spatial.bias)
    x = torch.randn(2, 4, 5, 6, 8)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate")
    torch.testing.assert_close(conv(x, temporal=True), reference(padded))
    torch.testing.assert_close(conv(x, temporal=False), from_frames(conv.spatial(to_frames(x)), 5))


def test_full_3d_attention_lets_a_site_see_other_sites_of_other_frames() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 3, 4, 4)
    seen = []
    for full in (False, True):
        layer, changed = Attention(8, full), x.clone()
        changed[:, :, 0, 0, 0] += 1
        moved = layer(changed, temporal=True) - layer(x, temporal=True)
        seen.append(moved[0, :, 2, 3, 3].abs().max().item() > 1e-6)
    assert seen == [False, True]


def test_three_strided_layers_in_time_and_the_ablations_four_fold_with_eight_channels() -> None:
    for levels, channels in ((3, 16), (2, 8)):
        with torch.device("meta"):
            codec = TemporalAutoencoder(temporal_levels=levels, latent_channels=channels)
        strides = [m.stride for m in codec.encoder.modules() if isinstance(m, TemporalConv)]
        scales = [m.temporal_scale for m in codec.decoder.modules() if isinstance(m, Up)]
        assert strides.count(2) == scales.count(2) == levels
        frames = torch.empty(1, 3, 17, 32, 32, device="meta")
        latent = codec.posterior(frames).mean
        assert latent.shape == (1, channels, -(-17 // 2**levels), 4, 4)
        assert codec.reconstruct(latent, 17).shape == frames.shape


def test_every_spatial_layer_is_followed_by_a_temporal_one() -> None:
    with torch.device("meta"):
        codec = TemporalAutoencoder()
        whole = TemporalAutoencoder(full_3d=True)
    pairs = [m for m in codec.modules() if isinstance(m, Conv | Attention)]
    assert all([name for name, _ in m.named_children()][-1] == "temporal" for m in pairs)
    assert sum(isinstance(m, nn.Conv2d) for m in codec.modules()) == sum(isinstance(m, Conv) for m in pairs)
    assert not any(isinstance(m, Conv | TemporalConv) for m in whole.modules())


def test_without_temporal_layers_frames_are_coded_one_by_one() -> None:
    codec = tiny(temporal=False).eval()
    frames = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        together = codec.posterior(frames).mean
        alone = torch.cat([codec.posterior(frames[:, :, i : i + 1]).mean for i in range(5)], dim=2)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_temporal_convolution_pads_by_replication_on_both_sides() -> None:
    conv = TemporalConv(1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    out = conv(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1)).flatten().tolist()
    assert out == [1 + 10 + 200, 1 + 20 + 300, 2 + 30 + 300]
    single = conv(torch.tensor([5.0]).view(1, 1, 1, 1, 1)).flatten().tolist()
    assert single == [5 + 50 + 500]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("stride", "repeated"), [(1, False), (2, False), (1, True)])
def test_sums_of_frames_are_the_convolution_that_training_runs(
    num_frames: int, stride: int, repeated: bool
) -> None:
    torch.manual_seed(0)
    conv = TemporalConv(6, stride).double()
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 6, num_frames, 3, 5, dtype=torch.float64)
    given = repeat_frames(x, 2) if repeated else x
    padded = torch.nn.functional.pad(given, (0, 0, 0, 0, 1, 1), mode="replicate")
    expected = torch.nn.functional.conv3d(padded, conv.weight[..., None, None], conv.bias, (stride, 1, 1))
    run = conv.of_repeated if repeated else conv
    for memory in (torch.contiguous_format, torch.channels_last_3d):
        trained = run(x.contiguous(memory_format=memory))
        with torch.no_grad():
            inferred = run(x.contiguous(memory_format=memory))
        assert trained.requires_grad and not inferred.requires_grad
        torch.testing.assert_close(trained, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(inferred, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("onednn", [True, False])
def test_sums_of_frames_in_32_bits_are_those_in_64_and_count_as_much_work(onednn: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 24, 4, 6, 8), torch.randn(40, 24, 3), torch.randn(40)
    seen = [(0, 0, 1), (0, 1, 2), (2, 3, 3), (3, 3, 3)]
    expected = sums_of_frames(x.double(), weight.double(), bias.double(), seen)
    with torch.backends.mkldnn.flags(enabled=onednn), FlopCounterMode(display=False) as flops:
        found = sums_of_frames(x, weight, bias, seen)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert found.permute(0, 2, 3, 4, 1).is_contiguous()
    assert flops.get_total_flops() == 2 * 2 * 48 * 24 * 40 * (
        2 + 3 + 2 + 1
    )  # a product for each frame that is seen


@pytest.mark.parametrize("make", [tiny, folded, full_3d])
def test_inference_computes_what_training_computes_and_the_order_of_weights_in_memory_changes_nothing(
    make,
) -> None:
    codec = make().double()
    for parameter in codec.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    frames = torch.rand(2, 3, 13, 16, 24, dtype=torch.float64) * 2 - 1

    def run() -> list[torch.Tensor]:
        posterior = codec.posterior(frames)
        return [posterior.mean, posterior.log_variance, codec.reconstruct(posterior.mean, 13)]

    trained = run()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    with torch.no_grad():
        inferred = run()
    lay_out_for_inference(codec)
    assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())
    assert any(not p.is_contiguous() for p in codec.parameters())
    with torch.no_grad():
        laid_out = run()
    for one, two, three in zip(trained, inferred, laid_out, strict=True):
        torch.testing.assert_close(two, one.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(three, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [tiny, folded, full_3d])
def test_bfloat16_gives_about_the_same(make) -> None:
    codec, frames = make().eval(), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    with torch.no_grad():
        exact = codec.reconstruct(codec.posterior(frames).mean, 9)
        with torch.autocast("cpu", torch.bfloat16):
            rough = codec.reconstruct(codec.posterior(frames).mean, 9)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


@pytest.mark.parametrize("make", [tiny, folded, full_3d])
def test_every_parameter_gets_a_gradient_from_a_video(make) -> None:
    codec = make()
    posterior = codec.posterior(torch.rand(1, 3, 16, 16, 16))
    frames = codec.reconstruct(posterior.sample(torch.randn_like(posterior.mean)))
    (frames.square().mean() + posterior.kl().mean()).backward()
    # behind a zero-initialised projection the temporal attention's input has no gradient yet
    without = [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_sizes_that_do_not_divide_by_eight_are_refused() -> None:
    with pytest.raises(ValueError, match="20x16 pixels: both must be multiples of 8"):
        tiny().posterior(torch.rand(1, 3, 1, 20, 16))


def test_latent_statistics_normalise_and_undo() -> None:
    stats = LatentStats(3)
    raw = torch.randn(20, 3, 2, 4, 4) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1, 1) + 7
    stats.fit(raw)
    values = stats.normalize(raw)
    torch.testing.assert_close(values.mean((0, 2, 3, 4)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std((0, 2, 3, 4)), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(stats.denormalize(values), raw, rtol=1e-4, atol=1e-4)


def test_a_linear_code_is_learned_beside_the_layers_in_a_few_steps() -> None:
    codec = tiny()
    ramp = torch.linspace(-1, 1, 16).expand(3, 8, 16, 16)
    clips = torch.stack([ramp * a + b for a, b in ((1, 0), (0.5, 0.3), (-1, 0), (0.2, -0.5))])
    assert codec.linear is not None
    optimizer = torch.optim.Adam(codec.linear.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        error = (codec.reconstruct(codec.posterior(clips).mean, 8) - clips).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.02 * errors[0]
