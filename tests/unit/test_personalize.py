"""`moviegen personalize` with a tiny untrained model: what it writes, what it refuses, and consent."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_samples import CODEC, GENERATOR
from moviegen_data.files import resolve_package
from moviegen_data.toyworld import World, WorldConfig
from PIL import Image
from test_identity import IDENTITY

from moviegen import cli
from moviegen.conditioning.identity import FACES
from moviegen.config import build
from moviegen.lineage import relied_on, trained_on
from moviegen.media import read_clip, to_png_bytes, write_video
from moviegen.modelfile import save_model
from moviegen.provenance.consent import ConsentError, ConsentStore
from moviegen.train import _consents

ASTRONAUT = resolve_package("package:skimage/data/astronaut.png")


def write_people(folder: Path) -> Path:
    """A tiny personalized model, a text-to-video one, and pictures of two characters, of the first another one."""
    codec = {"_target_": "moviegen.modelfile.load_codec", "path": str(folder / "tae")}
    save_model(folder / "tae", build(CODEC), CODEC, torch.float32, {})
    plain = {**GENERATOR, "codec": codec}
    node = {**plain, "conditioners": {**plain["conditioners"], "identity": IDENTITY}}
    for name, one in (("t2v", plain), ("pt2v", node)):
        task = build(one)
        torch.manual_seed(3)
        for parameter in task.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        save_model(folder / name, task, one, torch.float32, {"consents": []})
    world = World(WorldConfig(character_share=1.0))
    for number in range(2):
        (folder / f"face{number}.png").write_bytes(to_png_bytes(world.render(0, number).frames[0]))
    (folder / "again0.png").write_bytes(to_png_bytes(world.render(0, 0).frames[-1]))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("personalize"))


def run(folder: Path, out: Path, *more: str, faces: str = "toyworld", model: str = "pt2v") -> int:
    sampler = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = [
        f"run_dir={out}",
        f"checkpoint={folder / model}",
        f"faces={faces}",
        "crop_size=16",
        "num_threads=1",
    ]
    words += [f"store={out.parent / 'consents'}", *(f"sampler.{word}" for word in sampler)]
    return cli.main(["personalize", *words, *more])


def refused(folder: Path, out: Path, capsys, *more: str, **options: str) -> str:
    capsys.readouterr()  # of what came before
    assert run(folder, out, *more, **options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert not out.exists()
    return error


def test_the_clip_depends_on_the_person_and_its_record_says_who(folder: Path, tmp_path: Path) -> None:
    clips = []
    for number in range(2):
        reference = f"reference={folder / f'face{number}.png'}"
        assert run(folder, tmp_path / str(number), reference, "prompt=the character moves left") == 0
        clips.append(read_clip(tmp_path / str(number) / "00001.mp4").frames)
        (row,) = [
            json.loads(line) for line in (tmp_path / str(number) / "manifest.jsonl").read_text().splitlines()
        ]
        assert (tmp_path / str(number) / row["references"][0]).resolve() == (
            folder / f"face{number}.png"
        ).resolve()
    assert not np.array_equal(*clips)
    files = {path.name for path in (tmp_path / "0").iterdir()}
    assert files == {"00001.mp4", "00001.json", "manifest.jsonl", "recipe.json", "run.json", "config.yaml"}


def test_prompts_name_their_own_people_and_several_pictures_may_be_given(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "face0.png", tmp_path)
    shutil.copy(folder / "again0.png", tmp_path)
    rows = [
        {"id": "one", "prompt": "the character rises", "references": ["face0.png"]},
        {
            "id": "two",
            "prompt": "the character rises",
            "references": ["face0.png", "again0.png"],
            "seed": [1, 2],
        },
        {"id": "bare", "prompt": "the character rises"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"prompts={tmp_path / 'p.jsonl'}", f"reference=[{folder / 'face1.png'}]"]
    assert run(folder, tmp_path / "out", *words) == 0
    made = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [(row["id"], len(row["references"])) for row in made] == [
        ("one", 1),
        ("two-s1", 2),
        ("two-s2", 2),
        ("bare", 1),
    ]
    before = (tmp_path / "out" / "one.mp4").stat().st_mtime_ns
    shutil.copy(folder / "face0.png", tmp_path / "again0.png")  # another picture under the same name
    assert run(folder, tmp_path / "out", *words) == 0
    assert (tmp_path / "out" / "one.mp4").stat().st_mtime_ns == before


def test_several_pictures_that_show_two_people_are_refused(folder: Path, tmp_path: Path, capsys) -> None:
    own, again, other = (folder / name for name in ("face0.png", "again0.png", "face1.png"))
    error = refused(folder, tmp_path / "out", capsys, "prompt=x", f"reference=[{own},{again},{other}]")
    assert f"{other} show two people: the cosine of their faces is 0." in error
    assert "of one person's at least 0.9 (faces.same); give pictures of one person" in error
    rows = [{"id": "a", "prompt": "x", "references": [str(own)]}]
    rows.append({"id": "b", "prompt": "x", "references": [str(own), str(other)]})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = refused(folder, tmp_path / "out", capsys, f"prompts={tmp_path / 'p.jsonl'}")
    assert f"{own} and {other} show two people" in error
    alike = [f"reference=[{own},{other}]", "faces.same=0"]
    assert run(folder, tmp_path / "out", "prompt=x", *alike) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt=x"], "names no picture of a person: give reference=face.png"),
        (["prompt=x", "reference={folder}/absent.png"], "absent.png: no such file"),
        (["prompt=x", "reference={folder}/t2v.json"], "cannot be identified as an image"),
        (["prompt=x", f"reference={ASTRONAUT}"], "no face was found"),
        (["prompt=x", "reference={folder}/face0.png", "crop_size=4"], "crop_size=4: must be at least 8"),
    ],
)
def test_a_bad_reference_is_one_line_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    given = [word.replace("{folder}", str(folder)) for word in words]
    assert message in refused(folder, tmp_path / "out", capsys, *given)


def test_a_model_without_references_and_generate_with_them_are_refused(
    folder: Path, tmp_path: Path, capsys
) -> None:
    words = ["prompt=x", f"reference={folder / 'face0.png'}"]
    assert "takes no pictures of a person" in refused(folder, tmp_path / "out", capsys, *words, model="t2v")
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "prompt": "x", "references": ["face0.png"]}))
    assert cli.main(["generate", f"model={folder / 'pt2v'}", f"prompts={tmp_path / 'p.jsonl'}"]) == 2
    assert "use moviegen personalize" in capsys.readouterr().err
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "prompt": "x", "references": [3]}))
    assert cli.main(["generate", f"model={folder / 'pt2v'}", f"prompts={tmp_path / 'p.jsonl'}"]) == 2
    assert "they must be paths of pictures" in capsys.readouterr().err


def consent(store: Path, *files: Path) -> None:
    evidence = store.parent / "form.txt"
    evidence.write_text("public domain")
    words = [f"store={store}", "id=eileen", "name='Eileen Collins'", "kind='public domain portrait'"]
    words += [
        f"files={[str(file) for file in files]}",
        f"evidence={evidence}",
        "expires=2099-01-01",
        "purpose=tests",
    ]
    assert cli.main(["consent", "add", *words]) == 0


def test_a_real_face_is_used_under_its_consent_alone(
    folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    pytest.importorskip("dlib")
    words, out = ["prompt=a person laughs", f"reference={ASTRONAUT}"], tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("moviegen.personalize.read_image", lambda *_, **__: pytest.fail("the picture was read"))
        assert "moviegen consent add id=ID" in refused(folder, out, capsys, *words, faces="dlib")
        assert "no consent 'eileen'" in refused(folder, out, capsys, *words, "consent=eileen", faces="dlib")
    consent(tmp_path / "consents", ASTRONAUT)
    assert run(folder, out, *words, "consent=eileen", faces="dlib") == 0
    (row,) = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert row["consent"] == "eileen" and json.loads((out / "00001.json").read_text())["consent"] == "eileen"
    assert not [path for path in out.iterdir() if path.suffix in (".png", ".npy")]
    other = tmp_path / "other.png"
    Image.open(ASTRONAUT).crop((100, 0, 350, 250)).save(other)
    swapped = ["prompt=a person laughs", f"reference={other}", "consent=eileen"]
    assert "does not cover this file" in refused(folder, tmp_path / "b", capsys, *swapped, faces="dlib")
    ConsentStore(tmp_path / "consents").revoke("eileen", "asked")
    assert "was revoked on" in refused(folder, tmp_path / "c", capsys, *words, "consent=eileen", faces="dlib")


def test_a_model_trained_on_somebody_who_revoked_makes_nothing_more(
    folder: Path, tmp_path: Path, capsys
) -> None:
    for suffix in (".json", ".safetensors"):
        shutil.copy(folder / f"pt2v{suffix}", tmp_path / f"model{suffix}")
    record = json.loads((tmp_path / "model.json").read_text())
    record["info"]["consents"] = ["eileen"]
    (tmp_path / "model.json").write_text(json.dumps(record))
    consent(tmp_path / "consents", ASTRONAUT)
    words = ["prompt=the character rises", f"reference={folder / 'face0.png'}"]
    assert run(tmp_path, tmp_path / "a", *words, model="model") == 0
    ConsentStore(tmp_path / "consents").revoke("eileen", "asked")
    error = refused(tmp_path, tmp_path / "b", capsys, *words, model="model")
    assert "was trained on Eileen Collins, whose consent eileen was revoked on" in error
    write_video(tmp_path / "in.mp4", np.zeros((4, 32, 32, 3), np.uint8), 8.0)
    model, video, out = (
        f"model={tmp_path / 'model'}",
        f"video={tmp_path / 'in.mp4'}",
        tmp_path / "c" / "out.mp4",
    )
    for command, *words in (
        ("generate", model, "prompt=a star", f"run_dir={out.parent}"),
        ("extend", model, "prompt=a star", f"out={out}"),
        ("upscale", model, video, "factor=2", f"out={out}"),
        ("sound", model, video, "prompt=a bell", f"out={out}"),
        (
            "edit",
            model.replace("model=", "checkpoint="),
            video,
            "instruction=add a star",
            f"run_dir={out.parent}",
        ),
    ):
        assert cli.main([command, *words, f"store={tmp_path / 'consents'}"]) == 2, command
        assert "whose consent eileen was revoked on" in capsys.readouterr().err, command
    assert not out.parent.exists()


def test_what_is_made_of_a_model_relies_on_the_same_consent(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "pt2v.safetensors", tmp_path / "model.safetensors")
    record = json.loads((folder / "pt2v.json").read_text())
    record["info"]["consents"] = ["eileen"]
    (tmp_path / "model.json").write_text(json.dumps(record))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "base.json").write_text(json.dumps({"info": {"consents": ["anna"]}}))
    model, plain = str(tmp_path / "model"), str(folder / "pt2v")
    assert trained_on(model) == ["eileen"] and trained_on(plain, str(tmp_path / "adapter")) == ["anna"]
    assert relied_on([model, plain]) == {"consents": ["eileen"]} and relied_on([plain]) == {}
    store = ConsentStore(tmp_path / "consents")
    config = SimpleNamespace(init_from=model, store=str(store.folder))
    task: Any = SimpleNamespace(fields={})
    with pytest.raises(ConsentError, match="no consent 'eileen'"):
        _consents(task, set(), config)  # type: ignore[arg-type]
    consent(store.folder, ASTRONAUT)
    assert _consents(task, set(), config) == ["eileen"]  # type: ignore[arg-type]
    index = {"shards": [{"name": "a.tar", "faces": "people", "consents": ["bob"]}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    task.fields = {"identity": FACES}
    with pytest.raises(ConsentError, match="no consent 'bob'"):
        _consents(task, {str(tmp_path)}, config)  # type: ignore[arg-type]


def test_the_codec_of_a_model_of_persons_is_shown_by_a_copy_and_other_edits_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.mp4"
    write_video(source, [np.full((16, 16, 3), 90, np.uint8)] * 4, 8.0)
    words = [
        "edit",
        f"checkpoint={folder / 'pt2v'}",
        f"video={source}",
        "instruction=add a star",
        "height=16",
        "width=16",
    ]
    assert cli.main([*words, "baseline=copy", f"run_dir={tmp_path / 'copy'}", "num_threads=1"]) == 0
    assert read_clip(tmp_path / "copy" / "edited.mp4").frames.shape == (4, 16, 16, 3)
    assert cli.main([*words, "baseline=sdedit", f"run_dir={tmp_path / 'other'}"]) == 2
    assert "wants the input 'identity' too, which edit does not give" in capsys.readouterr().err
