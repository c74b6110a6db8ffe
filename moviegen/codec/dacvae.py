"""Weights of Meta's public DACVAE (48 kHz, 25 Hz, 128 channels) from a local file, for `AudioAutoencoder`.

Its tensors are named after Descript's codec: `encoder.block.0`, `decoder.model.1.block.4`, and so on, with normalised
weights split into length and direction. The last two layers of the decoder stand in its watermark's network
(`decoder.wm_model.encoder_block.pre`); the rest of that network is left out, so that no watermark of Meta's is put in:
what this project writes carries marks of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from moviegen.codec.audio import AudioAutoencoder

NORMED = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
UNITS = (
    4,
    5,
    8,
)  # places of the residual units in a block of the decoder; the others belong to the watermark
UNWANTED = ("decoder.wm_model.", "decoder.model.")  # what may be left over


def load_dacvae(path: str | Path, codec: AudioAutoencoder | None = None) -> AudioAutoencoder:
    """The codec with the weights in `path`: a .safetensors or .pth file of DACVAE.

    Raises ValueError for a file that cannot be read, or whose tensors are not those of `codec` (Meta's sizes where
    None).
    """
    codec = AudioAutoencoder() if codec is None else codec
    theirs, own = read_state(Path(path)), codec.state_dict()
    used: set[str] = set()
    for name, source in names(codec):
        for part in ("weight", "bias", "alpha"):
            target = f"{name}.{part}"
            if target not in own:
                continue
            value, parts = _tensor(theirs, source, part)
            if value is None or value.shape != own[target].shape:
                found = "absent" if value is None else list(value.shape)
                raise ValueError(
                    f"{path}: {source}.{part} is {found}, this codec needs {list(own[target].shape)}; "
                    "give the file of a DACVAE of the same sizes"
                )
            used |= parts
            own[target] = value
    left = sorted(name for name in theirs if name not in used and not name.startswith(UNWANTED))
    if left:
        raise ValueError(f"{path}: holds {left[0]}, which a DACVAE of these sizes has no place for")
    codec.load_state_dict(own)
    return codec.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; those of a checkpoint stand under `state_dict` or `model`. No pickle runs."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be read as weights ({reason})") from error
    except Exception as error:  # of the unpickler, which has classes of its own
        raise ValueError(
            f"{path}: holds more than tensors and is not read ({type(error).__name__})"
        ) from error
    for key in ("state_dict", "model"):
        found = found[key] if isinstance(found, dict) and isinstance(found.get(key), dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: holds no tensors by name")
    return found


def names(codec: AudioAutoencoder) -> Iterator[tuple[str, str]]:
    """Pairs of our name and theirs of each layer."""
    depth = len(codec.encoder.blocks)
    yield "encoder.conv_in", "encoder.block.0"
    for level in range(depth):
        ours, block = f"encoder.blocks.{level}", f"encoder.block.{level + 1}.block"
        count = len(codec.encoder.blocks[level].units)  # type: ignore[arg-type]
        for unit in range(count):
            yield from _unit(f"{ours}.units.{unit}", f"{block}.{unit}")
        yield f"{ours}.snake", f"{block}.{count}"
        yield f"{ours}.down", f"{block}.{count + 1}"
    yield "encoder.snake", f"encoder.block.{depth + 1}"
    yield "encoder.conv_out", f"encoder.block.{depth + 2}"
    yield "in_proj", "quantizer.in_proj"
    yield "out_proj", "quantizer.out_proj"
    yield "decoder.conv_in", "decoder.model.0"
    for level in range(len(codec.decoder.blocks)):
        ours, block = f"decoder.blocks.{level}", f"decoder.model.{level + 1}.block"
        yield f"{ours}.snake", f"{block}.0"
        yield f"{ours}.up", f"{block}.1"
        for unit, place in enumerate(UNITS):
            yield from _unit(f"{ours}.units.{unit}", f"{block}.{place}")
    yield "decoder.snake", "decoder.wm_model.encoder_block.pre.0"
    yield "decoder.conv_out", "decoder.wm_model.encoder_block.pre.1"


def _unit(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for place in range(4):
        yield f"{ours}.layers.{place}", f"{theirs}.block.{place}"


def _tensor(state: Mapping[str, Tensor], name: str, part: str) -> tuple[Tensor | None, set[str]]:
    """A tensor of a layer, a normalised weight multiplied out, and the names of what it was made of."""
    plain = f"{name}.{part}"
    if plain in state:
        return state[plain].float(), {plain}
    for length, direction in NORMED if part == "weight" else ():
        pair = f"{name}.{length}", f"{name}.{direction}"
        if all(one in state for one in pair):
            g, v = (state[one].float() for one in pair)
            return g * v / v.norm(dim=(1, 2), keepdim=True), set(pair)
    return None, set()
