"""The one way out: every generated file is marked, written, signed and described here.

In this order: filters, visible label, watermark, encoding, C2PA manifest, side-car. Nothing changes the file after the
signature. What is switched off or has no room is named on the console and in the side-car, never left out silently.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moviegen import media, runfolder
from moviegen.config import UserError
from moviegen.provenance.backends import (
    BUILTIN,
    FrameReader,
    PictureMark,
    SoundMark,
    picture_mark,
    sound_mark,
)
from moviegen.provenance.certificate import Signer, development_signer, load_signer
from moviegen.provenance.code import PAYLOAD_BITS, Reading
from moviegen.provenance.filters import Filters
from moviegen.provenance.label import Label
from moviegen.provenance.manifest import MIME_TYPES, sign

READ_BACK_FRAMES = 64  # of those that were marked, to see whether the mark can be read
READ_BACK_SECONDS = 60  # of sound
MOST_STRENGTH = 8.0
Frames = Iterator[NDArray[np.uint8]]
Write = Callable[[Path, Frames | None, NDArray[np.float32] | None], None]


@dataclass(frozen=True)
class Marking:
    """How generated files are marked: the keys of conf/marking/default.yaml, which says what they are."""

    picture: str | None = BUILTIN
    sound: str | None = BUILTIN
    strength: float = 1.98
    label: str | None = None
    c2pa: bool = True
    certificate: Path | None = None
    key: Path | None = None
    timestamp_url: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.strength <= MOST_STRENGTH:
            bounds = f"above 0, and at most {MOST_STRENGTH:g}"
            raise UserError(f"marking.strength={self.strength}: must be {bounds}")
        if (self.certificate is None) != (self.key is None):
            missing = "certificate" if self.certificate is None else "key"
            both = "marking.certificate and marking.key"
            raise UserError(f"marking.{missing} is missing: give {both}, or neither")

    def switched_off(self) -> dict[str, str]:
        """What these settings leave out, and by which setting."""
        off = {
            "picture watermark": "marking.picture=null" if self.picture is None else None,
            "sound watermark": "marking.sound=null" if self.sound is None else None,
            "manifest": None if self.c2pa else "marking.c2pa=false",
        }
        return {what: f"switched off by {setting}" for what, setting in off.items() if setting}

    def recipe(self) -> dict[str, Any]:
        """What changes the file itself."""
        return {
            "picture": self.picture,
            "sound": self.sound,
            "strength": self.strength,
            "label": self.label,
            "c2pa": self.c2pa,
            "certificate": self.certificate and str(self.certificate),
        }


@dataclass(frozen=True)
class Origin:
    """What a file comes from; the same origin has the same identifier."""

    model: str  # as the user named it
    model_sha256: str
    prompt: str  # only its hash leaves
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)  # the rest that makes the file again; plain values
    ingredients: tuple[Path, ...] = ()  # a given image, the source of an edit, a reference

    def record(self) -> dict[str, Any]:
        """What the signed manifest says of it."""
        return {
            "model": Path(self.model).name,
            "model_sha256": self.model_sha256,
            "prompt_sha256": hashlib.sha256(self.prompt.encode()).hexdigest(),
            "seed": self.seed,
            "settings": self.settings,
            "ingredients": [{"sha256": runfolder.file_sha256(path)} for path in self.ingredients],
        }

    def identifier(self) -> int:
        """The 32 bits that the watermark says."""
        text = json.dumps(self.record(), sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[: PAYLOAD_BITS // 8], "big")


@dataclass(frozen=True)
class Made:
    """What is to be written: frames, one by one if need be, sound, or both."""

    frames: Iterable[NDArray[np.uint8]] | None = None  # uint8 [H, W, 3] each
    frame_rate: float = 0.0
    audio: NDArray[np.float32] | None = None  # [C, N] in [-1, 1]
    sample_rate_hz: int | None = None
    crf: float = 18
    write: Write | None = (
        None  # encodes what is marked into a path, where the usual .mp4, .png or .flac will not do
    )


class Exporter:
    """Writes generated files as one `Marking` says; keys and models are read when it is made."""

    def __init__(self, marking: Marking, filters: Filters | None = None) -> None:
        """Raises UserError for a key, certificate or model that cannot be used."""
        self.marking, self.filters = marking, filters or Filters()
        self.picture: PictureMark | None = picture_mark(marking.picture, marking.strength)
        self.sound: SoundMark | None = sound_mark(marking.sound)
        self.signer: Signer | None = None
        if marking.c2pa and marking.certificate and marking.key:
            self.signer = load_signer(marking.certificate, marking.key)
        elif marking.c2pa:
            self.signer = development_signer()
        self._told: set[tuple[str, str]] = set()
        for what, why in marking.switched_off().items():
            self._tell("generated files have", what, why)

    def export(
        self,
        path: Path,
        made: Made,
        origin: Origin,
        card: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        sidecar: Path | None = None,
    ) -> dict[str, Any]:
        """Write `path` (.mp4, .png or .flac, unless `made` knows another), marked and signed, then its side-car.

        Args:
            path: appears only when it is complete, and before the side-car.
            made: pictures and sound.
            origin: what it comes from.
            card: what else the side-car says; a function is asked when the file is written.
            sidecar: `<stem>.json` unless given.

        Returns: what the side-car says under "provenance".

        Raises:
            MediaError: pictures or sound of the wrong form, or a file that cannot be written (a full disk).
            UserError: a label that has no room, a key that does not sign, or a clip that a filter withholds.
        """
        work = _Work(self, made, path.name, origin.identifier())
        record = {"identifier": f"{work.identifier:08x}", "created": _now(), **origin.record()}
        with (
            media.atomic_path(path) as final,
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
        ):
            plain = Path(folder) / path.name
            try:
                work.write(plain)
                record |= {"watermarks": work.marks(), "label": self.marking.label}
                self._sign(plain, final, path, record, origin, work)
            except media.MediaError as error:
                name = path if error.name == str(plain) else error.name
                raise media.MediaError(name, error.reason, error.rule) from error
            digest = runfolder.file_sha256(final)
        provenance = {
            "generator": f"moviegen {metadata.version('moviegen')}",
            **record,
            "manifest": self._manifest_note(work),
            "without": work.without,
            "sha256": digest,
        }
        told = card() if callable(card) else card
        runfolder.write_json(sidecar or path.with_suffix(".json"), {**told, "provenance": provenance})
        for what, why in work.without.items():
            self._tell(f"{path.name} has", what, why)
        return provenance

    def _sign(
        self, plain: Path, final: Path, path: Path, record: dict[str, Any], origin: Origin, work: _Work
    ) -> None:
        if self.signer is not None and path.suffix.lower() not in MIME_TYPES:
            work.without["manifest"] = f"a {path.suffix} file has no place for one"
        if "manifest" in work.without or self.signer is None:
            plain.replace(final)
            return
        sign(plain, final, path.name, record, self.signer, origin.ingredients, self.marking.timestamp_url)

    def _manifest_note(self, work: _Work) -> str | None:
        if self.signer is None or "manifest" in work.without:
            return None
        return f"C2PA, signed with {self.signer.name}"

    def _tell(self, who: str, what: str, why: str) -> None:
        """Print what is missing and why, once for all files that it is true of."""
        if (what, why) not in self._told:
            self._told.add((what, why))
            print(f"marking: {who} no {what}: {why}")


class _Work:
    """One file on its way: what it carries, and why not."""

    def __init__(self, exporter: Exporter, made: Made, name: str, identifier: int) -> None:
        self.exporter, self.made, self.name, self.identifier = exporter, made, name, identifier
        self.without = exporter.marking.switched_off()
        if made.frames is None:
            self.without.pop("picture watermark", None)
        if made.audio is None:
            self.without.pop("sound watermark", None)
        self.picture_reader: FrameReader | None = None
        self.sound_reading: Reading | None = None

    def write(self, path: Path) -> None:
        """Encode pictures and sound, marked."""
        made, audio = self.made, self._audio()
        if made.write is not None:
            made.write(path, None if made.frames is None else self._frames(made.frames), audio)
        elif made.frames is None:
            if audio is None or made.sample_rate_hz is None:
                raise media.MediaError(path, "neither pictures nor sound to write", "write")
            media.write_flac(path, audio, made.sample_rate_hz)
        elif path.suffix == ".png":
            frame = next(self._frames(made.frames))
            media.write_clip(path.with_suffix(""), frame[None], made.frame_rate)
        else:
            frames = self._frames(made.frames)
            media.write_video(path, frames, made.frame_rate, audio, made.sample_rate_hz, made.crf)

    def marks(self) -> list[dict[str, Any]]:
        """The watermarks that the file carries, and whether they could be read back before it was encoded."""
        readings: list[tuple[str, str, Reading]] = []
        if self.picture_reader is not None:
            assert self.exporter.picture is not None
            readings.append((self.exporter.picture.name, "picture", self.picture_reader.read(search=False)))
        if self.sound_reading is not None:
            assert self.exporter.sound is not None
            readings.append((self.exporter.sound.name, "sound", self.sound_reading))
        found = []
        for name, where, reading in readings:
            same = reading.payload == self.identifier & (1 << reading.bits) - 1
            reads = reading.found and same
            found.append({"name": name, "in": where, "reads_back": reads, "score": round(reading.score, 2)})
            if not reads:
                self.without[f"readable {where} watermark"] = "too little in it to carry the whole mark"
        return found

    def _frames(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        label = embed = None
        passed = self.exporter.filters.passed(self.name, frames, self.made.frame_rate)
        for number, frame in enumerate(passed):
            height, width = frame.shape[:2]
            if number == 0:
                text = self.exporter.marking.label
                label = Label(text, height, width) if text else None
                embed = self._embedder(height, width)
            frame = label(frame) if label else frame
            frame = embed(frame) if embed else frame
            if self.picture_reader is not None and number < READ_BACK_FRAMES:
                self.picture_reader.add(frame)
            yield frame

    def _embedder(self, height: int, width: int) -> Any:
        backend = self.exporter.picture
        if backend is None:
            return None
        if why := backend.no_room(height, width):
            self.without["picture watermark"] = why
            return None
        self.picture_reader = backend.reader()
        return backend.embedder(height, width, self.identifier)

    def _audio(self) -> NDArray[np.float32] | None:
        audio, rate, backend = self.made.audio, self.made.sample_rate_hz, self.exporter.sound
        if audio is None or rate is None or backend is None:
            return audio
        if why := backend.no_room(audio.shape[1], rate):
            self.without["sound watermark"] = why
            return audio
        marked = backend.embed(audio, rate, self.identifier)
        self.sound_reading = backend.read(marked[:, : READ_BACK_SECONDS * rate], rate)
        return marked


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
