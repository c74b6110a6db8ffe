"""Editing: sources on channels, task embeddings, and that neither changes anything before it was trained."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_samples import Generator, in_float64
from shard_samples import latent_sample, npy, write_tar

from moviegen.backbone.packing import packed_velocities
from moviegen.backbone.patchify import patchify
from moviegen.callbacks.held_out import HeldOutLoss
from moviegen.conditioning.base import ConditionerSet
from moviegen.conditioning.edit_tasks import EDIT_TASKS, EditTask, recognised
from moviegen.conditioning.editing import (
    SOURCE,
    TASK,
    Sources,
    TaskTokens,
    TaskVector,
    decode_source,
    decode_task,
)
from moviegen.config import build, compose
from moviegen.data.module import ShardData, Source
from moviegen.edit import asked
from moviegen.fields import LATENT
from moviegen.modelfile import load_task, load_weights, save_model
from moviegen.rng import SampleRng
from moviegen.stages import start_from, with_tasks
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Batch, Grid, Latent, VideoClip

EDIT = "moviegen.conditioning.editing."
CELLS = Grid(2, 4, 4)


def editing_node(node: dict, appended: bool = False, tasks: list[str] | None = None, **source: float) -> dict:
    """The config of a model that edits."""
    wide = json.loads(json.dumps(node))
    wide["backbone"]["config"] |= {"concat_channels": 4, "gated": not appended}
    wide["conditioners"] |= {
        "source": {"_target_": EDIT + "SourceVideo", "_partial_": True, "latent_channels": 4, **source},
        "task": {"_target_": EDIT + "TaskTokens", "_partial_": True, "appended": appended, "tasks": tasks},
        "task_vector": {"_target_": EDIT + "TaskVector", "_partial_": True, "tasks": tasks},
    }
    return wide


def editing(node: dict, appended: bool = False, **source: float) -> FlowTask:
    """A model that edits, with weights of its own."""
    task = build(editing_node(node, appended, **source))
    assert isinstance(task, FlowTask)
    return task


def batch(task: FlowTask, sources: bool = True, names: tuple[str, ...] = ("add", "style")) -> Batch:
    torch.manual_seed(1)
    text = task.conditioners.named()["text"]
    values = torch.randn(2, 4, 2, 4, 4)
    inputs = {"text": text.features(["add a red star", "invert the colors"])}
    if "source" in task.conditioners.items:
        inputs["source"] = Sources.of(torch.randn(2, 4, 2, 4, 4)) if sources else Sources.none(2)
        inputs |= {"task": list(names), "task_vector": list(names)}
    return Batch(torch.tensor([1, 2]), Latent(values, torch.tensor([8.0, 8.0])), inputs)


def randomized(task: FlowTask) -> FlowTask:
    torch.manual_seed(5)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return task


def test_at_step_0_it_answers_as_the_text_to_video_model_whatever_source_and_task(
    generator: Generator,
) -> None:
    _, path, node = generator
    plain, task = load_task(path).double(), editing(node)
    load_weights(task, path, fit=task.adopted)
    task.double()
    with torch.no_grad():
        expected = plain.losses(in_float64(batch(plain)), step=0, time=0.4)
        for sources, names in ((True, ("add", "style")), (False, ("t2v", "segment"))):
            losses = task.losses(in_float64(batch(task, sources, names)), 0, time=0.4)
            torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_plain_appending_is_a_switch_that_makes_no_such_claim(generator: Generator) -> None:
    plain, path, node = generator
    task = editing(node, appended=True)
    load_weights(task, path, fit=task.adopted)
    assert task.conditioners.named()["task"].port == "context" and TaskTokens.port == "gated"
    with torch.no_grad():
        mine, expected = task.losses(batch(task), 0, time=0.4), plain.losses(batch(plain), 0, time=0.4)
    assert (mine - expected).abs().max() > 1e-6  # four tokens of zero take their share of the softmax


@pytest.mark.parametrize("appended", [False, True])
def test_new_weights_all_learn_from_the_second_step_on(generator: Generator, appended: bool) -> None:
    _, path, node = generator
    task = editing(node, appended)
    load_weights(task, path, fit=task.adopted)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        task.losses(batch(task), 0, time=0.4).mean().backward()
        optimizer.step()
    new = {"table.weight": 0, "gate": 0}
    for name, parameter in task.named_parameters():
        for part in new:
            if name.endswith(part) and parameter.grad is not None:
                new[part] += int(parameter.grad.abs().sum() > 0)
    assert new["table.weight"] == 2 and (new["gate"] > 0) == (not appended)


def test_source_and_task_are_heard_and_a_missing_source_is_a_black_video(generator: Generator) -> None:
    task = randomized(editing(generator.node))
    whole = batch(task)
    with torch.no_grad():
        told = task.losses(whole, 0, time=0.4)
        other = task.losses(batch(task, names=("remove", "style")), 0, time=0.4)
        without = task.losses(whole, 0, time=0.4, drop=frozenset({"source"}))
        nothing = task.losses(batch(task, sources=False), 0, time=0.4)
    assert other[0] != told[0] and other[1] == told[1]
    torch.testing.assert_close(without, nothing)
    assert (without != told).all()
    source = task.conditioners.named()["source"]
    frames = torch.full((1, 3, 3, 8, 8), -1.0)  # 3 pixel frames fill 2 latent frames of this codec
    with torch.no_grad():
        black = task.codec.encode(VideoClip(frames, torch.zeros(1))).values
    expected = patchify(black, source.patch)[0][0]
    torch.testing.assert_close(source.absent(Grid(2, 2, 2)), expected, rtol=0, atol=0)


def test_black_is_coded_in_tiles_once_and_only_where_a_source_is_missing(generator: Generator) -> None:
    source = editing(generator.node).conditioners.named()["source"]
    codec, shapes = generator.task.codec, []

    def encode(clip: VideoClip) -> Latent:
        shapes.append(tuple(clip.frames.shape[2:]))
        return codec.encode(clip)

    factors = {"temporal_factor": codec.temporal_factor, "spatial_factor": codec.spatial_factor}
    source.use_codec(SimpleNamespace(encode=encode, **factors))
    large = Grid(6, 20, 24)  # of 11 frames, 80 x 96 pixels here
    given = Sources.of(torch.randn(2, 4, 6, 40, 48))
    conditions = ConditionerSet({"source": source})
    gone = {"source": torch.tensor([False, False])}
    whole = conditions.encode({"source": given}, large, gone).concat[0]
    assert shapes == []
    partly = replace(given, given=torch.tensor([True, False]))
    found = conditions.encode({"source": partly}, large, gone).concat[0]
    dropped = conditions.encode({"source": given}, large, {"source": torch.tensor([False, True])}).concat[0]
    assert shapes == [(8, 64, 64)] * 4 + [(3, 64, 64)] * 4  # tiles: 4 latent frames, 32 cells; no size twice
    assert torch.equal(found, dropped) and torch.equal(found[0], whole[0])
    assert torch.equal(found[1], source.absent(large)) and source.absent(large).isfinite().all()


def test_packed_samples_answer_as_alone(generator: Generator) -> None:
    task = randomized(editing(generator.node))
    one, two = batch(task), batch(task, sources=False)
    grid, t = Grid(2, 2, 2), torch.tensor([0.3, 0.7])
    x = torch.randn(2, 8, task.backbone.config.token_channels)
    conditions = [task.conditions(part.inputs, grid, {}) for part in (one, two)]
    with torch.no_grad():
        together = packed_velocities(task.backbone, [x, x], [t, t], conditions)
        alone = [task.backbone(x, t, one) for one in conditions]
    for mine, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_window_has_the_source_of_its_frames(generator: Generator) -> None:
    source = editing(generator.node).conditioners.named()["source"]
    values = torch.arange(2 * 4 * 5 * 4 * 4).float().view(2, 4, 5, 4, 4)
    cut = source.window(Sources.of(values), 1, 3)
    torch.testing.assert_close(cut.values, values[:, :, 1:3])
    assert source.window(source.empty(2, CELLS), 1, 3).values is None


def test_a_picture_stands_at_a_random_place_in_time_in_training_alone(generator: Generator) -> None:
    task = randomized(editing(generator.node))
    task.image_positions = 2
    whole = batch(task)
    still = Batch(
        whole.keys,
        Latent(whole.media.values[:, :, :1], torch.zeros(2)),
        {**whole.inputs, "source": Sources.of(whole.inputs["source"].values[:, :, :1])},
    )
    seen = []
    real = task.backbone.forward
    task.backbone.forward = lambda x, t, c: seen.append(c.first_frame) or real(x, t, c)
    for step in range(8):
        task.losses(still, step)
    assert {int(place) for places in seen for place in places} == {0, 1}
    task.losses(still, 0, time=0.4)
    task.losses(whole, 0)
    assert seen[-2] is None and seen[-1] is None
    table, grid = task.backbone.positions, Grid(1, 2, 2)
    torch.testing.assert_close(table(grid, torch.tensor([0]))[0], table(grid))
    torch.testing.assert_close(table(grid, torch.tensor([1]))[0], table(Grid(2, 2, 2))[4:])
    with pytest.raises(ValueError, match="image_positions must be 1 to the backbone's 2 frames, got 3"):
        FlowTask(task.backbone, task.codec, {}, image_positions=3)


def test_only_sources_that_a_model_made_are_mixed_with_noise_and_no_other_sample_draws_for_it(
    generator: Generator,
) -> None:
    source = editing(generator.node).conditioners.named()["source"]
    keys, values = torch.tensor([1, 2, 3]), torch.randn(3, 4, 2, 4, 4)
    mixed = replace(Sources.of(values), made=torch.tensor([False, True, False]))
    assert source.vary(mixed, SampleRng(0, 0, keys)) is mixed
    source.noise = 0.5
    rng = SampleRng(0, 0, keys)
    varied = source.vary(mixed, rng).values
    assert torch.equal(varied[[0, 2]], values[[0, 2]]) and torch.equal(mixed.values, values)
    assert not torch.allclose(varied[1], values[1]) and varied[1].std() < 1.5
    after, untouched = rng.rand(), SampleRng(0, 0, keys).rand()
    assert (after == untouched).tolist() == [True, False, True]
    one = replace(Sources.of(values[1:2]), made=torch.tensor([True]))
    alone = SampleRng(0, 0, keys[1:2])
    torch.testing.assert_close(source.vary(one, alone).values[0], varied[1], rtol=0, atol=0)
    assert alone.rand() == after[1]  # whatever else is in the batch
    assert source.vary(source.empty(2, CELLS), rng).values is None


def test_a_source_of_another_size_or_codec_and_an_unknown_task_are_refused(generator: Generator) -> None:
    task = editing(generator.node)
    source = task.conditioners.named()["source"]
    with pytest.raises(ValueError, match=r"the source is of Grid\(frames=1"):
        source(Sources.of(torch.randn(1, 4, 1, 4, 4)), Grid(2, 2, 2))
    with pytest.raises(ValueError, match="has 3 latent channels, this model takes 4"):
        source(Sources.of(torch.randn(1, 3, 2, 4, 4)), Grid(2, 2, 2))
    with pytest.raises(ValueError, match="no edit task is called 'fly'; this model knows t2v, segment"):
        TaskVector(8)(["fly"], CELLS)
    with pytest.raises(ValueError, match=r"gated conditions need backbone\.config\.gated=true"):
        wide = build(json.loads(json.dumps(generator.node)))
        found = task.conditions(batch(task).inputs, Grid(2, 2, 2), {})
        wide.backbone(torch.randn(2, 8, 16), torch.rand(2), found)


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("add a small red star", "add"),
        ("remove the red star", "remove"),
        ("replace the red star with a circle", "replace"),
        ("make the red star blue", "color"),
        ("change the backdrop to a plain background", "background"),
        ("make the video black and white", "style"),
        ("segment the star in lime", "segment"),
        ("Turn the cat into a dog", "replace"),
        ("change the shade of the background", "background"),
        ("invert the colors", "style"),
        ("mask the dog", "segment"),
        ("please highlight the dog in red", "segment"),
        ("add a mask to the dog", "add"),
        ("remove the mark from the wall", "remove"),
        ("make the mark on the wall red", "color"),
        ("replace the mark on the wall with a window", "replace"),
        ("replace the painting on the wall with a window", "replace"),
        ("replace the dog with a cat without a collar", "replace"),
        ("put a cat there instead of the dog", "replace"),
        ("Replace the sky with a sunset", "background"),
        ("give it a cartoon style", "style"),
        ("give the car a red color", "color"),
        ("give the dog a hat", "add"),
        ("add a painting to the wall", "add"),
        ("turn the video into a watercolor", "style"),
        ("make the red star blue without changing the background", "color"),
        ("make the star blue, don't change the background", "color"),
        ("do not touch the background; make the star blue", "color"),
        ("make the star blue without any change to the background", "color"),
        ("make the star blue with the same background", "color"),
        ("never remove anything, make the star blue", "color"),
        ("make it an anime but keep the people and the sky", "style"),
        ("keep the dog but take out the cat", "remove"),
        ("change the background to a beach without people", "background"),
        ("show the street without cars", "remove"),
        ("change the color of the car to a deep blue", "color"),
        ("change the car to a bus", "replace"),
    ],
)
def test_an_instruction_is_recognised_by_its_words(instruction: str, task: str) -> None:
    assert recognised(instruction) == task


def test_an_instruction_that_asks_for_no_edit_is_refused_with_the_choices() -> None:
    with pytest.raises(
        ValueError, match=r"'the moon is round' asks for no edit .* name its task, one of .*add, remove"
    ):
        recognised("the moon is round")


def test_a_new_task_is_one_entry_for_new_models_and_nothing_to_trained_ones(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = editing_node(generator.node)
    old = randomized(build(node))
    save_model(tmp_path / "edit", old, node, torch.float32, {})
    monkeypatch.setitem(EDIT_TASKS, "weather", EditTask("another weather", begins=r"make it (rain|snow)"))
    said = "make it snow"
    cfg = compose("train", ["experiments=toy/edit"])
    for name in ("task", "task_vector"):
        condition = build(cfg.task.conditioners[name])(dim=8)
        assert condition.rows(["weather", "add"]).shape[0] == 2
        assert condition.field.decode(b'{"edit": {"task": null}}', said.encode()) == "weather"
    again, words = (
        load_task(str(tmp_path / "edit")),
        [f"checkpoint={tmp_path / 'edit'}", f"instruction={said}"],
    )
    assert [one.task for one in asked(build(compose("edit", ["video=x.mp4", *words])))] == ["color"]
    new = build(editing_node(generator.node, tasks=[*reversed(EDIT_TASKS)]))
    start_from(new, str(tmp_path / "edit"), None, None)
    held_out = HeldOutLoss(str(tmp_path / "held_out.jsonl"), base=str(tmp_path / "edit"))
    held_out.prepare(new, with_tasks)
    start_tables = {n: p for n, p in new.named_parameters() if n.endswith("table.weight")}
    assert len(start_tables) == 2 and all(
        torch.equal(held_out._weights[n], p) for n, p in start_tables.items()
    )
    for name in ("task", "task_vector"):
        tables = [task.conditioners.named()[name] for task in (old, again, new)]
        trained, same, grown = (table.rows(["t2v", "add", "color"]) for table in tables)
        assert torch.equal(trained, same) and torch.equal(trained, grown)
        assert "weather" not in tables[1].tasks and tables[2].rows(["weather"]).isfinite().all()
        assert tables[1].field.decode(b'{"edit": {"task": null}}', said.encode()) == "color"


def test_samples_with_and_without_a_source_are_read_side_by_side(tmp_path: Path) -> None:
    samples = []
    for number in range(4):
        sample = latent_sample(f"k{number}", number)
        if number % 2:
            sample["source.npy"] = npy(np.full((16, 2, 2, 2), -number, np.float16))
            sample["txt"] = "add a small red star"
            edit = {"task": None, "form": "backtranslated" if number == 3 else "animate"}
            sample["json"] = json.dumps({"fps": 8.0, "edit": edit}).encode()
        samples.append(sample)
    write_tar(tmp_path / "train-x-000000.tar", samples)
    data = ShardData(
        train={"x": Source(str(tmp_path))}, val={"x": Source(str(tmp_path), split="train")}, batch_size=4
    )
    data.use({"media": LATENT, "source": SOURCE, "task": TASK})
    read = next(iter(data.val_dataloader()))
    assert read.inputs["source"].given.tolist() == [False, True, False, True]
    assert read.inputs["source"].values[:, 0, 0, 0, 0].tolist() == [0, -1, 0, -3]
    assert read.inputs["source"].made.tolist() == [False, False, False, True]
    assert read.inputs["task"] == ["t2v", "add", "t2v", "add"]
    moved = read.to("cpu")
    assert moved.inputs["source"].given.tolist() == [False, True, False, True]


def test_a_source_that_is_no_latent_is_refused() -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"a source is a latent \[C, T, H, W\], this array is \[2, 2\]"):
        decode_source(file.getvalue(), b"{}")
    assert decode_task(b'{"edit": {"task": "style"}}', b"make it red") == "style"


def test_what_an_edit_changes_counts_more_in_training_alone(generator: Generator) -> None:
    plain = randomized(editing(generator.node))
    weighted = randomized(editing(generator.node, changed_weight=3.0))
    given = batch(plain)
    source = given.inputs["source"]
    assert source.values is not None
    source.values[0, :, :, :, :2] = given.media.values[
        0, :, :, :, :2
    ]  # the left half of the first stays as it was
    source.given[1] = False
    x_1, grid = patchify(given.media.values, weighted.backbone.config.patch)
    weights = weighted.conditioners.emphasis(given.inputs, x_1, grid)
    assert weights is not None
    assert weights[0].view(2, 2, 2).tolist() == [[[1, 3], [1, 3]]] * 2
    assert weights[1].eq(1).all()
    assert plain.conditioners.emphasis(given.inputs, x_1, grid) is None
    with torch.no_grad():
        torch.testing.assert_close(weighted.losses(given, 0, time=0.4), plain.losses(given, 0, time=0.4))
        trained, alike = weighted.losses(given, 3), plain.losses(given, 3)
    torch.testing.assert_close(trained[1], alike[1])
    assert 1.5 * alike[0] < trained[0] < 3 * alike[0]
    torch.testing.assert_close(FlowTask._means(torch.ones(2, 8, 4), weights), torch.tensor([2.0, 1.0]))
    with pytest.raises(ValueError, match="changed_weight must be positive"):
        editing(generator.node, changed_weight=0.0)


def test_a_model_that_edits_comes_back_from_disk(generator: Generator, tmp_path: Path) -> None:
    node = editing_node(generator.node)
    task = randomized(build(node))
    save_model(tmp_path / "edit", task, node, torch.float32, {})
    again = load_task(str(tmp_path / "edit"))
    with torch.no_grad():
        torch.testing.assert_close(
            again.losses(batch(again), 0, time=0.4), task.losses(batch(task), 0, time=0.4)
        )
