"""Files and functions stay short, and the tree names no machine and no download host."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50


def tracked() -> list[Path]:
    """Files of the repository, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.splitlines()]
    else:  # an unpacked archive
        paths = [path for path in ROOT.rglob("*") if not {".venv", "runs"} & set(path.parts)]
    return [path for path in paths if path.is_file()]


def python_files() -> list[Path]:
    found = [path for path in tracked() if path.suffix == ".py"]
    assert len(found) > 20
    return found


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_the_tree_names_no_index_host_and_no_absolute_path_of_a_machine() -> None:
    words = re.compile(
        r"--(extra-)?index-"
        + r"url|find-"
        + r"links|pypi\."
        + r"org|files\.python"
        + r"hosted|download\.pytorch\."
        r"|(?<![\w.$}/])/(work|home|Users)/\w"
    )
    found = []
    for path in tracked():
        if path.suffix in {
            ".py",
            ".md",
            ".toml",
            ".txt",
            ".yaml",
            ".json",
            ".sh",
            ".sbatch",
            ".csv",
            ".jsonl",
            "",
        }:
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
                if words.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_each_top_level_folder_says_what_belongs_there() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    silent = [
        name for name in sorted(top) if not name.startswith(".") and not (ROOT / name / "README.md").is_file()
    ]
    assert silent == []


def test_shipped_weights_are_small() -> None:
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    assert len(weights) >= 6
    assert all(path.stat().st_size <= 8_000_000 for path in weights)
