"""What a sound codec costs on several kinds of sound: python experiments/audio/codec_sounds.py --help

    ... 'drums=samples/drum_*.flac' film=film.mp4 'toyworld=shards/val-toyworld-*.tar'

Sounds are mixed to one channel at the codec's rate and cut after --seconds. Prints, for each kind, the mean and a 95 %
bootstrap interval over sounds of SI-SDR (dB), the distance of log10 mel spectra and that of magnitude spectra; writes
them with --out. Silent sounds are left out.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean

from moviegen.codec.audio import AudioAutoencoder, decode_long, encode_long
from moviegen.codec.audio_losses import mel_distance, si_sdr, stft_distance
from moviegen.media import decode_audio, probe, read_sound, resample_audio
from moviegen.modelfile import load_audio_codec
from moviegen.types import AudioClip

SILENT = 1e-3  # root mean square below which a sound is left out: there is no ratio to silence
METRICS = {"si_sdr": ("dB", True), "mel": ("log10", False), "stft": ("distance", False)}


def sounds(pattern: str, seconds: float, rate: int) -> list[torch.Tensor]:
    """Mono sounds [1, N] of the files that a pattern names: sound and video files, or tars of toyworld."""
    found = []
    place = Path(pattern)
    for path in sorted(place.parent.glob(place.name)):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                members = [m for m in tar if m.name.endswith(".mp4")]
                tracks = [decode_audio(file.read()) for m in members if (file := tar.extractfile(m))]
        else:
            tracks = [read_sound(path, 0.0, min(seconds, probe(path).duration_seconds))]
        for track, own_rate in tracks:
            mono = resample_audio(track, own_rate, rate, 1)[:, : round(seconds * rate)]
            if mono.size and float(np.square(mono).mean()) ** 0.5 >= SILENT:
                found.append(torch.from_numpy(mono))
    return found


def scores(codec: AudioAutoencoder, sound: torch.Tensor) -> dict[str, float]:
    """The figures of one sound."""
    clip = AudioClip(sound[None], codec.sample_rate_hz)
    decoded = decode_long(codec, encode_long(codec, clip), sound.shape[1]).samples[0]
    return {
        "si_sdr": float(si_sdr(decoded, sound)),
        "mel": float(mel_distance(decoded, sound, codec.sample_rate_hz)),
        "stft": float(stft_distance(decoded, sound)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="+", help="name=PATTERN of files")
    parser.add_argument("--codec", default="experiments/toy/weights/audio_codec")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--most", type=int, default=64, help="sounds of a kind, evenly of all")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    codec, figures = load_audio_codec(options.codec), []
    for kind in options.kinds:
        name, _, pattern = kind.partition("=")
        found = sounds(pattern, options.seconds, codec.sample_rate_hz)
        found = found[:: max(1, len(found) // options.most)][: options.most]
        if not found:
            raise SystemExit(f"{kind}: names no sound that is not silent")
        rows = [scores(codec, sound) for sound in found]
        for metric, (unit, higher) in METRICS.items():
            values = [row[metric] for row in rows]
            bounds = bootstrap_mean(values, 2000, 0) or (None, None)
            figures.append(
                Figure(
                    f"audio_codec/{name}/{metric}", float(np.mean(values)), *bounds, len(rows), unit, higher
                )
            )
            print(json.dumps(vars(figures[-1])))
    if options.out:
        write_numbers(options.out, figures)


if __name__ == "__main__":
    main()
