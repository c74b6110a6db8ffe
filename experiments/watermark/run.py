"""What the built-in watermark outlives and what it costs; whether anything unmarked is taken for marked.

    python experiments/watermark/run.py out=runs/watermark marked=220 unmarked=1000 sounds=200

Every clip is marked with a payload of its own, encoded as `generate` does, decoded, harmed, encoded anew and read. One
row of rows.jsonl a clip; a run that was broken off, or that had `seconds=` and used them up, goes on from there. Writes
table.md and numbers.json.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from content import Content, clips, sounds
from harms import HARMS, aac, coded, decoded, remuxed
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import student_mean, wilson
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from tqdm import tqdm

from moviegen.media import encode_video, vmaf_frames
from moviegen.provenance.code import Reading, bit_accuracy
from moviegen.provenance.picture import Detector, Embedder
from moviegen.provenance.sound import mark_sound, read_sound_mark

CRF = 18  # of generate
MARKED_SEED, UNMARKED_SEED, SOUND_SEED = 4, 5, 6  # the marks were developed on others
REMUX = "copied into another container (re-mux)"


def read_frames(frames: NDArray[np.uint8]) -> Reading:
    """The reading of a whole clip, crops searched."""
    detector = Detector()
    for frame in frames:
        detector.add(frame)
    return detector.read()


def noted(reading: Reading, payload: int | None = None) -> dict[str, Any]:
    row = {"score": round(reading.score, 3), "found": reading.found, "chips": round(reading.chip_accuracy, 4)}
    return row if payload is None else row | {"bits": bit_accuracy(reading, payload)}


def marked_row(clip: Content, number: int) -> dict[str, Any]:
    """One marked clip: what it costs, and what is read after each harm."""
    rng = np.random.default_rng([7, number])
    payload = int(rng.integers(0, 1 << 32))
    height, width = clip.frames.shape[1:3]
    embed = Embedder(height, width, payload)
    marked = np.stack([embed(frame) for frame in clip.frames])
    file = encode_video(marked, clip.frame_rate, crf=CRF)
    exported = decoded(file)
    readings = {name: read_frames(harm(exported, clip.frame_rate, rng)) for name, harm in HARMS.items()}
    readings[REMUX] = read_frames(decoded(remuxed(file)))
    return {
        "name": clip.name,
        "kind": clip.kind,
        "set": "marked",
        "cost": _cost(clip, marked, exported),
        "readings": {name: noted(reading, payload) for name, reading in readings.items()},
    }


def _cost(clip: Content, marked: NDArray[np.uint8], exported: NDArray[np.uint8]) -> dict[str, float]:
    """What the mark costs, against the unmarked clip; VMAF at equal encoding."""
    error = np.square(marked.astype(np.float32) - clip.frames).mean()
    plain = vmaf_frames(clip.frames, coded(clip.frames, clip.frame_rate, CRF)).mean()
    lab = [rgb2lab(frames[len(frames) // 2]) for frames in (clip.frames, marked)]
    colors = deltaE_ciede2000(*lab)
    return {
        "psnr": float(10 * np.log10(255**2 / error)),
        "vmaf_loss": float(plain - vmaf_frames(clip.frames, exported).mean()),
        "vmaf_unmarked": float(plain),
        "delta_e": float(colors.mean()),
        "delta_e_95": float(np.quantile(colors, 0.95)),
    }


def unmarked_row(clip: Content) -> dict[str, Any]:
    return {"name": clip.name, "kind": clip.kind, "set": "unmarked"} | noted(read_frames(clip.frames))


def sound_row(name: str, audio: NDArray[np.float32], rate: int) -> dict[str, Any]:
    payload = int(np.random.default_rng([9, *name.encode()]).integers(0, 1 << 32))
    marked = mark_sound(audio, rate, payload)
    heard = {"as marked": marked, "AAC 64 kb/s": aac(marked, rate)}
    return {
        "name": name,
        "kind": name.split("-")[0],
        "set": "sound",
        "unmarked": noted(read_sound_mark(audio, rate)),
        "readings": {what: noted(read_sound_mark(sound, rate), payload) for what, sound in heard.items()},
    }


def rows_of(counts: dict[str, int]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names of all rows and what makes them, the sets in turn, so that a part of a run has its part of each."""
    sets = {
        "marked": (
            (c.name, partial(marked_row, c, n)) for n, c in enumerate(clips(counts["marked"], MARKED_SEED))
        ),
        "unmarked": ((c.name, partial(unmarked_row, c)) for c in clips(counts["unmarked"], UNMARKED_SEED)),
        "sounds": ((s[0], partial(sound_row, *s)) for s in sounds(counts["sounds"], SOUND_SEED)),
    }
    turns = [(number / counts[name], name) for name in sets for number in range(counts[name])]
    for _, name in sorted(turns):
        yield next(sets[name])


COSTS = {  # title, unit, higher is better
    "psnr": ("PSNR of the marked frames", "dB", True),
    "vmaf_loss": ("VMAF lost, both at CRF 18", "", False),
    "vmaf_unmarked": ("VMAF of the unmarked at CRF 18", "", True),
    "delta_e": ("CIEDE2000, mean over pixels", "", False),
    "delta_e_95": ("CIEDE2000, 95th percentile of pixels", "", False),
}


def tables(rows: list[dict[str, Any]]) -> tuple[str, list[Figure]]:
    """The tables in Markdown, and their figures."""
    sets = {name: [row for row in rows if row["set"] == name] for name in ("marked", "unmarked", "sound")}
    lines, figures = [], []
    for title, found in (("clips", sets["marked"]), ("sounds", sets["sound"])):
        if found:
            more, numbers = _survival(title, found)
            lines, figures = [*lines, *more, ""], figures + numbers
    if sets["marked"]:
        lines += ["| cost | mean | worst clip |", "|---|---|---|"]
        for name, (title, unit, higher) in COSTS.items():
            values = [row["cost"][name] for row in sets["marked"]]
            figures.append(_figure(f"cost/{name}", values, unit, higher))
            lines.append(f"| {title} | {np.mean(values):.2f} | {(min if higher else max)(values):.2f} |")
    unmarked = {"clips": sets["unmarked"], "sounds": [row["unmarked"] for row in sets["sound"]]}
    for title, found in unmarked.items():
        if found:
            hits, highest = sum(row["found"] for row in found), max(row["score"] for row in found)
            lines += [
                "",
                f"Unmarked {title}: {len(found)}, taken for marked: {hits}, highest score {highest:.2f}.",
            ]
            figures.append(
                _figure(f"unmarked/{title}/found", [row["found"] for row in found], "share", False)
            )
            figures.append(Figure(f"unmarked/{title}/score", highest, None, None, len(found), "", False))
    return "\n".join(lines) + "\n", figures


def _survival(title: str, rows: list[dict[str, Any]]) -> tuple[list[str], list[Figure]]:
    """What is read after each harm, by kind of content."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        for harm, reading in row["readings"].items():
            groups[harm].append((row["kind"], reading))
    kinds = sorted({row["kind"] for row in rows})
    head = [f"after ({len(rows)} marked {title})", "detected", *kinds, "bit accuracy", "score: least, median"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    figures = []
    for harm, found in groups.items():
        hits = [reading["found"] for _, reading in found]
        by_kind = [np.mean([r["found"] for kind, r in found if kind == k]) for k in kinds]
        bits, scores = [r["bits"] for _, r in found], [r["score"] for _, r in found]
        cells = [harm, f"{np.mean(hits):.1%}", *(f"{share:.0%}" for share in by_kind), f"{np.mean(bits):.2%}"]
        lines.append("| " + " | ".join([*cells, f"{min(scores):.1f}, {np.median(scores):.1f}"]) + " |")
        name = re.sub(r"[^a-zA-Z0-9.]+", "_", harm).strip("_")
        figures.append(_figure(f"{title}/detected/{name}", hits, "share", True))
        figures.append(_figure(f"{title}/bit_accuracy/{name}", bits, "share", True))
    return lines, figures


def _figure(name: str, values: list[Any], unit: str, higher_is_better: bool) -> Figure:
    """A mean with its interval, Wilson's of what is true or false."""
    shares = all(isinstance(value, bool) for value in values)
    interval = wilson(sum(values), len(values)) if shares else student_mean(values)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Figure(name, float(np.mean(values)), low, high, len(values), unit, higher_is_better)


def main(arguments: list[str]) -> None:
    """Run, or go on, and write the tables."""
    given = {"out": "runs/watermark", "marked": "220", "unmarked": "1000", "sounds": "200", "seconds": "inf"}
    given |= dict(word.split("=", 1) for word in arguments)
    out, seconds = Path(given.pop("out")), float(given.pop("seconds"))
    counts = {name: int(value) for name, value in given.items()}
    out.mkdir(parents=True, exist_ok=True)
    log, start = out / "rows.jsonl", time.monotonic()
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    done = {row["name"] for row in rows}
    with log.open("a") as file:
        for name, make in tqdm(rows_of(counts), total=sum(counts.values())):
            if time.monotonic() - start > seconds:
                break
            if name not in done:
                rows.append(make())
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    text, figures = tables(rows)
    (out / "table.md").write_text(text)
    write_numbers(out / "numbers.json", figures)
    print(f"{text}\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
