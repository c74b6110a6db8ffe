"""Readers of public prompt files, by path. Rows keep their numbers as ids, since texts repeat; nothing is mended.

Whatever the files do not agree on, repeat or leave out is counted in the suite's remarks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moviegen_eval.files import read_json, read_json_lines, read_text
from moviegen_eval.suites.base import CONCEPT, MOTION, Suite, SuitePrompt, file_source

MOVIE_GEN_VIDEO_FILES = {  # sha256 of the files of March 2025
    "MovieGenVideoBench.txt": "ae02a4bbebcb55067dbeea369e43d52a4817d57fd0ac223071b9aa236ac027c4",
    "MovieGenVideoBenchWithTag.csv": "9d893204f271c7db1ed13c6513c8cc6f4630e9bb62de448c6e93d49e37653fbf",
}
MOVIE_GEN_AUDIO_FILES = {
    "MovieGenAudioBenchSfx.jsonl": "6e86e6ef12bb6c8f0f1410262a626386d4a539b0000075fc73ba345d02e38acc",
    "MovieGenAudioBenchSfxMusic.jsonl": "e560c60c07094dbff26f2448ae4aefefce8a1ef216fc88d3898a7d539faa2fed",
}
NO_REFERENCE_AUDIO = "Movie Gen Audio Bench has no reference audio: its videos are generated, without sound"
# What TGVE+ calls its columns, in the forms in which the set is exported.
TGVE_COLUMNS = {
    "video": ("video", "video_path", "video_file", "video_name", "file_name"),
    "instruction": ("instruction", "edit_instruction", "edit_prompt"),
    "source_text": ("input_caption", "source_caption", "input_prompt"),
    "target_text": ("output_caption", "target_caption", "output_prompt"),
    "task": ("task", "edit_type", "type"),
}


# TGVE's edits of a video, and in which folder of the set the videos under a heading lie.
TGVE_EDITS = {
    "style": "Style Change Caption",
    "object": "Object Change Caption",
    "background": "Background Change Caption",
    "multiple": "Multiple Changes Caption",
}
TGVE_FOLDERS = {
    "DAVIS Videos:": "DAVIS_480p",
    "Youtube Videos:": "youtube_480p",
    "Videvo Videos:": "videvo_480p",
}


def read_movie_gen_video(path: Path) -> Suite:
    """Movie Gen Video Bench: a folder with the .txt and the .csv, or one of the two files.

    The two are joined by row: some texts differ between them, and some repeat. The csv's text is not used where
    the txt is there. Ids are `mgv-<row>`, counted from 0.
    """
    txt = _one_of(path, "MovieGenVideoBench.txt", ".txt")
    table = _one_of(path, "MovieGenVideoBenchWithTag.csv", ".csv")
    if txt is None and table is None:
        raise ValueError(f"{path}: holds neither {' nor '.join(MOVIE_GEN_VIDEO_FILES)}")
    lines = _lines(txt) if txt else []
    rows = _csv_rows(table, ("prompt", "concept", "motion_level")) if table else []
    remarks = []
    if txt and table:
        if len(lines) != len(rows):
            raise ValueError(f"{table}: has {len(rows)} rows but {txt.name} has {len(lines)}; joined by row")
        unlike = [n for n, (line, row) in enumerate(zip(lines, rows, strict=True)) if line != row["prompt"]]
        if unlike:
            shown = ", ".join(map(str, unlike[:8])) + (", ..." if len(unlike) > 8 else "")
            remarks.append(f"{len(unlike)} rows differ between txt and csv: {shown}; the txt counts")
    texts = lines or [row["prompt"] for row in rows]
    prompts = []
    for number, text in enumerate(texts):
        tags = _tags(rows[number]) if rows else {}
        prompts.append(SuitePrompt(f"mgv-{number:04d}", text, tags))
    return _with_remarks("movie_gen_video", prompts, [txt, table], remarks, MOVIE_GEN_VIDEO_FILES)


def _tags(row: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    concepts = tuple(value.strip() for value in row["concept"].split(",") if value.strip())
    return {CONCEPT: concepts, MOTION: (row["motion_level"].strip(),)}


def _with_remarks(
    name: str,
    prompts: Sequence[SuitePrompt],
    files: Sequence[Path | None],
    remarks: Sequence[str],
    known: Mapping[str, str],
) -> Suite:
    """The suite, with what is odd about its prompts and files said."""
    sources = tuple(file_source(file) for file in files if file)
    said = list(remarks)
    said += [
        f"{source.name} is another version than the one of March 2025"
        for source in sources
        if source.sha256 != known.get(source.name, source.sha256)
    ]
    unique = len({prompt.text for prompt in prompts})
    if unique < len(prompts):
        said.append(f"{len(prompts)} rows, {unique} unique texts")
    repeats = [p.id for p in prompts if len(set(p.tags.get(CONCEPT, ()))) < len(p.tags.get(CONCEPT, ()))]
    if repeats:
        said.append(f"{len(repeats)} rows repeat a concept")
    return Suite(name, tuple(prompts), "CC-BY-NC-4.0: read from a path, never shipped", sources, tuple(said))


def read_movie_gen_audio(path: Path) -> Suite:
    """Movie Gen Audio Bench: its folder, or one of the two jsonl files; ids `mga-<id>` are the file's own.

    The text is `audio_prompt`; the video's prompt, and the music's where given, stand in `fields`. There is no
    reference audio, so metrics that need one are refused.
    """
    names = list(MOVIE_GEN_AUDIO_FILES)
    file = _one_of(path, names[1], ".jsonl") or _one_of(path, names[0], ".jsonl")
    if file is None:
        raise ValueError(f"{path}: holds neither {' nor '.join(names)}")
    prompts, ids = [], []
    for where, row in read_json_lines(file):
        for key, kind in (("id", int), ("video_prompt", str), ("audio_prompt", str)):
            if not isinstance(row.get(key), kind):
                raise ValueError(f"{where}: {key} is {row.get(key)!r}; expected {kind.__name__}")
        ids.append(row["id"])
        fields = {key: row[key] for key in ("video_prompt", "music_prompt") if key in row}
        prompts.append(SuitePrompt(f"mga-{row['id']:04d}", row["audio_prompt"], {}, fields))
    gaps = sorted(set(range(max(ids, default=-1) + 1)) - set(ids))
    remarks = [f"ids run to {max(ids)} with {len(gaps)} gaps"] if gaps else []
    if path.is_dir() and all((path / name).is_file() for name in names):
        remarks.append(f"{names[0]} is there too and is not read; name it in place of the folder to read it")
    suite = _with_remarks("movie_gen_audio", prompts, [file], remarks, MOVIE_GEN_AUDIO_FILES)
    return replace(suite, no_reference_audio=NO_REFERENCE_AUDIO)


def read_tgve_plus(path: Path) -> Suite:
    """TGVE+: its table as .jsonl or .csv (export of the parquet file), ids `tgve-<row>`, counted from 0.

    The text is the instruction; the source video, both captions and the task stand in `fields` and tags.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"{path}: export the table as .jsonl or .csv")
    rows = [row for _, row in read_json_lines(path)] if path.suffix == ".jsonl" else _csv_rows(path, ())
    if not rows:
        raise ValueError(f"{path}: holds no row")
    columns = {name: _column(path, rows[0], name) for name in TGVE_COLUMNS}
    prompts = []
    for number, row in enumerate(rows):
        value = {name: row.get(column) if column else None for name, column in columns.items()}
        fields = {key: value[key] for key in ("source_text", "target_text") if value[key]}
        fields["source_video"] = str(value["video"])
        tags = {"edit_type": (str(value["task"]),)} if value["task"] else {}
        prompts.append(SuitePrompt(f"tgve-{number:04d}", str(value["instruction"]), tags, fields))
    return _with_remarks("tgve_plus", prompts, [path], [], {})


def read_tgve(path: Path) -> Suite:
    """TGVE: `LOVEU-TGVE-2023_Dataset.csv`, one row a video with four edits of it, ids `tgve-<row>-<edit>`.

    The set gives captions of the edited videos, no instructions: the caption is the text. Headings and empty rows among
    the videos are passed over; below a heading, videos are looked for as `<folder>/480p_videos/<name>.mp4`.
    """
    name, caption = "Video name", "Our GT caption"
    prompts, folder, videos = [], "", 0
    for number, row in enumerate(_csv_rows(path, (name, caption, *TGVE_EDITS.values()))):
        video = row[name].strip()
        folder = TGVE_FOLDERS.get(video, folder)
        if not row[caption].strip():
            continue
        videos += 1
        source = f"{folder}/480p_videos/{video}" if folder else video
        for kind, column in TGVE_EDITS.items():
            if not (target := row[column].strip()):
                raise ValueError(f"{path}: {video} has no {column!r}")
            fields = {"source_text": row[caption].strip(), "target_text": target, "source_video": source}
            prompts.append(SuitePrompt(f"tgve-{number:03d}-{kind}", target, {"edit_type": (kind,)}, fields))
    if not prompts:
        raise ValueError(f"{path}: holds no video with a caption")
    return _with_remarks("tgve", prompts, [path], [f"{videos} videos, {len(TGVE_EDITS)} edits each"], {})


def _column(path: Path, row: Mapping[str, Any], name: str) -> str | None:
    found = next((column for column in TGVE_COLUMNS[name] if column in row), None)
    if found is None and name in ("video", "instruction"):
        raise ValueError(
            f"{path}: no column for the {name} among {', '.join(row)}; known: {', '.join(TGVE_COLUMNS[name])}"
        )
    return found


def read_vbench(path: Path) -> Suite:
    """VBench's `VBench_full_info.json` (also VBench-2.0's): prompts with the dimensions that they are for."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "prompt_en" in row for row in rows):
        raise ValueError(f"{path}: expected a list of objects with prompt_en and dimension")
    prompts = []
    for number, row in enumerate(rows):
        dimensions = row.get("dimension") or []
        fields = {"auxiliary_info": row["auxiliary_info"]} if row.get("auxiliary_info") else {}
        prompts.append(
            SuitePrompt(f"vb-{number:04d}", str(row["prompt_en"]), {"dimension": tuple(dimensions)}, fields)
        )
    return Suite("vbench", tuple(prompts), "Apache-2.0: read from a path", (file_source(path),))


def read_csv(path: Path, name: str = "", licence: str = "not stated") -> Suite:
    """A table `id,prompt,concept,motion_level`; the last two may be missing, concepts are joined with commas."""
    rows = _csv_rows(path, ("id", "prompt"))
    prompts = []
    for row in rows:
        values = {CONCEPT: row.get("concept") or "", MOTION: row.get("motion_level") or ""}
        tags = {kind: tuple(v.strip() for v in text.split(",") if v.strip()) for kind, text in values.items()}
        prompts.append(
            SuitePrompt(row["id"], row["prompt"], {kind: found for kind, found in tags.items() if found})
        )
    return Suite(name or path.stem, tuple(prompts), licence, (file_source(path),))


def read_prompts(path: Path) -> Suite:
    """A prompt file as `moviegen generate` reads it: .txt, or .jsonl with id, prompt, set and spec."""
    if path.suffix != ".jsonl":
        texts = [line.strip() for line in read_text(path).removeprefix("\ufeff").splitlines()]
        prompts = [SuitePrompt(f"{n:05d}", text) for n, text in enumerate(texts, 1) if text]
        return Suite(path.stem, tuple(prompts), "not stated", (file_source(path),))
    prompts = []
    for where, row in read_json_lines(path):
        if not isinstance(row.get("prompt"), str) or "id" not in row:
            raise ValueError(f"{where}: expected id and prompt")
        tags = {key: tuple(map(str, value)) for key, value in (row.get("tags") or {}).items()}
        if "set" in row:
            tags.setdefault("set", (str(row["set"]),))
        fields = {"spec": row["spec"]} if row.get("spec") else {}
        prompts.append(SuitePrompt(str(row["id"]), row["prompt"], tags, fields | (row.get("fields") or {})))
    return Suite(path.stem, tuple(prompts), "not stated", (file_source(path),))


def _one_of(path: Path, name: str, suffix: str) -> Path | None:
    """`path` itself when it is a file of that kind, or the file of that name in the folder `path`."""
    if path.is_dir():
        return path / name if (path / name).is_file() else None
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return path if path.suffix == suffix else None


def _lines(path: Path) -> list[str]:
    """The lines of a text file as they are, without the end of the last one."""
    text = read_text(path).removeprefix("\ufeff")
    return text.removesuffix("\n").split("\n") if text else []


def _csv_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(path).removeprefix("\ufeff")), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: is not csv ({error} at line {reader.line_num})") from None
    lacking = [name for name in needed if name not in (reader.fieldnames or [])]
    if lacking:
        raise ValueError(f"{path}: no column {lacking[0]!r} among {', '.join(reader.fieldnames or [])}")
    for number, row in enumerate(rows, 2):
        if None in row or any(value is None for value in row.values()):
            raise ValueError(f"{path}:{number}: has another number of columns than the header")
    return rows
