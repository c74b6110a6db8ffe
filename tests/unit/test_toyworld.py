"""The toy world keeps its promises: determinism, levels, the hold-out rule, captions, sound and edits."""

import json
from itertools import product

import numpy as np
import pytest
from moviegen_data.toyworld import World, WorldConfig, words
from moviegen_data.toyworld.captions import HELDOUT_TEMPLATES, TRAIN_TEMPLATES
from moviegen_data.toyworld.edits import KINDS
from moviegen_data.toyworld.oracle import observe, verdict
from moviegen_data.toyworld.sheet import write_sheet
from moviegen_data.toyworld.truth import box_of, decode_mask, encode_mask
from scipy import ndimage


def combos_of(truth_or_spec: dict) -> list[tuple[str, str, str]]:
    action = truth_or_spec["interaction"]
    return [
        (sprite["color"], sprite["shape"], action or sprite["motion"]) for sprite in truth_or_spec["sprites"]
    ]


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    first, second = World(WorldConfig(level=4)), World(WorldConfig(level=4))
    second.render(0, 3)  # another call in between changes nothing
    a, b = first.render(5, 17), second.render(5, 17)
    assert np.array_equal(a.frames, b.frames)
    assert np.array_equal(a.audio, b.audio)
    assert (a.caption, a.truth) == (b.caption, b.truth)
    assert not np.array_equal(a.frames, first.render(5, 18).frames)
    assert not np.array_equal(a.frames, first.render(6, 17).frames)


def test_a_clip_has_the_promised_format_and_a_json_truth() -> None:
    clip = World(WorldConfig()).render(0, 0)
    assert clip.frames.shape == (16, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.audio.shape == (1, 96_000)
    assert np.abs(clip.audio).max() <= 1
    assert json.loads(json.dumps(clip.truth)) == clip.truth
    other = World(WorldConfig(size=96, num_frames=24, frame_rate=12.0)).render(0, 0)
    assert other.frames.shape == (24, 96, 96, 3)


@pytest.mark.parametrize(
    "setting", [{"level": 6}, {"size": 8}, {"num_frames": 0}, {"frame_rate": 0.0}, {"combos": "some"}]
)
def test_a_wrong_setting_is_refused_with_its_value(setting: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(setting.values())))):
        WorldConfig(**setting)


def test_levels_add_difficulties_step_by_step() -> None:
    specs = {
        level: [p.spec for p in World(WorldConfig(level=level)).prompts(150, seed=1)]
        for level in (1, 2, 3, 4, 5)
    }
    kinds = {level: {s["background"] for s in found} for level, found in specs.items()}
    cameras = {level: {s["camera"] for s in found} for level, found in specs.items()}
    counts = {level: {len(s["sprites"]) for s in found} for level, found in specs.items()}
    assert kinds[1] == {"plain"}
    assert all(kinds[level] == set(words.BACKGROUNDS) for level in (2, 3, 4, 5))
    assert cameras[1] == cameras[2] == {"static"}
    assert all(cameras[level] == set(words.CAMERAS) for level in (3, 4, 5))
    assert counts == {1: {1}, 2: {1}, 3: {1}, 4: {1, 2}, 5: {1, 2, 3}}
    share = np.mean([s["interaction"] is not None for s in specs[4]])
    assert 0.2 < share < 0.4
    assert all(s["camera"] == "static" for s in specs[4] if s["interaction"])
    assert any(s["camera"] != "static" for s in specs[5] if s["interaction"])
    assert any("character" in sprite for s in specs[5] for sprite in s["sprites"])


def test_held_out_combinations_never_occur_in_training_and_always_in_held_out_draws() -> None:
    for level in (1, 4):
        train = World(WorldConfig(level=level)).prompts(400, seed=2)
        held_out = World(WorldConfig(level=level, combos="heldout")).prompts(200, seed=2)
        assert not any(words.is_held_out(*combo) for p in train for combo in combos_of(p.spec))
        assert all(words.is_held_out(*combos_of(p.spec)[0]) for p in held_out)


def test_one_combination_in_eight_is_held_out_and_every_pair_stays_in_training() -> None:
    combos = [
        combo
        for combo in product(words.COLORS, words.SHAPES, words.ACTIONS)
        if (combo[1], combo[2]) != ("circle", "spin")
    ]
    seen = [combo for combo in combos if not words.is_held_out(*combo)]
    assert abs(1 - len(seen) / len(combos) - 1 / 8) < 0.01
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert {(c[a], c[b]) for c in seen} == {(c[a], c[b]) for c in combos}


def test_a_caption_states_every_attribute_in_one_of_the_templates() -> None:
    assert len(TRAIN_TEMPLATES) >= 4
    for prompt in World(WorldConfig()).prompts(200, seed=3):
        for sprite in prompt.spec["sprites"]:
            assert f"{sprite['color']} {sprite['shape']}" in prompt.text
            assert any(word in prompt.text for word in words.SIZE_WORDS[sprite["size"]])
            if sprite["motion"]:
                assert any(verb in prompt.text for verb in words.MOTION_WORDS[sprite["motion"]])
        assert any(word in prompt.text for word in words.BACKGROUND_WORDS[prompt.spec["background"]])
        assert any(word in prompt.text for word in words.CAMERA_WORDS[prompt.spec["camera"]])


def test_the_held_out_template_is_never_used_in_training() -> None:
    start = HELDOUT_TEMPLATES[0].split("{")[0]
    train = World(WorldConfig()).prompts(200, seed=4)
    held_out = World(WorldConfig(template="heldout")).prompts(50, seed=4)
    assert not any(prompt.text.startswith(start) for prompt in train)
    assert all(prompt.text.startswith(start) for prompt in held_out)
    assert [p.spec for p in held_out] == [p.spec for p in train[:50]]


def test_prompts_belong_to_the_clips_of_the_same_seed() -> None:
    world = World(WorldConfig(level=5))
    prompts = world.prompts(6, seed=8)
    clips = [world.render(8, index) for index in range(6)]
    assert [p.text for p in prompts] == [clip.caption for clip in clips]
    assert [p.spec for p in prompts] == [clip.truth["spec"] for clip in clips]
    assert len({p.id for p in prompts}) == 6


def test_sound_is_silent_but_for_impacts_at_the_times_of_the_events() -> None:
    world = World(WorldConfig(level=4, combos="all"))
    events = 0
    for index in range(40):
        clip = world.render(9, index)
        loud = np.abs(clip.audio[0]) > 0.02
        times = [event["seconds"] for event in clip.truth["events"]]
        assert loud.any() == bool(times)
        for t in times:
            events += 1
            start = round(t * clip.sample_rate_hz)
            assert not np.abs(clip.audio[0][max(start - 480, 0) : start]).max() > 0.15
            assert loud[start : start + 480].any() or start + 480 > loud.size
    assert events > 10


def test_a_bounce_is_lowest_when_it_is_heard_and_a_push_touches_when_it_is_heard() -> None:
    world = World(WorldConfig(level=4, combos="all"))
    checked = set()
    for index in range(60):
        truth = world.render(10, index).truth
        for event in truth["events"]:
            frame = event["seconds"] * truth["frame_rate"]
            if frame > truth["num_frames"] - 2:
                continue
            if event["kind"] == "bounce":
                y = np.array(truth["sprites"][0]["centers"])[:, 1]
                near = y[int(frame) : int(frame) + 2].max()
                assert near >= y.max() - 9
            else:
                xs = [np.array(sprite["centers"])[:, 0] for sprite in truth["sprites"]]
                gap = np.abs(xs[0] - xs[1])
                assert gap[int(frame) : int(frame) + 2].min() < gap.min() + 0.5
            checked.add(event["kind"])
    assert checked == {"bounce", "push", "collide"}


def test_sprites_stay_in_the_frame_and_masks_match_their_boxes() -> None:
    world = World(WorldConfig(level=5))
    for index in range(40):
        clip = world.render(11, index)
        for sprite in clip.truth["sprites"]:
            for box, runs in zip(sprite["boxes"], sprite["masks"], strict=True):
                mask = decode_mask(runs, 64, 64)
                assert box_of(mask) == box
                assert encode_mask(mask) == runs
                assert box is not None
                assert mask.sum() > 60


def test_characters_change_pose_and_expression_independently_of_who_they_are() -> None:
    world = World(WorldConfig(level=5, character_share=1.0))
    sprites = [world.render(12, index).truth["sprites"][0] for index in range(60)]
    assert len({sprite["character"] for sprite in sprites}) > 20
    assert words.NUM_CHARACTERS >= 32
    states = {(p, e) for s in sprites for p, e in zip(s["poses"], s["expressions"], strict=True)}
    assert states == set(product(words.POSES, words.EXPRESSIONS))
    assert any(len(set(sprite["poses"])) > 1 for sprite in sprites)
    assert any(len(set(sprite["expressions"])) > 1 for sprite in sprites)


def test_a_world_of_some_motions_shows_no_other_and_keeps_the_held_out_combinations() -> None:
    world = World(WorldConfig(level=4, motions=("spin",)))
    specs = [world.render(14, index).truth["spec"] for index in range(30)]
    alone = [spec["sprites"][0] for spec in specs if spec["interaction"] is None]
    assert len(alone) > 10
    assert {sprite["motion"] for sprite in alone} == {"spin"}
    assert not any(words.is_held_out(s["color"], s["shape"], "spin") for s in alone)
    for motions in ((), ("spin", "fly")):
        with pytest.raises(ValueError, match="toyworld motions must be some of"):
            WorldConfig(motions=motions)


def test_a_caption_says_which_way_round_and_the_oracle_holds_it_against_the_clip() -> None:
    world = World(WorldConfig(level=2, motions=("spin",)))
    turns = set()
    for index in range(12):
        clip = world.render(15, index)
        (sprite,) = clip.truth["spec"]["sprites"]
        assert f" {sprite['turn']}" in clip.caption
        assert (sprite["turn"] == "clockwise") == (clip.truth["sprites"][0]["angles"][-1] > 0)
        turns.add(sprite["turn"])
        for frames, right in ((clip.frames, True), (clip.frames[:, :, ::-1], False)):
            seen = observe(frames, clip.truth["frame_rate"])
            assert verdict({"sprites": [sprite]}, seen)["motion"] is right
            assert verdict({"sprites": [{**sprite, "turn": None}]}, seen)["motion"]
    assert turns == set(words.TURNS)


def test_an_edit_changes_what_it_names_and_nothing_else() -> None:
    world = World(WorldConfig(level=4))
    kinds = set()
    for index in range(40):
        pair = world.edit_pair(13, index)
        kinds.add(pair.kind)
        before, after = pair.before, pair.after
        assert pair.instruction
        changed = (before.frames != after.frames).any(axis=-1)
        assert changed.any()
        sprites = [s for clip in (before, after) for s in clip.truth["sprites"]]
        masks = [[decode_mask(runs, 64, 64) for runs in sprite["masks"]] for sprite in sprites]
        everything = np.any([np.stack(mask) for mask in masks], axis=0)
        if pair.kind in ("add", "remove", "recolor", "replace"):
            soft = ndimage.binary_dilation(everything, np.ones((1, 3, 3), dtype=bool), iterations=2)
            assert not (changed & ~soft).any()
        if pair.kind == "background":
            assert before.truth["sprites"] == after.truth["sprites"]
            inner = ndimage.binary_erosion(everything, np.ones((1, 3, 3), dtype=bool))
            assert not changed[inner].any()  # edges are soft, so they show what is behind
        if pair.kind in ("recolor", "background", "style"):
            assert np.array_equal(before.audio, after.audio)
        if pair.kind == "recolor":
            assert before.truth["sprites"][0]["masks"] == after.truth["sprites"][0]["masks"]
    assert kinds == set(KINDS)


def test_a_contact_sheet_is_written_whole(tmp_path) -> None:
    frames = World(WorldConfig()).render(0, 0).frames
    write_sheet(tmp_path / "sheet.png", [frames, frames])
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert (tmp_path / "sheet.png").stat().st_size > 1000
