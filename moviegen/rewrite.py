"""`moviegen rewrite`: prompts to texts like captions. `moviegen rewrite data`: what a student learns that from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from moviegen import runfolder
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.modelfile import read_weights
from moviegen.prompts import Prompt, clean, one_prompt, read_prompts
from moviegen.rewriting import LanguageModelRewriter, Rewriter
from moviegen.rewriting.chat import exchange


@dataclass(frozen=True)
class RewriteConfig:
    """The keys of conf/rewrite.yaml, which says what they are."""

    out: Path
    rewriter: Rewriter
    prompt: str | None = None
    prompts: str | None = None
    weights: str | None = None
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, num_threads=1)
        if (self.prompt is None) == (self.prompts is None):
            given = "neither is" if self.prompt is None else "both are"
            raise UserError(f"give prompt='a red star' or prompts=FILE, one of the two; {given} given")


@dataclass(frozen=True)
class RewriteDataConfig:
    """The keys of conf/rewrite_data.yaml, which says what they are."""

    out: Path
    rewriter: Rewriter
    prompts: str
    instruction: str
    val_share: float = 0.05
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, num_threads=1)
        if not 0 <= self.val_share < 1:
            raise UserError(f"val_share={self.val_share}: must be a share from 0 to below 1")


def rewrite(cfg: DictConfig) -> None:
    """Write the prompts rewritten, each with its original, as a jsonl file that `moviegen generate` reads.

    Raises UserError or ValueError, before anything is written, for prompts that cannot be used or an absent model.
    """
    if cfg.get("num_threads"):
        torch.set_num_threads(cfg["num_threads"])
    config: RewriteConfig = build(cfg)
    prompts = one_prompt(config.prompt) if config.prompt is not None else read_prompts(str(config.prompts))
    if config.weights is not None:
        if not isinstance(config.rewriter, LanguageModelRewriter):
            raise UserError(f"weights={config.weights}: rules have no weights; add rewriter=student")
        config.rewriter.use_weights(read_weights(config.weights))
    texts = config.rewriter.rewrite([prompt.text for prompt in prompts])
    rows = [_row(prompt, text, config.out) for prompt, text in zip(prompts, texts, strict=True)]
    _write_lines(config.out, rows)
    changed = sum(row["prompt"] != row["original"] for row in rows)
    print(f"{config.out}: {len(rows)} prompts, {changed} of them changed; the first: {rows[0]['prompt']}")


def _row(prompt: Prompt, text: str, out: Path) -> dict[str, Any]:
    row = {
        "id": prompt.id,
        "prompt": clean(text, f"the rewriting of prompt {prompt.id}"),
        "original": prompt.original or prompt.text,
        "set": prompt.set,
        "spec": prompt.spec,
        "image": prompt.image and os.path.relpath(prompt.image, out.parent),
        "image_frame": prompt.image_frame or None,
        "references": [os.path.relpath(path, out.parent) for path in prompt.references] or None,
        "consent": prompt.consent,
        "seed": list(prompt.seeds) or None,
        "tags": prompt.tags or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def rewrite_data(cfg: DictConfig) -> None:
    """Write train.jsonl and val.jsonl, exchanges of a prompt and the teacher's rewriting (rewriting/chat.py), into out.

    The same prompt comes once; one that the teacher left as it was is left out. Lines are for people to read: the
    paper's pairs were filtered by hand, which is done by deleting lines. A prompt's file does not depend on the others.
    """
    if cfg.get("num_threads"):
        torch.set_num_threads(cfg["num_threads"])
    config: RewriteDataConfig = build(cfg)
    prompts = list(dict.fromkeys(prompt.text for prompt in read_prompts(config.prompts)))
    answers = config.rewriter.rewrite(prompts)
    pairs = [(given, answer) for given, answer in zip(prompts, answers, strict=True) if given != answer]
    if not pairs:
        raise UserError(f"{config.prompts}: the teacher left all {len(prompts)} prompts as they were")
    files: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for given, answer in pairs:
        number = key_number(given) % 2**64
        split = "val" if number / 2**64 < config.val_share else "train"
        files[split].append(
            {"id": f"{number:016x}", "messages": exchange(config.instruction, [], given, answer)}
        )
    for split, rows in files.items():
        _write_lines(config.out / f"{split}.jsonl", rows)
    runfolder.record(config.out, cfg)
    left = len(prompts) - len(pairs)
    print(
        f"{config.out}: {len(files['train'])} pairs and {len(files['val'])} held out; {left} prompts unchanged"
    )


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    runfolder.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
