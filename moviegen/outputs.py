"""The folder of `moviegen generate`: whose files lie there, which clips are still to be made, and what is said of each.

`recipe.json` names every clip that this folder has or will have, so that nothing else is ever replaced. Beside each
clip `<id>.json` holds the settings that make it again; it is written after the clip, which counts as finished with it.
Clips that are not asked for now stay; `manifest.jsonl`, written last, names those that are and no others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from moviegen import runfolder
from moviegen.config import UserError
from moviegen.media import clip_suffix
from moviegen.prompts import Prompt
from moviegen.tasks.sampling import SamplerConfig, noise_keys

SUFFIXES = (".mp4", ".png")
RECIPE, MANIFEST = "recipe.json", "manifest.jsonl"
REQUEST = (
    "prompt",
    "seed",
    "noise_key",
    "image",
    "image_frame",
    "references",
    "consent",
)  # all of a `request`
SHOWN = 3  # ids in a line that tells of many


@dataclass(frozen=True)
class ClipPlan:
    """One clip to be: its name, its prompt, and what its noise is keyed by."""

    id: str
    prompt: Prompt
    seed: int
    key: int
    suffix: str  # of the file

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.id}{self.suffix}"

    @property
    def request(self) -> dict[str, Any]:
        """What makes this clip another one if it changes."""
        image = self.prompt.image and image_stamp(self.prompt.image)
        request = {"prompt": self.prompt.text, "seed": self.seed, "noise_key": self.key, "image": image}
        request |= {"image_frame": self.prompt.image_frame} if self.prompt.image_frame else {}
        if not self.prompt.references:
            return request
        stamps = [image_stamp(path) for path in self.prompt.references]
        return request | {"references": stamps, "consent": self.prompt.consent}


def plan_clips(prompts: list[Prompt], seeds: tuple[int, ...], num_frames: int) -> list[ClipPlan]:
    """A clip for each prompt and seed: the prompt's own seeds, or `seeds`. With several seeds their names end in them.

    Noise is keyed by what the user wrote, so that a prompt and its rewriting differ in nothing but words. Raises
    UserError where two clips would have the same name.
    """
    clips: dict[str, ClipPlan] = {}
    keys = noise_keys(prompt.original or prompt.text for prompt in prompts)
    for prompt, key in zip(prompts, keys, strict=True):
        own = prompt.seeds or seeds
        for seed in own:
            name = f"{prompt.id}-s{seed}" if len(own) > 1 else prompt.id
            if name in clips:
                raise UserError(f"two clips would be called {name}; give other ids, or each seed once")
            clips[name] = ClipPlan(name, prompt, seed, key, clip_suffix(num_frames))
    return list(clips.values())


def image_stamp(path: str) -> str:
    """Hash of a given image; UserError where there is none."""
    if not Path(path).is_file():
        raise UserError(f"image {path} does not exist")
    return runfolder.file_sha256(path)


def former_run(out: Path, clips: Iterable[ClipPlan]) -> dict[str, Any]:
    """What the recipe says of an earlier run in the folder; raises UserError where files are not that run's."""
    note = out / RECIPE
    known = runfolder.read_json(note) if note.is_file() else {"prompts": {}}
    if not isinstance(known, dict) or not isinstance(known.get("prompts"), dict):
        raise UserError(f"{note} is no recipe of moviegen generate; choose another run_dir")
    wanted = {clip.id for clip in clips}
    strangers = [file for file in _files(out, SUFFIXES) if file.stem not in known["prompts"]]
    strangers += [
        file for file in _files(out, (".json",)) if file.stem in wanted and file.stem not in known["prompts"]
    ]
    for file in sorted(strangers):
        if not note.is_file() or file.stem in wanted:
            raise UserError(f"{file} was not made by moviegen generate; choose another run_dir")
    return known


def _files(out: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [file for suffix in suffixes for file in out.glob(f"*{suffix}")]


def unfinished(
    out: Path, clips: list[ClipPlan], recipe: dict[str, Any], sampler: SamplerConfig, known: dict[str, Any]
) -> list[ClipPlan]:
    """Clips that this recipe has not finished. A line tells which of them take the place of others, see `replacing`.

    The manifest of another request is deleted: it would name new clips by what the old ones were.
    """
    todo = [clip for clip in clips if not _finished(out, clip, recipe, sampler)]
    requests = {clip.id: clip.request for clip in clips}
    others = {name: told for name, told in known["prompts"].items() if name not in requests}
    others = {name: told for name, told in others.items() if _lying(out, name, (*SUFFIXES, ".json"))}
    if todo:
        (out / MANIFEST).unlink(missing_ok=True)
    if old := [clip.id for clip in todo if _lying(out, clip.id)]:
        more = ", ..." if len(old) > SHOWN else ""
        print(
            f"{out}: {len(old)} of its clips ({', '.join(old[:SHOWN])}{more}) were made otherwise, or not to the end; "
            "each is replaced when the new one is ready"
        )
    if others:
        print(f"{out}: {len(others)} clips that are not asked for now stay there; {MANIFEST} leaves them out")
    runfolder.write_json(out / RECIPE, {"recipe": recipe, "prompts": others | requests})
    return todo


def _lying(out: Path, name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return any((out / f"{name}{suffix}").is_file() for suffix in suffixes)


def _card(out: Path, name: str) -> dict[str, Any]:
    note = out / f"{name}.json"
    card = runfolder.read_json(note) if note.is_file() else {}
    return card if isinstance(card, dict) else {}


def _finished(out: Path, clip: ClipPlan, recipe: dict[str, Any], sampler: SamplerConfig) -> bool:
    """Whether a clip lies there as it is asked for: its side-car says how it was made."""
    wanted = {**clip.request, **recipe, "sampler": asdict(replace(sampler, seed=clip.seed))}
    wanted, card = json.loads(json.dumps(wanted)), _card(out, clip.id)
    return (out / clip.file).is_file() and all(
        card.get(name) == wanted.get(name) for name in {*REQUEST, *wanted}
    )


@contextmanager
def replacing(out: Path, clip: ClipPlan) -> Iterator[Path]:
    """The path to write a clip to: one that lay there is replaced by it, with its side-car, or with its other suffix.

    The side-car goes first: no clip is ever beside the settings of another.
    """
    former = _card(out, clip.id).get("path")
    (out / f"{clip.id}.json").unlink(missing_ok=True)
    yield out / clip.file
    if former in {f"{clip.id}{suffix}" for suffix in SUFFIXES} - {clip.file}:
        (out / former).unlink(missing_ok=True)


def sidecar(clip: ClipPlan, recipe: dict[str, Any], sampler: SamplerConfig) -> dict[str, Any]:
    """What `<id>.json` says beside the clip: what made it, in full."""
    return {
        "id": clip.id,
        "path": clip.file,
        **clip.request,
        "original": clip.prompt.original,
        "set": clip.prompt.set,
        "tags": clip.prompt.tags,
        "image_path": clip.prompt.image,
        **({"reference_paths": clip.prompt.references} if clip.prompt.references else {}),
        **recipe,
        "sampler": asdict(replace(sampler, seed=clip.seed)),
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
    }


def write_manifest(out: Path, clips: list[ClipPlan], model: str, sampler: SamplerConfig, commit: str) -> None:
    """Write `manifest.jsonl`, a line for each clip, as `moviegen eval judge` reads it (eval/manifest.py)."""
    common = {
        "system": "moviegen",
        "steps": sampler.num_steps,
        "guidance": float(sampler.guidance),
        "checkpoint": model,
        "frame_rate": sampler.stated_rate,
        "commit": commit,
    }
    rows = []
    for clip in clips:
        prompt = clip.prompt
        image = prompt.image and os.path.relpath(prompt.image, out)
        references = [os.path.relpath(path, out) for path in prompt.references] or None
        more = {"original": prompt.original, "image": image, "tags": prompt.tags or None}
        more |= {
            "references": references,
            "consent": prompt.consent,
            "image_frame": prompt.image_frame or None,
        }
        own = {"id": clip.id, "prompt": prompt.text, "path": clip.file, "set": prompt.set}
        own |= {"spec": prompt.spec, "seed": clip.seed}
        rows.append(own | {name: value for name, value in more.items() if value is not None} | common)
    runfolder.write_text(out / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
