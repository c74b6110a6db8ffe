"""The structured caption of sounds."""

import pytest

from moviegen.conditioning.sound_caption import SoundCaption


@pytest.mark.parametrize(
    "caption",
    [
        SoundCaption("a ball bounces"),
        SoundCaption("rain, and thunder. Far away", "calm piano. Slow", 8.0, True, False, 0.97),
    ],
)
def test_the_text_says_all_and_can_be_read_back(caption: SoundCaption) -> None:
    assert SoundCaption.parse(caption.text) == caption


def test_the_form_has_four_parts() -> None:
    text = SoundCaption("a ball bounces.", "calm piano", 7.46, False, True, 0.5).text
    assert text == (
        "Quality: 7.5. Speech: no. Singing: yes. Music: 0.50. Sound: a ball bounces. Music style: calm piano."
    )


def test_prompts_ask_for_the_papers_quality() -> None:
    assert SoundCaption.prompt("waves").quality == 7.0
    with_music = SoundCaption.prompt("waves", "calm piano")
    assert (with_music.quality, with_music.music) == (8.0, 1.0)


def test_what_predictors_wrote_comes_first() -> None:
    record = {"sound": {"quality": 6.2, "speech": True, "music": 0.1, "description": "a dog barks"}}
    found = SoundCaption.of(record, "a dog in a park")
    assert found == SoundCaption("a dog barks", quality=6.2, speech=True, music=0.1)
    assert SoundCaption.of({}, "a dog in a park") == SoundCaption("a dog in a park")


def test_numbers_out_of_range_and_other_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 1 to 10, got 0\.0"):
        SoundCaption("a", quality=0.0)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        SoundCaption("a", music=2)
    with pytest.raises(ValueError, match="no structured caption"):
        SoundCaption.parse("a dog barks")
