"""The entries of the registry, and the functions that build them; heavy modules are imported only there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
BASE = "moviegen_eval.metrics."


class UnavailableError(Exception):
    """A program or package that a metric needs is not on this machine."""


@dataclass(frozen=True)
class Output:
    """One number that a metric gives."""

    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Entry:
    """A metric of the registry."""

    name: str
    kind: Literal["sample", "set"]
    outputs: tuple[Output, ...]
    builder: str  # a function of this module, called with the paths of `weights`
    preprocessing: str
    modules: tuple[str, ...]  # whose source its results depend on
    summary: str
    needs: tuple[str, ...] = ()  # of a sample, beside the clip and its prompt: keys of `sample.NEEDS`
    weights: tuple[str, ...] = ()  # names in moviegen/weights.json
    distance: str = ""  # of a set: frechet, polynomial or gaussian
    paired: bool = False  # of a set: the reference has the same prompts
    features: str = ""  # of a set: metrics of one name share cached features


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


def _modules(*names: str) -> tuple[str, ...]:
    return tuple(BASE + name for name in names)


def _paired(name: str, unit: str, higher: bool, module: str, weights: tuple[str, ...], summary: str) -> Entry:
    """A full-reference metric."""
    return Entry(
        name,
        "sample",
        (Output(name, unit, higher),),
        f"build_{name}",
        "RGB frames as decoded, clip and reference cut to the shorter",
        _modules("paired", "base", module),
        summary,
        ("reference",),
        weights,
    )


I3D = "16 consecutive frames, no overlap; the file's own rescaling to 224x224 (StyleGAN-V)"
INCEPTION = "16 frames at even times, bilinear to 299x299"
MEL = "mono, 16 kHz, 64 mel bands, mean and spread over 1 s"
EMBEDDED = "mono, at the embedder's own rate and window"


def _set(name: str, distance: str, features: str, paired: bool, summary: str) -> Entry:
    """A distance of sets."""
    builder, preprocessing, modules, weights, needs = {
        "i3d": ("build_i3d", I3D, ("extractors", "frames"), ("i3d_fvd",), ()),
        "inception": ("build_inception", INCEPTION, ("extractors", "frames"), ("inception_fid",), ()),
        "log_mel": ("build_log_mel", MEL, ("audio",), (), ("audio",)),
        "audio": ("build_audio_embedder", EMBEDDED, ("audio",), ("audio_embedder",), ("audio",)),
    }[features]
    unit = "frechet" if distance == "frechet" else "mmd2"
    return Entry(
        name,
        "set",
        (Output(name, unit, False),),
        builder,
        preprocessing,
        _modules("frechet", *modules),
        summary,
        needs,
        weights,
        distance,
        paired,
        features,
    )


ORACLE = ("colour", "shape", "size", "motion", "background", "camera", "interaction", "all")
_ENTRIES = (
    _paired("psnr", "dB", True, "psnr", (), "one squared error over a clip, range 255, at most 100 dB"),
    _paired(
        "ssim", "ssim", True, "ssim", (), "mean over frames, Gaussian window of 11 pixels, sigma 1.5, RGB"
    ),
    _paired("st_lpips", "distance", False, "stlpips", (), "shift-tolerant LPIPS; not LPIPS"),
    _paired(
        "lpips", "distance", False, "perceptual", ("alexnet",), "LPIPS (AlexNet, v0.1), mean over frames"
    ),
    _paired("dists", "distance", False, "perceptual", ("vgg16",), "DISTS (VGG-16), mean over frames"),
    _paired("vmaf", "vmaf", True, "vmaf", (), "VMAF v0.6.1; made for 1080p, on small frames it only ranks"),
    Entry(
        "flicker",
        "sample",
        (Output("flicker", "levels of 255", False), Output("flicker_alternating", "levels of 255", False)),
        "build_flicker",
        "all frames",
        _modules("motion"),
        "change from frame to frame, and the part of it that goes back and forth",
    ),
    Entry(
        "motion",
        "sample",
        (Output("motion", "levels of 255 at 8 frames/s", True),),
        "build_motion",
        "all frames",
        _modules("motion"),
        "how much moves; neither good nor bad, read the metrics of consistency beside it",
    ),
    Entry(
        "clip",
        "sample",
        (Output("clip_text", "cosine", True), Output("clip_frames", "cosine", True)),
        "build_clip",
        "16 frames at even times, bicubic, center crop",
        _modules("clip", "base"),
        "agreement of frames with the prompt, and of neighboring frames with each other",
        weights=("open_clip",),
    ),
    Entry(
        "edit",
        "sample",
        (Output("edit_direction", "cosine", True), Output("edit_text", "cosine", True)),
        "build_edit",
        "16 frames at even times, bicubic, center crop",
        _modules("clip", "base"),
        "did the clip move the way its caption did (CLIP, not ViCLIP)",
        ("source", "source_text", "target_text"),
        ("open_clip",),
    ),
    Entry(
        "viclip",
        "sample",
        (Output("viclip_direction", "cosine", True), Output("viclip_text", "cosine", True)),
        "build_viclip",
        "8 frames at even times, bicubic, center crop to 224x224",
        _modules("edit", "base"),
        "did the video move the way its caption did, by ViCLIP, as tables of editing print it",
        ("source", "source_text", "target_text"),
        ("viclip",),
    ),
    Entry(
        "pickscore",
        "sample",
        (Output("pickscore", "logit", True),),
        "build_pickscore",
        "16 frames at even times, bicubic, center crop",
        _modules("edit", "base"),
        "PickScore of frames with the caption, not normalized: about 20",
        weights=("pickscore",),
    ),
    Entry(
        "identity",
        "sample",
        tuple(Output(f"identity_{name}", "cosine", True) for name in ("mean", "best", "worst")),
        "build_identity",
        "16 frames at even times, centered square, 112x112",
        _modules("identity", "base"),
        "cosine of face embeddings with the reference picture; faces are not detected",
        ("face",),
        ("face_embedder",),
    ),
    Entry(
        "onsets",
        "sample",
        (Output("onset_lag", "seconds", False), Output("onset_match", "share", True)),
        "build_onsets",
        "spectral flux at 100 a second against sudden changes of the frame difference",
        _modules("audio", "motion"),
        "do things sound when they are seen to happen",
        ("audio",),
    ),
    Entry(
        "silence",
        "sample",
        (Output("silence", "share", False),),
        "build_silence",
        "tenths of a second below -60 dB of full scale, mono",
        _modules("sound"),
        "how much of the sound is silent",
        ("audio",),
    ),
    Entry(
        "clap",
        "sample",
        (Output("clap", "cosine", True),),
        "build_clap",
        "mono, at the model's own rate; what is longer than its window is cut by its processor",
        _modules("sound"),
        "agreement of the sound with the prompt (CLAP by transformers)",
        ("audio",),
        ("clap",),
    ),
    Entry(
        "imagebind",
        "sample",
        (Output("imagebind", "cosine", True),),
        "build_imagebind",
        "mono, at the script's own rate; frames as decoded",
        _modules("sound"),
        "agreement of the sound with the pictures",
        ("audio",),
        ("imagebind",),
    ),
    Entry(
        "oracle",
        "sample",
        tuple(Output(f"oracle_{name}", "share", True) for name in ORACLE),
        "build_oracle",
        "frames as decoded",
        _modules("toyworld"),
        "the toyworld oracle: what the spec states is seen",
        ("spec",),
    ),
    Entry(
        "oracle_floor",
        "sample",
        tuple(Output(f"oracle_{name}/floor", "share", True) for name in ORACLE),
        "build_oracle_floor",
        "frames as decoded",
        _modules("toyworld"),
        "the floor of the oracle's: what other prompts' specs state is seen",
        ("others",),
    ),
    _set("fvd", "frechet", "i3d", False, "Frechet video distance to the reference set (StyleGAN-V's I3D)"),
    _set("kvd", "polynomial", "i3d", False, "unbiased kernel distance on the features of FVD"),
    _set("rfvd", "frechet", "i3d", True, "Frechet video distance of reconstructions to their sources"),
    _set("fid", "frechet", "inception", False, "Frechet distance of frames"),
    _set("rfid", "frechet", "inception", True, "Frechet distance of reconstructed frames to their sources"),
    _set("mel_frechet", "frechet", "log_mel", False, "Frechet distance of log-mel statistics; not FAD"),
    _set(
        "mel_kernel", "gaussian", "log_mel", False, "unbiased kernel distance of log-mel statistics; not KAD"
    ),
    _set("fad", "frechet", "audio", False, "Frechet audio distance with the embedder that is given"),
    _set("kad", "gaussian", "audio", False, "kernel audio distance with the embedder that is given"),
)
ENTRIES: dict[str, Entry] = {one.name: one for one in _ENTRIES}
