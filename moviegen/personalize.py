"""`moviegen personalize`: pictures of a person and a sentence to videos of that person, if there is consent for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from moviegen.config import UserError, build
from moviegen.faces import FaceError, FaceFinder, check_one_person, check_reference, cropped
from moviegen.generate import GenerateConfig, asked, write_clips
from moviegen.lineage import check_training
from moviegen.media import Limits, MediaError, read_image
from moviegen.prompts import Prompt
from moviegen.provenance.consent import ConsentError, ConsentStore, file_sha256

MAX_PIXELS = 50_000_000  # of a reference; a face needs far less


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig(GenerateConfig):
    """The keys of conf/personalize.yaml, which says what they are."""

    faces: FaceFinder
    checkpoint: str | None = None  # what `model` refers to
    reference: str | tuple[str, ...] = ()
    consent: str | None = None
    crop_size: int = 224
    limits: Limits = field(default_factory=lambda: Limits(max_pixels=MAX_PIXELS))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_size < 8:
            raise UserError(f"crop_size={self.crop_size}: must be at least 8 pixels")


def personalize(cfg: DictConfig) -> None:
    """Write what `generate` writes, of the person in the pictures that each prompt, or `reference`, names.

    Raises UserError or ValueError, before anything is written or even looked for in a picture, where there is no valid
    consent for a real person's picture; for pictures without exactly one usable face, and for several that do not show
    one person, by the threshold `faces.same`.
    """
    config: PersonalizeConfig = build(cfg)
    prompts = [with_person(prompt, config) for prompt in asked(config)]
    crops = usable_crops(prompts, config)
    people = {prompt.id: as_tensor([crops[path] for path in prompt.references]) for prompt in prompts}
    write_clips(config, cfg, prompts, people)


def usable_crops(prompts: Iterable[Prompt], config: PersonalizeConfig) -> dict[str, np.ndarray]:
    """The faces of all pictures that prompts name, by path, uint8 [S, S, 3]. Raises as `personalize`."""
    store = ConsentStore(config.store)
    check_training(config.model, store, config.adapter)  # before any picture is read
    crops: dict[str, np.ndarray] = {}
    embeddings: dict[str, np.ndarray] = {}  # held in memory alone
    for prompt in prompts:
        for path in prompt.references:
            if not config.faces.synthetic:
                store.check(prompt.consent, [_sha256(path)], "sampling")
            if path not in crops:
                crops[path], embeddings[path] = reference_crop(path, config)
        try:
            check_one_person({path: embeddings[path] for path in prompt.references}, config.faces.same)
        except FaceError as error:
            raise UserError(f"references {error}") from error
    return crops


def with_person(prompt: Prompt, config: PersonalizeConfig) -> Prompt:
    """A prompt with the references and the consent of the command where it has none of its own."""
    given = (config.reference,) if isinstance(config.reference, str) else config.reference
    references = prompt.references or given
    if not references:
        raise UserError(f"prompt {prompt.id} names no picture of a person: give reference=face.png")
    consent = None if config.faces.synthetic else prompt.consent or config.consent
    return replace(prompt, references=tuple(references), consent=consent)


def _sha256(path: str) -> str:
    try:
        return file_sha256(path)
    except ConsentError as error:
        raise UserError(f"reference {error}") from None


def reference_crop(path: str, config: PersonalizeConfig) -> tuple[np.ndarray, np.ndarray]:
    """The one face of a picture, uint8 [S, S, 3], background masked out, and its embedding [D].

    Raises UserError for a picture that has none, or is of no use.
    """
    try:
        picture = read_image(path, config.limits, plain=True)
        face = check_reference(picture, config.faces)
        return cropped(picture, face, config.crop_size), face.embedding
    except MediaError as error:
        raise UserError(f"reference {error}") from error
    except FaceError as error:
        raise UserError(f"reference {path}: {error}") from error


def as_tensor(crops: list[np.ndarray]) -> Tensor:
    """Crops uint8 [S, S, 3] as pictures [R, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
