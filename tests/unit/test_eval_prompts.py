"""Prompt sets for generation: held out, unique, with the specs that the judge needs."""

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from moviegen_data.toyworld import World, WorldConfig, oracle
from moviegen_eval.prompts import prompts

from moviegen.config import compose
from moviegen.edit import asked
from moviegen.media import read_clip, read_image


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_set_has_its_number_of_different_prompts(tmp_path: Path) -> None:
    prompts({"out": str(tmp_path), "heldout": 70, "template": 10, "free": ["a red dog"]})
    found = rows(tmp_path / "prompts.jsonl")
    assert [sum(row["set"] == name for row in found) for name in ("heldout", "template", "free")] == [
        70,
        10,
        1,
    ]
    assert len({row["id"] for row in found}) == len(found)
    assert len({row["prompt"] for row in found if row["set"] == "heldout"}) == 70
    assert all((row["spec"] is None) == (row["set"] == "free") for row in found)


def test_a_free_prompt_may_state_what_it_says(tmp_path: Path) -> None:
    told = {"prompt": "a red circle", "spec": {"sprites": [{"color": "red", "shape": "circle"}]}}
    prompts({"out": str(tmp_path), "heldout": 0, "template": 0, "free": [told, "a panda"]})
    assert [(row["prompt"], row["spec"]) for row in rows(tmp_path / "prompts.jsonl")] == [
        ("a red circle", told["spec"]),
        ("a panda", None),
    ]
    shipped = compose("prompts").free
    clip = World(WorldConfig()).render(0, 0)
    for item in shipped:  # each spec is one that the oracle can answer
        if not isinstance(item, str):
            assert oracle.verdict(item["spec"], oracle.observe(clip.frames, clip.frame_rate))


def test_held_out_combinations_do_not_occur_among_training_clips(tmp_path: Path) -> None:
    prompts({"out": str(tmp_path), "heldout": 64, "template": 0})
    world = World(WorldConfig(level=4, combos="train"))
    trained = {prompt.text for prompt in world.prompts(500, 0)}
    assert not trained & {row["prompt"] for row in rows(tmp_path / "prompts.jsonl")}


def test_the_same_seed_gives_the_same_prompts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        prompts({"out": str(tmp_path / name), "heldout": 5})
    assert (tmp_path / "a" / "prompts.jsonl").read_text() == (tmp_path / "b" / "prompts.jsonl").read_text()


def test_first_frames_are_those_of_the_clips_that_the_prompts_describe(tmp_path: Path) -> None:
    prompts({"out": str(tmp_path), "heldout": 3, "template": 2, "free": ["a dog"], "first_frames": True})
    found = rows(tmp_path / "prompts.jsonl")
    assert [row.get("image") for row in found[-2:]] == ["first_frames/template-002.png", None]
    worlds = {
        "heldout": World(WorldConfig(level=4, combos="heldout", template="train")),
        "template": World(WorldConfig(level=4, combos="train", template="heldout")),
    }
    for row in found[:-1]:
        clips = (worlds[row["set"]].render(100, index) for index in range(20))
        clip = next(clip for clip in clips if clip.caption == row["prompt"])
        assert (read_image(tmp_path / row["image"]) == clip.frames[0]).all()


def test_true_clips_are_those_that_the_prompts_describe_and_can_be_given_to_edit(tmp_path: Path) -> None:
    prompts({"out": str(tmp_path), "heldout": 2, "template": 0, "free": ["a dog"], "truths": True})
    world = World(WorldConfig(level=4, combos="heldout", template="train"))
    found = rows(tmp_path / "truths.jsonl")
    assert [row["id"] for row in found] == ["heldout-001", "heldout-002"]
    for row in found:
        clips = (world.render(100, index) for index in range(20))
        clip = next(clip for clip in clips if clip.caption == row["instruction"])
        error = read_clip(tmp_path / row["video"]).frames.astype(float) - clip.frames
        assert abs(error).mean() < 3
    checkpoint = "experiments/toy/weights/edit"
    config = SimpleNamespace(edits=str(tmp_path / "truths.jsonl"), checkpoint=checkpoint)
    assert [one.id for one in asked(config)] == ["heldout-001", "heldout-002"]


def test_prompts_of_characters_are_of_the_level_that_is_asked_for(tmp_path: Path) -> None:
    asked = {"heldout": 0, "template": 0, "characters": 1}
    for name, level in (("default", {}), ("four", {"level": 4}), ("one", {"level": 1})):
        prompts({"out": str(tmp_path / name), **asked, **level})
    found = {name: rows(tmp_path / name / "prompts.jsonl") for name in ("default", "four", "one")}
    assert found["default"] == found["four"]
    shown = {
        name: {(row["spec"]["background"], row["spec"]["camera"]) for row in those}
        for name, those in found.items()
    }
    assert len(shown["four"]) > 1 and shown["one"] == {("plain", "static")}


def test_specs_and_captions_come_from_the_held_out_shards(tmp_path: Path) -> None:
    spec = World(WorldConfig(level=4)).prompts(1, 0)[0].spec
    files = {
        "val-toyworld-000000.tar": {"a.truth.json": json.dumps({"spec": spec}), "a.txt": "a red star"},
        "val-own-000000.tar": {"b.txt": "my dog runs\n"},
        "train-own-000000.tar": {"c.txt": "seen in training"},
    }
    for name, members in files.items():
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    config = {
        "out": str(tmp_path / "out"),
        "heldout": 1,
        "template": 0,
        "shards": str(tmp_path),
        "captions": True,
    }
    prompts(config)
    assert rows(tmp_path / "out" / "specs.jsonl") == [{"key": "a", "spec": spec}]
    free = [row["prompt"] for row in rows(tmp_path / "out" / "prompts.jsonl") if row["set"] == "free"]
    assert free == ["my dog runs"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heldout": 0, "template": 0}, "one prompt at least"),
        ({"seed": -1}, "0 or more"),
        ({"free": [" "]}, "empty prompt"),
        ({"free": [{"spec": {}}]}, "empty prompt"),
        ({"free": [{"prompt": "a", "specs": {}}]}, "expected a prompt, or prompt and spec"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path: Path, config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts({"out": str(tmp_path / "out"), **config})
    assert not (tmp_path / "out").exists()
