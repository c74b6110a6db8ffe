"""Sound: features for distances of sets, with and without weights, and whether sound and picture happen together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from moviegen_eval.metrics.identity import load_script
from moviegen_eval.metrics.motion import luma_differences
from moviegen_eval.metrics.sample import Clip, Sample

from moviegen.media import resample_audio

RATE_HZ, WINDOW, HOP, BANDS = 16_000, 512, 160, 64
WINDOW_SECONDS = 1.0  # of sound behind one row of features
MAX_LAG_SECONDS = 1.0
TOLERANCE_SECONDS = 0.1
PREPROCESSING = f"mono, {RATE_HZ} Hz, {BANDS} mel bands, {WINDOW_SECONDS:g} s a row"


class LogMel:
    """Mean and standard deviation over a second of each log-mel band, [N, 128]: a distance that needs no weights.

    It hears timbre and loudness, nothing of meaning: not FAD, and never to be called so.
    """

    def features(self, clip: Clip) -> np.ndarray:
        mels = log_mel(mono(clip))
        num = int(WINDOW_SECONDS * RATE_HZ / HOP)
        rows = [mels[start : start + num] for start in range(0, len(mels) - num + 1, num)]
        if not rows:
            return np.empty((0, 2 * BANDS), np.float32)
        return np.stack([np.concatenate([row.mean(0), row.std(0)]) for row in rows]).astype(np.float32)


class AudioEmbedder:
    """A TorchScript embedder by path: float [N, L] in -1..1 to [N, D], with `sample_rate_hz` and `window_seconds`.

    Both attributes stand in the script, so that no sample rate is ever guessed.
    """

    def __init__(self, weights: str | Path):
        self.net = load_script(weights)
        for name in ("sample_rate_hz", "window_seconds"):
            if not hasattr(self.net, name):
                raise ValueError(f"{weights}: the script has no attribute {name}")
        self.rate_hz = int(self.net.sample_rate_hz)
        self.num = round(float(self.net.window_seconds) * self.rate_hz)

    @torch.no_grad()
    def features(self, clip: Clip) -> np.ndarray:
        sound = torch.from_numpy(mono(clip, self.rate_hz))
        rows = [sound[start : start + self.num] for start in range(0, len(sound) - self.num + 1, self.num)]
        return self.net(torch.stack(rows)).float().numpy() if rows else np.empty((0, 0), np.float32)


class OnsetSync:
    """Do things sound when they are seen to happen? Needs no weights; says nothing of what sounds.

    `onset_lag`: seconds, absolute, of the shift within +-1 s at which onsets of the sound and sudden changes of the
    motion agree best; half a frame is 0. `onset_match`: share of the sound's onsets within 0.1 s of such a change.
    Left out for silence, or where nothing moves suddenly.
    """

    def scores(self, sample: Sample) -> Mapping[str, float]:
        rate = sample.clip.frame_rate
        seen = visual_onsets(sample.clip.frames)
        heard = onset_strength(mono(sample.clip))
        times = np.arange(len(heard)) * HOP / RATE_HZ
        if seen.max(initial=0) <= 0 or heard.max(initial=0) <= 0:
            return {}
        grid = np.arange(len(seen)) / rate
        spread = max(0.5 / rate, 0.02)
        peaks = peak_times(seen, 1 / rate)
        drawn = _bumps(peaks, seen[np.rint(peaks * rate).astype(int)], times, spread)
        lag = _best_lag(drawn, heard)
        onsets = peak_times(heard, HOP / RATE_HZ)
        reach = max(TOLERANCE_SECONDS, 0.5 / rate)
        hits = [bool(np.abs(peaks - onset).min() <= reach) for onset in onsets if onset <= grid[-1] + reach]
        scores = {"onset_lag": max(0.0, abs(lag) - 0.5 / rate)}
        return scores | ({"onset_match": float(np.mean(hits))} if hits else {})


def mono(clip: Clip, rate_hz: int = RATE_HZ) -> np.ndarray:
    """The sound as float32 [N] at a rate."""
    assert clip.audio is not None
    assert clip.sample_rate_hz is not None
    return resample_audio(clip.audio, clip.sample_rate_hz, rate_hz, 1)[0]


def log_mel(sound: np.ndarray) -> np.ndarray:
    """Log of the power in mel bands, float32 [frames, 64], of float32 [N] at 16 kHz."""
    if len(sound) < WINDOW:
        return np.empty((0, BANDS), np.float32)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(torch.from_numpy(sound), WINDOW, HOP, window=window, return_complex=True).abs() ** 2
    return torch.log(torch.from_numpy(_mel_filters()) @ spectrum + 1e-6).T.numpy()


def _mel_filters() -> np.ndarray:
    """Triangles [64, 257] whose centers are even on the mel scale from 40 Hz to 8 kHz."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (40.0, RATE_HZ / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE_HZ / 2, WINDOW // 2 + 1)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)


def onset_strength(sound: np.ndarray) -> np.ndarray:
    """Spectral flux [frames]: how much the log-mel bands rise, less its median; 0 in silence and steady sound."""
    mels = log_mel(sound)
    if len(mels) < 2:
        return np.zeros(len(mels), np.float32)
    flux = np.clip(np.diff(mels, axis=0, prepend=mels[:1]), 0, None).mean(1)
    flux = np.clip(flux - np.median(flux), 0, None)
    return np.where(flux > 0.3 * flux.max(initial=0), flux, 0) if flux.max(initial=0) > 0.1 else 0 * flux


def visual_onsets(frames: np.ndarray) -> np.ndarray:
    """How suddenly the motion changes at each frame, float [T]: |change of the frame difference|, less its median."""
    steps = luma_differences(frames)
    change = np.zeros(len(frames))
    for index in range(1, len(steps)):
        change[index + 1] = float(np.abs(steps[index] - steps[index - 1]).mean())
    change = np.clip(change - np.median(change), 0, None)
    top = change.max(initial=0)
    return np.where(change > 0.3 * top, change, 0) if top > 0.2 else np.zeros(len(frames))


def peak_times(strength: np.ndarray, step_seconds: float) -> np.ndarray:
    """Times in seconds of the local maxima of a curve."""
    padded = np.pad(strength, 1)
    tops = (padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]) & (strength > 0)
    return np.flatnonzero(tops) * step_seconds


def _bumps(times: np.ndarray, heights: np.ndarray, grid: np.ndarray, spread: float) -> np.ndarray:
    """A curve over `grid` with a bump of a width at each time."""
    return (heights[:, None] * np.exp(-0.5 * ((grid[None] - times[:, None]) / spread) ** 2)).sum(0)


def _best_lag(seen: np.ndarray, heard: np.ndarray) -> float:
    """Seconds by which the sound comes late where the two curves agree best; of equal ones the smallest."""
    reach = min(int(MAX_LAG_SECONDS * RATE_HZ / HOP), len(heard) - 1)
    lags = sorted(range(-reach, reach + 1), key=abs)
    values = [
        float(
            (
                seen[max(0, -lag) : len(seen) - max(0, lag)] * heard[max(0, lag) : len(heard) - max(0, -lag)]
            ).sum()
        )
        for lag in lags
    ]
    return lags[int(np.argmax(np.round(values, 9)))] * HOP / RATE_HZ
