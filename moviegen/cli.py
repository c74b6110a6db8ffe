"""The console command `moviegen`: `moviegen <command> key=value ...` in Hydra's override syntax.

Nothing heavy is imported before a command runs, so `--help` answers at once. What a user gave wrongly ends
in one line on stderr and exit code 2; faults of our own keep their traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from moviegen import interrupts, warm
from moviegen.commands import COMMANDS, Command

CONF = Path(os.environ.get("MOVIEGEN_CONF", Path(__file__).resolve().parents[1] / "conf")).resolve()
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
__all__ = ["COMMANDS", "Command", "main"]


FLAGS = {
    "-h": "help",
    "--help": "help",
    "-m": "sweep",
    "--multirun": "sweep",
    "--cfg": "print",
    "--check": "check",
}


class UsageError(ValueError):
    """The command line itself is wrong."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    if argv is None:
        warm.own_process()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        with interrupts.terminable():
            return run(arguments)
    except KeyboardInterrupt:
        return _stopped("interrupted", EXIT_INTERRUPTED)
    except interrupts.Terminated as told:
        return _stopped("terminated", told.exit_code)
    except SystemExit as leaving:  # Lightning turns Ctrl-C into an exit of its own
        if isinstance(leaving.__context__, KeyboardInterrupt):
            return _stopped("interrupted", EXIT_INTERRUPTED)
        raise
    except BrokenPipeError:  # `moviegen ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("MOVIEGEN_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {_message(error)}\n")  # in one piece, beside those of other ranks
        return EXIT_USER_ERROR


def run(arguments: list[str]) -> int:
    """Dispatch one command line; raises what `main` turns into one line."""
    name, rest = split_command(arguments)
    if name is None:
        print(overview(rest[0] if rest else ""))
        return 0
    command = COMMANDS[name]
    flags, overrides = split_flags(rest)
    if "help" in flags:
        print(command_help(name))
        return 0
    if command.config is None:
        if overrides or flags:
            raise UsageError(f"`moviegen {name}` takes no arguments, not '{rest[0]}'")
        return _finish(load(command.function)())
    if command.bare and overrides and "=" not in overrides[0]:
        from moviegen.config import quoted

        overrides[0] = f"{command.bare}={quoted(overrides[0])}"
    if "check" in flags:  # of the commands whose config has such a key; the others refuse it
        overrides = [*overrides, "check=true"]
    from moviegen import config

    if "sweep" in flags:
        return sweep(name, command.config, overrides)
    cfg = config.compose(command.config, overrides)
    if "print" in flags:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(cfg, resolve=True), end="")
        return 0
    from moviegen.launch.config import take_launcher

    job = take_launcher(cfg)
    config.validate(cfg)
    if job is not None:
        return load("moviegen.launch.submit:submit")(name, overrides, cfg, job)
    return _finish(load(command.function)(cfg))


def split_command(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The command's name and what follows it; None (and a group's name) where an overview is wanted."""
    words = []
    for word in arguments[:3]:
        if word.startswith("-") or "=" in word:
            break
        words.append(word)
    for count in (3, 2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in COMMANDS:
            return name, arguments[count:]
    groups = {name.rsplit(" ", depth)[0] for name in COMMANDS for depth in range(1, name.count(" ") + 1)}
    given = " ".join(words)
    if not words or given in groups or words[0] == "help":
        unknown = [word for word in arguments[len(words) :] if word not in ("-h", "--help")]
        if unknown:
            raise UsageError(f"'{unknown[0]}' stands where a command should; run `moviegen --help`")
        return None, [given] if given in groups else []
    given = given if words[0] in groups else words[0]
    close = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(COMMANDS)}"
    raise UsageError(f"unknown command '{given}'; {hint}")


def split_flags(words: list[str]) -> tuple[set[str], list[str]]:
    """Separate the few flags from the overrides."""
    flags, overrides = set(), []
    for position, word in enumerate(words):
        if word in FLAGS:
            flags.add(FLAGS[word])
        elif word.startswith("-"):
            close = difflib.get_close_matches(word, FLAGS, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else "settings are written key=value"
            raise UsageError(f"unknown flag '{word}'; {hint}")
        elif not (word in ("job", "all") and position and words[position - 1] == "--cfg"):
            overrides.append(word)
    if {"sweep", "print"} <= flags:
        raise UsageError("--cfg prints one configuration and -m runs many: leave one of them out")
    return flags, overrides


def load(function: str) -> Any:
    """Import "module:function"."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def sweep(name: str, config_name: str, overrides: list[str]) -> int:
    """Run the product of all listed values, one process a job, into numbered run folders under `run_dir`.

    With a launcher they are submitted instead, all at once.
    """
    from moviegen import config
    from moviegen.launch.config import take_launcher
    from moviegen.runfolder import write_json

    jobs = config.expand(overrides)
    composed = [config.compose(config_name, job) for job in jobs]
    launchers = [take_launcher(cfg) for cfg in composed]
    for cfg in composed:
        config.validate(cfg)
    if any(launcher != launchers[0] for launcher in launchers):
        raise UsageError(
            "the jobs of a sweep are one job array: launcher, nodes and devices must be the same"
        )
    if launchers[0] is not None:
        load("moviegen.launch.submit:refuse_misfits")(name, composed, launchers[0])
    elif name == "train" and any(cfg.get("mesh") for cfg in composed):
        for cfg in composed:  # or the last would be refused only when all before it have been trained
            load("moviegen.train:check_job")(cfg)
    folder = Path(str(composed[0].get("run_dir") or composed[0].get("out") or "."))
    swept = any(line.startswith("run_dir=") for line in {*jobs[0]} ^ {*jobs[-1]})
    if "run_dir" in composed[0] and not swept:
        jobs = [[*job, f"run_dir='{folder / str(number)}'"] for number, job in enumerate(jobs)]
        if not composed[0].get("dry_run"):
            write_json(folder / "sweep.json", {"command": name, "jobs": jobs})
    if launchers[0] is not None:
        return load("moviegen.launch.sweep:submit_sweep")(name, jobs, launchers[0], folder.absolute())
    return _one_after_the_other(name, jobs)


def _one_after_the_other(name: str, jobs: list[list[str]]) -> int:
    for number, job in enumerate(jobs):
        print(f"[{number + 1}/{len(jobs)}] moviegen {name} {' '.join(job)}", flush=True)
        code = interrupts.run_child([sys.executable, "-m", "moviegen.cli", *name.split(), *job]).returncode
        if code:
            print(f"error: job {number} of the sweep ended with exit code {code}", file=sys.stderr)
            return code
    return 0


def overview(group: str = "") -> str:
    """The text of `moviegen --help`, or of one group of commands."""
    shown = {
        name: command for name, command in COMMANDS.items() if f"{name} ".startswith(f"{group} ".lstrip())
    }
    width = max(map(len, shown))
    rows = [f"  {name:<{width}} {command.summary}" for name, command in shown.items()]
    return "\n".join(
        [
            "usage: moviegen <command> [key=value ...]",
            "",
            *rows,
            "",
            "  moviegen <command> --help   what it does, its settings, examples",
            "  moviegen <command> --cfg    print the composed configuration and stop",
            "  moviegen <command> -m a=1,2 run one job for each value",
        ]
    )


def command_help(name: str) -> str:
    """The text of `moviegen <command> --help`: summary, config groups, top-level keys, examples."""
    command = COMMANDS[name]
    lines = [f"moviegen {name} [key=value ...]", "", command.summary]
    if command.config is None:
        return "\n".join(lines)
    path = CONF / f"{command.config}.yaml"
    groups, settings = _read_settings(path)
    if groups:
        lines += ["", "groups (group=option):"]
        lines += [f"  {group:<14} {', '.join(_options(group, path)) or '(none)'}" for group in groups]
    lines += ["", f"settings and their defaults (conf/{path.name}):", *(f"  {line}" for line in settings)]
    lines += [
        "",
        "examples:",
        *(f"  moviegen {name} {example}".rstrip() for example in command.examples or ("",)),
    ]
    return "\n".join(lines)


def _read_settings(path: Path) -> tuple[list[str], list[str]]:
    """Names of the groups in a config file's defaults list, and its other lines as written."""
    import yaml

    if not path.is_file():
        return [], [f"({path} does not exist)"]
    text = path.read_text(encoding="utf-8")
    groups = []
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, dict):
            words = next(iter(entry)).removeprefix("optional ").removeprefix("override ")
            groups.append(words.split("@")[0].lstrip("/"))
    settings, inside = [], False
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith(("-", "#")):
            inside = line.startswith("defaults:")
        if line.strip() and not inside and not line.startswith(("#", "_")):
            settings.append(line)
    return groups, settings


def _options(group: str, path: Path) -> list[str]:
    folder = (CONF.parent if group == "experiments" else CONF) / group
    fitting = experiments_for(path) if group == "experiments" else folder.rglob("*.yaml")
    return sorted(option.relative_to(folder).with_suffix("").as_posix() for option in fitting)


def experiments_for(path: Path) -> list[Path]:
    """Recipes in experiments/ that set nothing but keys of one command's file conf/<command>.yaml."""
    import yaml

    known = {*(yaml.safe_load(path.read_text(encoding="utf-8")) or {}), *_read_settings(path)[0]}
    recipes = sorted((CONF.parent / "experiments").rglob("*.yaml"))
    return [r for r in recipes if {*(yaml.safe_load(r.read_text(encoding="utf-8")) or {})} <= known]


def _finish(result: Any) -> int:
    """Exit code of a command: what it returned when that is an int, otherwise 0."""
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _message(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__


def _stopped(how: str, code: int) -> int:
    print(f"\n{how}: what is finished is kept; the same command goes on from there", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
