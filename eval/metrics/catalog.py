"""The entries of the registry: what each metric gives and needs, and by which function of `builders` it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors")
BASE = "moviegen_eval.metrics."


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
    builder: str  # a function of `builders`, called with the paths of `weights`
    preprocessing: str
    modules: tuple[str, ...]  # whose source its results depend on
    summary: str
    needs: tuple[str, ...] = ()  # of a sample, beside the clip and its prompt: keys of `sample.NEEDS`
    weights: tuple[str, ...] = ()  # names in moviegen/weights.json
    distance: str = ""  # of a set: frechet, polynomial, gaussian or inception, which is of one set alone
    paired: bool = False  # of a set: the reference has the same prompts
    features: str = ""  # of a set: metrics of one name share cached features

    @property
    def alone(self) -> bool:
        """Whether it is of one set, without a reference."""
        return self.distance == "inception"

    @property
    def hears_reference(self) -> bool:
        """Whether sound is held against reference sound."""
        compared = (self.kind == "set" and not self.alone) or "reference" in self.needs
        return "audio" in self.needs and compared


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
CLASSES = "mono, at the classifier's own rate, softmax of logits, mean over its whole windows"
CLASS_MODULES = ("sound_classes", "sound", "audio")


def _set(name: str, distance: str, features: str, paired: bool, summary: str) -> Entry:
    """A distance of sets, or a score of one."""
    builder, preprocessing, modules, weights, needs = {
        "i3d": ("build_i3d", I3D, ("extractors", "frames"), ("i3d_fvd",), ()),
        "inception": ("build_inception", INCEPTION, ("extractors", "frames"), ("inception_fid",), ()),
        "log_mel": ("build_log_mel", MEL, ("audio",), (), ("audio",)),
        "audio": ("build_audio_embedder", EMBEDDED, ("audio",), ("audio_embedder",), ("audio",)),
        "classes": ("build_sound_classes", CLASSES, CLASS_MODULES, ("audio_classifier",), ("audio",)),
    }[features]
    unit = {"frechet": "frechet", "inception": "score"}.get(distance, "mmd2")
    return Entry(
        name,
        "set",
        (Output(name, unit, distance == "inception"),),
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
        "audio_kl",
        "sample",
        (Output("audio_kl", "nats", False),),
        "build_class_kl",
        CLASSES,
        _modules(*CLASS_MODULES),
        "KL(reference || clip) of what a classifier hears in the sounds of a pair",
        ("reference", "reference_audio", "audio"),
        ("audio_classifier",),
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
    _set(
        "audio_is", "inception", "classes", False, "inception score of sound, 10 splits; needs no reference"
    ),
)
ENTRIES: dict[str, Entry] = {one.name: one for one in _ENTRIES}
