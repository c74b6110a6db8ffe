"""`moviegen average`: the mean of weights, and the held-out loss of parents and average."""

import json
import re
from pathlib import Path

import pytest
import torch
from model_samples import CODEC, GENERATOR
from safetensors.torch import load_file
from shard_samples import npy, write_tar

from moviegen import cli
from moviegen.average import averaged, figures, held_out_losses
from moviegen.config import UserError, build, compose
from moviegen.modelfile import load_task, read_info, save_model
from moviegen.provenance.consent import ConsentStore
from moviegen.runfolder import file_sha256


def clips(folder: Path, count: int) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(2)
    samples = [
        {
            "__key__": f"val-{i:03d}",
            "latent.npy": npy(torch.randn(4, 2, 4, 4, generator=generator).numpy()),
            "txt": f"clip number {i}",
            "json": json.dumps({"key": f"val-{i:03d}", "fps": 8.0}).encode(),
        }
        for i in range(count)
    ]
    write_tar(folder / "val-toy-000000.tar", samples)
    return folder


@pytest.fixture
def parents(tmp_path: Path) -> list[str]:
    """Two generators of one architecture with weights of their own."""
    node = {**GENERATOR, "cached": True}
    node["codec"] = {"_target_": "moviegen.modelfile.load_codec", "path": str(tmp_path / "tae")}
    save_model(tmp_path / "tae", build(CODEC), CODEC, torch.float32, {})
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        task = build(node)
        for parameter in task.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        paths.append(str(tmp_path / f"sft{seed}"))
        save_model(Path(paths[-1]), task, node, torch.float32, {})
    return paths


def average(tmp_path: Path, models: list[str], *more: str) -> int:
    data = ["data.batch_size=2", "num_threads=1", f"paths.latents={tmp_path / 'latents'}"]
    return cli.main(["average", f"models=[{','.join(models)}]", f"run_dir={tmp_path / 'out'}", *data, *more])


def test_the_average_lies_between_its_parents_and_each_has_its_held_out_loss(parents, tmp_path) -> None:
    clips(tmp_path / "latents", 5)
    assert average(tmp_path, parents) == 0
    states = [load_file(f"{path}.safetensors") for path in (*parents, tmp_path / "out" / "model")]
    for name, mean in states[2].items():
        torch.testing.assert_close(mean, (states[0][name] + states[1][name]) / 2)
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "numbers.json").read_text())}
    losses = [rows[f"average/{name}/held_out_loss"] for name in ("parent_0", "parent_1", "mean")]
    assert all(row["n"] == 5 and row["low"] < row["value"] < row["high"] for row in losses)
    assert len({row["value"] for row in losses}) == 3
    for number in (0, 1):
        difference = rows[f"average/mean/minus_parent_{number}"]["value"]
        assert difference == pytest.approx(losses[2]["value"] - losses[number]["value"], abs=1e-5)
    info = json.loads((tmp_path / "out" / "model.json").read_text())["info"]
    assert [parent["model"] for parent in info["average_of"]] == parents
    assert info["held_out_loss"] == pytest.approx(losses[2]["value"], rel=1e-5)
    assert not load_task(str(tmp_path / "out" / "model")).training
    (shards,) = json.loads((tmp_path / "out" / "run.json").read_text())["shards"]
    tar = tmp_path / "latents" / "val-toy-000000.tar"
    assert shards["folder"] == str(tar.parent) and shards["sha256"] == {tar.name: file_sha256(tar)}


def test_the_attention_kernel_of_a_training_is_no_part_of_its_model(parents, tmp_path) -> None:
    clips(tmp_path / "latents", 2)
    record = json.loads(Path(f"{parents[1]}.json").read_text())
    record["task"]["backbone"]["config"]["attention"] = "flash2"  # as models of before tell it
    Path(f"{parents[1]}.json").write_text(json.dumps(record))
    assert load_task(parents[1]).backbone.config.attention == "auto"
    assert average(tmp_path, parents[::-1]) == 0
    save_model(tmp_path / "new", load_task(parents[0]), record["task"], torch.float32, {})
    for made in (tmp_path / "out" / "model", tmp_path / "new"):
        assert "attention" not in json.loads(Path(f"{made}.json").read_text())["task"]["backbone"]["config"]


def test_an_average_of_a_model_of_people_is_listed_and_after_a_revocation_refused(
    parents, tmp_path, capsys
) -> None:
    clips(tmp_path / "latents", 2)
    record = json.loads(Path(f"{parents[1]}.json").read_text())
    record["info"]["consents"] = ["carphone"]
    Path(f"{parents[1]}.json").write_text(json.dumps(record))
    store, out = ConsentStore(tmp_path / "c"), tmp_path / "out"
    store.add(ConsentStore(Path(__file__).parent / "consents").get("carphone"))
    assert average(tmp_path, parents, f"store={store.folder}") == 0
    assert json.loads((out / "model.json").read_text())["info"]["consents"] == ["carphone"]
    assert [use["path"] for use in store.revoke("carphone", "asked")] == [str(out / "model.safetensors")]
    assert average(tmp_path, parents, f"store={store.folder}", f"run_dir={tmp_path / 'again'}") == 2
    assert "whose consent carphone was revoked on" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_the_loss_that_is_told_is_that_of_the_weights_as_they_are_written(parents, tmp_path) -> None:
    clips(tmp_path / "latents", 3)
    assert average(tmp_path, parents, "export_dtype=bfloat16") == 0
    path = str(tmp_path / "out" / "model")
    data = build(compose("average", [f"paths.latents={tmp_path / 'latents'}", "models=[a,b]"]).data)
    task = load_task(path)
    data.use(task.fields)
    again = held_out_losses(task, load_file(f"{path}.safetensors"), data.val_dataloader())
    assert read_info(path)["held_out_loss"] == pytest.approx(float(again.mean()), rel=1e-6)


def test_the_whole_weight_on_one_parent_gives_that_parent_back(parents, tmp_path) -> None:
    clips(tmp_path / "latents", 2)
    assert average(tmp_path, parents, "weights=[0,2.5]") == 0
    mean, own = load_file(tmp_path / "out" / "model.safetensors"), load_file(f"{parents[1]}.safetensors")
    for name in own:
        torch.testing.assert_close(mean[name], own[name])
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "out" / "numbers.json").read_text())}
    assert rows["average/mean/minus_parent_1"] == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_averaged_is_refused_before_anything_is_written(parents, tmp_path, capsys) -> None:
    clips(tmp_path / "latents", 2)
    other = json.loads(Path(f"{parents[1]}.json").read_text())
    other["task"]["path"] = {"_target_": "moviegen.flow.path.DiffusionPath"}
    Path(f"{parents[1]}.json").write_text(json.dumps(other))
    for models, more, message in (
        (parents[:1], [], "wants two models or more"),
        (parents, [], "differs from .* in path"),
        ([parents[0], str(tmp_path / "tae")], [], "differs from .* in _target_"),
        ([parents[0], str(tmp_path / "none")], [], "no model at"),
        ([parents[0]] * 2, ["weights=[1]"], "one for each of the 2 models"),
        ([parents[0]] * 2, ["data.val=null"], "no held-out clips"),
        ([parents[0]] * 2, [], "holds latents of the codec elsewhere"),
    ):
        if "elsewhere" in message:
            note = {"codec": {"path": "elsewhere", "encoder_sha256": "0" * 64}}
            tar = {"name": "val-toy-000000.tar", "split": "val", "num_samples": 2}
            (tmp_path / "latents" / "index.json").write_text(json.dumps(note | {"shards": [tar]}))
        assert average(tmp_path, models, *more) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_whole_numbers_must_agree_and_halves_are_averaged_in_float32() -> None:
    states = [{"a": torch.tensor([1.0, 2.0]).bfloat16(), "n": torch.tensor(3)} for _ in range(2)]
    states[1]["a"] = torch.tensor([2.0, 4.0]).bfloat16()
    mean = averaged(states, (1.0, 3.0))
    torch.testing.assert_close(mean["a"], torch.tensor([1.75, 3.5]))
    assert mean["n"] == 3
    with pytest.raises(UserError, match=r"n holds torch\.int64 that differ"):
        averaged([states[0], states[1] | {"n": torch.tensor(4)}], (1.0, 1.0))


def test_differences_are_taken_clip_by_clip() -> None:
    loss = torch.tensor([1.0, 5.0, 9.0])
    rows = {row["name"]: row for row in figures(["a", "b"], [loss, loss + 1, loss - 0.5])}
    difference = rows["average/mean/minus_parent_0"]
    assert (difference["low"], difference["value"], difference["high"]) == pytest.approx((-0.5, -0.5, -0.5))
    assert rows["average/parent_1/held_out_loss"]["value"] == pytest.approx(6.0)
