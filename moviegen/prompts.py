"""Prompt files: one prompt a line as text, or one json object a line with an id and what it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen.config import UserError


@dataclass(frozen=True)
class Prompt:
    """What to generate; `set` and `spec` are copied into the manifest for whoever judges the clip."""

    id: str
    text: str
    set: str = "free"
    spec: dict[str, Any] | None = None
    image: str | None = None  # the picture that the clip begins with


def read_prompts(path: str) -> list[Prompt]:
    """Read a prompt file. Raises UserError naming the file and line for anything that is not UTF-8 or no prompt."""
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")  # some editors write a mark before the first prompt
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{file} holds no prompt")
    as_json = file.suffix == ".jsonl"
    prompts = [_record(f"{file}:{n}", s, file.parent) if as_json else Prompt(f"{n:05d}", s) for n, s in lines]
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise UserError(f"{file}: two prompts have the same id")
    return prompts


def _record(where: str, line: str, folder: Path) -> Prompt:
    try:
        row = json.loads(line)
        image = str(folder / row["image"]) if row.get("image") else None
        prompt = Prompt(str(row["id"]), row["prompt"], row.get("set", "free"), row.get("spec"), image)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where} is no prompt; write {{"id": "1", "prompt": "a red star moves left"}}'
        ) from error
    safe = prompt.id.replace("-", "").replace("_", "").isalnum()
    if not (isinstance(prompt.text, str) and prompt.text.strip() and safe):
        raise UserError(f"{where}: a prompt is a non-empty text, its id letters, digits, - and _")
    return prompt
