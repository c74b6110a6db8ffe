"""Arms: a model or a folder of videos with a settings card, and what makes two of them fit to be compared."""

from moviegen_eval.arms.card import CARD, SettingsCard, read_card, unlike_settings, write_card
from moviegen_eval.arms.fair import Normal, fair_plan, normalized
from moviegen_eval.arms.folder import Arm, ArmVideo, Problem, read_arm

__all__ = [
    "CARD",
    "Arm",
    "ArmVideo",
    "Normal",
    "Problem",
    "SettingsCard",
    "fair_plan",
    "normalized",
    "read_arm",
    "read_card",
    "unlike_settings",
    "write_card",
]
