"""The oracle is right on the world's own clips, says "none" on what shows nothing, never reads the truth."""

import ast
import inspect
import time
from collections.abc import Iterator

import numpy as np
import pytest
from moviegen_data.toyworld import (
    ToyClip,
    World,
    WorldConfig,
    backdrop,
    faces,
    listen,
    oracle,
    outline,
    segment,
    tracks,
)
from moviegen_data.toyworld.calibrate import Shown, calibrate, shown_raw
from moviegen_data.toyworld.oracle import Observation, observe, verdict

from moviegen.media import decode_audio, decode_video, encode_video

BAR = 0.99
NOTHING = Observation()


def clips_of(level: int, num: int, seed: int) -> Iterator[ToyClip]:
    world = World(WorldConfig(level=level, combos="all"))
    return (world.render(seed, index) for index in range(num))


def through_h264(clip: ToyClip) -> Shown:
    data = encode_video(clip.frames, clip.frame_rate, clip.audio, clip.sample_rate_hz, crf=18)
    frames, _ = decode_video(data)
    audio, sample_rate_hz = decode_audio(data)
    return Shown(frames, audio, sample_rate_hz)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_oracle_is_right_on_clips_as_they_were_drawn(level: int) -> None:
    num = 60 if level == 5 else 40
    score = calibrate((clip, shown_raw(clip)) for clip in clips_of(level, num, seed=100 + level))
    wrong = {name: share for name, share in score.accuracies().items() if share < BAR}
    assert not wrong, {name: (score.right[name], score.asked[name]) for name in wrong}
    assert {"colour", "shape", "size", "background", "camera", "box", "mask", "event_count"} <= set(
        score.asked
    )


def test_the_oracle_is_as_right_at_sixteen_frames_a_second() -> None:
    world = World(WorldConfig(level=4, combos="all", num_frames=32, frame_rate=16.0))
    clips = (world.render(416, index) for index in range(40))
    score = calibrate((clip, shown_raw(clip)) for clip in clips)
    wrong = {name: share for name, share in score.accuracies().items() if share < BAR}
    assert not wrong, {name: (score.right[name], score.asked[name]) for name in wrong}
    assert {"motion", "interaction", "camera"} <= set(score.asked)


@pytest.mark.parametrize("level", [4, 5])
def test_oracle_is_right_after_h264_and_aac(level: int) -> None:
    score = calibrate((clip, through_h264(clip)) for clip in clips_of(level, 40, seed=200 + level))
    soft = {"mask"}  # color at half resolution blurs edges of the background's brightness
    wrong = {n: share for n, share in score.accuracies().items() if share < BAR and n not in soft}
    assert not wrong, {name: (score.right[name], score.asked[name]) for name in wrong}
    assert score.accuracies()["mask"] > 0.8


def test_characters_are_read_right_whatever_their_pose_and_expression() -> None:
    world = World(WorldConfig(level=5, combos="all", character_share=1.0))
    clips = (world.render(31, index) for index in range(25))
    score = calibrate((clip, shown_raw(clip)) for clip in clips)
    assert min(score.accuracies()[name] for name in ("character", "pose", "expression")) >= BAR


def test_a_clip_is_observed_in_a_tenth_of_a_second() -> None:
    clips = list(clips_of(4, 10, seed=40))
    observe(clips[0].frames, 8.0, clips[0].audio, 48_000)
    start = time.process_time()
    for clip in clips:
        observe(clip.frames, 8.0, clip.audio, 48_000)
    assert (time.process_time() - start) / len(clips) < 0.2  # 0.1 s on an idle core


def broken_clips() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    return {
        "colored noise": noise,
        "grey noise": np.repeat(noise[..., :1], 3, axis=-1),
        "faint noise": (118 + noise // 12).astype(np.uint8),
        "noise that keeps still": np.repeat(noise[:1], 16, axis=0),
        "noise in blobs": np.kron(noise[:, :8, :8], np.ones((1, 8, 8, 1), dtype=np.uint8)),
        "black": np.zeros((16, 64, 64, 3), dtype=np.uint8),
        "grey": np.full((16, 64, 64, 3), 128, dtype=np.uint8),
        "red": np.tile(np.array([228, 28, 32], dtype=np.uint8), (16, 64, 64, 1)),
        "no frames": np.zeros((0, 64, 64, 3), dtype=np.uint8),
        "one frame": noise[:1],
        "no colors": noise[..., 0],
        "tiny": noise[:, :8, :8],
        "not a number": np.full((16, 64, 64, 3), np.nan),
        "out of range": noise.astype(np.float64) * 1e6,
        "words": np.array(["a", "b"]),
    }


@pytest.mark.parametrize("name", list(broken_clips()))
def test_oracle_finds_nothing_in_noise_and_broken_clips(name: str) -> None:
    found = observe(broken_clips()[name], 8.0)
    assert found == NOTHING
    spec = World(WorldConfig()).prompts(1, seed=0)[0].spec
    assert not any(verdict(spec, found).values())


@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "empty", "not a number", "wrong shape"])
def test_oracle_hears_nothing_in_silence_noise_and_broken_sound(kind: str) -> None:
    rng = np.random.default_rng(1)
    sound = {
        "silence": np.zeros((1, 96_000)),
        "noise": rng.normal(0, 0.3, (1, 96_000)),
        "hum": 0.5 * np.sin(2 * np.pi * 1300 * np.arange(96_000) / 48_000)[None],
        "empty": np.zeros((1, 0)),
        "not a number": np.full((1, 96_000), np.nan),
        "wrong shape": np.zeros((2, 3, 4)),
    }[kind]
    assert listen.hear(sound, 48_000) == ()


def test_verdict_names_what_is_wrong_and_only_what_the_spec_states() -> None:
    world = World(WorldConfig(level=4, combos="all"))
    clip = next(c for c in (world.render(50, i) for i in range(50)) if c.truth["interaction"] == "push")
    seen, spec = observe(clip.frames, clip.frame_rate), clip.truth["spec"]
    right = verdict(spec, seen)
    assert set(right) == {"colour", "shape", "size", "background", "camera", "interaction"}
    assert all(right.values())
    first, second = spec["sprites"]
    swapped = spec | {"sprites": [second, first]}  # the other one pushes
    assert not verdict(swapped, seen)["interaction"]
    crossed = spec | {
        "sprites": [first | {"shape": "circle"}, second | {"shape": "square"}]
    }  # shapes are bound to colors
    shapes = (first["shape"], second["shape"])
    assert verdict(crossed, seen)["shape"] == (shapes == ("circle", "square"))
    fewer = spec | {"sprites": [first]}
    assert not verdict(fewer, seen)["colour"]
    assert verdict({"camera": "zoom in"}, seen) == {"camera": False}


def test_shuffled_specs_are_mostly_wrong() -> None:
    clips = list(clips_of(4, 24, seed=60))
    specs = [clip.truth["spec"] for clip in clips]
    verdicts = [
        verdict(spec, observe(clip.frames, 8.0))
        for spec, clip in zip(specs[1:] + specs[:1], clips, strict=True)
    ]
    assert np.mean([v["colour"] for v in verdicts]) < 0.5
    assert np.mean([v["shape"] for v in verdicts]) < 0.6


def test_oracle_modules_never_read_the_truth_or_the_world() -> None:
    for module in (oracle, segment, outline, tracks, backdrop, faces, listen):
        tree = ast.parse(inspect.getsource(module))
        assert _imported(tree) and not any(map(_tells_the_truth, _imported(tree)))


@pytest.mark.parametrize(
    "code",
    [
        "from moviegen_data.toyworld.world import World",
        "from moviegen_data.toyworld import world",
        "import moviegen_data.toyworld.script as s",
        "def f():\n    import moviegen_data.toyworld.world",
        "from moviegen_data.toyworld.truth import clip_truth",
        "import moviegen_data.toyworld.truth",
    ],
)
def test_an_import_of_the_truth_or_the_world_is_found_in_every_form(code: str) -> None:
    assert any(map(_tells_the_truth, _imported(ast.parse(code))))


def _imported(tree: ast.AST) -> set[str]:
    """Dotted names of everything imported, by `import` and by `from`."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return names | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def _tells_the_truth(name: str) -> bool:
    return not {"world", "script", "clip_truth", "scene_spec"}.isdisjoint(name.split(".")) or name.endswith(
        "toyworld.truth"
    )
