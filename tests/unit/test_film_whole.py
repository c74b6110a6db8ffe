"""A whole film with tiny models: sound, a picture, a person; what it tells of its making, and what may not leave."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_film import film_words, stay_in_process, write_models
from test_personalize import write_people
from test_sound_command import FEW, write_model

from moviegen import cli, film, media
from moviegen.config import quoted
from moviegen.prompts import Prompt
from moviegen.provenance.filters import Flashes
from moviegen.provenance.manifest import EDITED, GENERATED

SIZE = "size=[90,160]"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return stay_in_process(monkeypatch)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words for a film with sound."""
    model = write_model(tmp_path_factory.mktemp("sound"))
    return ["sound=true", f"models.sound={model}", f"settings.sound={quoted(list(FEW))}"]


def source_type(path: Path) -> str:
    """What the manifest calls the origin of a file."""
    import c2pa

    with (
        c2pa.Context(c2pa.Settings.from_dict({})) as context,
        path.open("rb") as file,
        c2pa.Reader("video/mp4", file, context=context) as reader,
    ):
        told = json.loads(reader.json())
    (manifest,) = [one for key, one in told["manifests"].items() if key == told["active_manifest"]]
    actions = [one for one in manifest["assertions"] if one["label"].startswith("c2pa.actions")]
    return actions[0]["data"]["actions"][0]["digitalSourceType"]


def test_a_film_with_sound_tells_of_every_model_that_made_it(
    models: Path, sound: list[str], tmp_path: Path, capsys, calls: list[str]
) -> None:
    out = tmp_path / "film.mp4"
    assert (
        cli.main(film_words(models, tmp_path / "work", f"out={out}", SIZE, *sound, "sound_prompt=a bell"))
        == 0
    )
    assert calls == ["rewrite", "extend", "sound", "upscale"]
    heard, rate = media.decode_audio(out)
    assert heard.shape[1] == rate == 48_000 and media.probe(out).num_frames == 8
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["prompt"].startswith("a red star") and card["original"] == "a crimson star"
    assert [row["second"] for row in card["drift"]] == [0]
    assert [step["provenance"]["model"] for step in card["history"]] == ["i2v", "model"]
    told = card["provenance"]
    assert told["model"] == "up" and told["ingredients"] == []
    assert [step["model"] for step in told["settings"]["history"]] == ["i2v", "model"]
    assert told["prompt_sha256"] == told["settings"]["history"][0]["prompt_sha256"]
    assert source_type(out) == GENERATED
    capsys.readouterr()
    assert cli.main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    assert "prompt: a red star" in said and said.count("Before that:") == 2
    assert "model: i2v" in said and "model: up" in said and "size: [90, 160]" in said


def test_a_film_of_a_picture_names_it(models: Path, tmp_path: Path, calls: list[str]) -> None:
    picture, out = tmp_path / "first.png", tmp_path / "film.mp4"
    picture.write_bytes(media.to_png_bytes(np.full((32, 32, 3), 120, np.uint8)))
    assert cli.main(film_words(models, tmp_path / "work", f"out={out}", SIZE, f"image={picture}")) == 0
    assert source_type(out) == EDITED
    told = json.loads(out.with_suffix(".json").read_text())["provenance"]
    assert len(told["ingredients"]) == 1


def test_a_film_of_a_person_is_made_with_consent_and_names_the_picture(
    models: Path, tmp_path: Path, capsys, calls: list[str]
) -> None:
    people = write_people(tmp_path)
    sampler = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    video = [*(f"sampler.{word}" for word in sampler), "crop_size=16", f"store={tmp_path / 'consents'}"]
    out = tmp_path / "film.mp4"

    def words(*more: str) -> list[str]:
        own = [f"models.personalize={people / 'pt2v'}", "consent=eileen", f"out={out}", SIZE]
        return film_words(models, tmp_path / "work", *own, *more)

    known = f"settings.video={quoted([*video, 'faces=toyworld'])}"
    real = f"settings.video={quoted(video)}"
    face = f"reference={people / 'face0.png'}"
    for more, message in (
        ([face, known], "as long as its model makes at once: give seconds=0.5"),
        ([face, real, "seconds=0.5"], "no consent 'eileen'"),
        ([f"reference={tmp_path / 'none.png'}", known, "seconds=0.5"], "none.png"),
        ([face, known, "seconds=0.5", "models.personalize=nowhere"], "no model at nowhere"),
    ):
        assert cli.main(words(*more)) == 2, more
        assert message in capsys.readouterr().err
    assert not calls and not out.exists()
    assert cli.main(words(face, known, "seconds=0.5")) == 0
    assert calls == ["rewrite", "personalize", "upscale"] and media.probe(out).num_frames == 4
    assert source_type(out) == EDITED
    told = json.loads(out.with_suffix(".json").read_text())["provenance"]
    assert len(told["ingredients"]) == 1 and told["settings"]["history"][0]["model"] == "pt2v"


def test_frames_that_a_filter_refuses_make_no_film(
    models: Path, tmp_path: Path, capsys, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "film.mp4"
    monkeypatch.setattr(Flashes, "refusal", lambda *_: "it flashes")
    words = film_words(models, tmp_path / "work", f"out={out}", SIZE)
    assert cli.main(words) == 2 and "is withheld: it flashes" in capsys.readouterr().err
    assert calls == ["rewrite", "extend"] and not out.exists()
    assert cli.main([*words, "filters=none"]) == 0 and out.exists()


def test_a_side_car_that_tells_nothing_is_no_history(models: Path, tmp_path: Path, capsys) -> None:
    media.write_video(tmp_path / "in.mp4", np.zeros((4, 32, 32, 3), np.uint8), 8.0)
    (tmp_path / "in.json").write_text("{}")
    words = [
        "upscale",
        str(tmp_path / "in.mp4"),
        "factor=2",
        f"model={models / 'up'}",
        f"out={tmp_path / 'out.mp4'}",
    ]
    windows = ["window=4", "overlap=2", "num_steps=1", "tile=256", "tile_overlap=16"]
    more = [*(f"upsampler.{word}" for word in windows), f"history=[{tmp_path / 'in.json'}]"]
    assert cli.main([*words, *more]) == 2
    assert "does not tell how its file was made" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_what_a_line_asks_is_done_or_refused(models: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "p.jsonl"
    for more, message in (
        ({"references": ["face.png"]}, "prompt a names a person's pictures or consent"),
        ({"consent": "c1"}, "prompt a names a person's pictures or consent"),
        ({"image": "star.png", "image_frame": 2}, "prompt a: image_frame=2, but what"),
        ({"seed": [1, 2]}, "prompt a has 2 seeds"),
    ):
        file.write_text(json.dumps({"id": "a", "prompt": "a star"} | more))
        for command in (["extend"], film_words(models, tmp_path / "work", "prompt=null")):
            assert cli.main([*command, f"prompts={file}"]) == 2
            assert message in capsys.readouterr().err
    common = {"run_dir": tmp_path, "models": {"video": str(models / "i2v"), "upscale": str(models / "up")}}
    settings = {"video": ("sampler.seed=3",)}
    config = film.FilmConfig(
        **common, size=(90, 160), seconds=1.0, prompt="x", sound=False, settings=settings
    )
    stage = film.stages(config, Prompt("a", "a star", seeds=(7,)), tmp_path / "a.mp4")["video"]
    assert [word for word in stage.overrides if word.startswith("sampler.seed=")][-1] == "sampler.seed=7"
    person = replace(
        config, reference="face.png", models=config.models | {"personalize": str(models / "i2v")}
    )
    assert film.stages(person, Prompt("a", "a star"), tmp_path / "a.mp4")["video"].outputs == ("00001.mp4",)
