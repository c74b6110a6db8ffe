"""`moviegen eval prompts`: what the generator is asked for, and what the oracle should then see.

Combinations of attributes that training never shows ("heldout"), the caption template that it never reads
("template"), and free-form prompts ("free", whose spec states what they say, if anything). On request the first frames
of the clips that the prompts describe, for a model that is given them, and the specs of toyworld clips in shards, for
the ceiling that the judge draws from their reconstructions.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.words import NUM_CHARACTERS
from moviegen_data.toyworld.world import Prompt, ToyClip
from moviegen_eval.config import parse_config
from moviegen_eval.files import write_atomically, write_json_lines
from moviegen_eval.shards import find_shards
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import encode_video, to_png_bytes

CRF = 14.0  # H.264 quality of true clips, as of `moviegen data build`


@dataclass(frozen=True)
class PromptsConfig:
    """How many prompts of each set, and where they go."""

    out: str  # folder for prompts.jsonl and, with shards, specs.jsonl
    level: int = 4  # toyworld difficulty level
    heldout: int = 96
    template: int = 32
    free: list[Any] = field(default_factory=list)  # a prompt, or its `prompt` and the `spec` of what it says
    first_frames: bool = False  # prompts of toyworld also name an image, which is written beside them
    truths: bool = (
        False  # the clips that prompts of toyworld describe are written too, for `edit baseline=copy`
    )
    characters: int = 0  # prompts for each of the held-out characters, whom a reference picture shows
    seed: int = 100  # of the series of scenes: another one than the training clips'
    shards: str | None = None  # folder of shards whose toyworld specs are wanted
    split: str = "val"
    captions: bool = False  # captions of the other clips in `shards` are free prompts too

    def __post_init__(self) -> None:
        for name in ("heldout", "template", "characters", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"prompts: {name} must be 0 or more, got {getattr(self, name)}")
        for item in self.free:
            text = item.get("prompt") if isinstance(item, Mapping) else item
            if not isinstance(text, str) or not text.strip():
                raise ValueError("prompts: free holds an empty prompt")
            if isinstance(item, Mapping) and not (item.keys() <= {"prompt", "spec"}):
                raise ValueError(f"prompts: free holds {dict(item)}; expected a prompt, or prompt and spec")


def prompts(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Write prompts.jsonl, lines of {id, prompt, set, spec[, image]}, and specs.jsonl, lines of {key, spec}.

    With `truths` also truths/ and truths.jsonl, which `moviegen edit baseline=copy` takes through the codec: what a
    perfect generator could make of the prompts.
    """
    config = parse_config(PromptsConfig, cfg, "prompts")
    rows = [
        *_toyworld(config, "heldout"),
        *_toyworld(config, "template"),
        *_free(config),
        *_characters(config),
    ]
    if not rows:
        raise ValueError(
            "prompts: heldout, template, free and characters are all empty; ask for one prompt at least"
        )
    specs = list(_specs(config)) if config.shards else []
    out = Path(config.out)
    write_json_lines(out / "prompts.jsonl", rows)
    if config.characters:  # for a model that is not told who it is
        bare = [{key: row[key] for key in row if key != "references"} for row in rows]
        write_json_lines(out / "text_only.jsonl", bare)
    if config.truths:
        write_json_lines(out / "truths.jsonl", [_truth(row) for row in rows if row["spec"]])
    if config.shards:
        write_json_lines(out / "specs.jsonl", specs)
    print(f"{out}: {len(rows)} prompts, specs of {len(specs)} clips")


def _toyworld(config: PromptsConfig, name: str) -> Iterator[dict[str, Any]]:
    """Prompts of one set, each caption once."""
    combos, template = ("heldout", "train") if name == "heldout" else ("train", "heldout")
    num = config.heldout if name == "heldout" else config.template
    world = World(WorldConfig(level=config.level, combos=combos, template=template))
    seen: set[str] = set()
    with tqdm(total=num, desc=f"{name} prompts", unit="prompt", disable=not num) as progress:
        for index, prompt in enumerate(world.prompts(4 * num, config.seed)):
            if len(seen) < num and prompt.text not in seen:
                seen.add(prompt.text)
                progress.update()
                key = f"{name}-{len(seen):03d}"
                row = {"id": key, "prompt": prompt.text, "set": name, "spec": prompt.spec}
                if config.truths:
                    _write_truth(config, world, index, key)
                yield row | (_first_frame(config, world, index, key) if config.first_frames else {})


def _write_truth(config: PromptsConfig, world: World, index: int, key: str) -> None:
    """Write the clip that a prompt describes."""
    clip = world.render(config.seed, index)
    write_atomically(
        Path(config.out) / f"truths/{key}.mp4", encode_video(clip.frames, clip.frame_rate, crf=CRF)
    )


def _truth(row: Mapping[str, Any]) -> dict[str, str]:
    """A true clip as `moviegen edit` reads it: there is nothing to change."""
    key = row["id"]
    return {"id": key, "video": f"truths/{key}.mp4", "instruction": row["prompt"], "task": "t2v"}


def _first_frame(config: PromptsConfig, world: World, index: int, key: str) -> dict[str, str]:
    """Write the first frame of the clip that a prompt describes."""
    name = f"first_frames/{key}.png"
    write_atomically(Path(config.out) / name, to_png_bytes(world.render(config.seed, index).frames[0]))
    return {"image": name}


def _characters(config: PromptsConfig) -> Iterator[dict[str, Any]]:
    """Prompts of characters that training never shows, each with a frame of another clip of that character.

    The prompt does not say who it is; the spec states what it does say.
    """
    world = World(
        WorldConfig(config.level, character_share=1.0, characters="heldout", named_characters=False)
    )
    counts: dict[int, int] = {}
    total = config.characters * NUM_CHARACTERS // 2
    with tqdm(total=total, desc="character prompts", unit="prompt", disable=not total) as progress:
        for index, prompt, frame, elsewhere in _scenes(world, config) if total else ():
            sprite = prompt.spec["sprites"][0]
            who = int(sprite["character"])
            counts[who] = counts.get(who, 0) + 1
            key = f"character-{who:02d}-{counts[who]:02d}"
            name = f"references/{key}.png"
            write_atomically(Path(config.out) / name, to_png_bytes(elsewhere.frames[frame]))
            if config.truths:
                _write_truth(config, world, index, key)
            spec = {**prompt.spec, "sprites": [{"motion": sprite["motion"]}]}
            row = {"id": key, "prompt": prompt.text, "set": "heldout", "spec": spec, "references": [name]}
            yield row | {"tags": {"person": f"character {who:02d}"}}
            progress.update()


def _scenes(world: World, config: PromptsConfig) -> Iterator[tuple[int, Prompt, int, ToyClip]]:
    """For each held-out character as many prompts as asked for, each once, with a frame number of another clip.

    The first number is that of the prompt's own clip.
    """
    waiting: dict[int, list[tuple[int, Prompt]]] = {}
    counts: dict[int, int] = {}
    texts: set[str] = set()
    rng = np.random.default_rng(config.seed)
    for index in count():
        prompt = world.prompt(config.seed, index)
        who = int(prompt.spec["sprites"][0]["character"])
        if counts.get(who, 0) + len(waiting.get(who, [])) < config.characters and prompt.text not in texts:
            texts.add(prompt.text)
            waiting.setdefault(who, []).append((index, prompt))
        elif waiting.get(who):  # a clip that is not asked for shows who is
            counts[who] = counts.get(who, 0) + 1
            elsewhere = world.render(config.seed, index)
            yield *waiting[who].pop(), int(rng.integers(len(elsewhere.frames))), elsewhere
        if sum(counts.values()) == config.characters * NUM_CHARACTERS // 2:
            return


def _free(config: PromptsConfig) -> Iterator[dict[str, Any]]:
    found = _captions(config) if config.captions and config.shards else []
    specs: dict[str, Any] = {}
    for item in (*config.free, *found):
        told = item if isinstance(item, Mapping) else {"prompt": item}
        specs.setdefault(told["prompt"], told.get("spec"))
    for number, (text, spec) in enumerate(specs.items(), start=1):
        yield {"id": f"free-{number:03d}", "prompt": text, "set": "free", "spec": spec}


def _specs(config: PromptsConfig) -> Iterator[dict[str, Any]]:
    """Key and spec of each toyworld clip of the split."""
    for key, data in _members(config, "truth.json", toyworld=True):
        yield {"key": key, "spec": json.loads(data)["spec"]}


def _captions(config: PromptsConfig) -> Iterator[str]:
    """Captions of the split's clips that are not toyworld's."""
    for _, data in _members(config, "txt", toyworld=False):
        yield data.decode("utf-8").strip()


def _members(config: PromptsConfig, suffix: str, toyworld: bool) -> Iterator[tuple[str, bytes]]:
    """Key and content of each file with a suffix in the split's shards; ValueError for a damaged shard."""
    for path in find_shards(config.shards or "", config.split, toyworld):
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    key, _, found = member.name.partition(".")
                    file = tar.extractfile(member) if found == suffix else None
                    if file is not None:
                        yield key, file.read()
        except (tarfile.TarError, OSError) as error:
            raise ValueError(f"{path}: is not a readable shard ({error})") from None
