"""`moviegen eval prompts`: what the generator is asked for, and what the oracle should then see.

Combinations of attributes that training never shows ("heldout"), the caption template that it never reads
("template"), and free-form prompts ("free", no spec). On request the first frames of the clips that the prompts
describe, for a model that is given them, and the specs of toyworld clips in shards, for the ceiling that the judge
draws from their reconstructions.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.config import parse_config
from moviegen_eval.files import write_atomically, write_json_lines
from moviegen_eval.shards import find_shards
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import to_png_bytes


@dataclass(frozen=True)
class PromptsConfig:
    """How many prompts of each set, and where they go."""

    out: str  # folder for prompts.jsonl and, with shards, specs.jsonl
    level: int = 4  # toyworld difficulty level
    heldout: int = 96
    template: int = 32
    free: list[str] = field(default_factory=list)
    first_frames: bool = False  # prompts of toyworld also name an image, which is written beside them
    seed: int = 100  # of the series of scenes: another one than the training clips'
    shards: str | None = None  # folder of shards whose toyworld specs are wanted
    split: str = "val"
    captions: bool = False  # captions of the other clips in `shards` are free prompts too

    def __post_init__(self) -> None:
        for name in ("heldout", "template", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"prompts: {name} must be 0 or more, got {getattr(self, name)}")
        if any(not text.strip() for text in self.free):
            raise ValueError("prompts: free holds an empty prompt")


def prompts(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Write prompts.jsonl, lines of {id, prompt, set, spec[, image]}, and specs.jsonl, lines of {key, spec}."""
    config = parse_config(PromptsConfig, cfg, "prompts")
    rows = [*_toyworld(config, "heldout"), *_toyworld(config, "template"), *_free(config)]
    if not rows:
        raise ValueError("prompts: heldout, template and free are all empty; ask for at least one prompt")
    specs = list(_specs(config)) if config.shards else []
    out = Path(config.out)
    write_json_lines(out / "prompts.jsonl", rows)
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
                yield row | (_first_frame(config, world, index, key) if config.first_frames else {})


def _first_frame(config: PromptsConfig, world: World, index: int, key: str) -> dict[str, str]:
    """Write the first frame of the clip that a prompt describes."""
    name = f"first_frames/{key}.png"
    write_atomically(Path(config.out) / name, to_png_bytes(world.render(config.seed, index).frames[0]))
    return {"image": name}


def _free(config: PromptsConfig) -> Iterator[dict[str, Any]]:
    found = _captions(config) if config.captions and config.shards else []
    for number, text in enumerate(dict.fromkeys([*config.free, *found]), start=1):
        yield {"id": f"free-{number:03d}", "prompt": text, "set": "free", "spec": None}


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
