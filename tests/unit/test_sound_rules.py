"""Which sound tracks may train: silence, speech, predictors, and what `data build` makes of them."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media_samples import RATE, config, moving, own, records, tone, video_file
from moviegen_data.build import build
from moviegen_data.sound_rules import Predictor, SoundRules, speech_share

from moviegen.media import write_video
from moviegen.media.loudness import silence_share


def test_silence_is_counted_in_tenths_of_a_second() -> None:
    sound = tone(2.0)
    sound[:, : RATE // 2] = 0
    assert silence_share(sound, RATE) == pytest.approx(0.25)
    rules = SoundRules(max_silence=0.2)
    assert rules.broken(sound, RATE) == ("silent", "25% of its sound is below -60 dB, at most 20% may be")
    assert SoundRules(max_silence=0.3).broken(sound, RATE) is None
    assert rules.broken(None, RATE) == ("no sound", "holds no sound track")
    assert SoundRules(needed=False).broken(None, RATE) is None


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="a share from 0 to 1, not 2"):
        SoundRules(max_silence=2)
    with pytest.raises(ValueError, match="quality, speech, singing, music, not 'mood'"):
        SoundRules(predictors={"mood": "x.pt"})
    with pytest.raises(ValueError, match=r"there is no file missing\.pt"):
        SoundRules(predictors={"quality": "missing.pt"})


def test_speech_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package silero-vad"):
        SoundRules(max_speech=0.1)


def test_a_tone_is_no_speech() -> None:
    pytest.importorskip("silero_vad")
    assert SoundRules(max_silence=None, max_speech=0.1).broken(tone(2.0), RATE) is None


class Loud(torch.nn.Module):
    """A stand-in for a predictor: some times the largest sample."""

    def __init__(self, times: float = 10.0) -> None:
        super().__init__()
        self.sample_rate_hz = 16_000
        self.times = times

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return sound.abs().amax(1) * self.times


def test_predictors_speak_for_the_structured_caption(tmp_path: Path) -> None:
    path = str(tmp_path / "quality.pt")
    torch.jit.script(Loud()).save(path)
    assert Predictor(path)(tone(0.5), RATE) == pytest.approx(5, abs=0.1)
    likely = str(tmp_path / "likely.pt")
    torch.jit.script(Loud(1.0)).save(likely)
    found = SoundRules(predictors={"quality": path, "speech": likely}).predicted(tone(0.5), RATE)
    assert found["sound"]["speech"] is True
    assert found["sound"]["quality"] == pytest.approx(5, abs=0.1)
    (tmp_path / "words.pt").write_text("no script")
    with pytest.raises(ValueError, match="no TorchScript file"):
        Predictor(str(tmp_path / "words.pt"))


@pytest.mark.parametrize(
    ("name", "times", "says"),
    [
        ("quality", 0.8, "0.4"),
        ("quality", 20.4, "10.2"),
        ("music", 2.1, "1.05"),
        ("quality", float("nan"), "nan"),
    ],
)
def test_a_predictor_out_of_its_range_is_named(tmp_path: Path, name: str, times: float, says: str) -> None:
    path = str(tmp_path / "wrong.pt")
    torch.jit.script(Loud(times)).save(path)
    with pytest.raises(ValueError, match=rf"wrong\.pt: says {name} {says}.*; expected"):
        SoundRules(predictors={name: path}).predicted(np.full((1, RATE), 0.5, np.float32), RATE)


def test_a_build_drops_silent_clips_and_says_so(tmp_path: Path) -> None:
    video_file(tmp_path / "loud.mp4")
    write_video(tmp_path / "silent.mp4", moving(16), 8.0, np.zeros((1, 2 * RATE), np.float32), RATE)
    write_video(tmp_path / "mute.mp4", moving(16), 8.0)
    plain = config(tmp_path / "out", own=own(tmp_path / "*.mp4"))
    build(replace(plain, sound=SoundRules()))
    assert {record["source_file"] for record in records(tmp_path / "out")} == {"loud.mp4"}
    outcomes = (tmp_path / "out" / "outcomes.csv").read_text()
    assert "silent" in outcomes and "no sound" in outcomes


def test_noise_in_bursts_is_no_speech_either() -> None:
    pytest.importorskip("silero_vad")
    rng = np.random.default_rng(0)
    bursts = 0.1 * rng.standard_normal((2, RATE)).astype(np.float32) * (np.arange(RATE) % 9600 < 2400)
    assert speech_share(bursts, RATE) < 0.2
