"""The sound codec: sizes, lengths, windows, losses, judges, and Meta's weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moviegen.codec.audio import AudioAutoencoder, decode_long, encode_long
from moviegen.codec.audio_discriminators import AudioDiscriminator
from moviegen.codec.audio_losses import (
    MEL_SCALES,
    AudioLossWeights,
    AudioObjective,
    magnitudes,
    mel_distance,
    mel_filters,
    si_sdr,
    stft_distance,
)
from moviegen.codec.dacvae import UNITS, load_dacvae, names
from moviegen.config import UserError, build, compose
from moviegen.fields import SOUND_FILE
from moviegen.media import encode_flac, encode_video
from moviegen.modelfile import load_audio_codec, load_task, save_model
from moviegen.tasks.audio_codec_task import AudioAdversary, AudioCodecTask
from moviegen.types import AudioClip, Batch

RATE = 48_000
TINY: dict[str, Any] = {
    "encoder_dim": 4,
    "encoder_rates": (2, 3),
    "latent_dim": 8,
    "decoder_dim": 16,
    "decoder_rates": (3, 2),
    "latent_channels": 5,
}


def tiny(**changes: Any) -> AudioAutoencoder:
    torch.manual_seed(0)
    codec = AudioAutoencoder(**(TINY | changes)).eval()
    for parameter in codec.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return codec


def sounds(batch: int, channels: int, length: int) -> AudioClip:
    samples = 0.3 * torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(1))
    return AudioClip(samples, RATE)


def test_the_paper_size_has_the_published_rates_and_parameters() -> None:
    with torch.device("meta"):
        codec = build(compose("train", ["task=codec_audio", "codec@task.codec=audio_paper"]).task.codec)
    assert (codec.hop, codec.latent_rate_hz, codec.latent_channels) == (1920, 25.0, 128)
    decoder = sum(p.numel() for p in codec.decoder.parameters())
    # 65.33 M parameters are reported of Meta's decoder with a bottleneck of 32; of 128 it is 96 x 1024 more
    assert decoder + 32 * 1024 + 1024 == 65_331_553


@pytest.mark.parametrize("settings", [{}, {"fold": 4}, {"fold": 4, "linear": True}])
@pytest.mark.parametrize("length", [48 * 3, 48 * 3 + 1, 5, 1])
def test_every_length_comes_back_with_all_its_samples(settings: dict[str, Any], length: int) -> None:
    codec = tiny(**settings)
    clip = sounds(2, 2, length)
    latent = codec.encode(clip)
    assert latent.values.shape == (2, 2 * 5, codec.num_latents(length), 1, 1)
    assert codec.decode(latent, length).samples.shape == (2, 2, length)


def test_stereo_is_two_mono_sounds() -> None:
    codec, clip = tiny(), sounds(1, 2, 60)
    both = codec.encode(clip).values
    for channel in (0, 1):
        alone = codec.encode(AudioClip(clip.samples[:, channel : channel + 1], RATE)).values
        torch.testing.assert_close(both[:, 5 * channel : 5 * channel + 5], alone)


def test_windows_give_what_the_whole_gives() -> None:
    codec, clip = tiny(fold=2, linear=True), sounds(1, 1, 12 * 40 + 7)
    whole = codec.encode(clip)
    torch.testing.assert_close(encode_long(codec, clip, window=8, margin=24).values, whole.values)
    decoded = codec.decode(whole, clip.samples.shape[2]).samples
    parts = decode_long(codec, whole, clip.samples.shape[2], window=8, margin=24).samples
    torch.testing.assert_close(parts, decoded)


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="44100 samples a second, this codec takes 48000"):
        tiny().encode(AudioClip(torch.zeros(1, 1, 100), 44_100))
    with pytest.raises(ValueError, match="shorten 6 times"):
        tiny(decoder_rates=(2, 2))
    with pytest.raises(ValueError, match="cannot be halved"):
        tiny(decoder_dim=18)


def test_distances_are_zero_of_equals_and_know_closed_forms() -> None:
    tone = torch.sin(2 * torch.pi * 1500 * torch.arange(RATE // 4) / RATE)[None]
    assert float(stft_distance(tone, tone)) == 0
    assert float(mel_distance(tone, tone, RATE)) == 0
    # half the amplitude is log10(2) less wherever a magnitude is above the floor
    assert float(mel_distance(tone / 2, tone, RATE, [(2048, 1)])) == pytest.approx(np.log10(2), abs=1e-3)
    assert float(magnitudes(tone, 2048).max()) == pytest.approx(1.0, abs=0.02)
    assert torch.allclose(
        mel_filters(20, 512, RATE, torch.device("cpu")).sum(1).clamp(max=1), torch.ones(20), atol=0.3
    )


def test_si_sdr_is_the_ratio_whatever_the_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    sound, noise = torch.randn(2, 1, 48_000, generator=generator)
    noise = noise - (noise * sound).sum() / sound.square().sum() * sound
    noise = 0.1 * noise * sound.norm() / noise.norm()
    assert float(si_sdr(3 * (sound + noise), sound)) == pytest.approx(20, abs=0.05)
    assert torch.isnan(si_sdr(sound, torch.zeros_like(sound))).all()


def test_the_objective_has_the_terms_that_are_weighed() -> None:
    codec, clip = tiny(), sounds(2, 1, 600).samples[:, 0]
    objective = AudioObjective(
        AudioLossWeights(mel=1, stft=1, waveform=1, snr=1, kl=1), mel_scales=((64, 4),), stft_windows=(64,)
    )
    posterior = codec.posterior(clip)
    losses = objective(clip, clip, posterior)
    assert set(losses.terms) == {"kl", "mel", "stft", "waveform", "snr"}
    assert float(losses.terms["waveform"].sum()) == 0
    assert set(AudioObjective(AudioLossWeights(mel=0, stft=0, kl=1))(clip, clip, posterior).terms) == {"kl"}


def task(**changes: Any) -> AudioCodecTask:
    objective = AudioObjective(AudioLossWeights(), mel_scales=((64, 4),), stft_windows=(64,))
    optimizer = lambda parameters: torch.optim.Adam(parameters, 1e-3)  # noqa: E731
    return AudioCodecTask(tiny(), objective, optimizer=optimizer, **changes)


def batch(length: int = 600) -> Batch:
    clip = sounds(3, 1, length)
    silent = clip.samples.clone()
    silent[:, :, : length // 2] = 0
    return Batch(torch.arange(3), AudioClip(silent, RATE))


def test_training_stretches_are_the_loudest_of_those_drawn() -> None:
    chosen = task(crop=20, crop_choices=8).train()
    losses, seen, decoded, _ = chosen.reconstructed(batch(), step=0)
    assert seen.shape == decoded.shape == (3, 20 * 6)
    assert float(seen.std(1).min()) > 0.2
    assert losses.total.shape == (3,)
    again = task(crop=20, crop_choices=8).train().reconstructed(batch(), step=0)[1]
    torch.testing.assert_close(seen, again)


def test_judges_match_features_and_their_penalty_reaches_the_codec() -> None:
    discriminator = AudioDiscriminator(periods=(2, 3), windows=(64,), channels=4)
    adversary = AudioAdversary(discriminator, lambda parameters: torch.optim.Adam(parameters, 1e-3))
    real, fake = torch.randn(2, 2, 400, generator=torch.Generator().manual_seed(0))
    fake.requires_grad_()
    same = adversary.penalty(real, real, torch.zeros(()), fake, 0)[0]
    other = adversary.penalty(fake, real, torch.zeros(()), fake, 0)[0]
    assert other.shape == (2,)
    other.sum().backward()
    assert fake.grad is not None and float(fake.grad.abs().sum()) > 0
    scores, features = discriminator.judge(real)
    assert len(scores) == 3 and len(features) == 2 * 5 + 5 * 5
    assert not torch.allclose(same, other)
    assert adversary.own_loss(real, fake).shape == (2,)


def test_codec_smalls_weights_make_descripts_sums_of_our_means() -> None:
    recipe = compose("train", ["experiments=audio/codec_small"]).task
    weights, chosen = recipe.objective.weights, recipe.adversary
    assert (weights.mel, weights.stft, weights.waveform) == (15 * len(MEL_SCALES), 0, 0)
    judges = AudioDiscriminator(chosen.discriminator.periods, chosen.discriminator.windows, channels=1)
    settings = {name: chosen[name] for name in ("loss", "weight", "feature_weight", "adaptive")}
    adversary = AudioAdversary(judges, lambda parameters: torch.optim.Adam(parameters, 1e-3), **settings)
    real, fake = 0.1 * torch.randn(2, 1, 2400, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (scores, seen), (right, wanted) = judges.judge(fake), judges.judge(real)
    features = sum(float((a - b).abs().mean()) for a, b in zip(seen, wanted, strict=True))
    adversarial = sum(float((1 - one).square().mean()) for one in scores)
    found = adversary.penalty(fake, real, torch.zeros(()), fake, 0)[0]
    assert float(found.detach()) == pytest.approx(adversarial + 2 * features, rel=1e-4)
    own = sum(float((1 - r).square().mean() + f.square().mean()) for r, f in zip(right, scores, strict=True))
    assert float(adversary.own_loss(real, fake).detach()) == pytest.approx(own / (2 * len(scores)), rel=1e-4)
    assert AudioAdversary(judges, lambda parameters: torch.optim.Adam(parameters, 1e-3)).loss == "hinge"


def test_the_task_learns_to_copy_a_tone() -> None:
    torch.manual_seed(0)
    trained = task(fit_stats=True).train()
    tone = 0.3 * torch.sin(torch.arange(600) / 5).expand(3, 1, -1)
    media = Batch(torch.arange(3), AudioClip(tone.contiguous(), RATE))
    optimizer = torch.optim.Adam(trained.parameters(), 1e-2)
    history = []
    for step in range(60):
        loss = trained.losses(media, step).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.6 * history[0]


def test_sound_tracks_and_flac_are_read(tmp_path: Path) -> None:
    tone = 0.2 * np.sin(np.arange(RATE) / 20, dtype=np.float32)[None]
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    for name, data in (("mp4", encode_video(frames, 8.0, tone, RATE)), ("flac", encode_flac(tone, RATE))):
        field = SOUND_FILE[name]
        clip = field.collate([field.decode(data)] * 2)
        assert clip.samples.shape == (2, 1, RATE) and clip.sample_rate_hz == RATE
    with pytest.raises(ValueError, match="8000 and 48000 samples a second"):
        SOUND_FILE["flac"].collate([(tone, RATE), (tone, 8000)])
    with pytest.raises(ValueError, match="sound_file must be one of mp4, flac, got 'wav'"):
        task(sound_file="wav")


def dacvae_state(codec: AudioAutoencoder, modern: bool) -> dict[str, Tensor]:
    """What Meta's file of a codec holds, weights split into length and direction."""
    own, state = codec.state_dict(), {}
    parts = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    for name, source in names(codec):
        for part in ("alpha", "bias", "weight"):
            value = own.get(f"{name}.{part}")
            if value is None:
                continue
            if part != "weight":
                state[f"{source}.{part}"] = value.clone()
                continue
            length = value.norm(dim=(1, 2), keepdim=True)
            for suffix, one in zip(
                parts if modern else ("weight_g", "weight_v"), (length, 3 * value), strict=True
            ):
                state[f"{source}.{suffix}"] = one.clone()
    state["decoder.wm_model.msg_processor.weight"] = torch.zeros(3)
    state["decoder.model.1.block.2.alpha"] = torch.zeros(1, 2, 1)  # of the watermark
    return state


@pytest.mark.parametrize("modern", [True, False])
def test_weights_in_metas_layout_give_the_same_codec(tmp_path: Path, modern: bool) -> None:
    codec, clip = tiny(), sounds(1, 1, 100)
    assert UNITS == (4, 5, 8)
    state = dacvae_state(codec, modern)
    if modern:
        torch.save({"state_dict": state}, tmp_path / "weights.pth")
        file = tmp_path / "weights.pth"
    else:
        save_file(state, tmp_path / "weights.safetensors")
        file = tmp_path / "weights.safetensors"
    torch.manual_seed(7)
    loaded = load_dacvae(file, AudioAutoencoder(**TINY))
    torch.testing.assert_close(loaded.encode(clip).values, codec.encode(clip).values)
    torch.testing.assert_close(
        loaded.decode(loaded.encode(clip)).samples, codec.decode(codec.encode(clip)).samples
    )


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = dacvae_state(tiny(), True)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"encoder\.block\.0\.weight is"):
        load_dacvae(tmp_path / "other.pth", tiny(encoder_dim=8, decoder_dim=32))
    torch.save(state | {"encoder.block.99.bias": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match="no place for"):
        load_dacvae(tmp_path / "more.pth", AudioAutoencoder(**TINY))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth"):
        load_audio_codec(str(tmp_path / "text.pth"))


def test_layers_are_those_of_transformers_dac() -> None:
    """Encoder and decoder with the weights of another implementation answer as it does."""
    transformers = pytest.importorskip("transformers")
    settings = transformers.DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=[2, 4],
        decoder_hidden_size=16,
        upsampling_ratios=[4, 2],
        hidden_size=8,
    )
    # even rates: transformers leaves out Descript's output padding of odd ones
    theirs, codec = transformers.DacModel(settings).eval(), tiny(encoder_rates=(2, 4), decoder_rates=(4, 2))
    for ours, other in ((codec.encoder, theirs.encoder), (codec.decoder, theirs.decoder)):
        values = iter(other.state_dict().items())
        renamed = {}
        source = dict(values)
        for name in ours.state_dict():
            renamed[name] = source[_dac_name(name)]
        ours.load_state_dict(renamed)
    x = torch.randn(1, 1, 80, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(codec.encoder(x), theirs.encoder(x))
    h = torch.randn(1, 8, 10, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(codec.decoder(h).tanh(), theirs.decoder(h))


def _dac_name(name: str) -> str:
    """Our name of a layer as transformers has it."""
    name = name.replace("conv_in", "conv1").replace("conv_out", "conv2").replace("blocks.", "block.")
    for unit in range(3):
        for place, layer in enumerate(("snake1", "conv1", "snake2", "conv2")):
            name = name.replace(f"units.{unit}.layers.{place}.", f"res_unit{unit + 1}.{layer}.")
    name = name.replace("down.", "conv1.").replace("up.", "conv_t1.")
    return name.replace("snake.", "snake1.")


def test_a_trained_codec_is_found_again(tmp_path: Path) -> None:
    node: dict[str, Any] = {"_target_": "moviegen.tasks.audio_codec_task.AudioCodecTask"}
    node["codec"] = {"_target_": "moviegen.codec.audio.AudioAutoencoder", **TINY}
    save_model(tmp_path / "model", task(), node, torch.float32, {})
    assert isinstance(load_task(str(tmp_path / "model")), AudioCodecTask)
    assert load_audio_codec(str(tmp_path / "model")).hop == 6
