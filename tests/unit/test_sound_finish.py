"""Loudness of made sound, and kept stretches in it."""

import tempfile
import tracemalloc

import numpy as np
import pytest
from media_samples import RATE, tone

from moviegen.media.loudness import loudness_lufs
from moviegen.sound_finish import Finish, Kept, finish, spans_of

TO = Finish(loudness_lufs=-23.0, max_gain_db=12.0, crossfade_seconds=0.01)


def noise(seconds: float, level: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, (1, round(seconds * RATE))).astype(np.float32)


def test_sound_is_brought_to_a_loudness_without_a_word() -> None:
    for level in (0.02, 0.3):
        sound = noise(2.0, level)
        assert finish(sound, RATE, TO) == []
        assert loudness_lufs(sound, RATE) == pytest.approx(-23, abs=0.1)


def test_what_is_all_but_silent_stays_quiet_and_that_is_said() -> None:
    sound = noise(2.0, 0.001)
    before = loudness_lufs(sound, RATE)
    assert before is not None
    (said,) = finish(sound, RATE, TO)
    assert loudness_lufs(sound, RATE) == pytest.approx(before + 12, abs=0.01)
    assert said == f"quiet: raised to {before + 12:.1f} LUFS instead of -23.0; max_gain_db=12 allows no more"
    silence = np.zeros((1, RATE), np.float32)
    assert finish(silence, RATE, TO) == [] and not silence.any()


def test_kept_stretches_come_back_as_they_were_and_what_is_new_has_their_loudness() -> None:
    own, made = 0.7 * tone(6.0), noise(6.0, 0.05)
    spans = spans_of([(4.0, 6.0), (0.0, 1.0), (0.5, 2.0)], RATE, 6 * RATE)
    assert spans == ((0, 2 * RATE), (4 * RATE, 6 * RATE))
    (said,) = finish(made, RATE, TO, Kept(own, spans))
    for first, last in spans:
        np.testing.assert_array_equal(made[:, first:last], own[:, first:last])
    fade = RATE // 100
    new = made[:, 2 * RATE + fade : 4 * RATE - fade]
    level = loudness_lufs(own, RATE)
    assert loudness_lufs(new, RATE) == pytest.approx(level, abs=0.2)
    assert said == (
        "0.00 to 2.00 s, 4.00 to 6.00 s is put back as it was, faded over 10 ms beside it; "
        f"it has {level:.1f} LUFS, which what is new is brought to"
    )


def test_what_is_new_fades_into_what_is_kept() -> None:
    own, made = np.full((1, RATE), 0.5, np.float32), np.zeros((1, RATE), np.float32)
    finish(made, RATE, TO, Kept(own, ((RATE // 4, RATE // 2),)))
    steps = np.abs(np.diff(made[0]))
    assert 0 < steps.max() < 0.6 / (0.01 * RATE)
    assert not made[:, : RATE // 4 - RATE // 100].any() and not made[:, RATE // 2 + RATE // 100 :].any()
    sudden = np.zeros((1, RATE), np.float32)
    without = Finish(TO.loudness_lufs, TO.max_gain_db, crossfade_seconds=0.0)
    finish(sudden, RATE, without, Kept(own, ((0, RATE // 2),)))
    np.testing.assert_array_equal(sudden[0], np.repeat(np.array([0.5, 0], np.float32), RATE // 2))


def test_beside_kept_silence_the_loudness_is_the_usual_one() -> None:
    made = noise(4.0, 0.05)
    (said,) = finish(made, RATE, TO, Kept(np.zeros_like(made), ((0, RATE),)))
    assert "it is silent" in said and not made[:, :RATE].any()
    assert loudness_lufs(made[:, 2 * RATE :], RATE) == pytest.approx(-23, abs=0.2)


def test_sound_on_disk_is_finished_there() -> None:
    rate, length = 8000, 8_000_000
    with tempfile.TemporaryFile() as scratch:
        scratch.truncate(4 * length)
        samples = np.memmap(scratch, np.float32, "r+", shape=(1, length))
        samples[:] = 0.05
        samples[:, ::2] = -0.05
        own = np.broadcast_to(np.float32(0), (1, length))
        tracemalloc.start()
        try:
            finish(samples, rate, TO, Kept(own, ((0, rate),)))
            assert tracemalloc.get_traced_memory()[1] < 0.3 * samples.nbytes
        finally:
            tracemalloc.stop()
        assert 0 < samples[0, -1] != np.float32(0.05)
