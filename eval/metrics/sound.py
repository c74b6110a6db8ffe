"""Figures of generated sound: divergences of class posteriors, silence, impacts against the truth, seams.

Formulae take arrays; what gives the arrays (PaSST, PANNs, CLAP, ImageBind) is loaded by path elsewhere. Sound is float
[N] or [C, N].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld.listen import hear
from moviegen_eval.metrics.audio import RATE_HZ, log_mel, mono
from moviegen_eval.metrics.identity import load_script
from moviegen_eval.metrics.sample import Sample

from moviegen.media.loudness import silence_share

TOLERANCE_SECONDS = 0.1  # between an impact that is heard and one that is seen
SEAM_SECONDS = 0.04  # of sound on either side of a seam


def softmax(logits: np.ndarray) -> np.ndarray:
    """Posteriors [N, K] of logits [N, K]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return powers / powers.sum(axis=1, keepdims=True)


def kl_divergence(reference: np.ndarray, made: np.ndarray) -> float:
    """Mean over pairs of KL(reference || made) of posteriors [N, K], in nats."""
    if reference.shape != made.shape:
        raise ValueError(f"KL compares pairs: {list(reference.shape)} and {list(made.shape)} posteriors")
    p, q = (np.clip(side.astype(np.float64), 1e-12, None) for side in (reference, made))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def inception_score(posteriors: np.ndarray, splits: int = 10, seed: int = 2020) -> float:
    """exp of the mean KL(p(y|x) || p(y)), mean over shuffled splits (av-benchmark: 10, seed 2020) of [N, K]."""
    if not 1 <= splits <= len(posteriors):
        raise ValueError(
            f"{splits} splits of {len(posteriors)} sounds; there must be at least as many sounds"
        )
    order = np.random.default_rng(seed).permutation(len(posteriors))
    scores = []
    for part in np.array_split(posteriors[order].astype(np.float64), splits):
        p = np.clip(part, 1e-12, None)
        scores.append(np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()))
    return float(np.mean(scores))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines [N] of paired embeddings [N, D]."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)


class SoundScores:
    """`silence`: share of tenths of a second that are silent."""

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.clip.audio is not None
        assert sample.clip.sample_rate_hz is not None
        return {"silence": silence_share(sample.clip.audio, sample.clip.sample_rate_hz)}


class Clap:
    """`clap`: cosine of sound and prompt by the CLAP whose weights file lies in a local Hugging Face folder."""

    def __init__(self, weights: str):
        from transformers import ClapModel, ClapProcessor

        folder = Path(weights).parent
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.model: Any = ClapModel.from_pretrained(folder, use_safetensors=True, **options).eval()
        self.processor: Any = ClapProcessor.from_pretrained(folder, **options)
        self.rate_hz = int(self.processor.feature_extractor.sampling_rate)

    def scores(self, sample: Sample) -> Mapping[str, float]:
        import torch

        sound = mono(sample.clip, self.rate_hz)
        given = self.processor(
            text=[sample.text], audio=[sound], sampling_rate=self.rate_hz, return_tensors="pt", padding=True
        )
        with torch.no_grad():
            out = self.model(**given)
        return {"clap": float(cosine(out.audio_embeds.numpy(), out.text_embeds.numpy())[0])}


class ImageBind:
    """`imagebind`: cosine of sound and pictures, by a TorchScript of your own around ImageBind (CC-BY-NC weights).

    The script has `sample_rate_hz`, `sound(float [1, N]) -> [1, D]` and `pictures(uint8 [T, H, W, 3]) -> [1, D]`.
    """

    def __init__(self, weights: str):
        self.net = load_script(weights)
        for name in ("sample_rate_hz", "sound", "pictures"):
            if not hasattr(self.net, name):
                raise ValueError(f"{weights}: the script has no {name}")

    def scores(self, sample: Sample) -> Mapping[str, float]:
        import torch

        rate = int(self.net.sample_rate_hz)
        with torch.no_grad():
            heard = self.net.sound(torch.from_numpy(mono(sample.clip, rate))[None])
            seen = self.net.pictures(torch.from_numpy(np.ascontiguousarray(sample.clip.frames)))
        return {"imagebind": float(cosine(heard.numpy(), seen.numpy())[0])}


@dataclass(frozen=True)
class Impact:
    """Something that struck: when, and what (a shape of toyworld)."""

    seconds: float
    shape: str


@dataclass(frozen=True)
class ImpactScore:
    """Impacts of one sound against those that should be there."""

    events: int
    hits: int  # events with an impact within the tolerance
    false: int  # impacts that belong to no event
    right_timbre: int  # hits whose timbre is the event's
    seconds: float


def match_impacts(
    events: Sequence[Impact],
    heard: Sequence[Impact],
    seconds: float,
    tolerance: float = TOLERANCE_SECONDS,
    new: Sequence[tuple[float, float]] | None = None,
) -> ImpactScore:
    """Match impacts that are heard one to one with events, closest pairs first.

    Args:
        new: stretches to which the counts are held; what lies beside them is matched all the same, so that an
            event is found on either side of an edge. None: all counts.
    """
    pairs = sorted(
        (abs(event.seconds - one.seconds), i, j)
        for i, event in enumerate(events)
        for j, one in enumerate(heard)
    )
    taken: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance <= tolerance and i not in taken and j not in taken.values():
            taken[i] = j
    due = [i for i, event in enumerate(events) if new is None or within(new, event.seconds)]
    false = sum(
        new is None or within(new, one.seconds) for j, one in enumerate(heard) if j not in taken.values()
    )
    hits = [i for i in due if i in taken]
    right = sum(events[i].shape == heard[taken[i]].shape for i in hits)
    return ImpactScore(len(due), len(hits), false, right, seconds)


def within(spans: Sequence[tuple[float, float]], seconds: float) -> bool:
    """Whether a time lies in one of some stretches."""
    return any(start <= seconds <= stop for start, stop in spans)


def impacts_heard(sound: np.ndarray, sample_rate_hz: int) -> list[Impact]:
    """Impacts by the oracle's ears: of strikes of one timbre within 60 ms the strongest; each timbre for itself."""
    return [Impact(one.seconds, one.timbre) for one in hear(sound, sample_rate_hz)]


def seam_jumps(sound: np.ndarray, sample_rate_hz: int, times: Sequence[float]) -> np.ndarray:
    """Jumps of level (dB) and of spectrum (mean absolute log-mel difference) across each time, [len(times), 2].

    Each compares 40 ms before with 40 ms after; times too close to an end are left out.
    """
    flat = np.atleast_2d(sound).mean(axis=0).astype(np.float32)
    size, rows = round(SEAM_SECONDS * sample_rate_hz), []
    for time in times:
        place = round(time * sample_rate_hz)
        if place < size or place + size > len(flat):
            continue
        sides = flat[place - size : place], flat[place : place + size]
        levels = [10 * np.log10(np.square(side.astype(np.float64)).mean() + 1e-7) for side in sides]
        mels = [log_mel(_at_rate(side, sample_rate_hz)).mean(axis=0) for side in sides]
        rows.append((abs(levels[1] - levels[0]), float(np.abs(mels[1] - mels[0]).mean())))
    return np.array(rows).reshape(-1, 2)


def _at_rate(sound: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Sound at the rate of the mel bands by means of neighboring samples: enough to compare like with like."""
    factor = sample_rate_hz // RATE_HZ
    return sound[: len(sound) // factor * factor].reshape(-1, factor).mean(axis=1) if factor > 1 else sound
