"""`moviegen film`: from a prompt to a finished film: rewrite, generate, sound, upscale with sound, mark.

Each stage is a command of its own in a process of its own, so that one model is in memory at a time. A finished stage
is skipped when its settings, its files and the stages before it are the same (demo.Runner), so that a crash, or another
setting of a later stage, costs the later stages only. What lies between the stages is unmarked and stays in the work
folder; the film leaves through the last one, marked in picture and sound.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from moviegen import runfolder
from moviegen.cli import COMMANDS
from moviegen.config import UserError, build, check_least, compose, plain, quoted, validate
from moviegen.demo import DemoConfig, Runner, Stage, alone
from moviegen.lineage import check_frame_rate
from moviegen.modelfile import codec_files, locate, read_info, read_record, weights_file
from moviegen.personalize import PersonalizeConfig, usable_crops, with_person
from moviegen.prompts import Prompt, check_single, one_prompt, read_prompts
from moviegen.provenance.export import Exporter, Marking
from moviegen.provenance.filters import Filters
from moviegen.upscale import Shape, check_windows

UNMARKED = ("marking.picture=null", "marking.sound=null", "marking.c2pa=false")


@dataclass(frozen=True)
class FilmConfig:
    """The keys of conf/film.yaml, which says what they are."""

    run_dir: Path
    models: dict[str, str]
    size: tuple[int, int]
    seconds: float
    frame_rate: float | None = None
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prompt: str | None = None
    prompts: str | None = None
    part: str | None = None
    out: Path | None = None
    image: str | None = None
    reference: str | None = None
    consent: str | None = None
    sound: bool = True
    sound_prompt: str | None = None
    rewrite: bool = True
    crf: float = 18
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, crf=0, num_threads=1, frame_rate=1)
        if (self.prompt is None) == (self.prompts is None):
            given = "neither is" if self.prompt is None else "both are"
            raise UserError(f"give prompt='a red star' or prompts=FILE, one of the two; {given} given")
        if not 0 < self.seconds <= 600:
            raise UserError(f"seconds={self.seconds:g}: must be above 0 and at most 600")
        if len(self.size) != 2 or min(self.size) < 16 or any(n % 2 for n in self.size):
            raise UserError(
                f"size={list(self.size)}: must be an even height and an even width, of 16 or more"
            )
        if self.out is not None and self.prompts is not None:
            raise UserError(f"out={self.out}: films of a file lie in run_dir, by their ids; leave out= away")
        if self.out is not None and self.out.suffix != ".mp4":
            raise UserError(f"out={self.out}: must end in .mp4")
        if self.part is not None:
            self.share()

    def share(self) -> tuple[int, int]:
        """Number and count of `part`, such as 1/4; UserError for anything else."""
        number, _, count = str(self.part).partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UserError(f"part={self.part}: must be like 1/4, the first of four")
        return int(number), int(count)


def film(cfg: DictConfig) -> None:
    """Make a film, or one for each prompt of a file, and say how long each stage took and what memory it peaked at.

    What can be known at the start is refused there: prompts, sizes, stages whose command or model is absent, keys.
    """
    config: FilmConfig = build(cfg)
    prompts = _prompts(config)
    check(config, prompts)
    filters = [f"filters.{name}={worded(plain(cfg.filters)[name])}" for name in ("prompt", "output")]
    for number, prompt in enumerate(prompts, start=1):
        folder = config.run_dir / prompt.id
        out = config.out or config.run_dir / f"{prompt.id}.mp4"
        print(f"film {number} of {len(prompts)}: {prompt.text}", flush=True)
        job = DemoConfig(folder, out, stages(config, prompt, out, ("filters=default", *filters)))
        check_settings(job, config)
        with alone(folder):
            runner = Runner(job, label="film")
            runner.run()
            runfolder.write_json(
                folder / "stages.json", {"seconds": runner.seconds(), "peak_bytes": peak_bytes()}
            )


def _prompts(config: FilmConfig) -> list[Prompt]:
    """Those of this part of the batch."""
    if config.prompt is not None:
        return one_prompt(config.prompt)
    prompts = read_prompts(str(config.prompts))
    if config.part is None:
        return prompts
    number, count = config.share()
    return prompts[number - 1 :: count]


def check(config: FilmConfig, prompts: Sequence[Prompt]) -> None:
    """Raise UserError for a stage that cannot run: no such command or model, or what it needs is not given."""
    needed = [("video", "extend"), ("upscale", "upscale"), *([("sound", "sound")] if config.sound else [])]
    if config.reference is not None:
        needed[0] = ("personalize", "personalize")
        if config.consent is None:
            raise UserError("reference= needs consent=, the record that the person agreed")
    for stage, command in needed:
        if command not in COMMANDS:
            without = {"sound": "sound=false", "personalize": "no reference="}.get(command, "another version")
            raise UserError(f"this version has no command `moviegen {command}`; give {without}")
        if stage not in config.models:
            raise UserError(f"models.{stage} is missing: the model of that stage")
        locate(config.models[stage])
    for prompt in prompts:
        check_single(prompt, "moviegen film")
    if config.sound_prompt and not config.sound:
        raise UserError("sound_prompt= is given, but sound=false")
    for image in filter(None, [config.image, *(prompt.image for prompt in prompts)]):
        if not Path(image).is_file():
            raise UserError(f"image={image}: no such file")
    Exporter(config.marking, config.filters)  # reads the keys
    texts = {prompt.id: prompt.text for prompt in prompts}
    config.filters.check_prompts(
        texts | ({"sound_prompt": config.sound_prompt} if config.sound_prompt else {})
    )


def check_settings(job: DemoConfig, config: FilmConfig) -> None:
    """Raise what a stage's own command would raise for its settings, before the first of them runs."""
    runner = Runner(job)
    built: dict[str, Any] = {}
    for name, stage in job.stages.items():
        file = COMMANDS[stage.command].config
        assert file is not None
        cfg = compose(file, runner.overrides(name))
        validate(cfg)
        if name != "rewrite":  # whose model would be loaded
            built[name] = build(cfg)
    video, large = built["video"], built["upscale"]
    check_frame_rate(video.model, video.sampler.frame_rate, getattr(video, "adapter", None))
    base = (video.sampler.height, video.sampler.width)
    check_windows(large, Shape.of(base, large.factor, large.size, large.most_per_pass))
    if config.reference is not None:
        _check_person(video, config.seconds)


def _check_person(video: PersonalizeConfig, seconds: float) -> None:
    """Refuse a picture without consent or face, and a length that the personalized model does not make at once."""
    possible = (video.frames or video.sampler.num_frames) / video.sampler.frame_rate
    if abs(seconds - possible) > 0.5 / video.sampler.frame_rate:
        raise UserError(
            f"seconds={seconds:g}: a film with reference= is as long as its model makes at once: give "
            f"seconds={possible:g}, or another length by settings.video=['frames=...']"
        )
    usable_crops([with_person(Prompt("reference", ""), video)], video)


def stages(config: FilmConfig, prompt: Prompt, out: Path, filters: Sequence[str] = ()) -> dict[str, Stage]:
    """The stages of one film, in order; `filters` are the settings of what looks at prompts and frames."""
    folder = config.run_dir / prompt.id
    found, words = {}, [f"prompt={quoted(prompt.text)}"]
    if config.rewrite:
        texts = folder / "rewrite" / "prompt.jsonl"
        found["rewrite"] = Stage(
            "rewrite", (*words, f"out={quoted(texts)}", *_more(config, "rewrite")), folder_key=None,
            outputs=(texts.name,), minutes=0.1,
        )  # fmt: skip
        words = [f"prompts={quoted(texts)}"]
    lone = one_prompt(prompt.text)[0].id  # by which personalize calls the clip, whatever its id in a file
    base = folder / "video" / ("base.mp4" if config.reference is None else f"{lone}.mp4")
    words += filters
    found["video"] = _video(config, words, prompt, base, tuple(found))
    heard = None
    if config.sound:
        heard = folder / "sound" / "heard.wav"
        found["sound"] = _sound(config, base, heard, filters)
    given = [path for path in (prompt.image or config.image, config.reference) if path]
    words = [*filters, f"given={quoted(given)}"]
    words += [f"prompt={quoted(prompt.text)}"] if _reads_text(config.models["upscale"]) else []
    found["upscale"] = _upscale(config, words, base, heard, out.resolve())
    return found


def _more(config: FilmConfig, stage: str) -> tuple[str, ...]:
    """What every stage is told, and what the user wants of this one."""
    threads = (f"num_threads={config.num_threads}",) if config.num_threads else ()
    return (*threads, *config.settings.get(stage, ()))


def _video(config: FilmConfig, words: list[str], prompt: Prompt, base: Path, needs: tuple[str, ...]) -> Stage:
    model = config.models["video" if config.reference is None else "personalize"]
    image = prompt.image or config.image
    seed = (f"sampler.seed={prompt.seeds[0]}",) if prompt.seeds else ()  # comes before that of the settings
    own = [*words, "crf=8", *UNMARKED, *_window(config, model)]
    own += [f"image={quoted(image)}"] if image else []
    if config.reference is None:
        command, key = "extend", None
        own += [f"model={quoted(model)}", f"seconds={config.seconds}", f"out={quoted(base)}"]
    else:  # as long as the model makes at once
        command, key = "personalize", "run_dir"
        own += [f"checkpoint={quoted(model)}", f"reference={quoted([config.reference])}"]
        own += [f"consent={quoted(config.consent)}"]
    return Stage(
        command, (*own, *_more(config, "video"), *seed), folder_key=key, needs=needs,
        inputs=_files(model, image, config.reference), outputs=(base.name,),
        minutes=config.seconds / 10,
    )  # fmt: skip


def _window(config: FilmConfig, model: str) -> list[str]:
    """Settings of the frame rate, the one wanted or the highest that the model knows, and of its clips there."""
    info = read_info(model)
    highest, lengths = max(info.get("frame_rates") or [0]), info.get("num_frames") or [0]
    rate = config.frame_rate or highest
    told = {"frame_rate": float(rate), "num_frames": int(max(lengths) if rate >= highest else min(lengths))}
    return [f"sampler.{name}={value}" for name, value in told.items() if value]


def _sound(config: FilmConfig, base: Path, heard: Path, filters: Sequence[str]) -> Stage:
    own = [
        *filters,
        f"video={quoted(base)}",
        f"model={quoted(config.models['sound'])}",
        f"wav={quoted(heard)}",
    ]
    own += [f"out={quoted(heard.with_name('with_sound.mp4'))}", *UNMARKED]
    own += [f"prompt={quoted(config.sound_prompt)}"] if config.sound_prompt else []
    return Stage(
        "sound", (*own, *_more(config, "sound")), folder_key=None, needs=("video",),
        inputs=_files(config.models["sound"]), outputs=(heard.name,), minutes=config.seconds / 20,
    )  # fmt: skip


def _upscale(config: FilmConfig, words: list[str], base: Path, heard: Path | None, out: Path) -> Stage:
    """The last stage, which marks the film and tells how it was made."""
    cards = [base.with_suffix(".json"), *([heard.with_name(f"{heard.name}.json")] if heard else [])]
    own = [*words, f"history={quoted([str(card) for card in cards])}"]
    own += [f"video={quoted(base)}", f"size=[{config.size[0]},{config.size[1]}]", f"out={quoted(out)}"]
    own += [f"sound={quoted(heard)}"] if heard else []
    own += [f"model={quoted(config.models['upscale'])}", f"crf={config.crf}", *_marking(config.marking)]
    return Stage(
        "upscale", (*own, *_more(config, "upscale")), folder_key=None,
        needs=("video", "sound") if heard else ("video",), inputs=_files(config.models["upscale"]),
        outputs=(str(out),), minutes=config.seconds * config.size[0] * config.size[1] / 5e5,
    )  # fmt: skip


def _files(model: str, *others: str | None) -> tuple[str, ...]:
    """What a stage starts from, whose content counts: weights, those of the codec that they need, and pictures."""
    weights = [weights_file(model), *codec_files(model)]
    return (*map(str, weights), *(other for other in others if other))


def _reads_text(model: str) -> bool:
    task = read_record(model).get("task") or {}
    return bool((task.get("conditioners") or {}).get("text"))


def _marking(marking: Marking) -> list[str]:
    """The settings of the last stage's marking, where they are not the usual ones."""
    usual = asdict(Marking())
    changed = {name: value for name, value in asdict(marking).items() if value != usual[name]}
    return [f"marking.{name}={worded(value)}" for name, value in changed.items()]


def worded(value: Any) -> str:
    """A plain value, nested if need be, as Hydra reads it back."""
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{worded(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(worded, value)) + "]"
    return quoted(value)


def peak_bytes() -> int:
    """The largest resident memory of any stage that this process started."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
