"""Figures, bars, manifests and pairs: strict readers with errors that name the place."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from moviegen_eval.bars import check_bars, outcome
from moviegen_eval.config import JudgeConfig, ReportConfig, parse_config
from moviegen_eval.files import write_atomically
from moviegen_eval.manifest import GeneratedSample, read_manifest, write_manifest
from moviegen_eval.numbers import Figure, read_numbers, write_numbers
from moviegen_eval.pairs import ClipPair, load_pair, save_pair

from moviegen.config import compose, validate

FIGURE = Figure("t2v/colour", 0.9, 0.8, 0.95, 64, "share", True)
SAMPLE = GeneratedSample(
    "p0", "a red star", "p0.mp4", "heldout", {"sprites": []}, "moviegen", 0, 25, 4.0, "t2v", 8.0, "abc"
)


def test_numbers_come_back_as_written_with_exactly_the_agreed_keys(tmp_path: Path):
    figures = [FIGURE, Figure("tae/real/psnr", 30.0, None, None, 1, "dB", True)]
    write_numbers(tmp_path / "numbers.json", figures)
    assert read_numbers(tmp_path / "numbers.json") == figures
    rows = json.loads((tmp_path / "numbers.json").read_text())
    keys = ["name", "value", "low", "high", "n", "unit", "higher_is_better"]
    assert all(list(row) == keys for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "finite"),
        ({"high": 0.85}, "outside"),
        ({"low": None}, "low is None"),
        ({"name": "colour"}, "not a path"),
        ({"n": -1}, "n is -1"),
    ],
)
def test_an_impossible_figure_is_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(FIGURE, **change)


def test_a_name_given_twice_writes_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="t2v/colour"):
        write_numbers(tmp_path / "numbers.json", [FIGURE, FIGURE])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "numbers.json"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_manifest_comes_back_as_written(tmp_path: Path):
    samples = [SAMPLE, replace(SAMPLE, id="p1", set="free", spec=None)]
    write_manifest(tmp_path, samples)
    assert read_manifest(tmp_path) == samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "0"}, "'seed' is '0'; expected int"),
        ({"seed": True}, "'seed' is True"),
        ({"sed": 1}, "unknown key 'sed'; did you mean 'seed'"),
        ({"set": "held"}, "set is 'held'"),
        ({"spec": None}, "needs a spec"),
        ({"path": "../p0.mp4"}, "stay inside"),
        ({"path": "/etc/passwd"}, "stay inside"),
        ({"frame_rate": 0}, "frame_rate is 0"),
        ({"id": "p0"}, "used twice"),
    ],
)
def test_a_bad_manifest_line_is_named(tmp_path: Path, change: dict, message: str):
    rows = [asdict(SAMPLE), asdict(SAMPLE) | {"id": "p1"} | change]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(tmp_path)
    assert "manifest.jsonl:2: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{", "not JSON"), (b"[1]", "JSON object"), (b"\xff\xfe", "UTF-8"), (None, "cannot be read")],
)
def test_a_manifest_that_is_no_jsonl_is_refused(tmp_path: Path, data: bytes | None, message: str):
    if data is not None:
        (tmp_path / "manifest.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path):
    row = asdict(SAMPLE)
    del row["guidance"]
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="'guidance' is missing"):
        read_manifest(tmp_path)


def test_pairs_are_lossless_and_checked(tmp_path: Path):
    clip = np.random.default_rng(0).integers(0, 255, (4, 16, 20, 3), dtype=np.uint8)
    path = tmp_path / save_pair(tmp_path, "a", ClipPair(clip, clip[::-1], 8.0))
    pair = load_pair(path)
    assert (
        (pair.source == clip).all() and (pair.reconstruction == clip[::-1]).all() and pair.frame_rate == 8.0
    )
    np.savez(tmp_path / "b.npz", source=clip, reconstruction=clip[:2], frame_rate=8.0)
    with pytest.raises(ValueError, match=r"\(4, 16, 20, 3\) but"):
        load_pair(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", source=clip.astype(np.float32), reconstruction=clip, frame_rate=8.0)
    with pytest.raises(ValueError, match="float32"):
        load_pair(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", source=np.array([{}], dtype=object), reconstruction=clip, frame_rate=8.0)
    with pytest.raises(ValueError, match=r"d\.npz"):
        load_pair(tmp_path / "d.npz")
    (tmp_path / "e.npz").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"e\.npz"):
        load_pair(tmp_path / "e.npz")


def test_bars_are_reached_at_equality_and_baselines_must_be_beaten():
    loss = Figure("t2v/val/loss", 0.3, None, None, 5, "loss", False)
    figures = [FIGURE, Figure("t2v/shape", 0.9, None, None, 64, "share", True), loss]
    wanted = {"t2v/colour": 0.9, "t2v/shape": "t2v/colour", "t2v/val/loss": 0.2, "t2v/motion": 0.95}
    bars = {bar.name: bar for bar in check_bars(wanted, figures, {"t2v/val/loss": "too few steps"})}
    assert [bar.reached for bar in bars.values()] == [True, False, False, False]
    assert outcome(bars["t2v/colour"]) == "reached: 0.9 against 0.9"
    assert outcome(bars["t2v/shape"]) == "not reached: 0.9 against 0.9 (t2v/colour)"
    assert outcome(bars["t2v/val/loss"]) == "not reached: 0.3 against 0.2; too few steps"
    assert outcome(bars["t2v/motion"]) == "not reached: not measured: no input for this figure"


def test_an_unknown_or_mistyped_config_key_is_refused():
    with pytest.raises(ValueError, match="did you mean 'shuffles'"):
        parse_config(JudgeConfig, {"out": "x", "shufles": 3}, "judge")
    with pytest.raises(ValueError, match="'level' is 'four'; expected int or null"):
        parse_config(JudgeConfig, {"out": "x", "level": "four"}, "judge")
    with pytest.raises(ValueError, match="shuffles must be at least 1, got 0"):
        parse_config(JudgeConfig, {"out": "x", "shuffles": 0}, "judge")


def test_the_config_files_fit_their_dataclasses_and_state_the_bars():
    judge = compose("judge", ["out=x", "runs.t2v=y", "level=4"])
    validate(judge)
    parsed = parse_config(JudgeConfig, judge, "judge")
    assert parsed.runs == {"t2v": "y"} and parsed.level == 4
    assert parsed.bars == {
        "tae/toyworld/psnr": "tae/toyworld/psnr_pca",
        "t2v/colour": 0.97,
        "t2v/motion": 0.95,
        "t2v/shape": 0.90,
        "t2v/background": 0.85,
        "t2v/camera": 0.85,
        "i2v/first_frame_psnr": 24.0,
        "i2v/motion": 0.80,
    }
    page = compose("report", ["judged=x", "max_clips=3"])
    validate(page)
    assert parse_config(ReportConfig, page, "report").max_clips == 3
