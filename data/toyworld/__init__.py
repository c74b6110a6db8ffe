"""A small procedural world with ground truth: clips, sound, captions, prompts, edit pairs, and its oracle."""

from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.world import EditPair, Prompt, ToyClip, World

__all__ = ["EditPair", "Prompt", "ToyClip", "World", "WorldConfig"]
