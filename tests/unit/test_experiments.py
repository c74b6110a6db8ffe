"""Every recipe in experiments/ composes for the command that it is for, and the shipped models load."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moviegen import cli
from moviegen.config import build, compose, validate
from moviegen.demo import Runner
from moviegen.modelfile import load_task

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "experiments").rglob("*.yaml"))
MODELS = sorted((ROOT / "experiments" / "toy" / "weights").glob("*.json"))
FILES = sorted({command.config for command in cli.COMMANDS.values() if command.config})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "experiments").with_suffix("").as_posix()


def missing(node: Any, where: str = "") -> list[str]:
    """Keys that a recipe leaves to its user."""
    if isinstance(node, dict):
        return [key for k, v in node.items() for key in missing(v, f"{where}.{k}" if where else str(k))]
    return [where] if node == "???" else []


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_every_experiment_composes_for_its_command(recipe: Path, tmp_path: Path) -> None:
    commands = [name for name in FILES if recipe in cli.experiments_for(ROOT / "conf" / f"{name}.yaml")]
    assert len(commands) == 1, f"{recipe} must fit one command, fits {commands}"
    given = [
        f"{key}={tmp_path if key == 'videos' else 'CC0-1.0'}"
        for key in missing(yaml.safe_load(recipe.read_text()))
    ]
    cfg = compose(commands[0], [f"experiments={name_of(recipe)}", *given])
    validate(cfg)
    if commands[0] == "demo":
        job = Runner(build(cfg))
        for name, stage in job.job.stages.items():
            file = cli.COMMANDS[stage.command].config
            assert file is not None
            validate(compose(file, job.overrides(name)))


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_every_shipped_model_loads(model: Path) -> None:
    task = load_task(str(model))
    assert not task.training
