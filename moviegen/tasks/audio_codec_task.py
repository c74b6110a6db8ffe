"""Train the sound codec: spectral, mel and waveform losses, and an adversary with feature matching (paper 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from moviegen.codec.audio import AudioAutoencoder
from moviegen.codec.audio_discriminators import AudioDiscriminator
from moviegen.codec.audio_losses import AudioLosses, AudioObjective, feature_distance, mel_distance, si_sdr
from moviegen.codec.losses import AdversarialLoss, adaptive_weight, discriminator_loss, generator_loss
from moviegen.fields import SOUND_FILE, Field
from moviegen.rng import SampleRng
from moviegen.tasks.base import OptimizerFactory, Schedule
from moviegen.tasks.codec_objective import Adversary
from moviegen.tasks.codec_task import CodecTask
from moviegen.types import AudioClip, Batch


class AudioAdversary(Adversary):
    """The judges of sound: as `Adversary`, plus feature matching; each judge counts alike.

    The adversarial term is the mean over judges and that of features the mean over all their layers; Descript's codec
    has the sums, by least squares (`experiments/audio/codec_small.yaml` gives the weights that stand for them).

    Args:
        discriminator: as of `AudioDiscriminator`.
        feature_weight: of feature matching against the adversarial term.
        others: as of `Adversary`.
    """

    discriminator: AudioDiscriminator

    def __init__(
        self,
        discriminator: AudioDiscriminator,
        optimizer: OptimizerFactory,
        weight: float = 1.0,
        feature_weight: float = 2.0,
        start_step: int = 0,
        adaptive: bool = False,
        warmup_steps: int = 0,
        loss: AdversarialLoss = "hinge",
    ):
        super().__init__(discriminator, optimizer, weight, start_step, adaptive, loss, warmup_steps)
        self.feature_weight = feature_weight

    def penalty(
        self, decoded: Tensor, frames: Tensor, total: Tensor, last_layer: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Adversarial term and feature distance of reconstructions of sounds `frames`, both [B, N], weighted: [B]."""
        scores, fake = self.discriminator.judge(decoded)
        with torch.no_grad():
            _, real = self.discriminator.judge(frames)
        term = torch.stack([generator_loss(one, self.loss) for one in scores]).mean(0)
        term = term + self.feature_weight * feature_distance(real, fake)
        ratio = adaptive_weight(total, term.mean(), last_layer) if self.adaptive else torch.ones_like(total)
        return self.weight_at(step) * ratio * term, ratio

    def own_loss(self, frames: Tensor, decoded: Tensor) -> Tensor:
        real, fake = (self.discriminator.judge(one.detach())[0] for one in (frames, decoded))
        pairs = zip(real, fake, strict=True)
        return torch.stack([discriminator_loss(r, f, self.loss) for r, f in pairs]).mean(0)


class AudioCodecTask(CodecTask):
    """Train a sound autoencoder on the sound tracks of clips.

    Args:
        codec: the autoencoder that is trained.
        objective: the terms of its loss that need no discriminator.
        adversary: the judges; with one, optimization is manual and `gradient_clip` replaces the Trainer's.
        gradient_clip: largest norm of the gradients of either network; only with an adversary.
        crop: train on stretches of so many latent frames; null trains on whole sounds.
        crop_choices: so many stretches are drawn of each sound and the one with the largest spread of values is taken,
            so that less time goes into silence.
        sound_file: what of a sample holds the sound: the track of its `mp4`, or a `flac` (shards of sound alone).
        fit_stats: estimate the latents' per-channel mean and scale while training.
        principal_batches: before the first step, the codec's linear transform starts from the principal components of
            so many batches; 0 for a random one. Ours, for short runs.
    """

    codec: AudioAutoencoder  # type: ignore[assignment]

    def __init__(  # noqa: PLR0913 (settings, given by name from a config)
        self,
        codec: AudioAutoencoder,
        objective: AudioObjective = AudioObjective(),  # noqa: B008 (frozen)
        adversary: AudioAdversary | None = None,
        gradient_clip: float | None = 1.0,
        crop: int | None = None,
        crop_choices: int = 1,
        sound_file: str = "mp4",
        fit_stats: bool = True,
        principal_batches: int = 0,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        if sound_file not in SOUND_FILE:
            raise ValueError(f"sound_file must be one of {', '.join(SOUND_FILE)}, got {sound_file!r}")
        super().__init__(
            codec,  # type: ignore[arg-type]
            adversary=adversary,
            gradient_clip=gradient_clip,
            fit_stats=fit_stats,
            optimizer=optimizer,
            schedule=schedule,
            seed=seed,
        )
        self.objective = objective  # type: ignore[assignment]
        self.crop, self.crop_choices, self.sound_file = crop, crop_choices, sound_file
        self.principal_batches = principal_batches

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": SOUND_FILE[self.sound_file]}

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.principal_batches and self.codec.linear is not None and self.global_step == 0:
            loader = iter(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
            batches = (next(loader) for _ in range(self.principal_batches))
            drawn = [self._stretch(one.media.samples, SampleRng(self.seed, 0, one.keys)) for one in batches]
            self.codec.linear.fit(torch.cat(drawn).flatten(0, 1).to(self.device))

    def reconstructed(  # type: ignore[override]
        self, batch: Batch, step: int
    ) -> tuple[AudioLosses, Tensor, Tensor, Tensor]:
        """Losses, sounds and reconstructions, both [B * channels, N], latents that count for `codec.stats`."""
        rng = SampleRng(self.seed, step, batch.keys)
        clip = batch.media
        assert isinstance(clip, AudioClip)
        sounds = self._stretch(clip.samples, rng).flatten(0, 1)
        posterior = self.codec.posterior(sounds)
        per_sample = clip.samples.shape[1]
        noise = rng.randn(per_sample, *posterior.mean.shape[1:]).flatten(0, 1).to(posterior.mean)
        latent = posterior.sample(noise)
        decoded = self.codec.reconstruct(latent, sounds.shape[1])
        with torch.autocast(sounds.device.type, enabled=False):  # spectra in full precision
            losses = self.objective(decoded, sounds, posterior)
        # draws count, not means: a channel that says nothing then has the scale of its noise, and stays near 0
        return losses, sounds, decoded, latent.detach()

    def _stretch(self, samples: Tensor, rng: SampleRng) -> Tensor:
        """What a training step sees of sounds [B, channels, N]."""
        length = samples.shape[2] if self.crop is None else self.crop * self.codec.hop
        room = samples.shape[2] - length
        if not self.training or room <= 0:
            return samples
        starts = (rng.rand(self.crop_choices) * (room + 1)).long().tolist()
        drawn = [
            [sound[:, s : s + length] for s in places] for sound, places in zip(samples, starts, strict=True)
        ]
        return torch.stack([max(choices, key=lambda one: float(one.std())) for choices in drawn])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        clip = batch.media
        assert isinstance(clip, AudioClip)
        decoded = self.codec.decode(self.codec.encode(clip), clip.samples.shape[2]).samples.flatten(0, 1)
        sounds = clip.samples.flatten(0, 1)
        error = (decoded - sounds).square().mean()
        mel = mel_distance(decoded, sounds, self.codec.sample_rate_hz).mean()
        loud = sounds.std(1) > 1e-3  # of silence there is no ratio
        self.log("val/loss", mel, batch_size=len(batch), sync_dist=True)
        self.log("val/mse", error, batch_size=len(batch), sync_dist=True)
        if bool(loud.any()):
            ratio = si_sdr(decoded[loud], sounds[loud]).mean()
            self.log("val/si_sdr", ratio, prog_bar=True, batch_size=int(loud.sum()), sync_dist=True)
