"""What every run leaves beside its results: the resolved config, the code's version, and the data it used.

No torch and no hydra here: any part of the package may write its json files through `write_json`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name in the same folder, then os.replace."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)  # noqa: PTH105 (atomic, as Path.replace, but named for what it promises)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk says no name
            error.filename = str(path)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write json atomically; numbers that json does not know (nan, inf) are refused with ValueError."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a json file; one that is damaged raises ValueError naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid json: {error}") from error


def record(
    run_dir: str | Path, cfg: Any, shards: Iterable[str | Path] = (), resumed: bool = False
) -> dict[str, Any]:
    """Write run.json and config.yaml into a run folder and return what run.json holds.

    run.json describes the newest start. Its "starts" lists all, oldest first, each with "changed": the settings that
    are not those of config.yaml, as {dotted name: [value there, value of this start]}.

    Args:
        cfg: the composed config (DictConfig or plain mapping); written resolved.
        shards: shard folders that the run reads; their hashes, licences and consent ids are copied.
        resumed: the run goes on, so that config.yaml and the starts so far are kept.
    """
    from omegaconf import OmegaConf

    folder = Path(run_dir)
    config = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(cfg)
    settings: Any = OmegaConf.to_container(config, resolve=True)
    start = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(),
        "packages": package_versions(),
        "shards": [describe_shards(source) for source in shards],
    }
    before = _starts(folder / "run.json") if resumed else []
    first = _read_config(folder / "config.yaml") if resumed else None
    starts = [*before, start | {"changed": _changed(settings if first is None else first, settings)}]
    run = start | {"config": settings, "starts": starts}
    if first is None:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_json(folder / "run.json", run)
    return run


def check_same_command(run_dir: str | Path, cfg: Any) -> None:
    """Raise ValueError for the folder of another command's run, whose run.json and config.yaml would be lost."""
    path = Path(run_dir) / "config.yaml"
    known = _read_config(path)
    own, other = cfg.get("_target_"), known.get("_target_") if isinstance(known, dict) else None
    if known is not None and other != own:
        raise ValueError(
            f"run_dir={run_dir} holds the run of another command ({other or 'unnamed'} in {path.name}), "
            "whose settings would be lost; choose another run_dir"
        )


def _starts(path: Path) -> list[dict[str, Any]]:
    """The starts that a run.json tells of; one from before starts were listed tells of one."""
    if not path.is_file():
        return []
    run = read_json(path)
    if not isinstance(run, dict):
        raise ValueError(
            f"{path} does not describe a run: an object is wanted, it holds a {type(run).__name__}"
        )
    return run.get("starts") or [{name: value for name, value in run.items() if name != "config"}]


def _read_config(path: Path) -> Any:
    """The settings in a config.yaml, or None if there is none; a damaged one raises ValueError naming it."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    if not path.is_file():
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OSError) as error:
        raise ValueError(f"{path} is not valid yaml: {error}") from error


def _changed(before: Any, after: Any, name: str = "") -> dict[str, list[Any]]:
    """Leaves that differ between two nested mappings, as {dotted name: [before, after]}; an absent one is None."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return {} if before == after else {name: [before, after]}
    found: dict[str, list[Any]] = {}
    for key in sorted({*before, *after}, key=str):
        found |= _changed(before.get(key), after.get(key), f"{name}.{key}" if name else str(key))
    return found


def git_state() -> dict[str, Any]:
    """Commit of the checkout, and whether files differ from it; None where there is no git."""
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain")) if commit else None}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Name and version of every installed distribution, as `pip freeze` would list them."""
    found = {
        item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]
    }
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def describe_shards(folder: str | Path) -> dict[str, Any]:
    """Hashes of a shard folder's tars, from its index.json if it has one, with licences and consent ids."""
    folder = Path(folder)
    index_path = folder / "index.json"
    index = read_json(index_path) if index_path.is_file() else {}
    tars = {path.name: file_sha256(path) for path in sorted(folder.glob("*.tar"))} if not index else {}
    return {
        "folder": str(folder),
        "index_sha256": file_sha256(index_path) if index else None,
        "sha256": tars or _collect_hashes(index),
        "licences": sorted(_collect(index, ("licence", "licences"))),
        "consent": sorted(_collect(index, ("consent", "consents", "consent_ids"))),
        "frame_rates": _span(index, lambda shard: shard.get("fps_range") or [shard.get("fps")]),
        "num_frames": _span(index, lambda shard: [shard.get("frames")]),
        "height": _span(index, lambda shard: [shard.get("height")], stills=True),
        "width": _span(index, lambda shard: [shard.get("width")], stills=True),
        "coded_frames": sorted(int(n) for n in _collect(index, ("coded_frames",)) if n.isdigit()),
    }


def _span(
    index: dict[str, Any], numbers: Callable[[dict[str, Any]], list[Any]], stills: bool = False
) -> list[float]:
    """The lowest and highest of some numbers of the tars of clips, as their index tells; empty if it does not."""
    least = 1 if stills else 2
    tars = [tar for tar in index.get("shards", []) if isinstance(tar, dict)]
    tars = [tar for tar in tars if (tar.get("frames") or 0) >= least]
    found = [number for tar in tars for number in numbers(tar) if number]
    return [float(min(found)), float(max(found))] if found else []


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _collect_hashes(node: Any, name: str = "") -> dict[str, str]:
    """Every sha256 in an index, by the name of the tar it belongs to, however the index nests them."""
    if isinstance(node, list):
        return {key: value for item in node for key, value in _collect_hashes(item).items()}
    if not isinstance(node, dict):
        return {}
    label = next((str(node[key]) for key in ("name", "path", "file", "tar", "shard") if key in node), name)
    found = {label: node["sha256"]} if isinstance(node.get("sha256"), str) else {}
    for key, value in node.items():
        found |= _collect_hashes(value, key)
    return found


def _collect(node: Any, names: tuple[str, ...]) -> set[str]:
    if isinstance(node, list):
        return {text for item in node for text in _collect(item, names)}
    if not isinstance(node, dict):
        return set()
    found: set[str] = set()
    for key, value in node.items():
        values = list(value) if isinstance(value, list | dict) else [value]
        if key in names:
            found |= {str(item) for item in values if item is not None}
        else:
            found |= _collect(value, names)
    return found
