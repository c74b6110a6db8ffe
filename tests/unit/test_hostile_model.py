"""A model from somebody else: its json says what to build, and must not be able to say what to run."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moviegen import cli

CODEC = {"_target_": "moviegen.codec.tae.TemporalAutoencoder"}


def test_no_code_of_a_transformers_folder_is_ever_run() -> None:
    """Every class that reads such a folder is told so; what asks instead would be answered by whoever sits there."""
    root = Path(__file__).parents[2]
    files = [file for part in ("moviegen", "data", "eval") for file in (root / part).rglob("*.py")]
    readers = [
        file
        for file in files
        if "transformers" in file.read_text() and ".from_pretrained(" in file.read_text()
    ]
    assert len(readers) >= 5
    for file in readers:
        text = file.read_text()
        assert '"trust_remote_code": False' in text and '"local_files_only": True' in text, file
        assert text.count(".from_pretrained(") == len(re.findall(r"\.from_pretrained\([^)]*\*\*", text)), file


def hostile_model(folder: Path, node: dict) -> str:
    """A model on disk whose json names `node` as its task."""
    save_file({"w": torch.zeros(1)}, folder / "bad.safetensors")
    (folder / "bad.json").write_text(json.dumps({"format": 1, "task": node}))
    return str(folder / "bad")


def attacks(mark: Path) -> dict[str, dict]:
    """Nodes that would leave a file at `mark`, or import what does."""
    command = {"_target_": "moviegen.demo.call_process", "command": ["touch", str(mark)]}
    return {
        "moviegen.demo.call_process": command,
        "moviegen.media.sandbox.Sandbox": {
            "_target_": "moviegen.media.sandbox.Sandbox",
            "memory_bytes": 2**30,
            "command": ["touch", str(mark)],
        },
        "moviegen.cli.load": {"_target_": "moviegen.cli.load", "function": "evil_module:run"},
        "moviegen.runfolder.write_text": {
            "_target_": "moviegen.runfolder.write_text",
            "path": str(mark),
            "text": "",
        },
        "evil_module.run": {"_target_": "evil_module.run"},
        "hidden behind a part": {
            "_target_": "moviegen.tasks.codec_task.CodecTask",
            "codec": {**CODEC, "channels": [command]},
        },
        "hidden in a list": {"_target_": "moviegen.tasks.codec_task.CodecTask", "_args_": [[command]]},
        "not for models": {
            "_target_": "lightning.pytorch.loggers.CSVLogger",
            "save_dir": str(mark),
        },
    }


@pytest.mark.parametrize("name", attacks(Path()))
def test_a_hostile_model_is_refused_before_anything_is_imported_or_run(
    tmp_path: Path, monkeypatch, capsys, name: str
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil_module.py").write_text(f"open({str(mark)!r}, 'w')\nrun = print\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "p.txt").write_text("a red star\n")
    model = hostile_model(tmp_path, attacks(mark)[name])
    before = set(sys.modules)
    assert (
        cli.main(
            ["generate", f"model={model}", f"prompts={tmp_path / 'p.txt'}", f"run_dir={tmp_path / 'out'}"]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "bad.json" in error and "not on the allow-list" in error and error.count("\n") == 1
    assert not mark.exists() and not (tmp_path / "out").exists()
    assert "evil_module" not in set(sys.modules) - before


@pytest.mark.parametrize(
    "codec",
    [
        CODEC | {"channels": []},
        CODEC | {"channels": [-8, 8, 8, 8]},
        CODEC | {"channels": ["wide"] * 4},
        CODEC | {"channels": [10**12] * 4},
        CODEC | {"latent_channels": {"of": [1]}},
        None,
    ],
)
def test_a_model_that_cannot_be_built_is_one_clear_error(tmp_path: Path, capsys, codec: dict | None) -> None:
    (tmp_path / "p.txt").write_text("a red star\n")
    model = hostile_model(tmp_path, {"_target_": "moviegen.tasks.codec_task.CodecTask", "codec": codec})
    words = ["generate", f"model={model}", f"prompts={tmp_path / 'p.txt'}", f"run_dir={tmp_path / 'out'}"]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "bad.json" in error.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
