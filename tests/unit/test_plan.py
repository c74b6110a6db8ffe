"""The planner's arithmetic: sizes, traffic, layouts, published rows, goodput, and what it says of wrong input."""

import importlib
import importlib.util
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from math import prod
from pathlib import Path
from types import ModuleType

import pytest

from moviegen import cli
from moviegen.backbone.config import BackboneConfig
from moviegen.config import build, compose
from moviegen.parallel.mesh import LayoutError, MeshConfig
from moviegen.plan.command import read_recipe, token_grid_of
from moviegen.plan.communication import context_traffic, shard_traffic, tensor_traffic
from moviegen.plan.evaluate import Wanted, cost, plan
from moviegen.plan.goodput import (
    daly_goodput,
    daly_interval,
    simulated_goodput,
    young_goodput,
    young_interval,
)
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout
from moviegen.plan.memory import CPU, memory
from moviegen.plan.picture import picture
from moviegen.plan.shapes import Transformer, backbone_shape
from moviegen.plan.steptime import step_time
from moviegen.plan.table import _overrides

SCRIPTS = Path(__file__).resolve().parents[2] / "experiments" / "plan"
PAPER = backbone_shape(BackboneConfig(6144, 48, 48, 16384, max_height=96, max_width=96))
STAGE3 = Job(PAPER, batch=1536, tokens=73_728, context=640)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def hardware(name: str) -> Hardware:
    return build(compose("plan", [f"hardware={name}"])["hardware"])


def test_language_models_have_their_known_sizes_from_layer_counts() -> None:
    llama = {"kv_heads": 8, "causal": True, "vocabulary": 128_256}
    sizes = [Transformer(32, 4096, 14_336, 32, **llama), Transformer(80, 8192, 28_672, 64, **llama)]
    assert [round(model.parameters / 1e9, 2) for model in sizes] == [8.03, 70.55]
    dense = replace(sizes[0], causal=False)  # scores that a causal mask leaves out
    assert dense.block_attention(8192) == 2 * sizes[0].block_attention(8192)
    scores = 32 * 2 * 8192**2 * 4096
    assert sizes[0].forward_flops(8192) == pytest.approx(2 * 7.5e9 * 8192 + scores, rel=1e-3)


def test_the_papers_model_has_the_papers_size_and_cost() -> None:
    assert PAPER.num_layers * PAPER.block_parameters == pytest.approx(28.99e9, rel=1e-3)
    assert PAPER.forward_flops(74_752, 512) == pytest.approx(10.43e15, rel=1e-3)


def test_traffic_of_the_papers_layout_is_what_one_counts_by_hand() -> None:
    machine = hardware("h100")
    layout = Layout(MeshConfig(dp_shard=768, cp=2, tp=4), checkpointing="none")
    tokens, micro_batches = 73_728 // 2, 2  # of one process; 1,536 samples on 768
    tensor = tokens * 6144 * 2
    tp = tensor_traffic(STAGE3, layout, machine)
    assert tp.size == pytest.approx(48 * micro_batches * 2 * 6 * tensor * 3 / 4)
    cp = context_traffic(STAGE3, layout, machine)
    assert cp.size == pytest.approx(48 * micro_batches * 2 * (2 * 73_728 * 6144 // 4 * 2) / 2)
    shards = shard_traffic(STAGE3, layout, machine)
    assert shards.size == pytest.approx(
        micro_batches * (2 * 2 + 4) * (48 * PAPER.block_parameters / 4 + PAPER.end_parameters) * (1535 / 1536)
    )
    ulysses = [
        context_traffic(STAGE3, replace(layout, mesh=MeshConfig(cp=n), context="ulysses"), machine)
        for n in (2, 8)
    ]
    gathered = [context_traffic(STAGE3, replace(layout, mesh=MeshConfig(cp=n)), machine) for n in (2, 8)]
    assert ulysses[1].size < ulysses[0].size and gathered[1].size > gathered[0].size


def test_a_group_is_bound_by_its_nodes_links_or_by_the_adapters_it_shares() -> None:
    machine = replace(hardware("h100"), links_share=1.0)
    assert machine.links_rate(stride=1, size=8) == 450e9
    assert machine.links_rate(stride=1, size=16) == 400e9  # eight adapters a node
    assert machine.links_rate(stride=4, size=16) == 100e9  # two members a node
    assert machine.links_rate(stride=8, size=16) == 50e9
    assert machine.latency(1, 6144) > machine.latency(1, 8) > machine.latency(1, 1) == 0


def test_measured_ceilings_replace_the_datasheet() -> None:
    machine = hardware("h200")
    measured = replace(machine, measured_products_tflops=790.0, measured_attention_tflops=600.0)
    assert measured.products_rate == 790e12 and measured.attention_rate == 600e12
    layout = Layout(MeshConfig(dp_shard=8, cp=8))
    small = replace(STAGE3, batch=8)
    assert step_time(small, layout, measured).seconds < step_time(small, layout, machine).seconds


def test_recomputation_costs_time_and_saves_memory() -> None:
    layout = Layout(MeshConfig(dp_shard=512, cp=12))
    every = [replace(layout, checkpointing=how) for how in ("none", "selective", "full")]
    seconds = [step_time(STAGE3, one, hardware("h100")).seconds for one in every]
    peaks = [memory(STAGE3, one).peak for one in every]
    assert seconds == sorted(seconds) and peaks == sorted(peaks, reverse=True)
    assert seconds[2] / seconds[0] > 1.25


def test_the_papers_stage_on_its_own_hardware_fits_in_many_ways_and_says_why_others_do_not() -> None:
    found = plan(STAGE3, hardware("h100"), 6144)
    assert len(found.fitting) > 100 and found.too_large and found.refused
    limit = hardware("h100").usable_bytes
    assert all(one.memory.peak <= limit for one in found.fitting)
    assert all(one.memory.peak > limit for one in found.too_large)
    assert all(one.layout.mesh.world_size == 6144 for one in found.fitting)
    assert 12 < found.best(1)[0].step.seconds < 25  # 35 to 50 % utilization is 15.8 to 22.6 s
    kinds = [(c.layout.mesh.cp, c.layout.mesh.tp, c.layout.checkpointing) for c in found.best(5)]
    assert len(kinds) == len(set(kinds))
    theirs = plan(STAGE3, hardware("h100"), 6144, Wanted(cp=2, tp=4))  # the paper's degrees (table 3)
    assert {(c.layout.mesh.cp, c.layout.mesh.tp) for c in theirs.fitting} == {(2, 4)}


@pytest.mark.parametrize(
    ("words", "job", "devices"),
    [
        (["mesh=paper"], STAGE3, 6144),
        (
            ["mesh=hybrid", "mesh.dp_shard=64", "mesh.checkpointing=full"],
            Job(PAPER, batch=9216, tokens=256, context=640),
            128,
        ),
    ],
)
def test_the_layouts_of_the_runbook_fit_their_stages_of_the_paper(words, job, devices) -> None:
    config = build(compose("train", words)["mesh"])
    mesh = config.mesh(devices)
    layout = Layout(mesh, config.context, config.checkpointing, micro_batch=job.batch // mesh.dp)
    assert memory(job, layout).peak < hardware("h100").usable_bytes


@pytest.mark.parametrize(
    ("stage", "gpus", "words"),
    [
        ("stage1", 128, ["mesh=hybrid", "mesh.dp_shard=64"]),  # slurm/README.md
        ("stage2", 3072, ["mesh=tensor", "mesh.tp=4"]),  # its batch_multiple: four GPUs to a model
        ("stage2b", 3072, ["mesh=tensor", "mesh.tp=4"]),
        ("stage3", 6144, ["mesh=paper"]),
    ],
)
def test_images_and_clips_of_every_bucket_divide_over_the_layout_of_their_stage(stage, gpus, words) -> None:
    config = build(compose("plan", [f"experiments=t2v/paper/{stage}", f"gpus={gpus}"]))
    recipe, mesh = read_recipe(config), build(compose("train", words)["mesh"]).mesh(gpus)
    assert {clip[0] for clip in recipe.buckets} == ({1} if stage == "stage1" else {1, 128, 192, 256})
    for clip in recipe.buckets:
        mesh.check_tokens(prod(token_grid_of(replace(recipe, clip=clip), config)), str(clip))


@pytest.mark.parametrize("pixels", [256, 768])
def test_shards_are_built_in_the_buckets_that_are_trained(pixels) -> None:
    made = build(compose("data_build", [f"buckets=paper_{pixels}"])["buckets"])
    read = build(compose("train", [f"data=t2v_{pixels}_joint"])["data"]["buckets"])
    assert [list(size) for size in made.sizes] == [list(size) for size in read.sizes]
    assert {one.name: one.num_frames for one in made.durations} == {
        name: n for name, n in read.durations.items() if name != "image"
    }


def test_no_layout_is_planned_that_an_image_does_not_divide_over() -> None:
    images = replace(STAGE3, others=(4 * 563,))
    found = plan(images, hardware("h100"), 6144)
    assert {c.layout.mesh.cp * c.layout.mesh.tp for c in found.fitting + found.too_large} == {4}
    assert found.refused["cp * tp = 8 does not divide 2252 tokens"]
    with pytest.raises(LayoutError, match="a sample has 2252 tokens, which cp=2 x tp=4 does not divide"):
        plan(images, hardware("h100"), 6144, Wanted(cp=2, tp=4))
    odd = replace(STAGE3, others=(41 * 55,))
    with pytest.raises(LayoutError, match="a batch of 1536 samples of 2255 to 73728 tokens as asked"):
        plan(odd, hardware("h100"), 6144)


def test_a_run_costs_its_steps_failures_and_checkpoints() -> None:
    machine = hardware("h100")
    run = cost(17.0, 74_500, 6144, machine, save_seconds=5, restart_seconds=600)
    ideal = 17.0 * 74_500 / 86_400
    assert run.days == pytest.approx(ideal / run.goodput) and 0.95 < run.goodput < 0.97
    assert run.dollars == pytest.approx(run.days * 24 * 6144 * 2)
    safe = cost(17.0, 74_500, 6144, replace(machine, failures_per_million_hours=0.0), 5, 600)
    assert safe.goodput == 1 and safe.days == pytest.approx(ideal)


@pytest.mark.parametrize("save", [5.0, 30.0, 120.0])
@pytest.mark.parametrize("mtbf", [3.1 * 3600, 8.2 * 3600])
def test_simulated_goodput_agrees_with_young_and_daly(save: float, mtbf: float) -> None:
    interval, restart = daly_interval(save, mtbf), 300.0
    found = simulated_goodput(interval, save, restart, mtbf, failures=50_000)
    assert found == pytest.approx(daly_goodput(interval, save, restart, mtbf), rel=0.005)
    assert 1 - found == pytest.approx(1 - daly_goodput(interval, save, restart, mtbf), rel=0.05)
    assert found == pytest.approx(young_goodput(interval, save, restart, mtbf), rel=0.05)
    assert interval == pytest.approx(young_interval(save, mtbf), rel=0.1)
    others = [
        simulated_goodput(interval * factor, save, restart, mtbf, failures=50_000) for factor in (0.4, 2.5)
    ]
    assert max(others) < found


def test_published_step_times_are_met_by_three_constants_a_hardware(script) -> None:
    published, fit = script("published"), script("fit")
    rows = published.rows()
    assert len(fit.SHARES) == 3
    for device, least in (("h100", 24), ("a100", 12)):
        mine = published.of(device, rows)
        shares = fit.fitted(mine)
        profile = published.profile(device)
        assert {name: getattr(profile, name) for name in shares} == pytest.approx(shares, abs=0.002)
        assert sum(abs(row.error()) <= 0.25 for row in mine) >= least
        assert fit.report(device, mine).count("source left out") == len(mine)


def test_a_part_that_is_skipped_keeps_its_figures(script, tmp_path, monkeypatch) -> None:
    script("fit")  # what the command imports beside itself
    spec = importlib.util.spec_from_file_location("plan_run", SCRIPTS / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    before = [run._figure(f"{name}/x", 1, 1, "s") for name in ("step/row", "memory", "scale_6144", "goodput")]
    run.write_numbers(tmp_path / "numbers.json", before)
    for name, (prefix, _) in run.PARTS.items():
        new = [run._figure(f"{prefix.removeprefix('plan/')}x", 2, 1, "s")]
        monkeypatch.setitem(run.PARTS, name, (prefix, lambda new=new: new))
    run.main(["--skip", "memory", "scale", "--out", str(tmp_path)])
    found = {figure.name: figure.value for figure in run.read_numbers(tmp_path / "numbers.json")}
    assert found == {
        "plan/step/x": 2, "plan/goodput/x": 2, "plan/scale_6144/x": 1, "plan/memory/x": 1,
    }  # fmt: skip


def test_the_picture_is_well_formed_and_shows_each_layout() -> None:
    candidates = plan(STAGE3, hardware("h100"), 6144, Wanted(cp=2, tp=4)).best(3)
    drawn = picture("a <b> & c", hardware("h100"), candidates)
    root = ET.fromstring(drawn)
    texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("a <b> & c" in text for text in texts)
    assert sum(text.startswith("1 x") or " x cp 2 x tp 4" in text for text in texts) == len(candidates)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("hardware=b200", "hardware=b200: no such option; did you mean 'h200'?"),
        ("hardware=h10", "did you mean 'h100'?"),
        ("gpus=0", "gpus=0: must be at least 1"),
        ("gpus=6145", "take gpus=3072, 4096, 6144, 8192, or another batch"),
        ("gpus=8", "; gpus=16 would fit"),
        ("gpus=6144 tp=5", "take one of 1, 2, 4, 8"),
        ("gpus=6144 tp=16", "does not divide the 8 devices of a node: take one of 1, 2, 4, 8"),
        ("gpus=6144 cp=7", "which cp=7 x tp=1 does not divide: take a cp * tp of 1, 2, 3"),
        ("gpus=6144 cp=32 context_method=ulysses", "does not divide the 48 heads"),
        ("gpus=6144 dp_shard=7", "take a multiple of 7, or a dp_replicate * dp_shard of 1, 2, 3"),
        ("gpus=6144 checkpointing=some", "expected one of none, selective, full"),
        ("gpus=6144 clip=[256,768,770]", "height and width must be multiples of 16 and 16"),
        ("gpus=6144 clip=[256,4096,4096]", "the model has positions for [32, 96, 96]"),
        ("gpus=8 experiments=codec/paper", "has no backbone; a plan is of a generator"),
        ("gpus=8 experiments=t2v/paper/stage4", "no such option"),
        ("gpus=6144 hardware.products_share=1.5", "must lie above 0 and at most at 1"),
        ("gpus=6144 hardware.attention_kernel=flash9", "knows flash2, flash3, cudnn"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_written(
    tmp_path, monkeypatch, capsys, line, hint
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = [] if "experiments=" in line else ["experiments=t2v/paper/stage3"]
    assert cli.main(["plan", *recipe, *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and hint in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_and_writes_a_plan(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    line = "plan experiments=toy/t2v hardware=cpu gpus=2 clip=[16,64,64] steps=100 show=3"
    more = ['settings=["data.batch_size=32"]', "hardware.measured_products_tflops=0.2"]
    assert cli.main([*line.split(), *more]) == 0
    printed = capsys.readouterr().out
    for word in (
        "counted on the meta device",
        "batch 32",
        "(measured)",
        "goodput",
        "layouts fit",
        "mesh=single",
    ):
        assert word in printed
    written = json.loads((tmp_path / "runs/plan/plan.json").read_text())
    assert written["parameters"] > 3e6 and written["devices"] == 2 and len(written["layouts"]) == 3
    assert written["layouts"][0]["bytes"]["peak"] > 0
    assert (tmp_path / "runs/plan/plan.svg").read_text().startswith("<svg")


def test_the_settings_to_train_with_have_the_planned_samples_at_once() -> None:
    wanted = Wanted(dp_shard=256, cp=24, context="ulysses", micro_batch=1)
    found = plan(STAGE3, hardware("h100"), 6144, wanted)
    words = dict(word.split("=") for word in _overrides(found.fitting[0], STAGE3.batch).split())
    parts = int(words["trainer.accumulate_grad_batches"])
    assert (parts, int(words["data.batch_size"])) == (6, 256) and words["data.batch_multiple"] == "256"
    whole = _overrides(plan(replace(STAGE3, batch=256), hardware("h100"), 6144, wanted).fitting[0], 256)
    assert "accumulate" not in whole and "batch_size" not in whole


def test_resuming_takes_the_state_and_one_tensor_more() -> None:
    job = Job(PAPER, batch=1536, tokens=73_728)
    found = memory(job, Layout(MeshConfig(dp_shard=768, cp=2, tp=4), checkpointing="full"))
    state = found.weights + found.optimizer + found.average
    assert found.checkpoint == 16 * PAPER.parameters
    assert state < found.resume_peak < found.peak
    with pytest.raises(LayoutError, match="no layout of 1 x CPU core fits"):
        plan(job, hardware("cpu"), 1)
    assert memory(job, Layout(MeshConfig()), CPU).peak > 16 * PAPER.parameters
