"""What the shipped tasks read of a sample: media, features, captions; never the truth, or what leads to it."""

import importlib
import json
import pkgutil

import pytest
from shard_samples import npy

from moviegen import conditioning, config, modelfile
from moviegen.codec.base import LatentCodec
from moviegen.conditioning.base import Conditioner
from moviegen.fields import JSON, LATENT, PAIR
from moviegen.tasks.base import Task

READABLE = {"mp4", "latent.npy", "frames.npy", "text.npy", "txt", "json", "png", "jpg", "jpeg", "webp"}
READABLE |= {
    "faces.npy",
    "source.npy",
    "source.mp4",
    "flac",
}  # references of a person, a source to edit, sound
RECIPES = [
    ["experiments=toy/tae"],
    ["experiments=toy/t2v"],
    ["experiments=toy/t2v", "task.conditioners.text.cached=false"],
    [
        "experiments=toy/t2v",
        "task.conditioners.text.cached=false",
        "task.conditioners.text.frame_rate_prefix=true",
    ],
    ["experiments=toy/i2v"],
    ["experiments=toy/personalize"],
    ["experiments=toy/edit"],
    ["experiments=toy/upsample"],
    ["experiments=toy/audio_codec"],
    ["experiments=toy/audio", "task.codec.path=experiments/toy/weights/audio_codec"],
    ["experiments=text/clip_toy"],
]


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
def test_every_shipped_task_reads_only_what_a_model_may_see(words: list[str], monkeypatch) -> None:
    def untrained(path: str) -> LatentCodec:
        return config.build(config.compose("train", ["experiments=toy/tae"]).task.codec)

    untrained.__module__, untrained.__qualname__ = "moviegen.modelfile", "load_codec"
    monkeypatch.setattr(modelfile, "load_codec", untrained)
    task: Task = config.build(config.compose("train", words).task)
    suffixes = {suffix for field in task.fields.values() for suffix in field.suffixes}
    assert suffixes and suffixes <= READABLE


def test_the_recipes_above_are_all_tasks_and_conditioners_there_are() -> None:
    for name in ("tae", "t2v"):
        assert f"toy/{name}" in config.options("experiments")
    assert set(config.options("task")) == {
        *("codec_video", "codec_audio", "t2v", "i2v", "personalize", "edit", "upsample", "audio"),
        *("clip", "rewrite"),
    }
    assert PAIR.suffixes == ("pair.json",)  # all that the task of rewriting reads, and no shard has it
    for module in pkgutil.iter_modules(conditioning.__path__, "moviegen.conditioning."):
        importlib.import_module(module.name)
    shipped = [cls for cls in descendants(Conditioner) if cls.__module__.startswith("moviegen.")]
    assert {cls.__name__ for cls in shipped} == {
        "AudioContext",
        "GivenFrames",
        "Identity",
        "JointText",
        "LowResolution",
        "OfTask",
        "SourceVideo",
        "TaskTokens",
        "TaskVector",
        "Text",
        "TextCondition",
        "VideoFeatures",
    }
    assert set(config.options("conditioner")) == {
        "audio_context",
        "edit_source",
        "edit_tokens",
        "edit_vector",
        "given_frames",
        "identity_paper",
        "identity_toy",
        "low_resolution",
        "text_minilm",
        "text_paper",
        "text_t5",
        "video_metaclip",
        "video_pixels",
    }


def descendants(cls: type) -> list[type]:
    return [one for child in cls.__subclasses__() for one in (child, *descendants(child))]


def test_readers_of_models_drop_what_a_toyworld_clip_could_be_rendered_from() -> None:
    record = {"key": "a", "fps": 8.0, "origin": {"toyworld": {}, "seed": 0, "index": 3}}
    data = json.dumps(record).encode()
    assert JSON.decode(data) == {"key": "a", "fps": 8.0}
    import numpy as np

    values, frame_rate = LATENT.decode(npy(np.zeros((4, 2, 2, 2), np.float16)), data)
    assert values.shape == (4, 2, 2, 2) and frame_rate == 8.0
    with pytest.raises(ValueError, match="is an object, not list"):
        JSON.decode(b"[1]")
