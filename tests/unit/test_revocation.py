"""What a revocation lists and stops: runs that were broken off, and models that are made of checkpoints and models."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from model_samples import Generator
from shard_samples import npy, write_tar

from moviegen import cli, export, train
from moviegen.lineage import check_consents
from moviegen.provenance.consent import ConsentStore, file_sha256

RECORDS = ConsentStore(Path(__file__).parent / "consents")


@pytest.fixture
def store(tmp_path: Path) -> ConsentStore:
    """A store with the record `anna`."""
    store = ConsentStore(tmp_path / "c")
    store.add(replace(RECORDS.get("carphone"), id="anna", name="Anna B."))
    return store


def latents(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "val"):
        sample = {
            "__key__": f"{split}-0",
            "latent.npy": npy(np.zeros((4, 2, 4, 4), np.float16)),
            "text.npy": npy(np.zeros((3, 384), np.float16)),
            "txt": "a clip",
            "json": json.dumps({"key": f"{split}-0", "fps": 8.0}).encode(),
        }
        write_tar(folder / f"{split}-toyworld-000000.tar", [sample])
    return folder


def test_a_run_is_noted_when_it_starts_and_so_listed_though_it_was_broken_off(
    generator: Generator, store: ConsentStore, tmp_path: Path, monkeypatch, capsys
) -> None:
    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_fit", broken_off)
    monkeypatch.setattr(train, "_consents", lambda *_: ["anna"])
    run = tmp_path / "run"
    words = [f"run_dir={run}", f"paths.latents={latents(tmp_path / 'latents')}", f"store={store.folder}"]
    words += [
        f"task.codec.path={Path(generator.path).with_name('tae')}",
        "task.backbone.config.latent_channels=4",
    ]
    words += [
        "data.batch_size=1",
        "data.num_workers=0",
        "num_threads=1",
        "loggers.wandb=null",
        "callbacks.samples=null",
    ]
    for _ in range(2):  # the same command again goes on with the same run
        assert cli.main(["train", "experiments=toy/t2v", *words]) == 130
    assert json.loads((run / "consents.json").read_text()) == ["anna"]
    (use,) = store.uses("anna")
    assert (use["kind"], use["path"]) == ("run", str(run)) and use["sha256"] == file_sha256(
        run / "consents.json"
    )
    capsys.readouterr()
    assert cli.main(["consent", "revoke", "id=anna", f"store={store.folder}"]) == 0
    said = capsys.readouterr().out
    assert "1 uses:" in said and f"run {run}, sha256" in said and "no longer there" not in said


def test_what_is_exported_from_a_run_is_listed_and_after_a_revocation_refused(
    generator: Generator, store: ConsentStore, tmp_path: Path, monkeypatch, capsys
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {"task": generator.node}}))
    (run / "consents.json").write_text(json.dumps(["anna"]))
    saved = SimpleNamespace(manifest=SimpleNamespace(step=3), path=run / "checkpoints", stage=None)
    monkeypatch.setattr(export, "load_averages", lambda *_: saved)
    words = ["export", f"run_dir={run}", f"store={store.folder}"]
    assert cli.main([*words, f"out={tmp_path / 'model'}"]) == 0
    weights = tmp_path / "model.safetensors"
    assert json.loads((tmp_path / "model.json").read_text())["info"]["consents"] == ["anna"]
    (use,) = store.revoke("anna", "asked")
    assert (use["kind"], use["path"], use["sha256"]) == ("checkpoint", str(weights), file_sha256(weights))
    capsys.readouterr()
    assert cli.main([*words, f"out={tmp_path / 'again'}"]) == 2
    error = capsys.readouterr().err
    assert (
        f"{run} was trained on Anna B., whose consent anna was revoked on" in error and error.count("\n") == 1
    )
    assert not list(tmp_path.glob("again*"))


def test_a_record_that_is_not_in_the_store_is_told_with_the_folder_and_the_way_out(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    check_consents("m/sft", ["anna"], ConsentStore("consents"))
    said = capsys.readouterr().err
    assert f"the consent record anna, which is not in {tmp_path / 'consents'}: whether it was revoked" in said
    assert said.endswith("say where the records are: store=FOLDER\n") and said.count("\n") == 1
