"""`moviegen verify` and `moviegen info`: what a file says of where it comes from, in plain words.

A file is looked over for three things that do not depend on each other: its signed manifest, the watermarks in picture
and sound, and a side-car beside it (or, in a folder, any side-car with the identifier that the watermark says).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from moviegen import media, runfolder
from moviegen.config import UserError, build
from moviegen.provenance.backends import BUILTIN, PictureMark, SoundMark, picture_mark, sound_mark
from moviegen.provenance.code import Reading, bit_accuracy
from moviegen.provenance.manifest import ManifestState, read_manifest
from moviegen.provenance.words import in_words, told

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SOUNDS = (".flac", ".wav", ".mp3", ".m4a", ".ogg")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
MOST_FRAMES = 64  # looked at, evenly spread
MOST_SIDECAR_BYTES = 1 << 20
MOST_SECONDS = 60.0  # of sound, from the beginning


@dataclass(frozen=True)
class InfoConfig:
    """The keys of conf/info.yaml, which says what they are."""

    file: Path
    sidecars: Path | None = None
    trust: Path | None = None
    picture: str | None = BUILTIN
    sound: str | None = BUILTIN


@dataclass(frozen=True)
class VerifyConfig(InfoConfig):
    """The keys of conf/verify.yaml, which says what they are."""

    out: Path | None = None


@dataclass
class Findings:
    """What was found in and about one file."""

    path: Path
    manifest: ManifestState
    picture: Reading | None = None  # None: nothing to look at
    sound: Reading | None = None
    sidecar: Path | None = None
    card: dict[str, Any] = field(default_factory=dict)  # its "provenance"
    sidecar_by: str = ""  # "name", or "identifier" where the watermark led to it
    same_file: bool = False  # the side-car describes these very bytes

    @property
    def identifier(self) -> int | None:
        """The 32 bits that manifest or side-car state for the file."""
        stated = (self.manifest.generation or {}).get("identifier") or self.card.get("identifier")
        return int(stated, 16) if isinstance(stated, str) else None

    def accuracy(self, reading: Reading) -> float | None:
        """Share of a reading's bits that are as stated; None where nothing states them."""
        return None if self.identifier is None else bit_accuracy(reading, self.identifier)


class Examiner:
    """Looks files over, with the same backends for all."""

    def __init__(
        self, picture: str | None = BUILTIN, sound: str | None = BUILTIN, trust: Path | None = None
    ) -> None:
        """Raises UserError for a model or a file of trusted certificates that cannot be read."""
        self.picture: PictureMark | None = picture_mark(picture)
        self.sound: SoundMark | None = sound_mark(sound)
        self.trust = trust
        self.cards: dict[str, tuple[Path, dict[str, Any]]] = {}

    def learn(self, folder: Path, below: bool = True) -> None:
        """Read the side-cars in a folder, and `below` it, to find them by identifier."""
        for path in sorted(folder.rglob("*.json") if below else folder.glob("*.json")):
            card = _provenance(path)
            if "identifier" in card:
                self.cards[card["identifier"]] = (path, card)

    def examine(self, path: Path) -> Findings:
        """Look one file over. Raises MediaError where it is missing, damaged, or no media file."""
        media.check_readable(path)
        picture, sound = self._read(path)
        found = Findings(path, read_manifest(path, self.trust), picture, sound)
        self._find_card(found)
        return found

    def _read(self, path: Path) -> tuple[Reading | None, Reading | None]:
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            return self._read_frames([media.read_image(path)]), None
        info = media.probe(path)
        picture = sound = None
        if info.num_frames:
            with media.stream_clip(path) as (told_info, chunks):
                wanted = set(np.linspace(0, told_info.num_frames - 1, MOST_FRAMES).astype(int).tolist())
                frames = (frame for chunk in chunks for frame in chunk)
                picture = self._read_frames(frame for number, frame in enumerate(frames) if number in wanted)
        if info.has_audio and self.sound is not None:
            seconds = min(info.duration_seconds, MOST_SECONDS)
            audio, rate = media.read_sound(path, 0.0, seconds)
            if self.sound.no_room(audio.shape[1], rate) is None:
                sound = self.sound.read(audio, rate)
        return picture, sound

    def _read_frames(self, frames: Any) -> Reading | None:
        if self.picture is None:
            return None
        reader, seen = self.picture.reader(), 0
        for frame in frames:
            if min(frame.shape[:2]) >= 16:
                reader.add(frame)
                seen += 1
        return reader.read() if seen else None

    def _find_card(self, found: Findings) -> None:
        named = found.path.with_name(found.path.name + ".json")  # of a file beside another of the same stem
        beside = named if named.is_file() else found.path.with_suffix(".json")
        found.card = _provenance(beside)
        if found.card:
            found.sidecar, found.sidecar_by = beside, "name"
        else:
            read = [one.payload for one in (found.picture, found.sound) if one is not None and one.found]
            known = [self.cards[f"{payload:08x}"] for payload in read if f"{payload:08x}" in self.cards]
            if known:
                (found.sidecar, found.card), found.sidecar_by = known[0], "identifier"
        found.same_file = found.card.get("sha256") == runfolder.file_sha256(found.path)


def _provenance(path: Path) -> dict[str, Any]:
    """What a side-car says under "provenance"; empty where there is none."""
    if not path.is_file() or path.stat().st_size > MOST_SIDECAR_BYTES:
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return {}
    provenance = card.get("provenance") if isinstance(card, dict) else None
    return provenance if isinstance(provenance, dict) else {}


def media_files(folder: Path) -> list[Path]:
    """The pictures, videos and sounds below a folder. Raises UserError where there are none."""
    known = PICTURES + VIDEOS + SOUNDS
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in known and not path.name.startswith(".")
    )
    if not files:
        raise UserError(f"{folder}: holds no picture, video or sound ({', '.join(known)})")
    return files


def verify(cfg: DictConfig) -> int:
    """Print what is known of a file, or of each in a folder; exit code 1 where one is damaged or was tampered with.

    Raises MediaError where a single file cannot be read.
    """
    config: VerifyConfig = build(cfg)
    examiner = _examiner(config)
    files = media_files(config.file) if config.file.is_dir() else [config.file]
    rows, bad = [], 0
    for found in _each(examiner, files, alone=not config.file.is_dir()):
        if isinstance(found, media.MediaError):
            print(f"{found.name}\n  cannot be read: {found.reason}")
            rows.append({"path": found.name, "error": found.reason})
            bad += 1
            continue
        print("\n".join([str(found.path), *(f"  {line}" for line in in_words(found))]))
        rows.append(_row(found))
        bad += found.manifest.state == "broken"
    if len(files) > 1:
        marked = sum(bool(row.get("made_by_ai")) for row in rows)
        print(f"\n{len(files)} files: {marked} say that a model made them, {bad} damaged or changed")
    if config.out is not None:
        runfolder.write_json(config.out, rows)
    return 1 if bad else 0


def info(cfg: DictConfig) -> None:
    """Print how a generated file was made. Raises MediaError where it cannot be read."""
    config: InfoConfig = build(cfg)
    found = _examiner(config).examine(config.file)
    full = {}
    if found.sidecar is not None:
        full = runfolder.read_json(found.sidecar)
    print("\n".join(told(found, full)))


def _examiner(config: InfoConfig) -> Examiner:
    if not config.file.is_dir():
        media.check_readable(config.file)
    examiner = Examiner(config.picture, config.sound, config.trust)
    if config.sidecars is not None:
        if not config.sidecars.is_dir():
            raise UserError(f"sidecars={config.sidecars}: no such folder")
        examiner.learn(config.sidecars)
    if config.file.is_dir():
        examiner.learn(config.file)
    else:
        examiner.learn(config.file.parent, below=False)
    return examiner


def _each(examiner: Examiner, files: list[Path], alone: bool) -> Iterator[Findings | media.MediaError]:
    for path in files:
        try:
            yield examiner.examine(path)
        except media.MediaError as error:
            if alone:
                raise
            yield error


def _row(found: Findings) -> dict[str, Any]:
    """The findings as plain values."""
    readings = {"picture": found.picture, "sound": found.sound}
    return {
        "path": str(found.path),
        "made_by_ai": found.manifest.generated or any(r is not None and r.found for r in readings.values()),
        "manifest": asdict(found.manifest),
        "watermarks": {
            where: reading
            and {**asdict(reading), "found": reading.found, "bit_accuracy": found.accuracy(reading)}
            for where, reading in readings.items()
        },
        "sidecar": found.sidecar and str(found.sidecar),
        "sidecar_by": found.sidecar_by or None,
        "same_file": found.same_file,
    }
