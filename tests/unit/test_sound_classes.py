"""KL and inception score of sound by a classifier given by path, and the suite that has no sound to compare with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_samples import frames_of, write_suite
from moviegen_eval.metrics.registry import SPLITS, open_metrics
from moviegen_eval.metrics.sample import Clip, Sample
from moviegen_eval.score import score
from moviegen_eval.scores import read_scores

from moviegen.media import write_video

RATE_HZ = 8000


class Loudness(torch.nn.Module):
    """Logits [N, 4] of half a second at 8 kHz: which of four levels it has."""

    sample_rate_hz: int
    window_seconds: float

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate_hz, self.window_seconds = 8000, 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.arange(4, device=x.device) * 0.1 + 0.1
        return -1000 * (x.abs().mean(1, keepdim=True) - levels).square()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = str(tmp_path_factory.mktemp("weights") / "loudness.pt")
    torch.jit.script(Loudness()).save(path)
    return {"audio_classifier": path}


def sound(level: float, seconds: float = 1.0) -> np.ndarray:
    """A tone whose mean magnitude is the level."""
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (level * np.pi / 2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]


def pair(made: np.ndarray, wanted: np.ndarray) -> Sample:
    frames = frames_of(0)
    return Sample("", Clip(frames, 8.0, made, RATE_HZ), Clip(frames, 8.0, wanted, RATE_HZ))


def test_kl_is_nothing_for_sounds_of_a_class_and_large_for_others(weights: dict[str, str]) -> None:
    metrics = open_metrics(["audio_kl", "audio_is"], weights)
    assert metrics.skipped == {}
    kl = metrics.samples["audio_kl"]
    assert kl.scores(pair(sound(0.1), sound(0.1)))["audio_kl"] == pytest.approx(0, abs=1e-6)
    # of levels 0.1 apart the logits of the two classes differ by 1000 * 0.1^2 = 10, both ways
    assert kl.scores(pair(sound(0.1), sound(0.2)))["audio_kl"] == pytest.approx(10, abs=0.1)
    both = np.concatenate([sound(0.1, 0.5), sound(0.2, 0.5)], axis=1)  # a window of each
    posteriors = metrics.sets["audio_is"].extractor.features(Clip(frames_of(0), 8.0, both, RATE_HZ))
    np.testing.assert_allclose(posteriors, [[0.5, 0.5, 0, 0]], atol=1e-3)
    with pytest.raises(
        ValueError, match=r"sound of the clip is shorter than the classifier's window of 0\.5 s"
    ):
        kl.scores(pair(sound(0.1, 0.2), sound(0.1)))


def test_without_a_classifier_both_say_which_file_they_need() -> None:
    skipped = open_metrics(["audio_kl", "audio_is"]).skipped
    assert set(skipped) == {"audio_kl", "audio_is"}
    assert all("give weights.audio_classifier=path (from: PaSST or PANNs" in one for one in skipped.values())


def write_arm(folder: Path, names: list[str], shift: int = 0) -> str:
    """Videos of a second whose sounds have the four levels in turn."""
    for row, name in enumerate(names):
        write_video(
            folder / f"{name}.mp4", frames_of(row), 8.0, sound(0.1 + 0.1 * ((row + shift) % 4)), RATE_HZ
        )
    return str(folder)


def test_arms_are_scored_by_both_and_the_inception_score_needs_no_reference(
    weights: dict[str, str], tmp_path: Path
) -> None:
    suite, names = write_suite(tmp_path / "suite.csv", SPLITS), [f"p-{row:02d}" for row in range(SPLITS)]
    settings = {
        "suite": str(suite), "metrics": ["audio_kl", "audio_is"], "weights": weights,
        "arms": {"same": write_arm(tmp_path / "same", names), "other": write_arm(tmp_path / "other", names, 1)},
        "bootstrap_count": 100, "set_bootstrap": 5, "cache": str(tmp_path / "cache"),
    }  # fmt: skip
    alone = {(one.arm, one.metric): one for one in score(settings | {"out": str(tmp_path / "alone")})}
    assert set(alone) == {("same", "audio_is"), ("other", "audio_is")}
    one = alone["same", "audio_is"]
    assert one.n == SPLITS and one.higher_is_better and "reference" not in one.manifest
    assert one.value == pytest.approx(1)  # ten splits of ten sounds: of one sound each
    assert (
        read_scores(tmp_path / "alone").facts["skipped"]["audio_kl"] == "no reference clip of the same prompt"
    )
    settings["reference"] = settings["arms"]["same"]
    found = {(one.arm, one.metric): one for one in score(settings | {"out": str(tmp_path / "both")})}
    assert (
        found["same", "audio_kl"].value == pytest.approx(0, abs=1e-6) and found["other", "audio_kl"].value > 5
    )
    assert found["same", "audio_is"] == one


def test_fewer_sounds_than_splits_give_no_inception_score(weights: dict[str, str], tmp_path: Path) -> None:
    suite, arm = write_suite(tmp_path / "suite.csv", 2), write_arm(tmp_path / "arm", ["p-00", "p-01"])
    settings = {
        "suite": str(suite),
        "metrics": ["silence", "audio_is"],
        "weights": weights,
        "arms": {"x": arm},
    }
    assert {one.metric for one in score(settings | {"out": str(tmp_path / "out")})} == {"silence"}
    reason = read_scores(tmp_path / "out").facts["skipped"]["audio_is"]
    assert reason == "fewer than 10 prompts gave features"


def test_movie_gen_audio_bench_refuses_what_needs_reference_sound_whatever_is_given(
    weights: dict[str, str], tmp_path: Path
) -> None:
    row = {"id": 0, "video_prompt": "a dog", "audio_prompt": "barking"}
    (tmp_path / "MovieGenAudioBenchSfx.jsonl").write_text(json.dumps(row) + "\n")
    arm = write_arm(tmp_path / "arm", ["mga-0000"])
    settings = {
        "suite": f"movie_gen_audio:{tmp_path}", "arms": {"x": arm}, "reference": arm, "weights": weights,
        "out": str(tmp_path / "out"),
    }  # fmt: skip
    refused = ["mel_frechet", "mel_kernel", "fad", "kad", "audio_kl"]
    scores = score(settings | {"metrics": ["silence", "psnr", *refused]})
    assert {one.metric for one in scores} == {"silence", "psnr"}  # a picture may have a reference
    skipped = read_scores(tmp_path / "out").facts["skipped"]
    assert set(skipped) == set(refused)
    assert all(
        reason.startswith("Movie Gen Audio Bench has no reference audio") for reason in skipped.values()
    )
    with pytest.raises(ValueError, match=r"no metric can be computed: .*has no reference audio"):
        score(settings | {"metrics": ["mel_kernel"]})
