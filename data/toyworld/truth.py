"""The truth of a clip: everything the oracle measures, per frame, as plain JSON values."""

from typing import Any

import numpy as np
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.scene import Array, Scene, Sprite
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def encode_mask(mask: Mask) -> list[int]:
    """Run lengths of a mask [H, W] in row order: off, on, off, ..., the first may be 0."""
    flat = mask.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def decode_mask(runs: list[int], height: int, width: int) -> Mask:
    """The mask [H, W] whose run lengths `encode_mask` gave."""
    if sum(runs) != height * width:
        raise ValueError(
            f"run lengths cover {sum(runs)} pixels, the mask has {height}x{width} = {height * width}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


def box_of(mask: Mask) -> list[int] | None:
    """The box [left, top, right, bottom) of a mask [H, W] in pixels, None where nothing is visible."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def scene_spec(scene: Scene) -> dict[str, Any]:
    """What a caption of the scene promises, in the form that the oracle's `verdict` judges."""
    return {
        "sprites": [_sprite_spec(sprite) for sprite in scene.sprites],
        "interaction": scene.interaction.kind if scene.interaction else None,
        "direction": scene.interaction.direction if scene.interaction else None,
        "background": scene.background.kind,
        "camera": scene.camera.kind,
    }


def _sprite_spec(sprite: Sprite) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "color": sprite.color,
        "shape": sprite.shape,
        "size": sprite.size,
        "motion": sprite.motion,
    }
    if sprite.turn is not None:
        spec["turn"] = sprite.turn
    if sprite.face is not None:
        spec["character"] = sprite.face.character
    return spec


def clip_truth(
    scene: Scene, config: WorldConfig, times: Array, masks: list[Mask], caption: str
) -> dict[str, Any]:
    """The truth dict of a rendered scene; masks are [T, H, W], one a sprite."""
    scale = config.size / 64.0
    return {
        "level": config.level,
        "frame_rate": config.frame_rate,
        "num_frames": config.num_frames,
        "height": config.size,
        "width": config.size,
        "caption": caption,
        "spec": scene_spec(scene),
        "style": scene.style,
        "background": scene.background.kind,
        "camera": {
            "kind": scene.camera.kind,
            "offsets": np.round(scale * scene.camera.offsets(times), 3).tolist(),
            "zooms": np.round(scene.camera.zooms(times), 4).tolist(),
        },
        "interaction": scene.interaction.kind if scene.interaction else None,
        "events": [
            {"seconds": round(e.seconds, 4), "kind": e.kind, "shape": e.shape, "sprites": list(e.sprites)}
            for e in scene.events(config.duration_seconds)
        ],
        "sprites": [_sprite_truth(scene, index, times, scale, mask) for index, mask in enumerate(masks)],
    }


def _sprite_truth(scene: Scene, index: int, times: Array, scale: float, mask: Mask) -> dict[str, Any]:
    sprite = scene.sprites[index]
    centers = scale * scene.camera.project(sprite.path.positions(times), times)
    truth = _sprite_spec(sprite) | {
        "radius": round(scale * sprite.radius, 3),
        "centers": np.round(centers, 2).tolist(),
        "angles": np.round(sprite.path.spin_rate * times, 4).tolist(),
        "boxes": [box_of(frame) for frame in mask],
        "masks": [encode_mask(frame) for frame in mask],
    }
    if sprite.face is not None:
        truth |= {
            "hat": sprite.face.hat,
            "hat_color": sprite.face.hat_color,
            "poses": list(sprite.face.poses),
            "expressions": list(sprite.face.expressions),
        }
    return truth
