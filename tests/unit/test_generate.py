"""`moviegen generate` with a tiny untrained model: what it makes and writes, and whose files a run folder holds."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import CODEC, GENERATOR

from moviegen import cli
from moviegen.config import build
from moviegen.media import read_clip, read_image
from moviegen.modelfile import load_task, save_model
from moviegen.outputs import plan_clips
from moviegen.pixels import to_uint8
from moviegen.prompts import Prompt, read_prompts
from moviegen.provenance.export import Exporter
from moviegen.tasks.limits import check_prompts
from moviegen.tasks.sampling import SamplerConfig, noise_keys, sample_clips

FACTS = {  # what `generate` below and conf/sampler/toy.yaml ask for
    "height": 16,
    "width": 16,
    "frame_rate": 8.0,
    "num_steps": 1,
    "schedule": "linear",
    "guidance": 3.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny generator and its codec on disk."""
    folder = tmp_path_factory.mktemp("model")
    node = {**GENERATOR, "codec": {"_target_": "moviegen.modelfile.load_codec", "path": str(folder / "tae")}}
    save_model(folder / "tae", build(CODEC), CODEC, torch.float32, {})
    save_model(folder / "t2v", build(node), node, torch.float32, {})
    return str(folder / "t2v")


def generate(model: str, out: Path, prompts: list, *more: str) -> int:
    file = out.parent / ("prompts.txt" if isinstance(prompts[0], str) else "prompts.jsonl")
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in prompts))
    sampler = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = [f"run_dir={out}", f"model={model}", f"prompts={file}", "num_threads=1", *more]
    return cli.main(["generate", *(f"sampler.{word}" for word in sampler), *words])


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def frames(out: Path, name: str) -> np.ndarray:
    return read_clip(out / f"{name}.mp4").frames


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line in which the command refused its work."""
    error = capsys.readouterr().err.splitlines()[-1]  # after the bars of what was loaded
    assert code == 2 and error.startswith("error: ")
    return error


@pytest.mark.parametrize("name", ["00001.mp4", "holiday.mp4"])
def test_a_folder_with_videos_of_somebody_else_is_refused_and_left_alone(
    tmp_path: Path, capsys, name: str
) -> None:
    videos = tmp_path / "my_videos"
    videos.mkdir()
    (videos / name).write_bytes(b"precious")
    assert generate("no/such/model", videos, ["a red star"]) == 2
    assert f"{name} was not made by moviegen generate; choose another run_dir" in capsys.readouterr().err
    assert [(path.name, path.read_bytes()) for path in videos.iterdir()] == [(name, b"precious")]


def test_a_recipe_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / "kitchen"
    out.mkdir()
    (out / "recipe.json").write_text('{"prompts": "flour"}')
    assert generate("no/such/model", out, ["a red star"]) == 2
    assert "is no recipe of moviegen generate" in capsys.readouterr().err
    assert (out / "recipe.json").read_text() == '{"prompts": "flour"}'


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path, name: str) -> None:
    record = '{"id": "00001", "prompt": "a red star"}'
    line = {"p.txt": "a red star", "p.csv": "prompt\na red star", "p.jsonl": record}[name]
    (tmp_path / name).write_text(line + "\n", encoding="utf-8-sig")
    assert [(p.id, p.text) for p in read_prompts(str(tmp_path / name))] == [("00001", "a red star")]


def test_one_prompt_of_the_command_line_becomes_one_clip(model: str, tmp_path: Path, capsys) -> None:
    words = [f"run_dir={tmp_path / 'out'}", f"model={model}", "num_threads=1", "prompt=a red star, 'big'"]
    small = [
        "sampler.num_frames=3",
        "sampler.height=16",
        "sampler.width=32",
        "sampler.frame_rate=6",
        "sampler.num_steps=1",
    ]
    assert cli.main(["generate", *words, *small, "sampler.schedule=linear"]) == 0
    made = read_clip(tmp_path / "out" / "00001.mp4")
    assert made.frames.shape == (3, 16, 32, 3) and made.frame_rate == pytest.approx(6.0)
    assert [row["prompt"] for row in rows(tmp_path / "out")] == ["a red star, 'big'"]
    for given in ([], ["prompt=a star", "prompts=p.txt"]):
        error = refused(capsys, cli.main(["generate", f"run_dir={tmp_path / 'x'}", *given]))
        assert "give prompt='a red star' or prompts=FILE, one of the two" in error


def test_prompts_that_come_twice_differ_and_the_first_is_the_one_that_stands_alone(
    model: str, tmp_path: Path
) -> None:
    assert generate(model, tmp_path / "three", ["a red star", "a cat", "a red star"]) == 0
    assert generate(model, tmp_path / "one", ["a red star"]) == 0
    first, third = frames(tmp_path / "three", "00001"), frames(tmp_path / "three", "00003")
    assert not np.array_equal(first, third)
    np.testing.assert_array_equal(first, frames(tmp_path / "one", "00001"))


def test_noise_is_keyed_by_the_prompt_and_by_which_time_it_comes() -> None:
    keys = noise_keys(["a", "b", "a", "a", "b"])
    assert len(set(keys)) == 5
    assert noise_keys(["b", "a"]) == [keys[1], keys[0]] and noise_keys(["a", "a"]) == [keys[0], keys[2]]


def test_training_shows_the_clip_that_generate_writes_also_of_a_prompt_that_comes_twice(
    model: str, tmp_path: Path
) -> None:
    prompts = ["a red star", "a cat", "a red star"]
    still = ["sampler.num_frames=1", "sampler.seed=3", "batch_size=2"]  # a PNG is exact
    assert generate(model, tmp_path / "out", prompts, *still) == 0
    sampler = SamplerConfig(**FACTS, num_frames=1, seed=3)
    shown = [
        to_uint8(clip)[0] for clip in sample_clips(load_task(model), prompts, sampler)
    ]  # as training does
    for number, image in enumerate(shown, 1):
        made = read_image(tmp_path / "out" / f"{number:05d}.png")
        np.testing.assert_allclose(made.astype(int), image, atol=1)  # other batches round otherwise
    assert np.abs(shown[0].astype(int) - shown[2]).max() > 5 and shown[0].std() > 5


def test_each_prompt_may_have_seeds_of_its_own(model: str, tmp_path: Path) -> None:
    prompts = [{"id": "a", "prompt": "a star"}, {"id": "b", "prompt": "a star two", "seed": 7}]
    prompts += [{"id": "c", "prompt": "a star", "seed": [0, 1]}]
    assert generate(model, tmp_path / "out", prompts, "seeds=[0,5]") == 0
    found = {row["id"]: row["seed"] for row in rows(tmp_path / "out")}
    assert found == {"a-s0": 0, "a-s5": 5, "b": 7, "c-s0": 0, "c-s1": 1}
    clips = [frames(tmp_path / "out", name).tobytes() for name in found]
    assert len(set(clips)) == 5
    assert generate(model, tmp_path / "alone", [{"id": "x", "prompt": "a star"}], "sampler.seed=5") == 0
    assert frames(tmp_path / "alone", "x").tobytes() == clips[1]


def test_beside_each_clip_stand_the_settings_that_make_it_again(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prompts = [
        {"id": "a", "prompt": "a big star", "original": "star", "tags": {"concept": "x"}, "seed": [2, 3]}
    ]
    assert generate(model, out, prompts) == 0
    card = json.loads((out / "a-s3.json").read_text())
    assert card["prompt"] == "a big star" and card["original"] == "star" and card["tags"] == {"concept": "x"}
    assert card["checkpoint"] == model and len(card["model"]) == len(card["codec"]) == 64
    sampler = SamplerConfig(**card["sampler"])
    assert sampler == SamplerConfig(**FACTS, num_frames=4, seed=3)
    again = sample_clips(load_task(card["checkpoint"]), [card["prompt"]], sampler, keys=[card["noise_key"]])
    assert card["noise_key"] == noise_keys(["star"])[0]  # of what the user wrote
    np.testing.assert_allclose(frames(out, "a-s3").mean(), to_uint8(again[0]).mean(), atol=2)
    row = rows(out)[1]
    assert row["original"] == "star" and row["seed"] == 3 and row["tags"] == {"concept": "x"}


def test_a_half_finished_batch_goes_on_where_it_stopped(model: str, tmp_path: Path, monkeypatch) -> None:
    out, prompts = tmp_path / "out", ["a star", "a cat", "a dog", "a car"]
    assert generate(model, tmp_path / "whole", prompts) == 0
    real, calls = Exporter.export, []

    def noted(exporter: Exporter, path: Path, *values):
        calls.append(path.stem)
        if broken_off and len(calls) == 3:
            raise KeyboardInterrupt
        return real(exporter, path, *values)

    monkeypatch.setattr(Exporter, "export", noted)
    broken_off = True
    assert generate(model, out, prompts, "batch_size=2") == 130
    assert {path.name for path in out.glob("*.mp4")} == {"00001.mp4", "00002.mp4"}
    (out / "00002.json").unlink()  # a clip without its settings is not finished
    kept = (out / "00001.mp4").stat().st_mtime_ns
    calls.clear()
    broken_off = False
    assert generate(model, out, prompts, "batch_size=3") == 0
    assert calls == ["00002", "00003", "00004"] and (out / "00001.mp4").stat().st_mtime_ns == kept
    for name in ("00001", "00002", "00003", "00004"):
        np.testing.assert_array_equal(frames(out, name), frames(tmp_path / "whole", name))


def test_a_full_disk_is_one_line_and_leaves_the_finished_clips_and_no_half_one(
    model: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    out, prompts, real, calls = tmp_path / "out", ["a star", "a cat", "a dog"], Exporter.export, []

    def cramped(*values):
        calls.append(values)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            return real(*values)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(Exporter, "export", cramped)
    line = refused(capsys, generate(model, out, prompts))
    assert line.startswith(f"error: {out}/00002.mp4") and "File too large" in line
    assert [path.name for path in out.glob("*.mp4")] == ["00001.mp4"]
    assert not [*out.glob(".*"), *out.glob("manifest.jsonl"), *out.glob("00002*")]
    assert generate(model, out, prompts) == 0
    assert len(calls) == 4 and len(rows(out)) == 3  # the first clip is not made again


def test_one_frame_is_written_as_a_png_with_its_settings(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generate(model, out, ["a star"], "frames=1") == 0
    assert not list(out.glob("*.mp4")) and json.loads((out / "00001.json").read_text())["path"] == "00001.png"
    sampler = SamplerConfig(**FACTS, num_frames=1)
    shown = to_uint8(sample_clips(load_task(model), ["a star"], sampler)[0])
    np.testing.assert_array_equal(read_image(out / "00001.png"), shown[0])
    assert rows(out)[0]["path"] == "00001.png" and rows(out)[0]["frame_rate"] == 0
    first = (out / "00001.png").stat().st_mtime_ns
    assert generate(model, out, ["a star"], "sampler.num_frames=1") == 0
    assert (out / "00001.png").stat().st_mtime_ns == first
    assert generate(model, out, ["a star"]) == 0  # a clip of the same name takes its place
    assert sorted(path.name for path in out.glob("0*")) == ["00001.json", "00001.mp4"]


def test_settings_of_somebody_else_are_not_overwritten(model: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "00001.json").write_text("{}")
    assert "00001.json was not made by moviegen generate" in refused(capsys, generate(model, out, ["a star"]))
    assert (out / "00001.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler.height=18"], "sampler.height=18: this model makes multiples of 4 pixels, from 4 to 256"),
        (["sampler.width=0"], "sampler.width=0: "),
        (["sampler.width=260"], "sampler.width=260: "),
        (
            ["sampler.num_frames=5"],
            "sampler.num_frames=5: this model makes 1 to 4 frames (its positions reach 2 latent",
        ),
        (["sampler.num_frames=0"], "sampler.num_frames=0: this model makes 1 to 4 frames"),
        (["sampler.num_steps=0"], "num_steps must be at least 1, got 0"),
        (
            ["sampler.schedule=linear_quadratic"],
            "num_steps=1: a linear-quadratic schedule has 2 to emulated_steps",
        ),
        (
            ["sampler.num_steps=300", "sampler.schedule=linear_quadratic_mindone"],
            "num_steps=300: a linear-quadratic schedule has 2 to emulated_steps=250 steps",
        ),
        (
            ["+sampler.condition_guidance.identity=2"],
            "sampler.condition_guidance.identity: this model has no such condition, it has none beside the text",
        ),
        (
            ["+sampler.condition_guidance.text=2"],
            "condition_guidance.text: the scale of the text is guidance",
        ),
        (["sampler.frame_rate=0"], "sampler.frame_rate=0.0: must be above 0"),
        (["sampler.seed=-1"], "sampler.seed=-1: must be at least 0"),
        (["sampler.solver=ddim"], "solver ddim is for diffusion models"),
        (["seeds=[-1]"], "seeds=[-1]: must be at least 0"),
        (["seeds=[1,1]"], "two clips would be called 00001-s1"),
    ],
)
def test_what_the_model_cannot_make_is_one_line_and_nothing_is_written(
    model: str, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    assert message in refused(capsys, generate(model, tmp_path / "out", ["a star"], *words))
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be_sampled_leave_the_clips_of_the_former_run_alone(
    model: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    assert generate(model, out, ["a star"]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)  # as where it is not installed
    for words in (
        ["sampler.num_steps=300", "sampler.schedule=linear_quadratic"],
        ["+sampler.condition_guidance.identity=2"],
        ["sampler.solver=dopri5"],
    ):
        refused(capsys, generate(model, out, ["a star"], *words))
        assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_rate_that_no_clip_of_the_training_had_is_refused(model: str, tmp_path: Path, capsys) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(f"{model}{suffix}", tmp_path / f"m{suffix}")
    record = json.loads((tmp_path / "m.json").read_text())
    record["info"] = {"frame_rates": [8.0, 16.0], "consents": ["bob"]}
    (tmp_path / "m.json").write_text(json.dumps(record))
    made = str(tmp_path / "m")
    error = refused(capsys, generate(made, tmp_path / "out", ["a star"], "sampler.frame_rate=24"))
    assert f"sampler.frame_rate=24: {made} was trained at 8 to 16 frames per second" in error
    assert not (tmp_path / "out").exists()
    assert generate(made, tmp_path / "out", ["a star"], "sampler.frame_rate=12") == 0
    said = capsys.readouterr().err
    assert (
        "by the consent record bob, which is not in /" in said and "/consents: whether it was revoked" in said
    )


def test_a_prompt_longer_than_the_text_encoder_reads_is_refused_and_never_cut(
    model: str, tmp_path: Path, capsys
) -> None:
    fits, long = (
        "a star " * 31,
        "a star " * 32,
    )  # two tokens a repetition, and two that the encoder adds: 64 are read
    assert generate(model, tmp_path / "fits", [fits], "sampler.num_frames=1") == 0
    error = refused(capsys, generate(model, tmp_path / "out", ["a star", long, long + "x"]))
    assert (
        "prompt 00002 ('a star a star a star a star a star a ...') has 66 tokens, text reads at most 64"
        in error
    )
    assert error.endswith("shorten it; so are 1 others") and not (tmp_path / "out").exists()


def test_ten_thousand_prompts_are_planned_and_checked_in_little_time(model: str) -> None:
    task, sampler = load_task(model), SamplerConfig(**FACTS, num_frames=4)
    prompts = [Prompt(f"{number:05d}", f"a red star number {number % 5000}") for number in range(10_000)]
    check_prompts(task, {"first": "a star"}, sampler)  # loads the encoder
    start = time.process_time()
    clips = plan_clips(prompts, (0,), 4)
    check_prompts(task, {prompt.id: prompt.text for prompt in prompts}, sampler)
    assert time.process_time() - start < 10  # a second on an idle core
    assert len({clip.key for clip in clips}) == 10_000


def test_an_empty_prompt_of_a_training_run_s_samples_is_refused_by_its_number(model: str) -> None:
    with pytest.raises(ValueError, match="prompt 01 is empty"):
        check_prompts(load_task(model), {"00": "a star", "01": " "}, SamplerConfig(**FACTS, num_frames=4))


def test_a_model_of_another_kind_is_refused(model: str, tmp_path: Path, capsys) -> None:
    codec = model.removesuffix("t2v") + "tae"
    error = refused(capsys, generate(codec, tmp_path / "out", ["a star"]))
    assert f"{codec} is a CodecTask without text input; give a text-to-video model" in error
    node = {**CODEC, "codec": {**CODEC["codec"], "latent_channels": 6}}
    save_model(tmp_path / "other", build(node), node, torch.float32, {})
    error = refused(capsys, generate(model, tmp_path / "out", ["a star"], f"decoder={tmp_path / 'other'}"))
    assert "the codec has 6 latent channels, the generator makes 4" in error
    image = {"id": "a", "prompt": "a star", "image": "given.png"}
    (tmp_path / "given.png").write_bytes(b"")
    error = refused(capsys, generate(model, tmp_path / "out", [image]))
    assert "prompt a gives an image" in error and f"but {model} takes none" in error
    assert not (tmp_path / "out").exists()


def test_weights_of_another_stage_do_not_fit_and_say_so(model: str, tmp_path: Path, capsys) -> None:
    folder = Path(model).parent
    record = json.loads((folder / "t2v.json").read_text())
    record["task"]["backbone"]["config"]["max_frames"] = 4  # the next stage's longer clips
    (tmp_path / "next.json").write_text(json.dumps(record))
    (tmp_path / "next.safetensors").write_bytes((folder / "t2v.safetensors").read_bytes())
    error = refused(capsys, generate(str(tmp_path / "next"), tmp_path / "out", ["a star"]))
    assert "is of another architecture: 1 tensors differ" in error
    assert "backbone.positions.frames: [2, 16] in the file, [4, 16] in the model" in error
