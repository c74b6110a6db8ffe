"""What `_target_` may name. A config, and still more a downloaded model's json, must not be able to run commands.

A name that ends in a dot allows every class that is defined in that package or module: no function, no method and
nothing it only imports. So a new class there needs no entry here, and in return its constructor starts no process
and deletes or overwrites no file. Any other name allows itself alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from moviegen.signatures import locate

MODEL_TARGETS = (  # what a model's json may name
    "moviegen.backbone.",
    "moviegen.codec.",
    "moviegen.conditioning.",
    "moviegen.flow.",
    "moviegen.tasks.",
    "moviegen.modelfile.load_codec",
    "moviegen.modelfile.load_audio_codec",
    "torch.optim.",  # of a task's adversary
)
ALLOWED_TARGETS = (
    *MODEL_TARGETS,
    "moviegen.average.AverageConfig",
    "moviegen.callbacks.",
    "moviegen.data.",
    "moviegen.demo.DemoConfig",
    "moviegen.demo.Stage",
    "moviegen.backtranslate.BacktranslateConfig",
    "moviegen.edit.EditConfig",
    "moviegen.edit_filter.",
    "moviegen.encode.EncodeConfig",
    "moviegen.export.ExportConfig",
    "moviegen.extend.ExtendConfig",
    "moviegen.film.FilmConfig",
    "moviegen.generate.GenerateConfig",
    "moviegen.keep.Keep",
    "moviegen.launch.config.",
    "moviegen.parallel.config.ParallelConfig",
    "moviegen.plan.command.PlanConfig",
    "moviegen.plan.hardware.Hardware",
    "moviegen.provenance.",
    "moviegen.reconstruct.ReconstructConfig",
    "moviegen.rewrite.RewriteConfig",
    "moviegen.rewrite.RewriteDataConfig",
    "moviegen.upscale.UpscaleConfig",
    "moviegen.upscale_clips.UpscaleClipsConfig",
    "moviegen.rewriting.",
    "moviegen.sound.SoundConfig",
    "moviegen.sound_shards.SoundShardsConfig",
    "moviegen.train.TrainConfig",
    "moviegen.faces.",
    "moviegen.personalize.PersonalizeConfig",
    "moviegen.consent.",
    "moviegen.media.Limits",
    "moviegen.media.base.Limits",
    "moviegen_data.config.",
    "moviegen_data.sound_rules.SoundRules",
    "moviegen_data.face_pairs.PairRules",
    "moviegen_data.identities.IdentitiesConfig",
    "moviegen_data.synthetic_pairs.SyntheticPairs",
    "moviegen_data.toyworld.finder.ToyFaces",
    "moviegen_data.toyworld.finder.ToyPictures",
    "moviegen_data.toyworld.WorldConfig",
    "moviegen_data.toyworld.config.WorldConfig",
    "moviegen_eval.bench_config.",
    "moviegen_eval.config.",
    "moviegen_eval.identity.IdentityConfig",
    "moviegen_eval.edit_set.EditSetConfig",
    "moviegen_eval.edits.EditsConfig",
    "moviegen_eval.prompts.PromptsConfig",
    "moviegen_eval.runs.RunsConfig",
    "moviegen_eval.study.settings.",
    "moviegen_eval.upscale_set.UpscaleSetConfig",
    "moviegen_eval.upscaled.UpscaleEvalConfig",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.profilers.",
)


def allowed_by(target: str, names: Iterable[str]) -> str | None:
    """The entry of an allow-list that allows a dotted name; None for all others, private names and odd spellings."""
    if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", target):
        return None
    return next((n for n in names if (target.startswith(n) if n.endswith(".") else target == n)), None)


def resolve(target: str, names: Iterable[str]) -> Any:
    """Import the class or function that an allowed name stands for.

    Raises ImportError or AttributeError when there is none, or when its package may give classes of its own only.
    """
    entry = allowed_by(target, names)
    assert entry is not None, target
    found = locate(target)
    if entry.endswith("."):
        home = f"{found.__module__}.{found.__qualname__}"
        if not inspect.isclass(found) or not home.startswith(entry):
            raise AttributeError(
                f"this is {home}, and the allow-list has only classes defined in {entry[:-1]}"
            )
    return found
