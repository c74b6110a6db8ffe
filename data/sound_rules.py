"""Which sound tracks may train a generator of sound, and what predictors say of them (paper 6).

Silence is told from levels, speech by silero-vad, whose model lies in its wheel; quality and sound events by
TorchScript files of your own. Sound is float32 [C, N].
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moviegen.media import resample_audio
from moviegen.media.loudness import SILENCE_DB, silence_share

VAD_RATE_HZ, VAD_WINDOW = 16_000, 512  # what silero-vad takes
VAD_PROBABILITY = 0.5  # silero's own threshold
PREDICTED = ("quality", "speech", "singing", "music")  # what a structured caption has room for


@dataclass(frozen=True)
class SoundRules:
    """What is dropped by its sound; null switches a rule off.

    Args:
        needed: drop clips without a sound track.
        max_silence: largest share of tenths of a second below -60 dB (paper 6 drops what is mostly silent).
        max_speech: largest share of the time in which somebody speaks; needs the package silero-vad.
        predictors: name (quality, speech, singing, music) -> TorchScript file, see `Predictor`; what they say goes into
            the sample's json under `sound`, for its structured caption.
    """

    needed: bool = True
    max_silence: float | None = 0.8
    max_speech: float | None = None
    predictors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_silence", "max_speech"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"sound.{name} is a share from 0 to 1, not {share}")
        if unknown := sorted(set(self.predictors) - set(PREDICTED)):
            raise ValueError(f"sound.predictors are {', '.join(PREDICTED)}, not {unknown[0]!r}")
        if self.max_speech is not None:
            vad_file()  # says now what is missing, not at the first clip
        for path in self.predictors.values():
            if not Path(path).is_file():
                raise ValueError(f"sound.predictors: there is no file {path}")

    def broken(self, sound: np.ndarray | None, sample_rate_hz: int) -> tuple[str, str] | None:
        """The rule that a clip breaks and by how much; None where it may stay."""
        if sound is None or not sound.size:
            return ("no sound", "holds no sound track") if self.needed else None
        if self.max_silence is not None:
            share = silence_share(sound, sample_rate_hz)
            if share > self.max_silence:
                return (
                    "silent",
                    f"{share:.0%} of its sound is below {SILENCE_DB:g} dB, at most {self.max_silence:.0%} may be",
                )
        if self.max_speech is not None:
            share = speech_share(sound, sample_rate_hz)
            if share > self.max_speech:
                return (
                    "speech",
                    f"somebody speaks in {share:.0%} of the time, at most {self.max_speech:.0%} may be",
                )
        return None

    def predicted(self, sound: np.ndarray | None, sample_rate_hz: int) -> dict[str, Any]:
        """What the predictors say of a sound, for its record; ValueError for what no caption can hold."""
        if sound is None or not sound.size or not self.predictors:
            return {}
        values = {name: predictor(path)(sound, sample_rate_hz) for name, path in self.predictors.items()}
        for name, value in values.items():
            low, high = (1, 10) if name == "quality" else (0, 1)
            if not low <= value <= high:
                raise ValueError(f"{self.predictors[name]}: says {name} {value:g}; expected {low} to {high}")
        flags = {name: values[name] >= 0.5 for name in ("speech", "singing") if name in values}
        return {"sound": values | flags}


def vad_file() -> Path:
    """The model in silero-vad's wheel; ValueError where the package is missing. Its code is not imported."""
    spec = importlib.util.find_spec("silero_vad")
    file = Path(spec.origin).parent / "data" / "silero_vad.jit" if spec and spec.origin else None
    if file is None or not file.is_file():
        raise ValueError("sound.max_speech needs the package silero-vad (pip install moviegen[curate])")
    return file


@functools.cache
def _vad() -> Any:
    import torch

    return torch.jit.load(str(vad_file()), map_location="cpu").eval()


def speech_share(sound: np.ndarray, sample_rate_hz: int) -> float:
    """Share of windows of 32 ms in which silero-vad hears speech."""
    import torch

    model = _vad()
    flat = torch.from_numpy(resample_audio(sound, sample_rate_hz, VAD_RATE_HZ, 1)[0])
    windows = torch.nn.functional.pad(flat, (0, -len(flat) % VAD_WINDOW)).view(-1, VAD_WINDOW)
    model.reset_states()
    with torch.no_grad():
        spoken = [float(model(window[None], VAD_RATE_HZ)) >= VAD_PROBABILITY for window in windows]
    return sum(spoken) / max(1, len(spoken))


class Predictor:
    """A TorchScript of one number per sound: float [1, N] in -1..1 -> [1], with an attribute `sample_rate_hz`.

    Quality is from 1 to 10 (audiobox-aesthetics' production quality is of its kind); the others are probabilities.
    """

    def __init__(self, path: str):
        import torch

        try:
            self.net = torch.jit.load(path, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: is no TorchScript file ({str(error).splitlines()[0]})") from error
        if not hasattr(self.net, "sample_rate_hz"):
            raise ValueError(f"{path}: the script has no attribute sample_rate_hz")

    def __call__(self, sound: np.ndarray, sample_rate_hz: int) -> float:
        import torch

        samples = resample_audio(sound, sample_rate_hz, int(self.net.sample_rate_hz), 1)
        with torch.no_grad():
            return float(self.net(torch.from_numpy(samples)))


predictor = functools.cache(Predictor)
