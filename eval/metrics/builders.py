"""What builds the metrics of the registry: heavy modules are imported only in these functions.

Each is named by an entry of `catalog` and called with the paths of its weights.
"""

from __future__ import annotations

from typing import Any


class UnavailableError(Exception):
    """A program or package that a metric needs is not on this machine."""


def build_psnr() -> Any:
    from moviegen_eval.metrics import Psnr
    from moviegen_eval.metrics.paired import Paired

    return Paired(Psnr())


def build_ssim() -> Any:
    from moviegen_eval.metrics import Ssim
    from moviegen_eval.metrics.paired import Paired

    return Paired(Ssim())


def build_st_lpips() -> Any:
    from moviegen_eval.metrics import StLpips
    from moviegen_eval.metrics.paired import Paired

    return Paired(StLpips())


def build_vmaf() -> Any:
    from moviegen_eval.metrics import Vmaf
    from moviegen_eval.metrics.paired import Paired

    from moviegen.media import vmaf_missing

    if reason := vmaf_missing():
        raise UnavailableError(reason)
    return Paired(Vmaf())


def build_lpips(alexnet: str) -> Any:
    from moviegen_eval.metrics.paired import Paired
    from moviegen_eval.metrics.perceptual import Lpips

    return Paired(Lpips(alexnet))


def build_dists(vgg16: str) -> Any:
    from moviegen_eval.metrics.paired import Paired
    from moviegen_eval.metrics.perceptual import Dists

    return Paired(Dists(vgg16))


def build_motion() -> Any:
    from moviegen_eval.metrics.motion import Motion

    return Motion()


def build_flicker() -> Any:
    from moviegen_eval.metrics.motion import Flicker

    return Flicker()


def build_clip(weights: str) -> Any:
    from moviegen_eval.metrics.clip import ClipScores

    return ClipScores(weights)


def build_edit(weights: str) -> Any:
    from moviegen_eval.metrics.clip import EditScores

    return EditScores(weights)


def build_viclip(weights: str) -> Any:
    from moviegen_eval.metrics.edit import ViclipScores

    return ViclipScores(weights)


def build_pickscore(weights: str) -> Any:
    from moviegen_eval.metrics.edit import PickScore

    return PickScore(weights)


def build_identity(weights: str) -> Any:
    from moviegen_eval.metrics.identity import Identity

    return Identity(weights)


def build_onsets() -> Any:
    from moviegen_eval.metrics.audio import OnsetSync

    return OnsetSync()


def build_oracle() -> Any:
    from moviegen_eval.metrics.toyworld import OracleScores

    return OracleScores()


def build_oracle_floor() -> Any:
    from moviegen_eval.metrics.toyworld import OracleFloor

    return OracleFloor()


def build_i3d(weights: str) -> Any:
    from moviegen_eval.metrics.extractors import I3dFvd
    from moviegen_eval.metrics.frames import FrameFeatures

    return FrameFeatures(I3dFvd(weights))


def build_inception(weights: str) -> Any:
    from moviegen_eval.metrics.extractors import InceptionFid
    from moviegen_eval.metrics.frames import FrameFeatures

    return FrameFeatures(InceptionFid(weights), num_frames=16)


def build_log_mel() -> Any:
    from moviegen_eval.metrics.audio import LogMel

    return LogMel()


def build_silence() -> Any:
    from moviegen_eval.metrics.sound import SoundScores

    return SoundScores()


def build_clap(weights: str) -> Any:
    from moviegen_eval.metrics.sound import Clap

    return Clap(weights)


def build_imagebind(weights: str) -> Any:
    from moviegen_eval.metrics.sound import ImageBind

    return ImageBind(weights)


def build_audio_embedder(weights: str) -> Any:
    from moviegen_eval.metrics.audio import AudioEmbedder

    return AudioEmbedder(weights)


def build_sound_classes(weights: str) -> Any:
    from moviegen_eval.metrics.sound_classes import SoundClasses

    return SoundClasses(weights)


def build_class_kl(weights: str) -> Any:
    from moviegen_eval.metrics.sound_classes import ClassKl

    return ClassKl(weights)
