"""VMAF of two clips through the libvmaf filter of imageio-ffmpeg's program, which runs as a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from moviegen.media.base import MediaError

SECONDS = 600  # longest run of the program
MODEL = "vmaf_v0.6.1"  # made for 1080p seen from three picture heights: on small frames it ranks, no more


def _program() -> Path:
    """The program in the wheel, never one of the system, which `get_ffmpeg_exe` would take where the wheel has none."""
    import imageio_ffmpeg

    found = sorted((Path(imageio_ffmpeg.__file__).parent / "binaries").glob("ffmpeg-*"))
    if not found:
        raise FileNotFoundError(
            "imageio-ffmpeg came without its program: install its wheel for this platform"
        )
    return found[0]


@cache
def vmaf_missing() -> str | None:
    """Why VMAF cannot be computed here; None where it can."""
    try:
        program = _program()
        command = [str(program), "-hide_banner", "-filters"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except ImportError:
        return "imageio-ffmpeg is not installed: pip install -e .[vmaf]"
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return f"imageio-ffmpeg's program does not run ({' '.join(str(error).split())[:160]})"
    return None if " libvmaf " in done.stdout else f"{program.name} is built without libvmaf"


def vmaf_frames(source: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """VMAF of each frame, 0 to 100, [T], of clips uint8 [T, H, W, 3] with even height and width.

    Raises MediaError where the program fails or scores another number of frames.
    """
    size = f"{source.shape[2]}x{source.shape[1]}"
    with tempfile.TemporaryDirectory() as folder:
        inputs: list[str] = []
        for name, clip in (("reconstruction", reconstruction), ("source", source)):
            clip.tofile(Path(folder) / name)
            inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "24", "-i", name]
        graph = "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];"
        graph += f"[a][b]libvmaf=model=version={MODEL}:log_fmt=json:log_path=log.json:n_threads=1"
        command = [str(_program()), "-nostdin", "-v", "error", *inputs]
        command += ["-lavfi", graph, "-f", "null", "-"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise MediaError("vmaf", f"ffmpeg took longer than {SECONDS} s", "timeout") from None
        if done.returncode:
            raise MediaError("vmaf", f"ffmpeg ended with {done.returncode}: {done.stderr[-300:]}", "crash")
        frames = json.loads((Path(folder) / "log.json").read_text(encoding="utf-8"))["frames"]
    if len(frames) != len(source):
        raise MediaError("vmaf", f"{len(frames)} of {len(source)} frames were scored", "truncated")
    return np.array([frame["metrics"]["vmaf"] for frame in frames], np.float64)
