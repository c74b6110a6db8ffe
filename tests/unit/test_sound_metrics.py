"""Figures of sound on closed forms, and the judge of impacts and seams with its controls."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from moviegen_data.toyworld.scene import Event
from moviegen_data.toyworld.sound import SAMPLE_RATE_HZ, render_sound
from moviegen_eval.metrics.sound import (
    Impact,
    cosine,
    impacts_heard,
    inception_score,
    kl_divergence,
    match_impacts,
    seam_jumps,
    softmax,
)
from moviegen_eval.numbers import read_numbers
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.sound import sound_section
from moviegen_eval.sound import read_events, sound

from moviegen.media import decode_audio, write_flac
from moviegen.media.loudness import silence_share


def test_kl_of_known_posteriors() -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    assert kl_divergence(p, p) == pytest.approx(0)
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    with pytest.raises(ValueError, match="compares pairs"):
        kl_divergence(p, np.repeat(q, 2, axis=0))


def test_inception_score_lies_between_one_and_the_number_of_classes() -> None:
    sure = np.eye(4)[np.arange(40) % 4]
    assert inception_score(sure, splits=1) == pytest.approx(4)
    assert inception_score(np.full((40, 4), 0.25), splits=4) == pytest.approx(1)
    with pytest.raises(ValueError, match="10 splits of 4 sounds"):
        inception_score(sure[:4])


def test_softmax_and_cosine() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 3.0]]) + 1000), [[0.25, 0.75]])
    np.testing.assert_allclose(
        cosine(np.array([[1.0, 0], [1, 1]]), np.array([[0.0, 2], [3, 3]])), [0, 1], atol=1e-9
    )


def test_silence_is_counted_in_tenths_of_a_second() -> None:
    tone = 0.1 * np.sin(np.arange(48_000) / 10)
    tone[: 4 * 4800] = 0
    assert silence_share(tone, 48_000) == pytest.approx(0.4)
    assert silence_share(np.zeros((2, 100)), 48_000) == 1
    assert silence_share(np.zeros((1, 0)), 48_000) == 1


def test_impacts_are_matched_one_to_one_closest_first() -> None:
    events = [Impact(1.0, "circle"), Impact(1.15, "star"), Impact(3.0, "circle")]
    heard = [Impact(1.09, "star"), Impact(1.02, "circle"), Impact(2.0, "circle")]
    score = match_impacts(events, heard, 4.0)
    assert (score.events, score.hits, score.false, score.right_timbre) == (3, 2, 1, 2)
    assert match_impacts([], heard, 4.0).false == 3
    assert match_impacts(events, [], 4.0).hits == 0


def test_impacts_on_either_side_of_an_edge_are_matched_before_they_are_counted() -> None:
    new = [(2.1, 4.0)]
    kept, made = Impact(2.06, "circle"), Impact(2.12, "circle")

    def counts(events: list[Impact], heard: list[Impact]) -> tuple[int, int, int, int]:
        score = match_impacts(events, heard, 1.9, new=new)
        return score.events, score.hits, score.false, score.right_timbre

    assert counts([made], [kept]) == (1, 1, 0, 1)
    assert counts([kept], [made]) == (0, 0, 0, 0)
    assert counts([], [kept, made]) == (0, 0, 1, 0)
    assert counts([kept, made], []) == (1, 0, 0, 0)


def strikes(times: list[float], seconds: float) -> np.ndarray:
    return render_sound([Event(time, "bounce", "circle", (0,)) for time in times], seconds, 0)


def test_the_oracles_ears_hear_what_toyworld_sounds() -> None:
    heard = impacts_heard(strikes([0.5, 1.4], 2.0), SAMPLE_RATE_HZ)
    assert [one.shape for one in heard] == ["circle", "circle"]
    np.testing.assert_allclose([one.seconds for one in heard], [0.5, 1.4], atol=0.01)


def test_a_cut_is_a_jump_and_a_steady_tone_is_none() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 500 * np.arange(48_000) / 48_000)
    cut = tone.copy()
    cut[24_000:] *= 10
    jumps = seam_jumps(cut, 48_000, [0.25, 0.5, 0.001])
    assert jumps.shape == (2, 2)  # too close to the beginning is left out
    assert jumps[0, 0] < 0.2
    assert jumps[1, 0] == pytest.approx(20, abs=0.5)
    assert jumps[1, 1] > 10 * jumps[0, 1]


def judged(folder: Path, num: int = 24) -> tuple[Path, Path]:
    """Sounds that are right for their clips, joined in twos, and the shards of the clips."""
    rng, shards, sounds = np.random.default_rng(0), folder / "shards", folder / "sounds"
    shards.mkdir()
    times = {f"clip{i:02d}": sorted(rng.uniform(0.2, 1.7, 2).tolist()) for i in range(num)}
    with tarfile.open(shards / "val-toyworld-000000.tar", "w") as tar:
        for key, found in times.items():
            truth = {
                "level": 4,
                "events": [{"seconds": t, "kind": "bounce", "shape": "circle"} for t in found],
            }
            data = json.dumps(truth).encode()
            info = tarfile.TarInfo(f"{key}.truth.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    rows, keys = [], sorted(times)
    for first, second in zip(keys, [*keys[1:], keys[0]], strict=True):
        both = times[first] + [2.0 + time for time in times[second]]
        write_flac(sounds / f"{first}.flac", strikes(both, 4.0), SAMPLE_RATE_HZ)
        row = {"key": first, "file": f"{first}.flac", "clips": [first, second], "clip_seconds": 2.0}
        write_flac(sounds / f"{first}.ceiling.flac", strikes(both[1:], 4.0), SAMPLE_RATE_HZ)
        row["ceiling"] = f"{first}.ceiling.flac"
        rows.append(row | {"seams": [2.0, 3.0]})  # the first at the cut between the clips
    (sounds / "sounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return shards, sounds


def test_right_sounds_are_judged_right_and_those_of_other_clips_are_not(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path)
    config = {
        "sounds": str(sounds),
        "shards": str(shards),
        "out": str(tmp_path / "out"),
        "bootstrap_count": 200,
    }
    figures = {figure.name: figure for figure in sound(config)}
    assert figures["sound/sync"].value > 0.85  # strikes of one timbre in quick succession are heard as one
    assert figures["sound/timbre"].value == 1
    assert figures["sound/false_impacts"].value < 0.02
    assert figures["sound/sync/floor"].value < 0.5
    assert figures["sound/sync/ceiling"].value < figures["sound/sync"].value  # one strike in four is left out
    assert figures["sound/false_impacts/floor"].value > 0.2
    assert all(figure.unit.endswith(", toyworld level 4") for figure in figures.values())
    assert figures["sound/sync/chance"].value < 0.5
    assert figures["sound/seam_level_excess"].n == figures["sound/seam_level_excess/ceiling"].n == 24
    assert (tmp_path / "out" / "numbers.json").is_file()
    assert len((tmp_path / "out" / "scores.jsonl").read_text().splitlines()) == 24


def test_what_was_kept_is_not_judged(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path)
    rows = [json.loads(line) for line in (sounds / "sounds.jsonl").read_text().splitlines()]
    first = []
    for row in rows:  # the second clip's strikes are nowhere to be heard, but that is nobody's fault
        quiet, rate = decode_audio((sounds / row["file"]).read_bytes())
        write_flac(sounds / row["file"], np.where(np.arange(quiet.shape[1]) < 2 * rate, quiet, 0), rate)
        first.append(silence_share(quiet[:, : round(1.9 * rate)], rate))
    config = {"sounds": str(sounds), "shards": str(shards), "out": str(tmp_path / "out")}

    def judge(kept: list) -> dict:
        lines = (json.dumps(row | {"kept_seconds": kept}) + "\n" for row in rows)
        (sounds / "sounds.jsonl").write_text("".join(lines))
        return {figure.name: figure for figure in sound(config | {"bootstrap_count": 100})}

    whole, half = judge([]), judge([[2.0, 4.0]])
    assert whole["sound/sync"].value < 0.55 < 0.85 < half["sound/sync"].value
    assert half["sound/sync/chance"].value < 0.5
    assert half["sound/false_impacts/floor"].value > 0.2
    assert half["sound/silence"].value == pytest.approx(np.mean(first))
    assert half["sound/silence"].value < whole["sound/silence"].value - 0.05
    assert "sound/seam_level_excess" in whole
    for kept in ([[2.0, 4.0]], [[0.5, 1.5]]):  # where the seam lies, where the one time lies that is like it
        assert "sound/seam_level_excess" not in judge(kept)
    assert judge([[0.0, 3.0], [1.0, 2.0]]) == judge([[0.0, 3.0]]) != judge([[0.0, 2.0]])
    with pytest.raises(ValueError, match="leave nothing of 4"):
        judge([[0.0, 4.0]])
    with pytest.raises(ValueError, match="expected pairs of seconds"):
        judge([3])
    with pytest.raises(ValueError, match="expected pairs of seconds"):
        judge([[3.0, 2.0]])


def test_an_impact_beside_kept_sound_is_a_hit_though_it_is_heard_within(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path)
    events, _ = read_events(shards, "val")
    rows = [json.loads(line) for line in (sounds / "sounds.jsonl").read_text().splitlines()]
    for row in rows:  # all strikes 30 ms early; judged from just before the first event on
        due = [
            2.0 * number + event.seconds for number, clip in enumerate(row["clips"]) for event in events[clip]
        ]
        write_flac(sounds / row["file"], strikes([time - 0.03 for time in due], 4.0), SAMPLE_RATE_HZ)
        row["kept_seconds"] = [[0.0, due[0] - 0.105]]
    (sounds / "sounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"sounds": str(sounds), "shards": str(shards), "out": str(tmp_path / "out")}
    figures = {figure.name: figure for figure in sound(config | {"bootstrap_count": 100})}
    assert figures["sound/sync"].value > 0.85
    assert figures["sound/false_impacts"].value < 0.02


def test_a_single_sound_has_no_other_to_be_held_against(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path, 1)
    row = json.loads((sounds / "sounds.jsonl").read_text())
    (sounds / "sounds.jsonl").write_text(json.dumps(row | {"seams": []}))
    config = {"sounds": str(sounds), "shards": str(shards), "out": str(tmp_path / "out")}
    names = {figure.name for figure in sound(config | {"bootstrap_count": 100})}
    assert {"sound/sync", "sound/sync/chance", "sound/sync/ceiling"} <= names
    assert not any(name.endswith("/floor") for name in names)


def test_wrong_inputs_of_the_judge_are_one_line(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path, 2)
    config = {"sounds": str(sounds), "shards": str(shards), "out": str(tmp_path / "out")}
    with pytest.raises(ValueError, match="no toyworld clip of split 'test'"):
        sound(config | {"split": "test"})
    row = json.loads((sounds / "sounds.jsonl").read_text().splitlines()[0])
    (sounds / "sounds.jsonl").write_text(json.dumps(row | {"clips": ["unknown"]}))
    with pytest.raises(ValueError, match="clip unknown is not among the shards"):
        sound(config)
    (sounds / "sounds.jsonl").write_text(json.dumps(row | {"file": "../x.flac"}))
    with pytest.raises(ValueError, match="must be relative"):
        sound(config)
    assert not (tmp_path / "out").exists()


def test_the_page_shows_figures_with_their_bounds_and_sounds(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path, 4)
    out = tmp_path / "out"
    sound({"sounds": str(sounds), "shards": str(shards), "out": str(out), "bootstrap_count": 200})
    page = sound_section(read_numbers(out / "numbers.json"), sounds, Budget(10_000_000))
    assert "impacts within 0.1 s of the true ones (chance: events at random times)" in page
    found = {figure.name: figure for figure in read_numbers(out / "numbers.json")}
    cells = [f"<td>{found[f'sound/sync{end}'].value:.3f}</td>" for end in ("/floor", "/ceiling")]
    assert "".join(cells) in page
    assert page.count("<audio") == 4
    assert "was left out for its size" in sound_section([], sounds, Budget(10))


def test_a_break_at_a_cut_is_no_seam_and_one_elsewhere_is(tmp_path: Path) -> None:
    shards, sounds = judged(tmp_path)
    rows = [json.loads(line) for line in (sounds / "sounds.jsonl").read_text().splitlines()]
    config = {
        "sounds": str(sounds),
        "shards": str(shards),
        "out": str(tmp_path / "out"),
        "bootstrap_count": 100,
    }
    hum = 0.1 * np.sin(2 * np.pi * 300 * np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)[None]

    def excess(stop: float) -> float:
        for row in rows:
            noise = 1 + 0.1 * np.random.default_rng(0).standard_normal(hum.shape[1])
            quiet = np.arange(hum.shape[1]) < stop * SAMPLE_RATE_HZ
            write_flac(sounds / row["file"], np.where(quiet, hum * noise, 0.01 * hum * noise), SAMPLE_RATE_HZ)
        figures = {figure.name: figure for figure in sound(config)}
        return figures["sound/seam_level_excess"].value

    assert abs(excess(2.0)) < 1 < excess(3.0)
