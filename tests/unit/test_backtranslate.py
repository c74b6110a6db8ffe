# ruff: noqa: F811 (fixtures of other files)
"""Back-translation: instructions there and back, the filter and its table, shards that training reads."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from media_samples import moving
from model_samples import Generator
from moviegen_eval.metrics.clip import EditScores
from moviegen_eval.metrics.sample import Clip, Sample
from safetensors.torch import save_file
from shard_samples import npy, write_tar
from test_edit_command import model  # noqa: F401 (a fixture)
from test_text_encoders import folders, joint  # noqa: F401 (a fixture)
from tiny_weights import write_clip

from moviegen import backtranslate, cli
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.edit_tasks import recognised
from moviegen.conditioning.editing import SOURCE, TASK
from moviegen.config import compose
from moviegen.data.module import ShardData, Source
from moviegen.edit_filter import Bounds, ClipChange, EditFilter, Measure, PixelChange
from moviegen.fields import LATENT, TEXT
from moviegen.modelfile import load_task
from moviegen.pixels import from_uint8
from moviegen.rewriting import Rewriter
from moviegen.rewriting.instructions import LanguageModelInstructions, RuleInstructions
from moviegen.tasks.flow_task import FlowTask

CAPTION = (
    "a small red star moves left and a blue circle stays still on a plain background, the camera is still."
)


def rules() -> RuleInstructions:
    return RuleInstructions(
        colors=["red", "blue", "green"],
        things=["star", "circle"],
        backgrounds={
            "plain": ["a plain background"],
            "texture": ["a textured background", "a wavy background"],
        },
        sizes=["small", "big"],
    )


def test_every_change_by_rules_has_its_way_back() -> None:
    trips = rules().write([CAPTION] * 300, [number / 300 for number in range(300)])
    found = {(trip.forward.text, trip.backward.text) for trip in trips if trip}
    assert ("make the red star green", "make the green star red") in found
    assert ("replace the blue circle with a star", "replace the blue star with a circle") in found
    assert ("remove the red star", "add a small red star") in found
    assert ("add a small green circle", "remove the green circle") in found
    assert (
        "change the backdrop to a textured background",
        "change the backdrop to a plain background",
    ) in found
    for trip in trips:
        assert trip and recognised(trip.forward.text) == trip.forward.name
        assert recognised(trip.backward.text) == trip.backward.name
    colored = next(trip for trip in trips if trip and trip.forward.text == "make the red star green")
    assert colored.caption == CAPTION.replace("red", "green")


def test_a_caption_without_known_words_has_no_instruction() -> None:
    assert rules().write(["two people talk in a kitchen"], [0.3]) == [None]
    with pytest.raises(ValueError, match="at least two colors and two kinds of things"):
        RuleInstructions(colors=["red"], things=["star", "circle"])


def test_a_language_models_answer_is_read_or_counts_as_none() -> None:
    class Canned(Rewriter):
        def rewrite(self, prompts: list[str]) -> list[str]:
            return [
                "color | make it red | color | make it blue | a red cat",
                "just some words",
                "fly | make it fly | color | land it | a bird",
            ]

    found = LanguageModelInstructions(Canned(), ["color", "add"]).write(["a"] * 3, [0.0] * 3)
    assert found[0] and found[0].backward.text == "make it blue" and found[0].caption == "a red cat"
    assert found[1:] == [None, None]


def test_the_filter_names_the_bound_that_is_broken() -> None:
    before = torch.zeros(3, 4, 8, 8)
    after = before.clone()
    after[:, :, :4] = 1.0
    keep = EditFilter(
        [PixelChange()], {"changed": Bounds(0.1, 0.9), "flicker": Bounds(high=0.1), "other": Bounds(1.0)}
    )
    scores, rule = keep.judge(before, after, ("a", None))
    assert scores == {"changed": 0.5, "flicker": 0.0} and rule is None
    assert keep.judge(before, before, ("a", None))[1] == "changed too low"
    assert keep.judge(before, torch.ones_like(before), ("a", None))[1] == "changed too high"
    after[:, ::2] = 0
    assert keep.judge(before, after, ("a", None))[1] == "flicker too high"


def test_things_are_taken_out_as_often_as_they_are_put_in_where_there_are_two() -> None:
    trips = rules().write([CAPTION] * 400, [i / 400 for i in range(400)])
    tasks = Counter(trip.forward.name for trip in trips if trip)
    assert tasks["remove"] == tasks["add"] == 100


def latent(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(4, 2, 4, 4)).astype(np.float16)


def folder(path: Path, captions: list[str]) -> Path:
    """Cached latents of real clips, two tars."""
    path.mkdir()
    for tar in range(2):
        samples = [
            {
                "__key__": f"c{tar}{number}",
                "latent.npy": npy(latent(number)),
                "text.npy": npy(np.zeros((2, 384), np.float16)),
                "txt": caption,
                "json": json.dumps({"key": f"c{tar}{number}", "fps": 8.0}).encode(),
            }
            for number, caption in enumerate(captions)
        ]
        write_tar(path / f"train-toy-{tar:06d}.tar", samples)
    return path


WORDS = ["sampler.num_steps=1", "sampler.schedule=linear", "batch_size=2", "num_threads=1"]
KEEP = [
    "filter.bounds.changed.low=0",
    "filter.bounds.changed.high=null",
    "filter.bounds.flicker.high=null",
]


def run(out: Path, latents: Path, model: str, *more: str) -> int:
    words = [f"run_dir={out}", f"latents={latents}", f"checkpoint={model}", *WORDS, *more]
    return cli.main(["backtranslate", *words])


def test_the_loop_writes_shards_that_training_reads_and_goes_on_where_it_stopped(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    latents = folder(tmp_path / "latents", [CAPTION, "nothing known", CAPTION])
    seen = []
    real = TemporalAutoencoder.decode
    spy = lambda codec, latent, *more: seen.append(tuple(latent.values.shape)) or real(codec, latent, *more)  # noqa: E731
    monkeypatch.setattr(TemporalAutoencoder, "decode", spy)
    tiles = ["tiling.size=4", "tiling.size_overlap=0"]
    assert run(tmp_path / "out", latents, model, *KEEP, *tiles) == 0
    assert set(seen) == {(1, 4, 2, 2, 2)}  # one clip at a time, in tiles
    told = json.loads((tmp_path / "out" / "filter.json").read_text())
    assert (told["clips"], told["kept"]) == (6, 4)
    assert told["tasks"]["none"]["rules"] == {"no instruction": 2}
    assert "2 no instruction" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert names == ["train-back_toy-000000.tar", "train-back_toy-000001.tar"]
    data = ShardData(
        train={"x": Source(str(tmp_path / "out"))}, val={"x": Source(str(tmp_path / "out"), split="train")}
    )
    data.use({"media": LATENT, "source": SOURCE, "task": TASK, "text": TEXT})
    read = next(iter(data.val_dataloader()))
    assert read.inputs["source"].given.all() and read.inputs["source"].made.all()
    assert read.media.values.shape == (4, 4, 2, 4, 4)
    assert not torch.allclose(read.inputs["source"].values, read.media.values, atol=1e-2)
    assert [recognised(text) for text in read.inputs["text"]] == read.inputs["task"]
    np.testing.assert_allclose(read.media.values[0], latent(0), atol=1e-6)  # the target is the real clip
    stamps = [(tmp_path / "out" / name).stat().st_mtime_ns for name in names]
    (tmp_path / "out" / names[1]).unlink()
    assert run(tmp_path / "out", latents, model, *KEEP, *tiles) == 0
    again = [(tmp_path / "out" / name).stat().st_mtime_ns for name in names]
    assert again[0] == stamps[0] and again[1] != stamps[1]
    monkeypatch.setattr(backtranslate, "edit_latents", Mock(side_effect=RuntimeError))
    with pytest.raises(RuntimeError):
        run(tmp_path / "out", latents, model, *KEEP, *tiles, "sampler.guidance=3")
    assert not (tmp_path / "out" / "index.json").exists()  # it told of another recipe's shards


def test_features_are_those_of_the_models_encoders_and_the_filter_sees_the_frames_of_the_clip(
    model: str,
    folders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = {"latent.npy": npy(latent(0)), "txt": CAPTION}
    rates = {"a": 8.0, "b": 24.0}
    samples = [
        sample | {"__key__": key, "json": json.dumps({"fps": rate, "frames": 3})}
        for key, rate in rates.items()
    ]
    seen, judge = [], EditFilter.judge
    monkeypatch.setattr(
        EditFilter,
        "judge",
        lambda own, *clips: seen.append([len(c[0]) for c in clips[:2]]) or judge(own, *clips),
    )
    (tmp_path / "latents").mkdir()
    write_tar(tmp_path / "latents" / "train-toy-000000.tar", samples)
    task = load_task(model)
    assert isinstance(task, FlowTask)
    text = joint(folders, dim=16, frame_rate_prefix=True, cached=True)
    task.conditioners.items["text"] = text
    monkeypatch.setattr("moviegen.backtranslate.load_task", lambda path: task)
    assert run(tmp_path / "out", tmp_path / "latents", model, *KEEP) == 0
    data = ShardData({"x": Source(str(tmp_path / "out"))}, {"x": Source(str(tmp_path / "out"), "train")})
    data.use({"media": LATENT, "text": text.field, "caption": TEXT})
    inputs = next(iter(data.val_dataloader())).inputs
    assert seen == [[3, 3]] * 2  # without the codec's fourth frame
    first, second = inputs["caption"]
    expected = text.features([f"FPS-8 {first}", f"FPS-24 {second}"])
    for name, (features, mask) in inputs["text"].items():
        own, length = expected[name][0] * mask[..., None], mask.shape[1]
        assert torch.equal(mask, expected[name][1][:, :length])
        torch.testing.assert_close(features, own, rtol=2e-3, atol=2e-3)  # float16


def test_what_cannot_be_translated_is_refused(
    model: str,
    generator: Generator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    latents = folder(tmp_path / "latents", ["nothing known"])
    assert run(tmp_path / "out", latents, model) != 0
    assert "the filter kept none of 2 clips" in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.json").exists()
    before = sorted((path.name, path.read_bytes()) for path in latents.iterdir())
    assert run(tmp_path / "x" / ".." / "latents", latents, model) != 0
    assert "holds the latents, whose index.json would be lost" in capsys.readouterr().err
    assert sorted((path.name, path.read_bytes()) for path in latents.iterdir()) == before
    assert run(tmp_path / "plain", latents, generator.path) != 0
    assert "takes no source" in capsys.readouterr().err
    assert run(tmp_path / "none", latents, model, "match=val-*") != 0
    assert "no shards of cached latents with captions are named 'val-*'" in capsys.readouterr().err


def test_a_measure_with_clip_composes() -> None:
    cfg = compose("backtranslate", ["filter=clip", "latents=x", "checkpoint=x", "filter.measures.1.folder=x"])
    assert cfg.filter.bounds.direction.low == 0.2 and cfg.filter.bounds.changed.low == 0.02
    assert issubclass(PixelChange, Measure)


def test_shards_depend_on_what_lies_in_the_folders_that_settings_name(
    model: str, folders: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    words = [
        "filter=clip",
        "latents=x",
        f"filter.measures.1.folder={tmp_path / 'clip'}",
        f"checkpoint={model}",
    ]
    cfg, stamps = compose("backtranslate", words), []
    for content in ("a", "b", "a"):
        (tmp_path / "clip" / "weights").write_text(content)
        config = SimpleNamespace(checkpoint=model)
        stamps.append(backtranslate._stamp(cfg, config, joint(folders, dim=16, cached=True)))  # type: ignore[arg-type]
    assert stamps[0] == stamps[2] != stamps[1]


def test_clips_direction_is_that_of_the_judge_and_needs_a_caption(tmp_path: Path) -> None:
    folder = Path(write_clip(tmp_path / "clip"))
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    save_file(
        {name: tensor.clone() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors"
    )
    stated = json.loads((folder / "open_clip_config.json").read_text())
    stated["preprocess_cfg"] = {"mean": [0.1, 0.5, 0.6], "std": [0.5, 0.4, 0.3]}
    stated["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "whitespace"}  # capitals stay
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    measure, said = ClipChange(str(folder)), ("a Red star", "a BLUE circle on the Left")
    before, after = moving(4, 32, 56), 255 - moving(4, 32, 56, seed=3)  # not square: the middle is looked at
    clips = [from_uint8(frames) for frames in (before, after)]
    scores = measure.scores(*clips, said)
    sample = Sample("", Clip(after, 8.0), source=Clip(before, 8.0), source_text=said[0], target_text=said[1])
    other = EditScores(folder / "open_clip_model.safetensors").scores(sample)  # written apart
    assert scores["direction"] == pytest.approx(other["edit_direction"], abs=1e-3)
    assert scores["text"] == pytest.approx(other["edit_text"], abs=1e-3)
    back = measure.scores(*reversed(clips), said)
    assert back["direction"] == pytest.approx(-scores["direction"], abs=1e-5)
    assert measure.scores(*clips, (said[0], None)) == {}
    keep = EditFilter([measure], {"direction": Bounds(low=scores["direction"] + 0.01)})
    assert (
        keep.judge(*clips, said)[1] == "direction too low" and keep.judge(*clips, (said[0], None))[1] is None
    )
