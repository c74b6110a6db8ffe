"""`open_suite`: a suite by name, `name:path` or the path of a prompt file."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from moviegen_eval.suites import readers
from moviegen_eval.suites.base import CONCEPT, MOTION, MOTION_LEVELS, SourceFile, Suite, SuitePrompt

OWN = Path(__file__).with_name("own.csv")
OWN_LICENCE = "Apache-2.0, with this project"
READERS: dict[str, Callable[[Path], Suite]] = {
    "movie_gen_video": readers.read_movie_gen_video,
    "movie_gen_audio": readers.read_movie_gen_audio,
    "tgve": readers.read_tgve,
    "tgve_plus": readers.read_tgve_plus,
    "vbench": readers.read_vbench,
}
SUITES = ("own", "toyworld", *READERS)
TOYWORLD = {"level": 4, "num": 96, "seed": 100}


def open_suite(name: str) -> Suite:
    """Open a suite.

    Args:
        name: `own`; `toyworld`, or `toyworld:level=2,num=64,seed=1`; `movie_gen_video:<folder>`,
            `movie_gen_audio:<folder>`, `tgve:<file>`, `tgve_plus:<file>`, `vbench:<file>`; or the path of a .txt,
            .jsonl or .csv.

    Raises:
        ValueError: no such suite, or its files are missing or damaged; one line.
    """
    head, _, rest = name.partition(":")
    if name == "own":
        return readers.read_csv(OWN, "own", OWN_LICENCE)
    if head == "toyworld":
        return _toyworld(rest)
    if head in READERS:
        if not rest:
            raise ValueError(f"suite {head}: its files are not shipped; write {head}:path/to/them")
        return READERS[head](Path(rest))
    path = Path(name)
    if path.is_file():
        return readers.read_csv(path) if path.suffix == ".csv" else readers.read_prompts(path)
    near = difflib.get_close_matches(head, SUITES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SUITES)}, or a file's path"
    raise ValueError(f"suite {name!r}: no such suite or file; {hint}")


def _toyworld(words: str) -> Suite:
    """Held-out toyworld prompts with the specs that the oracle judges by, each text once."""
    from moviegen_data.toyworld import World, WorldConfig

    settings = dict(TOYWORLD)
    for word in filter(None, words.split(",")):
        key, _, value = word.partition("=")
        if key not in settings or not value.isdigit():
            raise ValueError(
                f"suite toyworld: {word!r}; expected {', '.join(f'{k}=<number>' for k in settings)}"
            )
        settings[key] = int(value)
    world = World(WorldConfig(level=settings["level"], combos="heldout"))
    prompts: dict[str, SuitePrompt] = {}
    for prompt in world.prompts(4 * settings["num"], settings["seed"]):
        if len(prompts) == settings["num"]:
            break
        if prompt.text not in prompts:
            name = f"heldout-{len(prompts) + 1:03d}"
            fields = {"spec": prompt.spec, "set": "heldout"}
            prompts[prompt.text] = SuitePrompt(name, prompt.text, _toyworld_tags(prompt.spec), fields)
    said = ",".join(f"{key}={value}" for key, value in settings.items())
    sources = (SourceFile(f"toyworld:{said}", ""),)
    return Suite("toyworld", tuple(prompts.values()), OWN_LICENCE, sources, level=settings["level"])


def _toyworld_tags(spec: dict) -> dict[str, tuple[str, ...]]:
    """Concepts of a spec: what moves and how; the motion level counts what moves, the camera included."""
    concepts = [
        f"motion - {sprite['motion']}" for sprite in spec.get("sprites") or [] if sprite.get("motion")
    ]
    moving = len(concepts)
    if interaction := spec.get("interaction"):
        concepts.append(f"interaction - {interaction}")
        moving += 2
    if (camera := spec.get("camera")) and camera != "static":
        concepts.append(f"camera - {camera}")
        moving += 1
    level = MOTION_LEVELS[min(max(moving, 1), 3) - 1]
    return {CONCEPT: tuple(concepts) or ("motion - none",), MOTION: (level,)}
