"""Long-prompt MetaCLIP: an open-clip model from a local folder, text positions stretched from 77 to 256 (paper 3.1.3).

A folder holds `open_clip_config.json` and safetensors weights under open-clip's names. Nothing is fetched.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")  # the first is also what is written
FETCHING = ("hf_model_name", "timm_model_name")  # towers that open-clip builds from a hub's files


def stretched(positions: Tensor, length: int) -> Tensor:
    """Learned positions [L, D] -> [length, D] by linear interpolation; first and last stay what they are."""
    if len(positions) == length:
        return positions
    columns = positions.float().T[None]
    table = F.interpolate(columns, length, mode="linear", align_corners=True)[0].T
    return table.to(positions.dtype).contiguous()  # FSDP cuts no other


def is_clip(folder: Path) -> bool:
    """Whether a folder holds an open-clip model."""
    return (folder / CONFIG).is_file()


def clip_config(folder: Path) -> dict[str, Any]:
    """The architecture in a folder; raises ValueError for one that is unreadable or built from other files."""
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = dict(record["model_cfg"])
        towers = {name: dict(config[name]) for name in ("text_cfg", "vision_cfg")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / CONFIG} describes no open-clip model ({type(error).__name__}: {error})"
        ) from error
    for name, tower in towers.items():
        if asked := [key for key in FETCHING if tower.get(key)]:
            raise ValueError(
                f"{folder / CONFIG}: {name} has {asked[0]}; only open-clip's own towers are loaded"
            )
    return config


def _weights(folder: Path) -> Path:
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder}: no {WEIGHTS[0]}; give an open-clip model with safetensors weights")
    return found


def _built(config: dict[str, Any], context_length: int) -> Any:
    import open_clip

    config = {**config, "text_cfg": {**config["text_cfg"], "context_length": context_length}}
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")
    return open_clip.CLIP(**{key: config[key] for key in keys if key in config})


def new_clip(config: dict[str, Any], context_length: int) -> Any:
    """An open-clip model of an architecture, with random weights."""
    return _built(config, context_length)


def load_clip(folder: Path, context_length: int, with_images: bool = True) -> Any:
    """The open-clip model of a folder, its text positions stretched to `context_length`.

    Without images its `visual` tower is neither built nor read. Raises ValueError where the weights are missing or
    those of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    config, file = clip_config(folder), _weights(folder)
    with torch.device("meta"):
        clip = _built(config, context_length)
    if not with_images:
        del clip.visual
    try:
        with safe_open(file, "pt") as weights:
            names = (n for n in weights.keys() if with_images or not n.startswith("visual."))  # noqa: SIM118
            state = {name: weights.get_tensor(name) for name in names}
        state["positional_embedding"] = stretched(state["positional_embedding"], context_length)
        clip.load_state_dict(state, assign=True)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} does not hold the model of {CONFIG} beside it ({reason})") from error
    clip.attn_mask = torch.full((context_length, context_length), float("-inf")).triu(
        1
    )  # a buffer, left on meta
    return clip


def load_visual(folder: Path) -> Any:
    """The image tower of a folder's model; raises ValueError as `load_clip`."""
    return load_clip(folder, clip_config(folder)["text_cfg"].get("context_length", 77)).visual


def save_clip(folder: Path, clip: Any, config: dict[str, Any]) -> None:
    """Write a model of the architecture `config`, whatever the length of its positions, as `load_clip` reads it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, "text_cfg": {**config["text_cfg"], "context_length": len(clip.positional_embedding)}}
    state = {name: value.detach().cpu().contiguous() for name, value in clip.state_dict().items()}
    for name, write in (
        (WEIGHTS[0], lambda path: save_file(state, path)),
        (
            CONFIG,
            lambda path: path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}, indent=2)),
        ),
    ):
        part = folder / f".{name}.part"
        try:
            write(part)
            part.replace(folder / name)
        finally:
            part.unlink(missing_ok=True)


class ClipTextEncoder:
    """The frozen text tower: prompts -> features of their tokens after its last norm, with padding marked.

    Positions are stretched where the model has fewer than `max_tokens`, never shrunk.
    """

    def __init__(self, folder: Path, max_tokens: int):
        import open_clip

        length = max(max_tokens, clip_config(folder)["text_cfg"].get("context_length", 77))
        self.model = load_clip(folder, length, with_images=False).eval().requires_grad_(False)
        self.model.forward = partial(
            text_features, self.model
        )  # by a call, so that sharded weights are gathered
        self.tokenize = open_clip.SimpleTokenizer(context_length=max_tokens)

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Features [B, L, D] float32 and mask [B, L] bool; longer prompts are cut at `max_tokens`."""
        tokens = self.tokenize(prompts).to(self.model.token_embedding.weight.device)
        # the last token is the end of text; a prompt may spell that token, and the one that pads, before it
        lengths = tokens.shape[1] - (tokens.flip(1) != 0).int().argmax(dim=1)
        longest = int(lengths.max())
        return self.model(tokens[:, :longest]), torch.arange(longest, device=tokens.device) < (
            lengths[:, None]
        )

    def lengths(self, prompts: list[str]) -> list[int]:
        """Tokens of each prompt, with those of its start and its end, before anything is cut."""
        return token_counts(self.tokenize, prompts)


def token_counts(tokenizer: Any, prompts: list[str]) -> list[int]:
    """Tokens of each prompt by open-clip's tokenizer, with those of its start and its end, before anything is cut."""
    return [len(tokenizer.encode(prompt)) + 2 for prompt in prompts]


def text_features(clip: Any, tokens: Tensor) -> Tensor:
    """Features [B, L, D] float32 of tokens [B, L]; causal attention keeps padding out of what stands before it."""
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length].to(x))
    return clip.ln_final(x).float()
