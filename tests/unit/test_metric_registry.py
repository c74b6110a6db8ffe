"""The registry: every metric runs through one path, with its real weights or a tiny random extractor, and merges."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from arm_samples import frames_of
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.metrics.accumulate import SampleScores, SetScores
from moviegen_eval.metrics.frechet import bootstrap_sets, frechet_distance, gaussian_mmd, polynomial_mmd
from moviegen_eval.metrics.registry import ENTRIES, FeatureDistance, MetricSet, entry, names_for, open_metrics
from moviegen_eval.metrics.sample import Clip, Sample
from tiny_weights import write_tiny_weights

from moviegen.parallel.leaving import leave

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> MetricSet:
    weights = write_tiny_weights(tmp_path_factory.mktemp("weights"))
    names = [name for name in ENTRIES if name != "vmaf"]
    return open_metrics(names, weights, other_weights=True)


def beeps(times: list[float], seconds: float = 2.0) -> np.ndarray:
    """Short tones at times: float32 [1, N]."""
    sound = np.zeros(int(seconds * RATE_HZ), np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 900 * np.arange(1600) / RATE_HZ) * np.exp(-np.arange(1600) / 400)
    for time in times:
        start = int(time * RATE_HZ)
        sound[start : start + 1600] += tone[: len(sound) - start]
    return sound[None]


def full_sample(row: int = 0, noise: float = 8.0) -> Sample:
    """A sample that has all that any metric may need."""
    toy = World(WorldConfig(level=2)).render(1, row)
    clean, noisy = (np.repeat(frames_of(row, level, num=16, size=64), 2, 0)[:32] for level in (0.0, noise))
    made = Clip(noisy, 16.0, beeps([0.3, 1.2]), RATE_HZ)
    wanted = Clip(clean, 16.0, beeps([0.6]), RATE_HZ)
    source = Clip(clean[:, ::-1].copy(), 16.0)
    spec = toy.truth["spec"]
    return Sample("a red star", made, wanted, source, "a star", "a red star", spec, clean[0], (spec,))


def test_every_metric_of_the_registry_runs_on_a_sample(metrics: MetricSet) -> None:
    assert metrics.skipped == {} and {*metrics.samples, *metrics.sets} == {*ENTRIES} - {"vmaf"}
    sample = full_sample()
    for name, metric in metrics.samples.items():
        scores = metric.scores(sample)
        known = {output.name for output in ENTRIES[name].outputs}
        assert set(scores) <= known, name
        assert scores or name == "onsets", name
        assert all(np.isfinite(value) for value in scores.values()), name
    for name, distance in metrics.sets.items():
        features = distance.extractor.features(sample.clip)
        assert features.ndim == 2 and len(features) >= 1 and np.isfinite(features).all(), name


def test_a_manifest_names_code_preprocessing_and_the_hash_of_the_weights(metrics: MetricSet) -> None:
    manifest = metrics.manifests["clip"]
    assert set(manifest) == {"metric", "code", "preprocessing", "weights"}
    assert len(manifest["weights"]["open_clip"]) == 64 and len(manifest["code"]) == 16
    assert metrics.manifests["psnr"]["weights"] == {}
    codes = {metrics.manifests[name]["code"] for name in ("psnr", "ssim", "clip", "fvd")}
    assert len(codes) == 4


def test_without_weights_a_metric_says_which_file_it_needs() -> None:
    found = open_metrics(["all"])
    assert {"psnr", "ssim", "flicker", "motion", "oracle", "onsets"} <= set(found.samples)
    assert {"mel_frechet", "mel_kernel"} <= set(found.sets)
    assert "give weights.i3d_fvd=path (from: github.com/universome" in found.skipped["fvd"]
    assert set(names_for(["free"])) >= set(found.samples) - {"st_lpips", "vmaf"}
    with pytest.raises(ValueError, match="did you mean 'flicker'"):
        entry("flickr")
    with pytest.raises(ValueError, match=r"weights\.open_clp: not in the manifest; did you mean 'open_clip'"):
        open_metrics(["clip"], {"open_clp": "x"})


def test_weights_of_another_hash_are_refused_unless_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "alex.pth"
    file.write_bytes(b"something")
    with pytest.raises(ValueError, match="sha256 is"):
        open_metrics(["lpips"], {"alexnet": str(file)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of open_clip_model"):
        open_metrics(["clip"], {"open_clip": str(tmp_path / "empty")})


def test_clip_scores_move_with_frames_and_words(metrics: MetricSet) -> None:
    still = Sample("a star", Clip(np.repeat(frames_of(0)[:1], 8, 0), 8.0))
    moving = Sample("a star", Clip(frames_of(0, noise=40), 8.0))
    clip = metrics.samples["clip"]
    assert clip.scores(still)["clip_frames"] == pytest.approx(1, abs=1e-5)
    assert clip.scores(moving)["clip_frames"] < 0.9999
    other = Sample("a very different sentence", still.clip)
    assert clip.scores(still)["clip_text"] != pytest.approx(clip.scores(other)["clip_text"], abs=1e-6)


def test_flicker_tells_noise_from_steady_motion_and_motion_does_not_depend_on_the_frame_rate(
    metrics: MetricSet,
) -> None:
    ground = np.linspace(0, 200, 96)[None, :, None] * np.ones((64, 1, 3))
    steady = np.stack([ground[:, 2 * t : 2 * t + 64] for t in range(16)]).astype(np.uint8)
    noisy = np.clip(steady + np.random.default_rng(0).normal(0, 20, steady.shape), 0, 255).astype(np.uint8)
    scores = [metrics.samples["flicker"].scores(Sample("", Clip(c, 8.0))) for c in (steady, noisy)]
    assert scores[0]["flicker_alternating"] < 1 < 10 < scores[1]["flicker_alternating"]
    assert scores[0]["flicker"] > 3
    frozen = Clip(np.repeat(steady[:1], 16, 0), 8.0)
    assert metrics.samples["motion"].scores(Sample("", frozen))["motion"] == 0


def test_onsets_are_found_together_when_the_sound_is_in_step(metrics: MetricSet) -> None:
    frames = np.full((50, 32, 32, 3), 40, np.uint8)
    for start in (8, 30):
        frames[start:, 8:24, 8:24] = 255 - frames[start:, 8:24, 8:24]
    onsets = metrics.samples["onsets"]
    together, late = (
        onsets.scores(Sample("", Clip(frames, 25.0, beeps([8 / 25 + d, 30 / 25 + d]), RATE_HZ)))
        for d in (0.0, 0.4)
    )
    assert together["onset_lag"] < 0.03 and together["onset_match"] == 1
    assert late["onset_lag"] == pytest.approx(0.4, abs=0.06) and late["onset_match"] == 0
    assert onsets.scores(Sample("", Clip(frames, 25.0, np.zeros((1, 32_000), np.float32), RATE_HZ))) == {}


def test_identity_is_one_for_the_same_picture_and_edits_are_directed(metrics: MetricSet) -> None:
    face = frames_of(3, size=64)[0]
    same = Sample("", Clip(np.repeat(face[None], 4, 0), 8.0), face=face)
    assert metrics.samples["identity"].scores(same)["identity_worst"] == pytest.approx(1, abs=1e-5)
    scores = metrics.samples["edit"].scores(full_sample())
    assert -1 <= scores["edit_direction"] <= 1


def test_the_oracle_is_right_about_the_world_s_own_clips(metrics: MetricSet) -> None:
    toy = World(WorldConfig(level=1)).render(3, 0)
    sample = Sample(toy.caption, Clip(toy.frames, toy.frame_rate), spec=toy.truth["spec"])
    assert metrics.samples["oracle"].scores(sample)["oracle_all"] == 1
    moved = {"sprites": [{"motion": toy.truth["spec"]["sprites"][0]["motion"]}]}
    others = (moved, moved | {"camera": "nowhere"})
    floor = metrics.samples["oracle_floor"].scores(replace(sample, others=others))
    assert floor == {"oracle_motion/floor": 1, "oracle_camera/floor": 0, "oracle_all/floor": 0.5}


def test_unpaired_kernel_distances_have_no_bias_and_gaussian_follows_the_reference() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(60, 5)), rng.normal(size=(60, 5))) for _ in range(60)]
    for distance in (polynomial_mmd, gaussian_mmd):
        values = [distance(a, b) for a, b in draws]
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
        assert distance(draws[0][0] + 2, draws[0][1]) > 10 * np.std(values)
    assert np.mean([frechet_distance(a, b) for a, b in draws]) > 0.3
    with pytest.raises(ValueError, match="needs at least 2 samples"):
        gaussian_mmd(draws[0][0][:1], draws[0][1])


def test_the_interval_of_a_distance_resamples_prompts() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, (40, 3)), rng.normal(0, 1, (60, 3))
    owners = np.arange(40) // 2, np.arange(60)
    interval = bootstrap_sets(polynomial_mmd, (a, b), owners, paired=False, count=40, seed=0)
    assert interval is not None and interval.low < polynomial_mmd(a, b) < interval.high
    with pytest.raises(ValueError, match="same prompts"):
        bootstrap_sets(polynomial_mmd, (a, b), owners, paired=True, count=40, seed=0)


def rows_for(samples: range) -> tuple[list[int], list[int], list[dict[str, float]]]:
    rows = [{"x": float(n), **({"y": 1.0} if n % 2 else {})} for n in samples]
    return list(samples), [n // 2 for n in samples], rows


def test_scores_average_the_tries_of_a_prompt_first_and_count_a_sample_once() -> None:
    state = SampleScores(["x", "y"])
    state.update([0, 1, 2, 0], [7, 7, 9, 7], [{"x": 1.0}, {"x": 3.0}, {"x": 10.0}, {"x": 1.0}])
    assert state.by_prompt("x").tolist() == [2, 10] and float(state.compute()["x"]) == 6
    assert "y" not in state.compute()
    other = SampleScores(["x", "y"])
    other.update(*rows_for(range(4, 6)))
    state.merge_state(other)
    assert state.by_prompt("x").tolist() == [4.5, 2, 10]


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    state = SampleScores(["x", "y"])
    state.update(*rows_for(range(0, 5) if rank == 0 else range(4, 9)))  # sample 4 is padding of one of them
    distance = SetScores(FeatureDistance("kvd", None, polynomial_mmd, False))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    made, wanted = rng.normal(size=(8, 2, 3)), rng.normal(size=(6, 2, 3))
    for n in range(rank, 8, 2):
        distance.update("made", n, made[n])
    for n in range(rank, 6, 2):
        distance.update("wanted", n, wanted[n])
    values = {name: float(value) for name, value in state.compute().items()} | {
        "kvd": float(distance.compute())
    }
    torch.save(values, f"{folder}/rank{rank}.pt")
    dist.barrier()
    leave()


def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    alone = SampleScores(["x", "y"])
    alone.update(*rows_for(range(9)))
    rng = np.random.default_rng(0)
    made, wanted = rng.normal(size=(8, 2, 3)), rng.normal(size=(6, 2, 3))
    expected = {name: float(value) for name, value in alone.compute().items()}
    expected["kvd"] = polynomial_mmd(
        made.reshape(-1, 3).astype(np.float32), wanted.reshape(-1, 3).astype(np.float32)
    )
    for rank in range(2):
        assert torch.load(tmp_path / f"rank{rank}.pt") == pytest.approx(expected, rel=1e-6)


def test_viclip_is_directed_and_pickscore_follows_frames_and_words(metrics: MetricSet) -> None:
    sample = full_sample()
    forth = metrics.samples["viclip"].scores(sample)
    assert sample.source is not None
    swapped = {"source_text": sample.target_text, "target_text": sample.source_text}
    back = metrics.samples["viclip"].scores(replace(sample, **swapped))
    assert forth["viclip_direction"] == pytest.approx(-back["viclip_direction"], abs=1e-5)
    short = replace(sample, clip=Clip(sample.clip.frames[:3], 8.0))
    assert np.isfinite(metrics.samples["viclip"].scores(short)["viclip_text"])
    pick = metrics.samples["pickscore"]
    other = replace(sample, target_text="an entirely different thing")
    assert pick.scores(sample)["pickscore"] != pytest.approx(pick.scores(other)["pickscore"], abs=1e-6)


def test_a_script_that_is_no_viclip_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(ValueError, match="has no methods video and text"):
        open_metrics(["viclip"], {"viclip": str(tmp_path / "x.pt")})
