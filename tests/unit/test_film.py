"""`moviegen upscale`, `extend` and `film` with tiny models: what is written, what goes on, and what is refused."""

import contextlib
import errno
import json
import resource
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import CODEC, GENERATOR
from test_upsampler import TINY

from moviegen import cli, extend, film, media
from moviegen.config import UserError, build, compose, quoted
from moviegen.modelfile import save_model
from moviegen.pixels import from_uint8
from moviegen.prompts import Prompt
from moviegen.types import VideoClip
from moviegen.upscale import Shape

SAMPLER = ["num_frames=4", "height=32", "width=32", "num_steps=1", "schedule=linear", "frame_rate=8.0"]


def write_models(folder: Path) -> Path:
    """A folder with an upsampler `up` and an image-to-video model `i2v`, all tiny and untrained."""
    codec = {"_target_": "moviegen.modelfile.load_codec", "path": str(folder / "tae")}
    save_model(folder / "tae", build(CODEC), CODEC, torch.float32, {})
    node = json.loads(json.dumps({**GENERATOR, "codec": codec}))
    node["backbone"]["config"] |= {"concat_channels": 6}
    frames = {"_target_": "moviegen.conditioning.frames.GivenFrames", "_partial_": True}
    node["conditioners"]["frames"] = frames | {"latent_channels": 4, "frames_per_latent": 2}
    save_model(folder / "i2v", build(node), node, torch.float32, {})
    small = json.loads(json.dumps(TINY))
    small["codec"]["factor"] = 8  # few tokens for pictures of 1080p
    small["backbone"]["config"] |= {"dim": 16, "latent_channels": 96, "max_height": 70, "max_width": 120}
    small["conditioners"]["low"] |= {"latent_channels": 96, "margin": 0}
    small["backbone"]["config"]["concat_channels"] = 96
    save_model(folder / "up", build(small), small, torch.float32, {})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def upscaler(models: Path) -> list[str]:
    window = ["window=4", "overlap=2", "num_steps=1", "tile=256", "tile_overlap=16"]
    return [f"model={models / 'up'}", *(f"upsampler.{word}" for word in window), "num_threads=1"]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A second of noise with sound, 48x64 pixels."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (6, 48, 64, 3), dtype=np.uint8)
    sound = (0.1 * rng.standard_normal((1, 36_000))).astype(np.float32)
    media.write_video(tmp_path / "in.mp4", frames, 8.0, sound, 48_000)
    return tmp_path / "in.mp4"


def test_shapes_on_the_way_are_those_of_the_paper() -> None:
    shape = Shape.of((576, 1008), 2.0, (1080, 1920), 2.0)
    assert shape.passes == ((1152, 2016),) and shape.written == (1080, 1920)
    frame = torch.linspace(-1, 1, 2016).expand(3, 1152, 2016)
    assert shape.finished(frame).shape == (3, 1080, 1920)
    assert str(shape) == "1008x576 -> 2016x1152 -> 1920x1080"
    far = Shape.of((64, 64), None, (1080, 1920), 2.0)
    assert far.used == (36, 64) and far.made == far.written == (1080, 1920) and len(far.passes) == 5
    heights = [36, *(height for height, _ in far.passes)]
    assert all(after <= 2.03 * before for before, after in pairwise(heights))
    with pytest.raises(UserError, match="smaller than the video, 1920x1080"):
        Shape.of((1080, 1920), None, (540, 960), 2.0)
    with pytest.raises(UserError, match="pixels are too many"):
        Shape.of((1080, 1920), 8.0, None, 2.0)


def test_a_video_becomes_larger_keeps_its_sound_and_is_marked(
    models: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "large.mp4"
    assert cli.main(["upscale", str(video), "factor=4", f"out={out}", *upscaler(models)]) == 0
    info = media.probe(out)
    assert (info.width, info.height, info.num_frames, info.has_audio) == (256, 192, 6, True)
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["passes"] == [[96, 128], [192, 256]] and card["provenance"]["manifest"]
    assert card["provenance"]["ingredients"] and {
        mark["in"] for mark in card["provenance"]["watermarks"]
    } >= {"picture"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["factor=0.5"], "factor=0.5: must be 1 to 64"),
        ([], "give factor=2, or size="),
        (["size=[1081,1920]"], "must be an even height and an even width"),
        (["size=[16,16]"], "smaller than the video, 64x48"),
        (["size=[16,1024]"], "size=[16, 1024]: so flat that only 64x1 pixels of the video, 64x48, are used"),
        (["factor=2", "out=a.avi"], "must end in .mp4"),
        (["factor=2", "model=experiments/toy/weights/t2v"], "is a FlowTask; give an upsampler"),
        (["factor=2", "model=nowhere"], "no model at nowhere"),
        (["factor=2", "upsampler.window=14"], "the model knows 6"),
        (["factor=2", "prompt=star"], "this upsampler reads no text"),
        (["factor=2", "marking.certificate=none.pem", "marking.key=none.key"], "none."),
        (["factor=2", "marking.certificate=pyproject.toml", "marking.key=pyproject.toml"], "is no PEM"),
        (["factor=2", "sound=none.wav"], "none.wav"),
    ],
)
def test_what_upscale_cannot_do_is_refused_before_anything_is_written(
    models: Path, video: Path, tmp_path: Path, capsys, monkeypatch, words: list[str], message: str
) -> None:
    out = tmp_path / "out" / "large.mp4"
    assert cli.main(["upscale", str(video), f"out={out}", *upscaler(models), *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.parent.exists()


def test_a_damaged_video_leaves_nothing_behind(models: Path, video: Path, tmp_path: Path, capsys) -> None:
    video.write_bytes(video.read_bytes()[:3000])
    out = tmp_path / "out" / "large.mp4"
    assert cli.main(["upscale", str(video), "factor=2", f"out={out}", *upscaler(models)]) == 2
    assert "in.mp4" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("out/*.mp4"))


def test_a_video_goes_on_as_long_as_wanted_and_its_drift_is_told(
    models: Path, tmp_path: Path, capsys
) -> None:
    words = [
        f"model={models / 'i2v'}",
        *(f"sampler.{word}" for word in SAMPLER),
        "num_threads=1",
    ]
    (tmp_path / "star.png").write_bytes(media.to_png_bytes(np.full((32, 32, 3), 120, np.uint8)))
    line = {"id": "a", "prompt": "a star", "image": "star.png", "seed": 7}
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    given = f"prompts={tmp_path / 'p.jsonl'}"
    for seconds, name, asked in ((2.6, "long", "prompt=a star"), (0.4, "short", given)):
        out = tmp_path / f"{name}.mp4"
        assert cli.main(["extend", *words, asked, f"seconds={seconds}", f"out={out}"]) == 0
        assert media.probe(out).num_frames == round(8 * seconds)
    card = json.loads((tmp_path / "short.json").read_text())
    assert card["sampler"]["seed"] == 7 and len(card["provenance"]["ingredients"]) == 1
    words.append("prompt=a star")
    card = json.loads((tmp_path / "long.json").read_text())
    assert [row["second"] for row in card["drift"]] == [0, 1, 2]
    assert all(row["contrast"] >= 0 for row in card["drift"])
    capsys.readouterr()
    for more, message in (
        ([f"model={models / 'up'}"], "without text input"),
        (["seconds=0"], "seconds=0: must be above 0"),
        (["known=2"], "known=2: a clip has 2 latent frames"),
        (
            ["model=experiments/toy/weights/t2v", *(f"sampler.{w}" for w in ("height=64", "width=64"))],
            "task=i2v",
        ),
        (["sampler.height=30"], "sampler.height=30: this model makes multiples of"),
        (["image=none.png"], "none.png"),
    ):
        assert cli.main(["extend", *words, "seconds=4", f"out={tmp_path / 'no.mp4'}", *more]) == 2, more
        assert message in capsys.readouterr().err
    assert not (tmp_path / "no.mp4").exists()


def test_a_video_file_goes_on_after_its_own_frames(models: Path, tmp_path: Path, capsys) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    sound = np.zeros((1, 36_000), np.float32)
    source, out = tmp_path / "in.mp4", tmp_path / "more" / "out.mp4"
    media.write_video(source, frames, 8.0, sound, 48_000)
    words = [
        f"model={models / 'i2v'}",
        *(f"sampler.{word}" for word in SAMPLER),
        "num_threads=1",
        "prompt=a star",
    ]
    words += [f"video={source}", "seconds=1.5"]
    for more, message in (
        (["sampler.height=16"], "in.mp4 is of 32x32 pixels, clips are of 32x16: scale it"),
        (["sampler.frame_rate=16"], "in.mp4 has 8 frames per second, clips have sampler.frame_rate=16"),
        (
            ["seconds=0.75"],
            "in.mp4 has 6 frames, from 2 (known=1) to 5 are wanted, seconds=0.75 of the whole",
        ),
        (["image=a.png"], "image=a.png, video="),
        ([f"video={tmp_path / 'none.mp4'}"], "none.mp4"),
        (["video=pyproject.toml"], "pyproject.toml"),
        ([f"model={models / 'up'}"], "without text input"),
    ):
        assert cli.main(["extend", *words, f"out={out}", *more]) == 2, more
        error = capsys.readouterr().err
        assert message in error.splitlines()[-1], error
    assert cli.main(["extend", *words, f"out={source}"]) == 2 and not out.parent.exists()
    assert cli.main(["extend", *words, f"out={out}"]) == 0
    assert "in.mp4: its sound is not kept" in capsys.readouterr().out
    whole, before = media.read_clip(out), media.read_clip(source).frames
    assert whole.frames.shape == (12, 32, 32, 3) and not media.probe(out).has_audio
    assert np.abs(whole.frames[:6].astype(int) - before).mean() < 20  # noise, whose frames differ by 85
    card = json.loads(out.with_suffix(".json").read_text())
    assert len(card["drift"]) == 2 and card["provenance"]["ingredients"]


def test_the_latents_that_are_gone_on_from_are_those_of_the_files_end(models: Path, tmp_path: Path) -> None:
    frames = (
        np.repeat(np.arange(6, dtype=np.uint8)[:, None, None, None] * 40, 32, 1).repeat(32, 2).repeat(3, 3)
    )
    media.write_video(tmp_path / "in.mp4", frames, 8.0)
    words = [f"model={models / 'i2v'}", "prompt=a", "seconds=1.5", f"video={tmp_path / 'in.mp4'}"]
    config = build(compose("extend", [*words, *(f"sampler.{word}" for word in SAMPLER)]))
    task = extend.load_extender(config)
    source = extend.Source.read(task, config)
    last = from_uint8(media.read_clip(tmp_path / "in.mp4").frames[-2:])[None]
    with torch.no_grad():
        wanted = task.codec.encode(VideoClip(last, torch.tensor([8.0])))
        latent = extend.longer(task, Prompt("p", "a"), None, source, config)
    torch.testing.assert_close(source.end.values, wanted.values)
    torch.testing.assert_close(latent.values[:, :, :1], wanted.values)
    assert latent.values.shape[2] == 4  # two frames of the file again, and six new ones


def full_after(count: int) -> Callable[..., Iterator[torch.Tensor]]:
    """What reads frames, until the disk is full: so many have gone to the upsampler then, and most to the encoder."""

    def read(chunks: Iterable[np.ndarray], *_) -> Iterator[torch.Tensor]:
        yield from islice((frame for chunk in chunks for frame in from_uint8(chunk).unbind(1)), count)
        raise OSError(errno.ENOSPC, "No space left on device")

    return read


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writes beyond so many bytes fail, as on a full disk: the system itself cuts them short."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_in_mid_encode_leaves_no_file(
    models: Path, video: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out" / "large.mp4"
    words = ["upscale", str(video), "factor=4", "crf=0", f"out={out}", *upscaler(models)]
    with files_of_at_most(20_000):
        assert cli.main(words) == 2
    assert "large.mp4: cannot be written: File too large" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []
    with monkeypatch.context() as broken:
        broken.setattr("moviegen.upscale.each_frame", full_after(5))
        assert cli.main(words) == 2
    assert "large.mp4: cannot be written: the disk is full" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []
    assert cli.main(words) == 0 and media.probe(out).num_frames == 6


def film_words(models: Path, folder: Path, *more: str) -> list[str]:
    settings = [f"sampler.{word}" for word in SAMPLER]
    tiles = [word for word in upscaler(models) if word.startswith("upsampler.")]
    return [
        "film", "prompt=a crimson star", f"run_dir={folder}", "sound=false", "num_threads=1", "seconds=1.0",
        f"models.video={models / 'i2v'}", f"models.upscale={models / 'up'}",
        f"settings.video={quoted(settings)}", f"settings.upscale={quoted(tiles)}", *more,
    ]  # fmt: skip


def stay_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages run in this process from now on; the list that is returned gets their commands."""
    found = []

    def in_process(command: list[str]) -> int:
        found.append(command[3])
        return cli.main(command[3:])

    monkeypatch.setattr("moviegen.demo.call_process", in_process)
    return found


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    return stay_in_process(monkeypatch)


def test_a_film_of_eight_frames_at_1080p_is_made_and_marked(
    models: Path, tmp_path: Path, capsys, calls: list[str]
) -> None:
    words = film_words(models, tmp_path / "work", f"out={tmp_path / 'film.mp4'}")
    words = [word.replace("settings.upscale=[", "settings.upscale=['most_per_pass=60',") for word in words]
    assert cli.main(words) == 0
    info = media.probe(tmp_path / "film.mp4")
    assert (info.width, info.height, info.num_frames) == (1920, 1080, 8)
    assert calls == ["rewrite", "extend", "upscale"]
    row = (tmp_path / "work" / "00001" / "rewrite" / "prompt.jsonl").read_text()
    assert json.loads(row)["prompt"].startswith("a red star")
    base = json.loads((tmp_path / "work" / "00001" / "video" / "base.json").read_text())
    assert base["provenance"]["watermarks"] == [] and base["provenance"]["manifest"] is None
    assert cli.main(["verify", str(tmp_path / "film.mp4")]) == 0
    assert "Made by a model? Yes." in capsys.readouterr().out


def test_a_film_goes_on_with_the_stage_that_was_broken_off_or_changed(
    models: Path, tmp_path: Path, capsys, calls: list[str], monkeypatch
) -> None:
    words = film_words(models, tmp_path / "work", f"out={tmp_path / 'film.mp4'}", "size=[90,160]")
    assert cli.main([*words, "settings.video=['sampler.num_steps=0']"]) == 2
    assert "num_steps must be at least 1" in capsys.readouterr().err and not calls

    with monkeypatch.context() as broken:
        broken.setattr("moviegen.upscale.each_frame", full_after(7))
        assert cli.main(words) == 2
    assert "film.mp4: cannot be written: the disk is full" in capsys.readouterr().err
    assert calls == ["rewrite", "extend", "upscale"]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]  # no film, and no part of one
    calls.clear()
    assert cli.main(words) == 0 and calls == ["upscale"]
    for more in ([], ["crf=30"]):
        calls.clear()
        assert cli.main([*words, *more]) == 0 and calls == (["upscale"] if more else [])
    (tmp_path / "film.mp4").unlink()
    calls.clear()
    assert cli.main([*words, "crf=30"]) == 0 and calls == ["upscale"]
    seconds = json.loads((tmp_path / "work" / "00001" / "stages.json").read_text())["seconds"]
    assert set(seconds) == {"rewrite", "video", "upscale"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["prompts=x.txt"], "both are"),
        (["seconds=0"], "seconds=0: must be above 0"),
        (["size=[1080,1921]"], "must be an even height"),
        (["part=5/4"], "part=5/4: must be like 1/4"),
        (["models.upscale=nowhere"], "no model at nowhere"),
        (["models.video=nowhere"], "no model at nowhere"),
        (["sound=true", "models.sound=nowhere"], "no model at nowhere"),
        (["seconds=601"], "seconds=601: must be above 0 and at most 600"),
        (["size=[16,1024]"], "size=[16, 1024]: so flat that only 32x0 pixels of the video, 32x32, are used"),
        (
            ["models.video=experiments/toy/weights/i2v", "settings.video=['sampler.frame_rate=16.0']"],
            "sampler.frame_rate=16: experiments/toy/weights/i2v was trained at 8 frames per second",
        ),
        (
            ["settings.upscale=['upsampler.window=20','upsampler.tile=256','upsampler.tile_overlap=16']"],
            "window=20 frames; the model knows 6",
        ),
        (["settings.upscale=[]"], "tile=64 and tile_overlap=8 must be multiples of 16 pixels"),
        (["models.upscale=experiments/toy/weights/t2v"], "is a FlowTask; give an upsampler"),
        (["sound_prompt=wind"], "sound_prompt= is given, but sound=false"),
        (["image=none.png"], "image=none.png: no such file"),
        (["reference=face.png"], "needs consent="),
        (["size=[24,24]"], "size=[24, 24]: smaller than the video, 32x32"),
        (["size=[8192,8192]"], "8192x8192 pixels are too many"),
        (
            ["sound=true", "sound_prompt=a naked child", "models.sound=experiments/toy/weights/audio"],
            "is refused",
        ),
        (["settings.mux=['a=1']"], "unknown key 'settings.mux'"),
        (["marking.certificate=none.pem", "marking.key=none.key"], "none."),
        (["marking.certificate=pyproject.toml", "marking.key=pyproject.toml"], "is no PEM certificate"),
        (["prompt=a naked child"], "is refused"),
    ],
)
def test_what_film_cannot_do_is_refused_at_the_start(
    models: Path, tmp_path: Path, capsys, more: list[str], message: str
) -> None:
    assert cli.main(film_words(models, tmp_path / "work", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_stages_whose_command_is_absent_are_refused_by_name(
    models: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    without = {
        name: command for name, command in cli.COMMANDS.items() if name not in ("sound", "personalize")
    }
    monkeypatch.setattr(film, "COMMANDS", without)
    for more, message in (
        (["sound=true"], "no command `moviegen sound`; give sound=false"),
        (["reference=a.png", "consent=c1"], "no command `moviegen personalize`; give no reference="),
    ):
        assert cli.main(film_words(models, tmp_path / "work", *more)) == 2
        assert message in capsys.readouterr().err


def test_parts_of_a_batch_are_each_film_once(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"a star {n}" for n in range(7)))
    common = {"run_dir": tmp_path, "models": {}, "size": (16, 16), "seconds": 1.0, "prompts": str(file)}
    parts = [film._prompts(film.FilmConfig(**common, part=f"{n}/3")) for n in (1, 2, 3)]
    assert sorted(prompt.id for part in parts for prompt in part) == [f"{n:05d}" for n in range(1, 8)]
    assert isinstance(parts[0][0], Prompt) and [len(part) for part in parts] == [3, 2, 2]
