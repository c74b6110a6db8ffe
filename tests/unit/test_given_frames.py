"""Image input: what is given, how it enters, and that it changes nothing before it was trained."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import GENERATOR, Generator
from moviegen_eval.judge import judge

from moviegen import cli, runfolder
from moviegen.conditioning.base import ConditionerSet, Ports
from moviegen.conditioning.frames import FrameCodes, Given, GivenFrames, collate_frames, decode_frames
from moviegen.config import UserError, build
from moviegen.media import to_png_bytes
from moviegen.modelfile import load_task, load_weights, save_model
from moviegen.rng import SampleRng
from moviegen.stages import start_from
from moviegen.tasks.given import covering, given_past, given_pictures
from moviegen.tasks.sampling import SamplerConfig, sample_clips, sample_latents
from moviegen.types import Batch, Grid, Latent

CELLS = Grid(3, 4, 4)  # latent cells of a clip
SAMPLER = SamplerConfig(num_frames=4, height=16, width=16, frame_rate=8.0, num_steps=2, guidance=2.0)
FRAMES = {
    "_target_": "moviegen.conditioning.frames.GivenFrames",
    "_partial_": True,
    "latent_channels": 4,
    "frames_per_latent": 2,
}


def condition(**settings) -> GivenFrames:
    return GivenFrames(dim=8, latent_channels=4, frames_per_latent=8, **settings)


def codes(count: int = 2) -> FrameCodes:
    torch.manual_seed(0)
    places = torch.tensor([[0, 7, 8, 23]]).expand(count, -1)
    return FrameCodes(torch.randn(count, 4, 4, 4, 4), places, torch.randn(count, 4, 3, 4, 4))


@pytest.fixture(scope="module")
def models(generator: Generator) -> tuple[str, dict]:
    """A text-to-video model on disk, and the node of one that takes frames too."""
    wide = json.loads(json.dumps(generator.node))
    wide["backbone"]["config"]["concat_channels"] = 6
    wide["conditioners"]["frames"] = FRAMES
    return generator.path, wide


def test_a_lone_picture_takes_one_latent_frame_and_one_of_its_eight_mask_channels() -> None:
    picture = torch.randn(4, 4, 4)
    given = condition().empty(2, CELLS).with_picture(1, 10, picture)
    assert given.mask.nonzero().tolist() == [[1, 2, 1]]  # clip 1, third of the eight frames of latent frame 1
    torch.testing.assert_close(given.values[1, :, 1], picture)
    assert given.values.count_nonzero() == picture.count_nonzero()
    tokens = condition()(given, Grid(3, 2, 2))
    assert tokens.shape == (2, 12, (4 + 8) * 4)
    assert not tokens[0].any() and not tokens[1, :4].any() and tokens[1, 4:8].any()
    channels = tokens[1, 4:8].unflatten(-1, (12, 2, 2))  # of each token: 4 latent channels, then 8 of mask
    torch.testing.assert_close(channels[0, :4], picture[:, :2, :2])
    assert channels[:, 4:].flatten(2).amax(dim=(0, 2)).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_a_video_goes_on_from_latents_whose_eight_frames_are_all_given() -> None:
    past = torch.randn(4, 2, 4, 4)
    given = condition().empty(1, CELLS).with_latents(0, past)
    torch.testing.assert_close(given.values[0, :, :2], past)
    assert given.mask[0].tolist() == [[True, True, False]] * 8


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (
            lambda given: given.with_picture(0, 24, torch.zeros(4, 4, 4)),
            "frame 24 is outside a clip of 24 frames",
        ),
        (lambda given: given.with_picture(0, 5, torch.zeros(4, 4, 4)), "frames 0 to 7 is given already"),
        (lambda given: given.with_latents(0, torch.zeros(4, 3, 4, 4)), "none would be new"),
        (lambda given: condition()(given, Grid(3, 4, 4)), "given frames are of Grid"),
        (lambda given: condition(kinds={"last": 1.0}), "no way of giving frames is called 'last'"),
        (
            lambda given: GivenFrames(dim=8, latent_channels=16)(given, CELLS),
            "4 channels and 8 frames a latent",
        ),
    ],
)
def test_what_cannot_be_given_is_said_with_the_numbers(give, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        give(condition().empty(1, CELLS).with_picture(0, 0, torch.ones(4, 4, 4)))


def test_training_gives_first_frames_any_frames_and_beginnings_with_their_weights() -> None:
    count = 600
    frames = condition(kinds={"first": 0.5, "any": 0.2, "extend": 0.3})
    given = frames.vary(codes(count), SampleRng(0, 0, torch.arange(count)))
    whole = given.mask.all(1)  # [B, T] latent frames that are given whole
    extended = whole.any(1)
    assert extended.float().mean() == pytest.approx(0.3, abs=0.06)
    assert set(whole[extended].sum(1).tolist()) == {1, 2}
    assert (whole[extended].long().diff(dim=1) <= 0).all()  # from the beginning on
    singles = given.mask[~extended].flatten(1)
    assert (singles.sum(1) == 1).all()
    first = given.mask[~extended][:, 0, 0].float().mean()
    assert first == pytest.approx((0.5 + 0.2 / 4) / 0.7, abs=0.06)
    again = frames.vary(codes(count), SampleRng(0, 0, torch.arange(count)))
    assert torch.equal(again.mask, given.mask)
    part = frames.vary(codes(5), SampleRng(0, 0, torch.arange(5)))
    assert torch.equal(part.mask, given.mask[:5])  # a sample's draw does not depend on its batch


def test_a_still_has_no_beginning_to_go_on_from() -> None:
    still = replace(codes(), clip=codes().clip[:, :, :1])
    assert not condition(kinds={"extend": 1.0}).vary(still, SampleRng(0, 0, torch.arange(2))).mask.any()


def test_held_out_samples_are_given_their_first_frame_or_what_there_is() -> None:
    inputs = codes()
    expected = condition().empty(2, CELLS)
    for index in range(2):
        expected = expected.with_picture(index, 0, inputs.alone[index, 0])
    torch.testing.assert_close(condition()(inputs, Grid(3, 2, 2)), condition()(expected, Grid(3, 2, 2)))
    late = FrameCodes(inputs.alone, inputs.places + 1, inputs.clip)
    with pytest.raises(ValueError, match=r"the first frame was not coded, only frames \[1, 8, 9, 24\]"):
        condition()(late, Grid(3, 2, 2))
    moved = condition().empty(2, CELLS)
    for index in range(2):
        moved = moved.with_picture(index, 1, inputs.alone[index, 0])
    anywhere = condition(kinds={"first": 0.0, "any": 1.0})  # trained without the first frame
    torch.testing.assert_close(anywhere(late, Grid(3, 2, 2)), anywhere(moved, Grid(3, 2, 2)))
    torch.testing.assert_close(anywhere(inputs, Grid(3, 2, 2)), anywhere(expected, Grid(3, 2, 2)))


def npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_coded_frames_are_read_with_their_places_and_the_clips_latent() -> None:
    alone, clip = np.ones((2, 4, 2, 2), np.float16), np.zeros((4, 3, 2, 2), np.float16)
    record = b'{"fps": 8, "coded_frames": [0, 15]}'
    found = decode_frames(npy(alone), record, npy(clip))
    batch = collate_frames([found, found])
    assert batch.alone.shape == (2, 2, 4, 2, 2) and batch.places.tolist() == [[0, 15], [0, 15]]
    assert batch.clip.shape == (2, 4, 3, 2, 2)
    with pytest.raises(ValueError, match="with F coded_frames"):
        decode_frames(npy(alone), b'{"fps": 8}', npy(clip))


def test_a_text_to_video_model_widens_by_zeros_and_answers_as_before_whatever_is_given(models) -> None:
    path, node = models
    narrow, wide = load_task(path), build(node).eval()
    with pytest.raises(UserError, match="another architecture"):
        load_weights(wide, path)
    load_weights(wide, path, fit=wide.adopted)
    before = narrow.backbone.embed.weight
    torch.testing.assert_close(wide.backbone.embed.weight[:, : before.shape[1]], before, rtol=0, atol=0)
    assert not wide.backbone.embed.weight[:, before.shape[1] :].any()
    texts = ["a red star", "a blue circle"]
    picture = torch.rand(3, 16, 16)
    plain = sample_clips(narrow, texts, SAMPLER)
    given = given_pictures(wide, [{0: picture}, {}], SAMPLER)
    torch.testing.assert_close(sample_clips(wide, texts, SAMPLER, inputs=given), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(sample_clips(wide, texts, SAMPLER), plain, rtol=0, atol=1e-6)
    torch.nn.init.normal_(wide.backbone.embed.weight)  # as after training
    moved = sample_clips(wide, texts, SAMPLER, inputs=given)
    alone = sample_clips(wide, texts, SAMPLER)
    assert not torch.allclose(moved[0], alone[0])
    torch.testing.assert_close(moved[1], alone[1], rtol=1e-4, atol=1e-5)  # nothing was given to this one


def test_a_model_that_had_to_be_widened_is_no_base_for_an_adapter(models) -> None:
    path, node = models
    start_from(build(node), path, None, None)
    with pytest.raises(
        UserError,
        match=r"embed\.weight is \[16, 16\] there and \[16, 40\] here; finetune it without adapter first",
    ):
        start_from(build(node), path, None, None, frozen=True)


def test_room_for_conditions_that_are_not_there_is_refused(models) -> None:
    _, node = models
    with pytest.raises(ValueError, match="conditions join 24 channels to each token"):
        build({**node, "backbone": GENERATOR["backbone"]})


def test_losses_with_given_frames_train_the_new_weights_and_a_dropped_condition_gives_nothing(models) -> None:
    path, node = models
    task = build(node)
    load_weights(task, path, fit=task.adopted)
    alone, clip = torch.randn(2, 1, 4, 8, 8), torch.randn(2, 4, 2, 8, 8)
    inputs = {
        "text": ["a red star", "a blue circle"],
        "frames": FrameCodes(alone, torch.zeros(2, 1).long(), clip),
    }
    batch = Batch(torch.arange(2), Latent(clip, torch.full((2,), 8.0)), inputs)
    task.losses(batch, step=1).mean().backward()
    own = task.backbone.config.token_channels
    assert task.backbone.embed.weight.grad[:, own:].any()
    grid = Grid(2, 4, 4)
    dropped = task.conditions(inputs, grid, {"frames": torch.tensor([True, True])}).concat
    assert not dropped.any() and task.conditions(inputs, grid, {}).concat.any()


def test_a_generator_without_text_trains_on_its_other_conditions(models) -> None:
    task = build({**models[1], "conditioners": {"frames": FRAMES}})
    clip = torch.randn(2, 4, 2, 8, 8)
    frames = FrameCodes(torch.randn(2, 1, 4, 8, 8), torch.zeros(2, 1).long(), clip)
    batch = Batch(torch.arange(2), Latent(clip, torch.full((2,), 8.0)), {"frames": frames})
    assert task.losses(batch, step=1).isfinite().all()
    with pytest.raises(ValueError, match="a generator needs at least one condition"):
        task.no_context(Ports())


def test_a_clip_goes_on_from_the_last_latents_of_another(models) -> None:
    path, node = models
    task = build(node)
    load_weights(task, path, fit=task.adopted)
    past = Latent(torch.randn(1, 4, 2, 8, 8), torch.tensor([8.0]))
    given = given_past(task, past, 1, SAMPLER)["frames"]
    torch.testing.assert_close(given.values[:, :, 0], past.values[:, :, 1])
    assert given.mask[0].tolist() == [[True, False]] * 2
    text = task.conditioners.named()["text"].features(["a red star"])
    latents = sample_latents(task, {"text": text, "frames": given}, torch.tensor([1]), SAMPLER)
    assert latents.values.shape == past.values.shape and latents.values.isfinite().all()
    with pytest.raises(ValueError, match="none would be new"):
        given_past(task, past, 2, SAMPLER)


def test_a_model_of_text_alone_takes_no_picture(models) -> None:
    task = load_task(models[0])
    with pytest.raises(ValueError, match="this model takes no frames"):
        given_pictures(task, [{0: torch.rand(3, 16, 16)}], SAMPLER)


def test_a_picture_covers_the_clip_and_its_middle_is_kept() -> None:
    wide = torch.linspace(-1, 1, 64).expand(3, 16, 64)
    assert covering(wide, 16, 64).equal(wide)
    middle = covering(wide, 32, 32)
    assert middle.shape == (3, 32, 32)
    torch.testing.assert_close(middle.mean(), torch.tensor(0.0), rtol=0, atol=1e-3)
    assert middle[0, 0, 0] > wide[0, 0, 20] and middle[0, 0, -1] < wide[0, 0, 43]


def test_generate_begins_clips_with_the_pictures_that_prompts_or_a_key_name(
    models, tmp_path: Path, capsys
) -> None:
    path, node = models
    task = build(node)
    load_weights(task, path, fit=task.adopted)
    torch.nn.init.normal_(task.backbone.embed.weight)
    save_model(tmp_path / "i2v", task, node, torch.float32, {})
    for name, level in {"white.png": 255, "black.png": 0}.items():
        (tmp_path / name).write_bytes(to_png_bytes(np.full((16, 24, 3), level, np.uint8)))
    lines = [
        {"id": "own", "prompt": "a red star", "image": "white.png"},
        {"id": "key", "prompt": "a red star"},
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = [f"prompts={prompts}", "num_threads=1", *(f"sampler.{size}" for size in sizes)]
    image = f"image={tmp_path / 'black.png'}"
    out = tmp_path / "clips"
    assert cli.main(["generate", f"model={tmp_path / 'i2v'}", f"run_dir={out}", *words, image]) == 0
    assert "24x16 pixels; its middle fills clips of 16x16" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["white.png", "black.png"]
    assert (out / "own.mp4").read_bytes() != (out / "key.mp4").read_bytes()
    made = (out / "own.mp4").stat().st_mtime_ns, (out / "key.mp4").stat().st_mtime_ns
    (tmp_path / "black.png").write_bytes(to_png_bytes(np.full((16, 16, 3), 90, np.uint8)))  # another picture
    assert cli.main(["generate", f"model={tmp_path / 'i2v'}", f"run_dir={out}", *words, image]) == 0
    assert (out / "own.mp4").stat().st_mtime_ns == made[0] and (out / "key.mp4").stat().st_mtime_ns != made[1]
    assert cli.main(["generate", f"model={path}", f"run_dir={tmp_path / 'none'}", *words, image]) == 2
    assert "takes none" in capsys.readouterr().err and not (tmp_path / "none").exists()
    (tmp_path / "black.png").write_bytes(b"no picture")
    lost = ["generate", f"model={tmp_path / 'i2v'}", f"run_dir={tmp_path / 'none'}", *words, image]
    assert cli.main(lost) == 2
    assert "black.png" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_given_picture_may_be_any_frame_of_a_clip(models, tmp_path: Path, capsys) -> None:
    path, node = models
    task = build(node)
    load_weights(task, path, fit=task.adopted)
    torch.nn.init.normal_(task.backbone.embed.weight)
    save_model(tmp_path / "i2v", task, node, torch.float32, {})
    (tmp_path / "white.png").write_bytes(to_png_bytes(np.full((16, 16, 3), 255, np.uint8)))
    sizes = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = ["generate", f"model={tmp_path / 'i2v'}", "num_threads=1", *(f"sampler.{size}" for size in sizes)]
    keys = ["prompt=a red star", f"image={tmp_path / 'white.png'}"]
    clips = {}
    for place in (0, 3):
        out = tmp_path / f"at{place}"
        assert cli.main([*words, *keys, f"image_frame={place}", f"run_dir={out}"]) == 0
        clips[place] = (out / "00001.mp4").read_bytes()
        row = json.loads((out / "manifest.jsonl").read_text())
        assert row.get("image_frame", 0) == place
    assert clips[0] != clips[3]
    line = {"id": "own", "prompt": "a red star", "image": "white.png", "image_frame": 3}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line))
    out = tmp_path / "own"
    assert cli.main([*words, f"prompts={tmp_path / 'prompts.jsonl'}", f"run_dir={out}"]) == 0
    assert json.loads((out / "own.json").read_text())["image_frame"] == 3
    capsys.readouterr()
    none = f"run_dir={tmp_path / 'none'}"
    assert cli.main([*words, *keys, "image_frame=4", none]) == 2
    assert "image_frame=4 is outside a clip of 4 frames" in capsys.readouterr().err
    assert cli.main([*words, keys[0], "image_frame=3", none]) == 2
    assert "image_frame=3 is of no image; add image=" in capsys.readouterr().err
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line | {"image_frame": -1}))
    assert cli.main([*words, f"prompts={tmp_path / 'prompts.jsonl'}", none]) == 2
    assert "image_frame is -1; it must be a whole number from 0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_clip_of_a_picture_has_its_settings_beside_it_and_is_judged_against_the_picture(
    models, tmp_path: Path
) -> None:
    path, node = models
    task = build(node)
    load_weights(task, path, fit=task.adopted)
    save_model(tmp_path / "i2v", task, node, torch.float32, {})
    picture = tmp_path / "photo.png"
    picture.write_bytes(to_png_bytes(np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)))
    out = tmp_path / "clips"
    sizes = ["num_frames=4", "height=16", "width=16", "num_steps=1", "schedule=linear"]
    words = [
        f"model={tmp_path / 'i2v'}",
        f"run_dir={out}",
        "seeds=[3,4]",
        "num_threads=1",
        f"image={picture}",
    ]
    words += [f"sampler.{size}" for size in sizes]
    assert cli.main(["generate", "prompt=a red star, 'big'", *words]) == 0
    card = json.loads((out / "00001-s4.json").read_text())
    assert card["image_path"] == str(picture) and card["image"] == runfolder.file_sha256(picture)
    assert card["prompt"] == "a red star, 'big'" and card["sampler"]["seed"] == 4
    made = [(out / f"00001-s{seed}.mp4").stat().st_mtime_ns for seed in (3, 4)]
    assert cli.main(["generate", "prompt=a red star, 'big'", *words]) == 0
    assert made == [(out / f"00001-s{seed}.mp4").stat().st_mtime_ns for seed in (3, 4)]
    figures = {f.name: f for f in judge({"out": str(tmp_path / "judged"), "generations": str(out)})}
    assert figures["i2v/first_frame_psnr"].n == 2 and not [name for name in figures if name.startswith("t2v")]


def test_given_moves_between_devices_as_every_input_does() -> None:
    given = partial(Given.nothing, 1, 4, CELLS, 8)()
    assert given.to(torch.float64).values.dtype == torch.float64
    elsewhere = ConditionerSet({"frames": condition()}).to("meta")
    assert elsewhere.completed({}, 1, CELLS)["frames"].values.is_meta  # nobody gave any


def test_the_i2v_recipe_composes_and_its_sizes_agree(tmp_path: Path) -> None:
    from moviegen.config import compose

    task = build(compose("train", ["experiments=toy/i2v"])).task
    built = build(task, codec=None)
    load_weights(built, "experiments/toy/weights/t2v", fit=built.adopted)
    assert built.backbone.config.input_channels == 160
    assert not built.backbone.embed.weight[:, 64:].any() and built.backbone.embed.weight[:, :64].any()


def test_prompts_of_clips_begin_with_their_frame_rate_and_those_of_images_do_not(models, monkeypatch) -> None:
    task = load_task(models[0])
    text, seen = task.conditioners.named()["text"], []
    features = text.features
    text.frame_rate_prefix = True
    monkeypatch.setattr(text, "features", lambda prompts: (seen.append(prompts), features(prompts))[1])
    sample_clips(task, ["a red star"], SAMPLER)
    sample_clips(task, ["a red star"], replace(SAMPLER, num_frames=1))
    assert seen == [["FPS-8 a red star"], ["a red star"]]
