"""`moviegen data identities`: which clips show one person, and the references that a personalized model is given.

Reads shards that `moviegen data build` wrote, or a folder of videos, and writes shards whose samples also hold
`faces.npy`, uint8 [N, S, S, 3]: crops of the clip itself, then of the same person from other recordings, then made ones
(paper 4.2). The json says of each crop which recording and consent it comes from. Faces of real people are looked for
only in recordings that a consent record covers. Of a folder of videos the references alone are written: training wants
the clips beside them, which `moviegen data build` makes.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.config import VideoSource
from moviegen_data.face_pairs import (
    ClipFaces,
    PairRules,
    UnfitClipError,
    clip_faces,
    find_identities,
    looked_at,
    pair_across,
)
from moviegen_data.face_sources import Clip, shard_clips, shard_records, tar_samples, video_clips
from moviegen_data.files import file_sha256
from moviegen_data.shards_io import locked, write_json
from moviegen_data.synthetic_pairs import SyntheticPairs, made_crops
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from moviegen import unfinished
from moviegen.faces import FaceFinder
from moviegen.faces.parts import FINDERS, build_part
from moviegen.media import MediaError, atomic_path
from moviegen.provenance.consent import ConsentError, ConsentStore

KINDS = ("paired", "cross")
VIDEOS_TAR = "train-videos-000000.tar"
TO_TRAIN = (
    "for that: moviegen data build source=own 'sources.own.paths=[FOLDER]' sources.own.licence=... "
    "sources.own.consent=ID out=SHARDS, then moviegen data identities shards=SHARDS"
)
PARTS = (  # what the nodes of a configuration may name
    *FINDERS,
    "moviegen_data.toyworld.finder.ToyFaces",
    "moviegen_data.toyworld.finder.ToyPictures",
    "moviegen_data.face_pairs.PairRules",
    "moviegen_data.synthetic_pairs.SyntheticPairs",
)


@dataclass(frozen=True)
class IdentitiesConfig:
    """The keys of conf/data_identities.yaml, which says what they are."""

    out: str
    faces: dict[str, Any]
    rules: dict[str, Any]
    store: str
    shards: str | None = None
    videos: tuple[str, ...] = ()
    match: str = "*"
    licence: str | None = None
    consent: str = "unrecorded"
    require: str = "paired"
    synthetic: dict[str, Any] | None = None


@dataclass
class Mined:
    """What the clips gave: those of one person, the rules that took the others, and how pairs came out."""

    seen: list[Clip] = field(default_factory=list)  # all clips, without their content
    clips: list[ClipFaces] = field(default_factory=list)
    made: dict[str, list[np.ndarray]] = field(default_factory=dict)  # synthetic crops by key
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)  # rule -> what it said first
    synthetic: Counter[str] = field(default_factory=Counter)
    consents: set[str] = field(default_factory=set)
    people: int = 0

    def drop(self, clip: Clip, rule: str, detail: str) -> None:
        """Leave a clip out."""
        self.dropped[rule] += 1
        self.examples.setdefault(rule, f"{clip.key}: {detail}")


def identities(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Write shards with references into `out`, print and return the table of what was kept and why the rest was not.

    Raises ValueError where the input or the settings are wrong or no clip is kept; nothing is written then.
    """
    config = _parse(cfg)
    finder, rules = build_part(config.faces, PARTS), build_part(config.rules, PARTS)
    store = ConsentStore(config.store)
    pairs: SyntheticPairs | None = build_part(config.synthetic, PARTS) if config.synthetic else None
    folder = Path(config.shards) if config.shards else None
    records = shard_records(folder, config.match) if folder else []
    found = shard_clips(folder, records) if folder else video_clips(_videos(config), VIDEOS_TAR)
    total = sum(record["num_samples"] for record in records) or None
    mined = _mine(tqdm(found, "looking for faces", total, unit="clip"), finder, rules, store, pairs)
    if not mined.clips:
        raise ValueError(f"no clip shows one person: {_reasons(mined)}")
    mined.people = find_identities(mined.clips, finder.same)
    pair_across(mined.clips, rules)
    kept = [
        clip for clip in mined.clips if config.require == "paired" or clip.cross or clip.key in mined.made
    ]
    if not kept:
        raise ValueError(
            f"no clip has a reference from elsewhere: {len(mined.clips)} clips of {mined.people} people"
        )
    out = Path(config.out)
    with locked(out):
        unfinished.begin(out)
        written = _write(out, config, records, mined, {clip.key for clip in kept}, finder.synthetic)
        table = _table(mined, len(kept))
        write_json(out / "identities.json", table)
        write_json(out / "index.json", {"recipe": _recipe(config), "shards": written})
        unfinished.end(out)
    for consent in mined.consents:
        store.record_use(consent, "shards", out / "index.json", file_sha256(out / "index.json"))
    print(_shown(table))
    if config.videos:
        print(
            f"{out}: references alone, without clips and captions, so nothing can be trained on them; {TO_TRAIN}"
        )
    return table


def _videos(config: IdentitiesConfig) -> VideoSource:
    return VideoSource("videos", "train", config.videos, config.licence, consent=config.consent)


def _mine(
    clips: Iterable[Clip],
    finder: FaceFinder,
    rules: PairRules,
    store: ConsentStore,
    pairs: SyntheticPairs | None,
) -> Mined:
    mined = Mined()
    for number, clip in enumerate(clips):
        mined.seen.append(replace(clip, source=b""))
        try:
            if reason := clip.record.get("unreadable"):
                raise UnfitClipError("unreadable", reason)
            if not finder.synthetic:  # before anything is looked for
                sha256 = str(clip.record.get("source_sha256"))
                mined.consents.add(store.check(clip.record.get("consent"), [sha256], "training").id)
            frames, rate = clip.frames(rules.rate)
            found = clip_faces(clip.key, clip.record | {"fps": rate}, frames, finder, rules)
        except (UnfitClipError, MediaError, ConsentError) as error:
            mined.drop(clip, "no consent" if isinstance(error, ConsentError) else error.rule, str(error))
            continue
        mined.clips.append(found)
        if pairs is not None:
            first = looked_at(frames, rate, rules.rate)[0]
            crops, counts = made_crops(first, found.embedding, finder, pairs, rules.size, rules.seed + number)
            mined.synthetic += counts
            if crops:
                mined.made[clip.key] = crops
    return mined


def _write(
    out: Path,
    config: IdentitiesConfig,
    records: Sequence[dict[str, Any]],
    mined: Mined,
    kept: set[str],
    synthetic: bool,
) -> list[dict[str, Any]]:
    """Write a tar for each one read; returns the records of those that hold anything."""
    told = {clip.key: clip.record for clip in mined.seen}
    faces = {clip.key: _faces(clip, mined, told) for clip in mined.clips if clip.key in kept}
    notes = records or [{"name": VIDEOS_TAR, "split": "train", "source": "videos"}]
    written = []
    for note in notes:
        own = [clip for clip in mined.seen if clip.tar == note["name"] and clip.key in kept]
        if not own:
            continue
        samples = _samples(
            Path(config.shards) / note["name"] if config.shards else None, own, faces, synthetic
        )
        target = out / note["name"]
        _write_tar(target, samples)
        record = {name: value for name, value in note.items() if name not in ("plan", "bytes")}
        record |= {"num_samples": len(own), "bytes": target.stat().st_size, "sha256": file_sha256(target)}
        record |= {"faces": "synthetic" if synthetic else "people"}
        record |= {"consents": sorted({str(crop["consent"]) for clip in own for crop in faces[clip.key][1]})}
        written.append(record)
    return written


def _faces(
    clip: ClipFaces, mined: Mined, told: Mapping[str, dict[str, Any]]
) -> tuple[bytes, list[dict[str, Any]]]:
    """`faces.npy` of a clip and, for each crop, its kind and whose it is; `told` has the records of clips."""
    others = [mined.clips[other] for other, _ in clip.cross]
    made = mined.made.get(clip.key, [])
    crops = [*clip.crops, *(other.crops[n] for other, (_, n) in zip(others, clip.cross, strict=True)), *made]
    buffer = io.BytesIO()
    np.save(buffer, np.stack(crops), allow_pickle=False)
    origins = [("paired", clip.key)] * len(clip.crops) + [("cross", other.key) for other in others]
    origins += [("made", clip.key)] * len(made)
    names = ("source_sha256", "consent")
    return buffer.getvalue(), [
        {"kind": kind, "key": key, **{name: told[key].get(name) for name in names}} for kind, key in origins
    ]


def _samples(
    tar: Path | None,
    clips: Sequence[Clip],
    faces: Mapping[str, tuple[bytes, list[dict[str, Any]]]],
    synthetic: bool,
) -> Iterator[dict[str, Any]]:
    records = {clip.key: clip.record for clip in clips}
    found = tar_samples(tar) if tar else ((key, {}) for key in records)
    for key, files in found:
        if key in records:
            crops, origins = faces[key]
            paired = sum(origin["kind"] == "paired" for origin in origins)
            record = records[key] | {"faces": {"paired": paired, "cross": len(origins) - paired}}
            record |= {"references": origins, "subject": "synthetic" if synthetic else "person"}
            files = {name: data for name, data in files.items() if name != "json"}
            yield {"__key__": key, **files, "faces.npy": crops, "json": json.dumps(record).encode()}


def _write_tar(path: Path, samples: Iterator[dict[str, Any]]) -> None:
    from webdataset.writer import TarWriter

    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(file, encoder=False, mtime=0) as tar,
    ):  # type: ignore[arg-type]
        for sample in samples:
            tar.write(sample)


def _table(mined: Mined, kept: int) -> dict[str, Any]:
    """Counts of clips by what became of them, of people, and of references by kind."""
    cross = sum(len(clip.cross) for clip in mined.clips)
    return {
        "clips": len(mined.seen),
        "kept": kept,
        "dropped": dict(mined.dropped.most_common()),
        "examples": mined.examples,
        "people": mined.people,
        "paired": sum(len(clip.crops) for clip in mined.clips),
        "cross": cross,
        "clips_without_cross": sum(not clip.cross for clip in mined.clips),
        "synthetic": dict(mined.synthetic),
    }


def _reasons(mined: Mined) -> str:
    return "; ".join(
        f"{count} {rule} ({mined.examples[rule]})" for rule, count in mined.dropped.most_common()
    )


def _shown(table: Mapping[str, Any]) -> str:
    lines = [f"{table['kept']} of {table['clips']} clips kept, {table['people']} people"]
    lines += [
        f"  {count:6d} left out: {rule} ({table['examples'][rule]})"
        for rule, count in table["dropped"].items()
    ]
    lines.append(
        f"  {table['paired']} references of the clip itself, {table['cross']} from another recording; "
        f"{table['clips_without_cross']} clips have none of those"
    )
    if table["synthetic"]:
        lines.append("  made pictures: " + ", ".join(f"{n} {rule}" for rule, n in table["synthetic"].items()))
    return "\n".join(lines)


def _recipe(config: IdentitiesConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in ("out", "store")}


def _parse(cfg: DictConfig | Mapping[str, Any]) -> IdentitiesConfig:
    values: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    values = {name: value for name, value in values.items() if name != "_target_"}
    config = IdentitiesConfig(**values | {"videos": tuple(values.get("videos") or ())})
    if (config.shards is None) == (not config.videos):
        raise ValueError("give shards=FOLDER (of moviegen data build) or videos=[FOLDER], one of the two")
    if config.shards and Path(config.shards).resolve() == Path(config.out).resolve():
        raise ValueError(f"out={config.out} is where the shards lie; choose another folder")
    if config.require not in KINDS:
        raise ValueError(f"require={config.require}: must be paired or cross")
    if config.videos and not config.licence:
        raise ValueError("videos need a licence: licence=CC-BY-4.0, or licence='custom:my own recordings'")
    return config
