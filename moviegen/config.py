"""Configuration: compose it with Hydra from conf/, refuse what is wrong in one line, build objects from it.

The one mechanism is `_target_`: a node names a class, and its other keys are the class's parameters. A config
file may name a dataclass at its root in the same way, which types the command's own keys. `_target_` is held
against an allow-list before anything is imported; keys and simple types against the target's signature.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moviegen import targets
from moviegen.signatures import convert, parameters

REPOSITORY = Path(__file__).resolve().parents[1]
# A folder of your own may replace conf/, for a project that uses this package without changing it.
CONF = Path(os.environ.get("MOVIEGEN_CONF", REPOSITORY / "conf")).resolve()

# Keys of free text: what follows `=` is taken as it stands, for Hydra would read its commas, quotes and brackets.
TEXT_KEYS = ("prompt", "music", "sound_prompt", "instruction")
_SPECIAL = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
_MISSING = "???"


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that says what would be right."""


MOST = {"crf": 51}  # keys whose scale ends: that of H.264


def check_least(config: Any, **least: float) -> None:
    """Raise UserError for a field of a config dataclass that is set (not None) and below its least value.

    So too for one above the end of its scale (`MOST`).
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise UserError(f"{name}={value}: must be at least {bound}")
        if value is not None and name in MOST and value > MOST[name]:
            raise UserError(f"{name}={value}: must be at most {MOST[name]}")


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint that ends an error message: the closest valid name, or all of them when none is close."""
    valid = sorted({str(option) for option in options})
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"valid: {shown}" if valid else "there are none"


def compose(name: str, overrides: Iterable[str] = (), conf: Path = CONF) -> DictConfig:
    """Compose conf/<name>.yaml with Hydra overrides; the repository root is on the search path too.

    Nothing is imported: keys of plain nodes, their types, group options and `_target_` names are checked
    here, the parameters of targets by `validate`. Raises UserError.

    A key that conf/<name>.yaml gives a plain value is that value, also where a group has its name, unless the override
    says where the option goes (`+codec@codec=wan`). `group=null` takes out what a recipe or the defaults have chosen.
    """
    overrides = [_literal(line) for line in overrides]
    own = _plain_keys(name, conf)
    with _hydra(conf):
        parsed = _parse(overrides)
        groups = [o for o in parsed if _is_group(o, conf) and (o.package or o.key_or_group not in own)]
        for override in groups:
            _check_option(override, conf)
        none = [o.key_or_group for o in groups if not o.is_delete() and o.value() is None]
        of_hydra = [o for o in parsed if o.key_or_group.startswith("hydra.")]
        lines = [f"~{o.key_or_group}" if o.key_or_group in none else _line(o) for o in [*groups, *of_hydra]]
        base = _compose(name, tuple(lines), conf, tuple(none), _stamp(conf))
        shadowed = [o for o in parsed if o not in groups and _is_group(o, conf)]
        values = [_checked(o, base) for o in parsed if o not in [*groups, *of_hydra, *shadowed]]
        cfg = _with_values(base, values)
        for override in shadowed:  # Hydra itself would look for an option of the group
            OmegaConf.update(cfg, override.key_or_group, _parse([_checked(override, base)])[0].value())
    _check_missing(cfg)
    check_targets(cfg)
    return cfg


def expand(overrides: Iterable[str], conf: Path = CONF) -> list[list[str]]:
    """The jobs of a sweep: the product of all overrides that list several values (`a=1,2`, `range(..)`)."""
    with _hydra(conf) as loader:
        jobs: list[list[str]] = [[]]
        for override in _parse(list(overrides), loader):
            jobs = [[*job, value] for job in jobs for value in _choices(override)]
    return jobs


def validate(cfg: Any) -> None:
    """Check every `_target_` node against its target's signature, without building. Raises UserError."""
    _walk(plain(cfg), "", construct=False)


def build(node: Any, **kwargs: Any) -> Any:
    """Build the object that a `_target_` node describes, children first; kwargs are added or replace keys.

    Values become what the signature asks for (lists to tuples, int to float, str to Path). `_partial_: true`
    gives a functools.partial. A list or a dict of nodes gives a list or a dict of objects.
    """
    return _walk(plain(node), "", construct=True, extra=kwargs)


def check_targets(cfg: Any, names: Iterable[str] | None = None, where: str = "") -> None:
    """Refuse a `_target_` outside an allow-list (the general one) anywhere in a config, also in lists.

    Imports nothing. Raises UserError.
    """
    node, names = plain(cfg), targets.ALLOWED_TARGETS if names is None else tuple(names)
    if isinstance(node, dict) and "_target_" in node:
        target = node["_target_"]
        if not isinstance(target, str) or targets.allowed_by(target, names) is None:
            given = f"{_join(where, '_target_')}={_shown(target)}"
            raise UserError(f"{given} is not on the allow-list: {', '.join(names)}")
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_targets(value, names, _join(where, key))


def plain(cfg: Any) -> Any:
    """The config as plain dicts and lists, interpolations resolved. Raises UserError where one cannot be."""
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error


def _walk(value: Any, where: str, construct: bool, extra: dict[str, Any] | None = None) -> Any:
    if isinstance(value, list):
        return [_walk(item, _join(where, index), construct) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {key: _walk(item, _join(where, key), construct) for key, item in value.items()}
    return _walk_target(value, where, construct, extra or {})


def _walk_target(node: dict[str, Any], where: str, construct: bool, extra: dict[str, Any]) -> Any:
    target = _locate(node["_target_"], where)
    names, hints, is_open = parameters(target)
    arguments = {}
    for key, value in node.items():
        if key in _SPECIAL or key in extra:
            continue
        path = _join(where, key)
        if key not in names and not is_open:
            raise UserError(f"unknown key '{path}' for {node['_target_']}; {nearest(str(key), names)}")
        try:
            checked = convert(value, hints.get(key, Any))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}={_shown(value)}: {error}") from None
        recursive = node.get("_recursive_", True) or not construct
        arguments[key] = _walk_kept(checked, path, construct) if recursive else checked
    if not construct:
        return None
    arguments |= extra
    positional = _walk(node.get("_args_", []), where, construct)
    if node.get("_partial_"):
        return functools.partial(target, *positional, **arguments)
    return target(*positional, **arguments)


def _walk_kept(value: Any, where: str, construct: bool) -> Any:
    """Like _walk, but a tuple that the signature asked for stays a tuple."""
    if isinstance(value, tuple):
        return tuple(_walk(list(value), where, construct))
    return _walk(value, where, construct)


def _locate(target: Any, where: str) -> Any:
    check_targets({"_target_": target}, where=where)
    try:
        return targets.resolve(target, targets.ALLOWED_TARGETS)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{_join(where, '_target_')}={target}: {_one_line(error)}") from error


def _check_missing(cfg: DictConfig) -> None:
    missing = _missing(OmegaConf.to_container(cfg, resolve=False))
    if missing:
        raise UserError(f"{missing[0]} has no value: add {missing[0]}=... (missing: {', '.join(missing)})")


def _missing(node: Any, where: str = "") -> list[str]:
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [name for key, value in items for name in _missing(value, _join(where, key))]
    return [where] if node == _MISSING else []


@contextlib.contextmanager
def _hydra(conf: Path) -> Iterator[Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra.config_loader


def _stamp(conf: Path) -> int:
    """Another number as soon as a file of a config or an experiment is another."""
    folders = (conf, conf.parent / "experiments")
    files = ((str(path), path.stat()) for folder in folders for path in sorted(folder.rglob("*.yaml")))
    return hash(tuple((name, state.st_mtime_ns, state.st_size) for name, state in files))


@functools.lru_cache(maxsize=64)
def _compose(
    name: str, overrides: tuple[str, ...], conf: Path, none: tuple[str, ...], _stamp: int
) -> DictConfig:
    """The config with the options of its groups, before any value; not to be changed.

    Keys in `none`, of groups that were taken out, are there and null, for others may refer to them.
    """
    root = str(conf.parent).replace("\\", "\\\\").replace("'", "\\'")
    try:
        cfg = hydra_compose(name, [f"hydra.searchpath=['file://{root}']", *overrides])
        for key in none:
            OmegaConf.update(cfg, key, None, force_add=True)
        return cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from error


def _with_values(base: DictConfig, lines: list[str]) -> DictConfig:
    """A copy of a config with overrides of values: Hydra's last step, without composing everything once more."""
    cfg = copy.deepcopy(base)
    try:
        ConfigLoaderImpl._apply_overrides_to_config(_parse(lines), cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from error
    return cfg


def quoted(value: Any) -> str:
    """A value as Hydra reads it back unchanged. Backslashes count only before a quote or at the end."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(quoted(item) for item in value) + "]"
    doubled = re.sub(r"(\\+)('|$)", r"\1\1\2", str(value))
    return "'" + doubled.replace("'", "\\'") + "'"


def _literal(line: str) -> str:
    """An override of free text as Hydra has to be given it; one that stands in single quotes already stays."""
    key, _, value = line.partition("=")
    if key not in TEXT_KEYS or value in ("", "null") or re.fullmatch(r"'([^'\\]|\\.)*'", value, re.DOTALL):
        return line
    return f"{key}={quoted(value)}".replace("${", r"\${")


def _parse(overrides: list[str], loader: Any = None) -> list[Override]:
    for line in overrides:
        if "=" not in line and not line.startswith("~"):
            raise UserError(f"'{line}' is not an override: write key=value")
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    except HydraException as error:
        raise UserError(_one_line(error)) from error


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [_line(override)]
    if not override.is_discrete_sweep():
        raise UserError(f"{_line(override)}: list the values of a sweep, or give range(start,stop,step)")
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def options(group: str, conf: Path = CONF) -> list[str]:
    """Names of a config group's options, e.g. `toy/t2v` of `experiments`, the one group beside conf/."""
    folder = (conf.parent if group == "experiments" else conf) / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _is_group(override: Override, conf: Path) -> bool:
    name = override.key_or_group
    return "." not in name and bool(options(name, conf))


def _plain_keys(name: str, conf: Path) -> set[str]:
    """Top-level keys of conf/<name>.yaml whose value is no node."""
    path = conf / f"{name}.yaml"
    node = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else {}
    items = node.items() if isinstance(node, dict) else ()
    return {str(key) for key, value in items if not isinstance(value, dict | list)}


def _check_option(override: Override, conf: Path) -> None:
    if override.is_sweep_override():
        raise UserError(f"{_line(override)} lists several values: add -m to run one job for each")
    value, valid = override.value(), options(override.key_or_group, conf)
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and not override.is_delete() and str(choice) not in valid:
            hint = nearest(str(choice), valid)
            raise UserError(f"{override.key_or_group}={choice}: no such option; {hint}")


def _checked(override: Override, base: DictConfig) -> str:
    """The override as Hydra shall see it, once its key exists and its value has the type of the default."""
    key, line = override.key_or_group, _line(override)
    if override.is_sweep_override():
        raise UserError(f"{line} lists several values: add -m to run one job for each")
    if override.is_delete() or _exists(base, key):
        return line if override.is_delete() else _typed(override, base)
    parent = OmegaConf.select(base, key.rpartition(".")[0]) if "." in key else None
    if isinstance(parent, DictConfig) and _takes_more(parent, explicit=line.startswith("+")):
        return "+" + line.lstrip("+")  # a parameter the file does not mention: the signature decides
    raise UserError(f"unknown key '{key}'; {nearest(key, _paths(base))}")


def _takes_more(parent: DictConfig, explicit: bool) -> bool:
    """Whether a key may be new: in a target's node, an empty mapping and, written with +, a mapping of nodes."""
    if "_target_" in parent or not parent:
        return True
    values = [parent._get_node(name) for name in parent]
    return explicit and all(isinstance(value, DictConfig) and "_target_" in value for value in values)


def _typed(override: Override, base: DictConfig) -> str:
    key, line = override.key_or_group, _line(override)
    try:
        default = OmegaConf.select(base, key, throw_on_missing=False)
    except OmegaConfBaseException:  # interpolates what has no value yet
        default = None
    parent = OmegaConf.select(base, key.rpartition(".")[0]) if "." in key else base
    value = override.value()
    typed_later = "_target_" in parent  # by the signature
    if default is None or value is None or "${" in str(value) or (typed_later and parent is not base):
        return line
    kind = dict if OmegaConf.is_dict(default) else list if OmegaConf.is_list(default) else type(default)
    given = value if isinstance(value, dict | list | bool | int | float) else str(value)
    try:
        convert(given, kind)
    except (TypeError, ValueError) as error:
        if kind is str and not isinstance(given, dict | list):
            return line.split("=", 1)[0] + "='" + line.split("=", 1)[1] + "'"
        if typed_later:
            return line
        raise UserError(f"{key}={_shown(given)}: {error} (default: {_shown(default)})") from None
    return line


def _exists(cfg: DictConfig, key: str) -> bool:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118 (`in` hides missing values)
            return False
        node = node._get_node(part)
    return True


def _paths(cfg: Any, where: str = "") -> list[str]:
    if not isinstance(cfg, DictConfig):
        return []
    names = [_join(where, key) for key in cfg if not str(key).startswith("_")]
    nested = (_paths(cfg._get_node(key), _join(where, key)) for key in cfg)
    return names + [path for paths in nested for path in paths]


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
