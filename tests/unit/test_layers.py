"""The layer rule: a module imports only from layers below it; models never see the toy world's truth."""

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"moviegen": "moviegen", "moviegen_data": "data", "moviegen_eval": "eval"}

# Lowest first: (parts of moviegen, outside packages that become allowed there).
LAYERS = [
    (
        {
            *("media", "interrupts", "scheduler", "space", "unfinished", "faces", "provenance.consent"),
            "conditioning.edit_tasks",  # names and words alone
        },
        {"numpy", "scipy", "av", "decord", "PIL"},
    ),
    (
        {"types", "runfolder", "signatures", "rng", "fields", "pixels", "perceptual", "weights"},
        {"torch", "omegaconf"},
    ),
    (
        {"flow", "backbone", "codec", "conditioning", "rewriting"},
        {"transformers", "safetensors", "open_clip", "diffusers"},
    ),
    ({"data", "parallel"}, {"webdataset", "lightning", "tqdm"}),
    ({"tasks"}, {"torchmetrics"}),
    ({"callbacks"}, set()),
]
# parts that data and eval may import
ALLOWED = (
    *("media", "interrupts", "unfinished", "faces", "provenance.consent", "conditioning.edit_tasks"),
    *("types", "perceptual", "weights"),
)
LEVEL = {part: level for level, (parts, _) in enumerate(LAYERS) for part in parts}
TRUTH = re.compile(r"truth|\boracle\b", re.IGNORECASE)  # the bare word, however a suffix is put together
TOP = len(LAYERS)  # train, encode, generate, cli, ...: these alone may use hydra


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of everything a file imports, at any depth."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]) if node.level else ""
            )
            module = (base or node.module or "").strip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    """Python files of one of the three packages."""
    found = sorted((ROOT / FOLDERS[package]).rglob("*.py"))
    assert found
    return found


def level_of(path: Path) -> int:
    return level(path.relative_to(ROOT / "moviegen").with_suffix("").parts)


def level(words: Sequence[str]) -> int:
    """Of a module of moviegen by its words; a module named among the layers, or else its part."""
    return LEVEL.get(".".join(words[:2]), LEVEL.get(words[0], TOP))


def named(path: Path, name: str) -> str:
    return f"{path.relative_to(ROOT)} imports {name}"


def test_each_part_of_moviegen_imports_only_from_layers_below() -> None:
    wrong = []
    for path in files("moviegen"):
        for name in imports(path):
            words = name.split(".")
            if words[0] == "moviegen" and len(words) > 1:
                own = path.relative_to(ROOT / "moviegen").parts[0].removesuffix(".py")
                if words[1] != own and level(words[1:]) > level_of(path):
                    wrong.append(named(path, name))
    assert not wrong


@pytest.mark.parametrize("package", ["torch", "lightning", "hydra", "webdataset", "wandb"])
def test_heavy_packages_stay_in_their_layers(package: str) -> None:
    first = {"hydra": TOP, "wandb": TOP - 1}.get(package)
    if first is None:
        first = next(level for level, (_, outside) in enumerate(LAYERS) if package in outside)
    wrong = [
        named(path, name)
        for path in files("moviegen")
        for name in imports(path)
        if name.split(".")[0] == package and level_of(path) < first
    ]
    assert not wrong


def test_data_and_eval_import_few_parts_of_moviegen() -> None:
    wrong = []
    for package, other in (("moviegen_data", "moviegen_eval"), ("moviegen_eval", "moviegen_data")):
        for path in files(package):
            for name in imports(path):
                words = name.split(".")
                if words[0] == "moviegen" and not {words[1], ".".join(words[1:3])} & {*ALLOWED}:
                    wrong.append(named(path, name))
                if words[0] == other and not name.startswith("moviegen_data.toyworld"):
                    wrong.append(named(path, name))
    assert not wrong


def sees_too_much(path: Path, name: str) -> bool:
    """Whether a file of moviegen imports of the data or eval package what a model must not know."""
    metrics = level_of(path) == LEVEL["callbacks"] and f"{name}.".startswith("moviegen_eval.metrics.")
    return name.split(".")[0] in ("moviegen_data", "moviegen_eval") and not metrics


def test_the_toy_world_is_out_of_sight_of_models() -> None:
    assert [
        named(path, name) for path in files("moviegen") for name in imports(path) if sees_too_much(path, name)
    ] == []
    assert [path for path in files("moviegen") if TRUTH.search(_code(path))] == []


@pytest.mark.parametrize(
    ("part", "name", "refused"),
    [
        ("callbacks/x.py", "moviegen_eval.metrics.psnr.Psnr", False),
        ("callbacks/x.py", "moviegen_eval.metrics_of_mine", True),
        ("callbacks/x.py", "moviegen_eval.verdicts.observe_file", True),
        ("callbacks/x.py", "moviegen_data.toyworld.oracle", True),
        ("tasks/x.py", "moviegen_eval.metrics.psnr.Psnr", True),
        ("encode.py", "moviegen_data", True),
    ],
)
def test_callbacks_may_import_metrics_and_nobody_more(part: str, name: str, refused: bool) -> None:
    assert sees_too_much(ROOT / "moviegen" / part, name) == refused


def test_a_file_that_puts_the_name_of_the_truth_together_is_found(tmp_path: Path) -> None:
    for code in ('name = "truth" + ".json"', 'f"{key}.truth.{kind}"', "sample.oracle()"):
        (tmp_path / "x.py").write_text(f'"""The truth may stand in a docstring."""\n{code}\n')
        assert TRUTH.search(_code(tmp_path / "x.py")), code
    (tmp_path / "x.py").write_text('"""The truth may stand in a docstring."""\n')
    assert not TRUTH.search(_code(tmp_path / "x.py"))


def test_media_decodes_and_encodes_and_nothing_else_does() -> None:
    wrong = [
        named(path, name)
        for package in FOLDERS
        for path in files(package)
        for name in imports(path)
        if name.split(".")[0] in ("av", "decord", "imageio", "imageio_ffmpeg", "cv2")
        and path.parent.name != "media"
        and path.name != "doctor.py"
    ]
    assert not wrong


def test_pictures_are_opened_and_saved_by_media_alone() -> None:
    wrong = []
    for path in (path for package in FOLDERS for path in files(package) if path.parent.name != "media"):
        with_pil = any(name.split(".")[0] == "PIL" for name in imports(path))
        for name, line in calls(path):
            saves = name.endswith(".save") and not name.startswith(("np.", "torch."))
            if with_pil and (saves or name in ("Image.open", "PIL.Image.open")):
                wrong.append(f"{path.relative_to(ROOT)}:{line} calls {name}")
    assert not wrong


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """What a file calls, as it is written there, and in which line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_every_package_folder_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == listed


def _code(path: Path) -> str:
    """A file's code without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body[0] = ast.Pass()  # type: ignore[attr-defined]
    return ast.unparse(tree)


def test_nothing_that_is_loaded_may_be_a_pickle() -> None:
    wanted = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    found: dict[str, list[str]] = {"torch.load": [], "np.load": []}
    places = [path for package in FOLDERS for path in files(package)]
    for path in [*places, *sorted((ROOT / "experiments").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in wanted and isinstance(node, ast.Call):
                key, value = wanted[name]
                said = {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert said.get(key) == str(value), f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
                found[name].append(path.name)
            assert name not in ("pickle.load", "pickle.loads", "numpy.load", "dill.load"), path
    assert all(found.values())
