"""Judging of an upsampler: the set, what is made of it, seams and figures, and the section of the page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from moviegen_eval import upscale_set as sets
from moviegen_eval.numbers import read_numbers
from moviegen_eval.pairs import load_arrays
from moviegen_eval.report import report
from moviegen_eval.upscaled import Judge, Windows, flicker, interpolated, seams, window_edges
from PIL import Image
from test_upsampler import TINY, random_task

from moviegen import cli
from moviegen.modelfile import save_model

WINDOWS = Windows(window=6, overlap=2, tile=32, tile_overlap=8)


def drifting(frames: int = 20, height: int = 80, width: int = 96) -> np.ndarray:
    """A smooth picture that moves by a pixel a frame, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (height // 4, width // 4 + 8, 3), dtype=np.uint8))
    whole = np.asarray(coarse.resize((width + 32, height), Image.Resampling.BICUBIC))
    return np.stack([whole[:, t : t + width] for t in range(frames)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random upsampler on disk, whose guess is interpolation."""
    task = random_task()
    with torch.no_grad():
        task.guess.matrix.zero_()
        task.guess.spread.scale.fill_(1e-3)
    path = tmp_path_factory.mktemp("model") / "up"
    save_model(path, task, TINY, torch.float32, {})
    return str(path)


@pytest.fixture(scope="module")
def judged(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two crops and one drawn clip, what the model makes of it, and what the judge says."""
    folder = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sets, "film", lambda: (drifting(), 25.0))
        words = ["real=2", "toyworld=1", "frames=8", "side=64", "toyworld_side=64"]
        assert cli.main(["eval", "upscale_set", f"out={folder / 'set'}", *words]) == 0
    steps = [f"upsampler.{name}={value}" for name, value in vars(WINDOWS).items()]
    words = [f"clips={folder / 'set'}", f"model={model}", "upsampler.num_steps=1", "num_threads=1", *steps]
    assert cli.main(["upscale", "clips", f"run_dir={folder / 'made'}", *words]) == 0
    judge = [f"out={folder / 'out'}", f"set={folder / 'set'}", f"upscaled={folder / 'made'}"]
    assert cli.main(["eval", "upscale", *judge]) == 0
    return folder


def test_the_set_holds_clips_and_their_averages_and_more_begin_with_the_same(tmp_path: Path) -> None:
    few, many = (
        sets.crops(drifting(), sets.UpscaleSetConfig(real=count, frames=8, side=64)) for count in (2, 5)
    )
    assert [np.array_equal(a, b) for a, b in zip(few, many, strict=False)] == [True, True]
    assert few[0].shape == (8, 64, 64, 3) and not np.array_equal(few[0], few[1])
    low = sets.smaller(few[0])
    mean = few[0].reshape(8, 32, 2, 32, 2, 3).mean((2, 4))
    assert low.shape == (8, 32, 32, 3) and np.abs(low - mean).max() <= 0.5 + 1e-4
    with pytest.raises(ValueError, match=r"frames=8 and side=98: the film has 20 frames of 96x80"):
        sets.crops(drifting(), sets.UpscaleSetConfig(real=1, frames=8, side=98))
    with pytest.raises(ValueError, match="side=63: must be even"):
        sets.UpscaleSetConfig(side=63)


def test_an_error_at_the_edges_of_windows_is_seen_as_a_seam_and_one_everywhere_is_not() -> None:
    assert window_edges(80, 32, 8).tolist() == [24, 32, 48, 56]
    error = np.ones((14, 80, 80))
    assert seams(error, WINDOWS) == {"seam_space": 0.0, "seam_time": 0.0}
    at_edge = error.copy()
    at_edge[:, 23:25] = 3.0
    assert seams(at_edge, WINDOWS)["seam_space"] > 0.1 and seams(at_edge, WINDOWS)["seam_time"] == 0.0
    between = error.copy()
    between[:, 40:42] = 3.0  # nobody's edge
    assert seams(between, WINDOWS)["seam_space"] < 0
    jump = error.copy()
    jump[[3, 4]] = 2.0  # the second window begins with frame 4
    assert seams(jump, WINDOWS)["seam_time"] > 0.2
    assert seams(error, Windows(20, 4, None, 0)) == {"seam_space": 0.0, "seam_time": 0.0}


def test_flicker_is_of_what_comes_and_goes_and_not_of_even_motion() -> None:
    ramp = np.repeat(np.arange(12, dtype=np.uint8)[:, None, None, None] * 5, 64, axis=1)
    ramp = np.repeat(np.repeat(ramp, 64, axis=2), 3, axis=3)
    blink = ramp.copy()
    blink[::2] += 40
    assert flicker(ramp) < 1e-3 and flicker(blink) == pytest.approx(80, abs=0.1)


def test_the_source_itself_is_best_by_every_measure() -> None:
    source = drifting(8, 64, 64)
    row = Judge().row(source, sets.smaller(source), {"upsampler": source}, WINDOWS)
    own, plain = row["ways"]["upsampler"], row["ways"]["bicubic"]
    assert own["psnr"] > plain["psnr"] and own["st_lpips"] < plain["st_lpips"] and own["vmaf"] > 95
    assert own["flicker"] == 1.0 and "single" not in row
    with pytest.raises(ValueError, match=r"upsampler is \(8, 32, 32, 3\), the clip \(8, 64, 64, 3\)"):
        Judge().row(source, sets.smaller(source), {"upsampler": sets.smaller(source)}, WINDOWS)


def test_a_model_s_clips_are_judged_with_intervals_beside_interpolation(judged: Path) -> None:
    found = {figure.name: figure for figure in read_numbers(judged / "out" / "numbers.json")}
    for way in ("upsampler", "windows_apart", "bicubic", "lanczos"):
        assert {f"upsample/real/{name}/{way}" for name in ("psnr", "vmaf", "seam_space")} <= found.keys()
    assert found["upsample/real/psnr/upsampler"].n == 2 and found["upsample/toyworld/psnr/upsampler"].n == 1
    units = {name: found[f"upsample/{name}/psnr/upsampler"].unit for name in ("real", "toyworld")}
    assert units == {"real": "dB", "toyworld": "dB, toyworld level 4"}
    net, bound = found["upsample/real/seam_space_net"], found["upsample/real/seam_space_bound"]
    assert net.low is not None and net.high is not None
    assert (
        bound.value == max(abs(net.low), abs(net.high)) and "upsample/toyworld/seam_space_bound" not in found
    )
    bars = {bar["name"]: bar for bar in json.loads((judged / "out" / "bars.json").read_text())}
    assert len(bars) == 5 and bars["upsample/real/flicker/upsampler"]["target"] == 1.1
    gap = found["upsample/real/st_lpips_minus_lanczos"].value
    assert bars["upsample/real/st_lpips_minus_lanczos"]["reached"] == (gap <= 0)
    arrays = load_arrays(judged / "set" / "real-000.npz", ("source", "low"))
    row = json.loads((judged / "out" / "upscaled.jsonl").read_text().splitlines()[0])
    again = Judge().measured(arrays["source"], interpolated(arrays["low"], Image.Resampling.LANCZOS), WINDOWS)
    assert row["ways"]["lanczos"] == pytest.approx(again)
    made = load_arrays(judged / "made" / "real-000.npz", row["ways"].keys() & {"upsampler", "windows apart"})
    for way, frames in made.items():
        assert row["ways"][way] == pytest.approx(Judge().measured(arrays["source"], frames, WINDOWS))


def test_the_files_that_are_shown_are_marked_and_stand_on_the_page(judged: Path, capsys) -> None:
    assert cli.main(["verify", str(judged / "made" / "real-000.mp4")]) == 0
    assert "Made by a model? Yes." in capsys.readouterr().out
    assert not (judged / "made" / "real-001.mp4").exists()
    page = report({"upscaled": str(judged / "out")}).read_text()
    assert "Upscaled clips" in page and page.count("data:video/mp4") == 2
    assert "held-out film: windows apart" in page and "of 5 bars reached" in page
    assert "https://" not in page and "2 of 3 clips, the first of each set" in page
    (judged / "made" / "real-000.mp4").rename(judged / "made" / "away.mp4")
    page = report({"upscaled": str(judged / "out")}).read_text()
    assert page.count("data:video/mp4") == 1 and "real-000.mp4" in page
    (judged / "made" / "away.mp4").rename(judged / "made" / "real-000.mp4")


def test_without_windows_apart_less_is_made(judged: Path, model: str, tmp_path: Path) -> None:
    words = [f"clips={judged / 'set'}", f"model={model}", "upsampler.num_steps=1", "num_threads=1", "shown=0"]
    words += [f"upsampler.{name}={value}" for name, value in vars(WINDOWS).items()]
    assert cli.main(["upscale", "clips", f"run_dir={tmp_path / 'made'}", "apart=false", *words]) == 0
    rows = [json.loads(line) for line in (tmp_path / "made" / "upscaled.jsonl").read_text().splitlines()]
    assert [row["ways"] for row in rows] == [["upsampler", "alone"]] * 3
    assert not list((tmp_path / "made").glob("*.mp4"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clips=nowhere"], "clips.jsonl does not exist; `moviegen eval upscale_set"),
        (["model=experiments/toy/weights/t2v"], "is a FlowTask; give an upsampler"),
        (["upsampler.window=14"], "window=14 frames; the model knows 6"),
        (["shown=-1"], "shown=-1: must be at least 0"),
    ],
)
def test_what_cannot_be_upscaled_is_refused_before_anything_is_written(
    judged: Path, model: str, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    given = [f"run_dir={tmp_path / 'made'}", f"clips={judged / 'set'}", f"model={model}", "num_threads=1"]
    given += [f"upsampler.{name}={value}" for name, value in vars(WINDOWS).items()]
    assert cli.main(["upscale", "clips", *given, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_clips_that_were_not_made_or_are_broken_are_named(judged: Path, tmp_path: Path, capsys) -> None:
    def judge() -> str:
        words = [f"out={tmp_path / 'out'}", f"set={judged / 'set'}", f"upscaled={tmp_path}"]
        assert cli.main(["eval", "upscale", *words]) == 2
        return capsys.readouterr().err

    rows = (judged / "made" / "upscaled.jsonl").read_text().splitlines()
    (tmp_path / "upscaled.jsonl").write_text("\n".join(rows[1:]))
    assert "does not name real-000, which" in judge()
    (tmp_path / "upscaled.jsonl").write_text("\n".join(rows))
    (tmp_path / "real-000.npz").write_bytes(b"junk")
    assert "real-000.npz: is not a readable npz" in judge()
    (tmp_path / "upscaled.jsonl").write_text(rows[0].replace('"seconds"', '"secs"'))
    assert "unknown key 'secs'; did you mean 'seconds'?" in judge()
    assert not (tmp_path / "out").exists()
