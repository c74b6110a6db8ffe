# ruff: noqa: F811 (a fixture of another file)
"""The folder of `moviegen edit`: a source, or somebody else's file, is never replaced; which edits are finished."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from media_samples import video_file
from test_edit_command import model, refused, run  # noqa: F401 (a fixture)

from moviegen import cli
from moviegen.config import UserError
from moviegen.edit_outputs import Edit, check_outputs, finished, outdated, reserved
from moviegen.runfolder import file_sha256, write_json

MODEL = "experiments/toy/weights/edit"
RECIPE = {"model": "abc", "codec": "def", "tiling": {"frames": 32}}


def asked(folder: Path, name: str = "clip1") -> Edit:
    """An edit of folder/in.mp4."""
    return Edit(name, str(folder / "in.mp4"), False, "add a star", "add")


def written(out: Path, one: Edit) -> None:
    """The files that an edit leaves."""
    (out / one.file).write_bytes(b"edited")
    ingredients = [{"sha256": file_sha256(one.source)}]
    provenance = {"ingredients": ingredients, "sha256": file_sha256(out / one.file)}
    note = {"edit": asdict(one), "recipe": RECIPE, "provenance": provenance}
    write_json(out / f"{one.id}.json", note)
    (out / one.strip[0]).write_bytes(b"strip")
    write_json(out / one.strip[1], {"strip_of": one.id})


def test_an_edit_does_not_replace_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "edited.mp4"
    source.write_bytes(b"mine")
    words = [f"video={tmp_path / 'x' / '..' / 'edited.mp4'}", "instruction=add a star"]
    (tmp_path / "x").mkdir()
    error = refused(capsys, run(tmp_path, MODEL, *words))
    assert f"{source} is what these edits read, and would be replaced; choose another run_dir" in error
    rows = tmp_path / "manifest.jsonl"
    rows.write_text(json.dumps({"id": "clip1", "video": "in.mp4", "instruction": "add a star"}))
    assert f"{rows} is what these edits read" in refused(capsys, run(tmp_path, MODEL, f"edits={rows}"))
    assert source.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["clip1.mp4", "clip1.json", "clip1_strip.png", "manifest.jsonl"])
def test_somebody_elses_files_are_not_replaced(tmp_path: Path, name: str) -> None:
    check_outputs(tmp_path, [asked(tmp_path)])
    (tmp_path / name).write_text('{"prompt": "a star"}')
    with pytest.raises(UserError, match=rf"{name} was not made by moviegen edit; choose another run_dir"):
        check_outputs(tmp_path, [asked(tmp_path)])


@pytest.mark.parametrize(
    ("second", "words", "said"),
    [
        (
            {"num_frames": 9},
            ["sampler.window=8"],
            r"sampler.window=8: the model's positions reach 2 latent frames",
        ),
        ({"num_frames": 2, "width": 320}, ["height=null", "width=null"], "is of 320x16 pixels"),
    ],
)
def test_every_source_is_looked_at_before_anything_is_written(
    model: str, tmp_path: Path, capsys, second: dict[str, int], words: list[str], said: str
) -> None:
    video_file(tmp_path / "first.mp4", 2, height=16, width=16)
    video_file(tmp_path / "second.mp4", **({"height": 16, "width": 16} | second))  # type: ignore[arg-type]
    rows = [{"id": name, "video": f"{name}.mp4", "instruction": "add a star"} for name in ("first", "second")]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*words, f"edits={tmp_path / 'edits.jsonl'}", "batch_size=1"]
    assert said in refused(capsys, run(tmp_path / "out", model, *words))
    assert not (tmp_path / "out").exists()


def test_a_file_whose_side_car_was_never_written_is_known_by_what_was_said_before(tmp_path: Path) -> None:
    one = asked(tmp_path)
    with pytest.raises(OSError, match="full"), reserved(tmp_path, one):
        raise OSError("the disk is full")
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), reserved(tmp_path, one):
        (tmp_path / one.file).write_bytes(b"edited")
        raise KeyboardInterrupt
    check_outputs(tmp_path, [one])
    assert not finished(tmp_path, one, RECIPE, strips=False)


@pytest.mark.parametrize("command", ["edit", "generate"])
def test_the_run_of_another_command_keeps_its_settings(tmp_path: Path, command: str, capsys) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("_target_: moviegen.train.TrainConfig")
    words = {
        "edit": [f"checkpoint={MODEL}", "video=in.mp4", "instruction=add a star"],
        "generate": [f"model={MODEL.replace('edit', 't2v')}", "prompt=a red star"],
    }
    error = refused(capsys, cli.main([command, f"run_dir={tmp_path}", *words[command]]))
    assert (
        "holds the run of another command (moviegen.train.TrainConfig in config.yaml), whose settings"
        in error
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert config.read_text() == "_target_: moviegen.train.TrainConfig"


def test_an_earlier_edit_is_replaced_but_not_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(b"source")
    one = asked(tmp_path)
    written(tmp_path, one)
    (tmp_path / "manifest.jsonl").write_text(json.dumps(asdict(one)) + "\n")
    check_outputs(tmp_path, [one])
    check_outputs(tmp_path, [replace(one, still=True)])
    assert not outdated(tmp_path, one)
    assert outdated(tmp_path, replace(one, still=True)) == [
        tmp_path / "clip1.mp4"
    ]  # else no edit's, and in the way
    (tmp_path / "clip1.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"clip1\.png was not made by moviegen edit"):
        check_outputs(tmp_path, [replace(one, still=True)])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["run"], r"edit run: run\.json would be of the run too; give another id"),
        (["a", "a_strip"], r"edit a_strip: a_strip\.json would be of edit a too"),
    ],
)
def test_ids_whose_files_would_be_one_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_outputs(tmp_path, [asked(tmp_path, name) for name in names])


def test_an_edit_is_finished_while_source_recipe_and_strip_are_there(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(b"source")
    one = asked(tmp_path)
    assert not finished(tmp_path, one, RECIPE, strips=False)
    written(tmp_path, one)
    assert finished(tmp_path, one, RECIPE, strips=True)
    assert not finished(tmp_path, one, RECIPE | {"tiling": {"frames": 16}}, strips=True)
    assert not finished(tmp_path, replace(one, task="remove"), RECIPE, strips=True)
    (tmp_path / one.strip[0]).unlink()
    assert finished(tmp_path, one, RECIPE, strips=False) and not finished(tmp_path, one, RECIPE, strips=True)
    (tmp_path / one.file).write_bytes(b"that of a run that died before its side-car")
    assert not finished(tmp_path, one, RECIPE, strips=False)
    written(tmp_path, one)
    (tmp_path / "in.mp4").write_bytes(b"another")
    assert not finished(tmp_path, one, RECIPE, strips=False)
    (tmp_path / "in.mp4").unlink()
    assert not finished(tmp_path, one, RECIPE, strips=False)
