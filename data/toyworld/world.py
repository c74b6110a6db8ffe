"""The toy world: `World(config).render(seed, index)` is a clip with sound, caption and truth.

Each random choice comes from `numpy.random.SeedSequence((seed, index, level, purpose))`, so a clip
depends on the config, the seed and the index alone: not on the order of calls or on other clips.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from moviegen_data.toyworld import edits
from moviegen_data.toyworld.captions import caption
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.draw import render_scene
from moviegen_data.toyworld.scene import Scene
from moviegen_data.toyworld.script import draw_scene, frame_times
from moviegen_data.toyworld.sound import SAMPLE_RATE_HZ, render_sound
from moviegen_data.toyworld.truth import clip_truth, scene_spec
from numpy.typing import NDArray

PURPOSES = {"scene": 0, "caption": 1, "edit": 2}


@dataclass(frozen=True)
class ToyClip:
    """One rendered clip."""

    frames: NDArray[np.uint8]  # [T, H, W, 3] RGB
    frame_rate: float  # frames per second
    audio: NDArray[np.float32]  # [1, N] in [-1, 1]
    sample_rate_hz: int
    caption: str
    truth: dict[str, Any]  # see truth.clip_truth


@dataclass(frozen=True)
class Prompt:
    """A caption without a clip, and the spec that `oracle.verdict` holds a clip against."""

    id: str
    text: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class EditPair:
    """The same scene before and after one edit."""

    before: ToyClip
    after: ToyClip
    instruction: str
    kind: str  # one of edits.KINDS


class World:
    """A procedural source of clips, prompts and edit pairs of one config."""

    def __init__(self, config: WorldConfig):
        self.config = config

    def _rng(self, seed: int, index: int, purpose: str) -> np.random.Generator:
        if seed < 0 or index < 0:
            raise ValueError(f"toyworld seed and index must not be negative, got seed {seed}, index {index}")
        key = (seed, index, self.config.level, PURPOSES[purpose])
        return np.random.default_rng(np.random.SeedSequence(key))

    def scene(self, seed: int, index: int) -> Scene:
        """The scene of a clip, before it is drawn."""
        return draw_scene(self.config, self._rng(seed, index, "scene"))

    def _caption(self, scene: Scene, seed: int, index: int) -> str:
        rng = self._rng(seed, index, "caption")
        return caption(scene, self.config.template, rng, self.config.named_characters)

    def render(self, seed: int, index: int) -> ToyClip:
        """Clip number `index` of the endless series `seed`."""
        scene = self.scene(seed, index)
        return self.clip(scene, self._caption(scene, seed, index))

    def clip(self, scene: Scene, text: str) -> ToyClip:
        """Draw and sound a scene under a given caption."""
        times = frame_times(self.config)
        frames, masks = render_scene(scene, times, self.config.size)
        duration = self.config.duration_seconds
        audio = render_sound(scene.events(duration), duration, scene.noise_seed)
        truth = clip_truth(scene, self.config, times, masks, text)
        return ToyClip(frames, self.config.frame_rate, audio, SAMPLE_RATE_HZ, text, truth)

    def prompts(self, num: int, seed: int) -> list[Prompt]:
        """The first `num` captions of a series: prompt i belongs to the clip `render(seed, i)`."""
        return [self.prompt(seed, index) for index in range(num)]

    def prompt(self, seed: int, index: int) -> Prompt:
        """The caption of the clip `render(seed, index)`."""
        scene = self.scene(seed, index)
        name = f"toy{self.config.level}-{seed}-{index:05d}"
        return Prompt(name, self._caption(scene, seed, index), scene_spec(scene))

    def edit_pair(self, seed: int, index: int) -> EditPair:
        """A clip before and after an edit with its instruction; all else is identical."""
        rng = self._rng(seed, index, "edit")
        edit = edits.draw_edit(self.config, rng)
        clips = []
        for scene in (edit.before, edit.after):
            text = caption(scene, self.config.template, np.random.default_rng(int(edit.before.noise_seed)))
            clips.append(self.clip(scene, text))
        return EditPair(clips[0], clips[1], edit.instruction, edit.kind)
