"""`moviegen sound`: sound for a video of any length, from a text, or for both; the picture's packets are copied.

Memory does not grow with the picture: frames are looked at as they come and forgotten, sound is decoded in windows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from moviegen import media, runfolder
from moviegen.codec.audio import AudioAutoencoder, encode_long
from moviegen.conditioning.sound import KnownSound
from moviegen.conditioning.sound_caption import SoundCaption
from moviegen.conditioning.video import Seen, VideoFeatures
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.lineage import check_training
from moviegen.modelfile import Dtype, load_task, weights_file
from moviegen.pixels import from_uint8
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.sound_finish import Finish, Kept, finish, measure, spans_of
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.limits import check_lengths
from moviegen.tasks.long_sound import SoundSampler, context_name, sample_sound
from moviegen.types import AudioClip, Latent

WINDOW = 250  # latent frames that are decoded at once, 10 s
SILENT_POWER = 1e-7  # mean square below which kept sound is called silent: -70 dB
CLIPPED_SHARE = 1e-3  # of samples at full scale, above which kept sound is called clipped


@dataclass(frozen=True)
class SoundConfig:
    """The keys of conf/sound.yaml, which says what they are."""

    model: str
    sampler: SoundSampler
    out: Path
    video: str | None = None
    prompt: str | None = None
    music: str | None = None
    seconds: float | None = None
    wav: Path | None = None
    keep: tuple[tuple[float, float], ...] = ()
    loudness_lufs: float = -23.0
    max_gain_db: float = 12.0
    crossfade_seconds: float = 0.01
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    precision: Dtype = "float32"
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, num_threads=1, max_gain_db=0, crossfade_seconds=0)
        if self.video is None and self.seconds is None:
            raise UserError("give video=FILE, or seconds=... for sound of a text alone")
        if self.video is not None and self.seconds is not None:
            raise UserError(f"seconds={self.seconds}: the sound is as long as the video; leave it out")
        if self.video is None and not self.prompt:
            raise UserError("nothing says what to hear: give prompt=..., video=FILE or both")
        if self.seconds is not None and not 0 < self.seconds <= 3600:
            raise UserError(f"seconds={self.seconds}: must be above 0 and at most 3600")
        if self.video is None and self.keep:
            raise UserError("keep names stretches of the video's own sound: give video=FILE")
        kinds = (".flac", ".wav") if self.video is None else (".mp4", ".m4v", ".mov", ".mkv")
        if self.out.suffix.lower() not in kinds:
            raise UserError(f"out={self.out}: must end in {', '.join(kinds)}")
        if self.wav is not None and self.wav.suffix.lower() not in (".flac", ".wav"):
            raise UserError(f"wav={self.wav}: must end in .wav or .flac")
        if self.video is not None and Path(self.video).resolve() == self.out.resolve():
            raise UserError(f"out={self.out} is the video itself; give another name")

    def finish(self) -> Finish:
        """What the sound is brought to."""
        return Finish(self.loudness_lufs, self.max_gain_db, self.crossfade_seconds)

    def changes_kept(self) -> list[str]:
        """What is done to kept sound after it was put back, with all of the sound."""
        done = ["is marked as generated (not with marking.sound=null)"] if self.marking.sound else []
        done += [] if self.out.suffix.lower() == ".mkv" else ["becomes AAC (FLAC in .mkv)"]
        return [f"all of the sound, what is kept too, {' and '.join(done)}"] if self.keep and done else []


def sound(cfg: DictConfig) -> None:
    """Make a sound, bring it to a loudness, and put it to the pictures or into a file of its own, marked as generated.

    Raises UserError or MediaError, before anything is written, for what cannot be read or made.
    """
    config: SoundConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    exporter = Exporter(config.marking, config.filters)
    check_training(config.model, ConsentStore(config.store))
    task = sound_model(config.model)
    codec: AudioAutoencoder = task.codec
    config.filters.check_prompts({"prompt": f"{config.prompt or ''} {config.music or ''}"})
    caption = SoundCaption.prompt(config.prompt or "", config.music or "").text
    check_lengths(task, {"caption": caption}, stated_rate=0.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        inputs, info = _inputs(task, config, caption)
        seconds = config.seconds if info is None else info.picture_seconds
        assert seconds is not None
        num_samples = max(1, round(seconds * codec.sample_rate_hz))
        frames = codec.num_latents(num_samples)
        kept = None
        if info is not None and config.keep:
            name, kept = known_context(task), _kept(codec.sample_rate_hz, config, info, num_samples)
            inputs[name] = known_sound(codec, kept.audio[None], config.keep, frames)
        key = torch.tensor([key_number(f"{config.video}\n{caption}")])
        latent = sample_sound(task, inputs, key, frames, config.sampler, absent=_absent(task, config))
        with tempfile.TemporaryFile() as scratch:
            samples = _decoded(codec, latent, num_samples, scratch)
            said = finish(samples, codec.sample_rate_hz, config.finish(), kept)
            for remark in (*said, *config.changes_kept()):
                print(f"{config.out}: {remark}")
            level = measure(samples, codec.sample_rate_hz).lufs()
            _export(config, exporter, samples, codec.sample_rate_hz, info, caption)
    heard = "silent" if level is None else f"{level:.1f} LUFS"
    print(
        f"{config.out}: {num_samples / codec.sample_rate_hz:.2f} s of {codec.sample_rate_hz} Hz mono, {heard}"
    )


def sound_model(path: str) -> FlowTask:
    task = load_task(path)
    if not isinstance(task, FlowTask) or not isinstance(task.codec, AudioAutoencoder):
        raise UserError(f"{path} makes no sound; give a model that was trained with task=audio")
    return task


def named(task: FlowTask, kind: type) -> str | None:
    return next((name for name, one in task.conditioners.named().items() if isinstance(one, kind)), None)


def known_context(task: FlowTask) -> str:
    """The name of the condition that takes known sound; UserError where the model has none."""
    name = context_name(task)
    if name is None:
        raise UserError("keep: this model takes no known sound; give one with the condition audio_context")
    return name


def _inputs(
    task: FlowTask, config: SoundConfig, caption: str
) -> tuple[dict[str, Any], media.MediaInfo | None]:
    """What the model is told: text, and features of all pictures of the video at their own rate."""
    inputs: dict[str, Any] = {}
    name = named(task, VideoFeatures)
    words = task.conditioners.named()["text"]
    if config.video is None:
        inputs["text"] = words.features([caption])
        if name is not None:  # a single picture without content, which is then dropped
            extractor = task.conditioners.named()[name].extractor
            inputs[name] = Seen(torch.zeros(1, 1, extractor.features, device=task.device), torch.ones(1))
        return inputs, None
    if name is None:
        raise UserError(f"{config.model} does not look at videos; leave video out")
    with media.stream_clip(config.video) as (info, chunks):
        if not info.width:
            raise media.MediaError(config.video, "holds no picture to put sound to", "not media")
        check_keep(config, info)
        media.check_pictures(config.video, config.out)
        for remark in info.remarks:
            print(f"{config.video}: {remark}")
        features = torch.cat(list(_looked_at(task.conditioners.named()[name].extractor, chunks)), dim=1)
    inputs["text"] = words.features([caption])
    inputs[name] = Seen(features, torch.tensor([float(info.frame_rate)]))
    return inputs, info


def check_keep(config: SoundConfig, info: media.MediaInfo) -> None:
    """Raise UserError for stretches to be kept of a video without sound, or outside of it."""
    seconds = info.picture_seconds
    if config.keep and not info.has_audio:
        raise UserError(f"keep: {config.video} holds no sound to keep; leave keep out")
    for start, stop in config.keep:
        if not 0 <= start < stop <= seconds + 1e-6:
            raise UserError(f"keep: {start} to {stop} s is no stretch of a video of {seconds:.2f} s")


def _looked_at(extractor: Any, chunks: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
    """Features [1, t, F] of pictures that come in chunks; neighbors in other chunks are looked at again."""
    margin, first, waiting = extractor.margin, 0, None
    for chunk in chunks:
        frames = from_uint8(chunk)[None]
        if waiting is None:
            waiting = frames
            continue
        both = torch.cat([waiting, frames], dim=2)
        stop = waiting.shape[2]
        yield extractor(both[:, :, : stop + margin])[:, first:stop]
        first = min(margin, stop)
        waiting = both[:, :, stop - first :]
    if waiting is not None:
        yield extractor(waiting)[:, first:]


def _absent(task: FlowTask, config: SoundConfig) -> frozenset[str]:
    """The conditions that nobody gave: the model was trained without each of them too."""
    eyes = named(task, VideoFeatures)
    absent = {"text"} if not config.prompt and not config.music else set()
    return frozenset(absent | ({eyes} if eyes and config.video is None else set()))


def _kept(rate_hz: int, config: SoundConfig, info: media.MediaInfo, num_samples: int) -> Kept:
    """The video's own sound, mono at a rate, and the stretches of it to be kept."""
    assert config.video is not None
    begin, seconds = info.start_seconds, num_samples / rate_hz
    own, own_hz = media.read_sound(config.video, begin, begin + seconds, _patient(info))
    audio = media.resample_audio(own, own_hz, rate_hz, 1, info.channel_layout)[:, :num_samples]
    for remark in remarks(audio, len(own), own_hz, rate_hz):
        print(f"{config.video}: {remark}")
    audio = np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))
    return Kept(audio, spans_of(config.keep, rate_hz, num_samples))


def known_sound(
    codec: AudioAutoencoder, audio: np.ndarray, stretches: Sequence[tuple[float, float]], frames: int
) -> KnownSound:
    """What is kept of sounds float32 [B, 1, N], as the model is told it: whole latent frames within stretches (s)."""
    mask = torch.zeros(len(audio), frames, dtype=torch.bool)
    for start, stop in stretches:
        rate = codec.latent_rate_hz
        mask[:, int(np.ceil(start * rate - 1e-6)) : int(stop * rate + 1e-6)] = True
    clip = AudioClip(torch.from_numpy(audio), codec.sample_rate_hz)
    return KnownSound.where(encode_long(codec, clip, WINDOW).values, mask)


def remarks(audio: np.ndarray, num_channels: int, rate_hz: int, wanted_hz: int) -> list[str]:
    """What somebody should know of sound that is kept, mixed to audio [1, N]: what was changed, what is wrong with it.

    Args:
        num_channels: and `rate_hz`: what the file has.
    """
    found = []
    if num_channels > 1:
        found.append(f"its {num_channels} channels of sound are mixed to one")
    if rate_hz != wanted_hz:
        found.append(f"its sound of {rate_hz} Hz is resampled to {wanted_hz} Hz")
    if not audio.size or float(np.square(audio).mean()) < SILENT_POWER:
        found.append("its sound is silent" if num_channels == 1 else "its sound, so mixed, is silent")
    elif float((np.abs(audio) >= 0.999).mean()) > CLIPPED_SHARE:
        found.append("its sound is clipped, and what is kept stays so")
    return found


def _decoded(codec: AudioAutoencoder, latent: Latent, num_samples: int, scratch: Any) -> np.ndarray:
    """The sound of a latent on disk, float32 [1, N]."""
    scratch.truncate(4 * num_samples)
    samples = np.memmap(scratch, np.float32, "r+", shape=(1, num_samples))
    size, margin = WINDOW * codec.hop, 16
    for start in range(0, num_samples, size):
        first, last = start // codec.hop, min(start // codec.hop + WINDOW, latent.values.shape[2])
        low, high = max(0, first - margin), last + margin
        part = Latent(latent.values[:, :, low:high], latent.frame_rate)
        piece = codec.decode(part).samples[0].float().cpu().numpy()
        piece = piece[:, (first - low) * codec.hop :][:, : min(size, num_samples - start)]
        samples[:, start : start + piece.shape[1]] = piece
    return samples


def _export(
    config: SoundConfig,
    exporter: Exporter,
    audio: np.ndarray,
    rate_hz: int,
    info: media.MediaInfo | None,
    caption: str,
) -> None:
    """The sound files, and the video with its packets of picture as they were."""
    kept = {"kept_seconds": [list(stretch) for stretch in config.keep]}
    card = {
        "model": config.model,
        "caption": caption,
        "seed": config.sampler.seed,
        "video": config.video,
        **kept,
    }
    settings = {"sampler": asdict(config.sampler), **asdict(config.finish()), **kept}
    digest = runfolder.file_sha256(weights_file(config.model))
    given = (Path(config.video),) if config.video else ()
    origin = Origin(config.model, digest, caption, config.sampler.seed, settings, given)

    def alone(path: Path, _: object, marked: np.ndarray | None) -> None:
        assert marked is not None
        _write_sound(path, marked, rate_hz)

    def with_pictures(path: Path, _: object, marked: np.ndarray | None) -> None:
        assert marked is not None and config.video is not None and info is not None
        with tempfile.TemporaryDirectory() as folder:
            flac = Path(folder) / "sound.flac"
            _write_sound(flac, marked, rate_hz)
            # the sound begins with the first picture, wherever that stands on the file's clock
            end = info.start_seconds + marked.shape[1] / rate_hz
            encode = (
                path.suffix.lower() != ".mkv"
            )  # which has no edit list to end AAC at a sample, but takes FLAC
            media.copy_audio(flac, config.video, path, -info.start_seconds, encode, _patient(info), end)

    write = alone if info is None else with_pictures
    exporter.export(config.out, Made(audio=audio, sample_rate_hz=rate_hz, write=write), origin, card)
    if config.wav is not None:  # its stem may be that of the video
        made = Made(audio=audio, sample_rate_hz=rate_hz, write=alone)
        exporter.export(config.wav, made, origin, card, config.wav.with_name(config.wav.name + ".json"))


def _write_sound(path: Path, audio: np.ndarray, rate_hz: int) -> None:
    with media.SoundWriter(path, rate_hz) as writer:
        for start in range(0, audio.shape[1], rate_hz):
            writer.write(audio[:, start : start + rate_hz])


def _patient(info: media.MediaInfo) -> media.Limits:
    """A long file takes longer."""
    return media.Limits(seconds=media.Limits().seconds + info.duration_seconds)
