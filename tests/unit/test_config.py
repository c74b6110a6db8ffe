"""Composing, checking and building from configuration."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from moviegen import conditioning, targets
from moviegen.config import UserError, build, check_targets, compose, expand, validate
from moviegen.targets import ALLOWED_TARGETS, MODEL_TARGETS

TRAIN = """
defaults:
  - optimizer: adamw
  - _self_
  - experiments: null
run_dir: runs/x
seed: 0
guidance: 5.0
name: abc
anything: null
runs: {}
again: ${seed}
"""
ADAMW = """
_target_: torch.optim.AdamW
_partial_: true
lr: 1e-3
betas: [0.9, 0.99]
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration folder of its own, below a path with a space."""
    root = tmp_path / "my project"
    files = {
        "conf/train.yaml": TRAIN,
        "conf/optimizer/adamw.yaml": ADAMW,
        "conf/optimizer/sgd.yaml": "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n",
        "experiments/toy/t2v.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: sgd\nseed: 7\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root / "conf"


def check(conf: Path, *overrides: str) -> None:
    validate(compose("train", overrides, conf))


def test_an_experiment_beside_conf_wins_over_defaults_and_a_value_wins_over_both(conf: Path) -> None:
    cfg = compose("train", ["experiments=toy/t2v"], conf)
    assert (cfg.seed, cfg.again, cfg.optimizer._target_) == (7, 7, "torch.optim.SGD")
    assert compose("train", ["experiments=toy/t2v", "seed=8"], conf).seed == 8


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("seeed=3", "unknown key 'seeed'; did you mean 'seed'?"),
        ("+seeed=3", "unknown key 'seeed'; did you mean 'seed'?"),
        ("optimizr.lr=3", "did you mean 'optimizer.lr'?"),
        ("optimizer.lrr=3", "unknown key 'optimizer.lrr' for torch.optim.AdamW; did you mean 'lr'?"),
        ("optimizer.weight_deca=3", "did you mean 'weight_decay'?"),
        ("optimizer=adam", "optimizer=adam: no such option; did you mean 'adamw'?"),
        ("experiments=toy/t2", "did you mean 'toy/t2v'?"),
        ("seed=abc", "seed=abc: expected an integer, not text (default: 0)"),
        ("seed=2.5", "seed=2.5: expected an integer, not a number"),
        ("guidance=high", "expected a number, not text"),
        ("optimizer.lr=fast", "optimizer.lr=fast: expected a number"),
        ("optimizer.amsgrad=3", "optimizer.amsgrad=3: expected true or false, not an integer"),
        ("optimizer.betas=[0.9]", "expected 2 values, not 1"),
        ("seed=1,2", "add -m"),
        ("optimizer=adamw,sgd", "add -m"),
        ("seed", "write key=value"),
        ("seed=[1", "seed"),
        ("name=???", "name has no value"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line_with_what_would_be_right(
    conf: Path, override: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        check(conf, override)
    assert hint in str(caught.value) or override == "seed=[1"
    assert "\n" not in str(caught.value)


RIGHT = "seed=3|guidance=3|name=2024|name=a-b|anything=[1,a]|optimizer.lr=1|optimizer.weight_decay=0"
RIGHT += "|guidance=${seed}|optimizer.foreach=null|runs.a=folder|~name|run_dir=a b/c"


@pytest.mark.parametrize("override", RIGHT.split("|"))
def test_a_right_override_is_taken(conf: Path, override: str) -> None:
    check(conf, override)


def test_a_group_is_taken_out_by_null_whether_a_recipe_or_the_defaults_have_chosen(conf: Path) -> None:
    for recipe in ([], ["experiments=toy/t2v"], ["optimizer=sgd"]):
        cfg = compose("train", [*recipe, "optimizer=null", "anything=${optimizer}"], conf)
        assert "optimizer" in cfg and cfg.optimizer is None and cfg.anything is None


def test_text_that_looks_like_a_number_stays_text(conf: Path) -> None:
    assert compose("train", ["name=2024"], conf).name == "2024"


EVIL = ["os.system", "builtins.eval", "subprocess.run", "torch.load", "moviegenx.a", "moviegen"]
EVIL += [
    "torch.optim",
    "moviegen._x.y",
    "functools.partial",
    "lightning.pytorch.Trainer.fit.x",
    "",
    "moviegen..cli",
]
EVIL += [
    "moviegen.demo.call_process",
    "moviegen.media.sandbox.Sandbox",
    "moviegen.cli.load",
    "moviegen.runfolder.write_text",
]


@pytest.mark.parametrize("target", EVIL)
@pytest.mark.parametrize("form", ["{{_target_: '{}'}}", "[[1, {{a: {{_target_: '{}'}}}}]]"])
def test_targets_outside_the_allow_list_are_refused_wherever_they_hide(
    conf: Path, target: str, form: str
) -> None:
    with pytest.raises(UserError, match="not on the allow-list"):
        compose("train", ["anything=" + form.format(target)], conf)


def test_a_refused_target_is_never_imported(conf: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for node in ({"_target_": "evil_module.run"}, [{"a": {"_target_": "evil_module.run"}}]):
        with pytest.raises(UserError, match="allow-list"):
            build(node)
    with pytest.raises(UserError, match="allow-list"):
        compose("train", ["anything={_target_: '${name}'}", "name=evil_module.run"], conf)
    assert not (tmp_path / "was_here").exists()
    assert "evil_module" not in sys.modules


BORROWED = [
    "moviegen.demo.shutil.rmtree",
    "moviegen.demo.dataclass",
    "moviegen.cli.os.system",
    "moviegen.data.shards.os.system",
    "moviegen.callbacks.samples.Path",
    "moviegen.callbacks.samples.write_video",
    "moviegen.callbacks.samples.CodecTask",
    "moviegen.tasks.sampling.sample_clips",
    "moviegen.codec.tae.TemporalAutoencoder.decode",
    "torch.optim.swa_utils.update_bn",
    "torch.optim.lr_scheduler.types.FunctionType",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.Path",
    "lightning.pytorch.loggers.csv_logs.get_filesystem",
]


@pytest.mark.parametrize("target", BORROWED)
def test_what_an_allowed_module_imports_and_its_functions_are_out_of_reach(target: str) -> None:
    with pytest.raises(UserError):
        build({"_target_": target})


def test_a_new_class_in_a_package_of_the_library_needs_no_entry(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "camera.py").write_text(
        "class Camera:\n    def __init__(self, dim: int):\n        self.dim = dim\n"
    )
    monkeypatch.setattr(conditioning, "__path__", [*conditioning.__path__, str(tmp_path)])
    assert build({"_target_": "moviegen.conditioning.camera.Camera", "dim": 3}).dim == 3


def test_a_model_may_name_less_than_a_config() -> None:
    for name in MODEL_TARGETS:
        assert name in ALLOWED_TARGETS
    for target in (
        "lightning.pytorch.Trainer",
        "moviegen.callbacks.preemption.Preemption",
        "moviegen.demo.DemoConfig",
    ):
        check_targets({"_target_": target})
        with pytest.raises(UserError, match=f"parts.0._target_={target} is not on the allow-list"):
            check_targets({"parts": [{"_target_": target}]}, MODEL_TARGETS)


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1,)
    rate: float = 1.0


@dataclass(frozen=True)
class Outer:
    inner: Inner
    folder: Path | None = None
    parts: dict[str, Inner] | None = None


@pytest.fixture
def here(monkeypatch) -> str:
    """Let targets name this test module."""
    monkeypatch.setattr(targets, "ALLOWED_TARGETS", (*ALLOWED_TARGETS, f"{__name__}."))
    return __name__


def test_build_gives_each_parameter_the_type_of_its_annotation(here: str) -> None:
    node = {"_target_": f"{here}.Outer", "inner": {"sizes": [2, 3], "rate": 2}, "folder": "a/b"}
    node["parts"] = {"x": {"rate": 3}}
    built = build(node)
    assert built == Outer(Inner((2, 3), 2.0), Path("a/b"), {"x": Inner(rate=3.0)})
    assert isinstance(built.inner.rate, float)


def test_a_derived_dataclass_gets_its_base_s_types_read_where_that_stands(
    tmp_path: Path, monkeypatch
) -> None:
    base = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom pathlib import Path\n"
    base += "@dataclass\nclass Base:\n    folder: Path\n"
    derived = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom base_here import Base\n"
    )
    derived += "@dataclass\nclass Derived(Base):\n    sizes: tuple[int, ...] = ()\n"
    (tmp_path / "base_here.py").write_text(base)
    (tmp_path / "derived_here.py").write_text(derived)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(targets, "ALLOWED_TARGETS", (*ALLOWED_TARGETS, "derived_here."))
    made = build({"_target_": "derived_here.Derived", "folder": "x", "sizes": [1, 2]})
    assert (made.folder, made.sizes) == (Path("x"), (1, 2))


def test_keys_are_checked_at_every_depth(here: str) -> None:
    with pytest.raises(UserError, match=r"unknown key 'parts.x.rat'.*did you mean 'rate'"):
        validate({"_target_": f"{here}.Outer", "inner": {}, "parts": {"x": {"rat": 3}}})
    with pytest.raises(UserError, match=r"inner.sizes=.*expected a list, not an integer"):
        validate({"_target_": f"{here}.Outer", "inner": {"sizes": 3}})


def test_build_adds_keyword_arguments_and_makes_partials(here: str) -> None:
    inner = Inner()
    assert build({"_target_": f"{here}.Outer"}, inner=inner).inner is inner
    later = build({"_target_": f"{here}.Inner", "_partial_": True, "rate": 3})
    assert isinstance(later, functools.partial)
    assert later() == Inner(rate=3.0)


def test_a_sweep_is_the_product_of_the_listed_values(conf: Path) -> None:
    jobs = expand(["seed=1,2", "optimizer=adamw,sgd", "optimizer.betas=[0.8,0.9]", "name=x"], conf)
    assert len(jobs) == 4
    assert jobs[1] == ["seed=1", "optimizer=sgd", "optimizer.betas=[0.8,0.9]", "name=x"]
    assert [job[0] for job in expand(["seed=range(0,3)"], conf)] == ["seed=0", "seed=1", "seed=2"]
    with pytest.raises(UserError, match="range"):
        expand(["seed=interval(0,1)"], conf)
