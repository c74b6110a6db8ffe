"""Whose consent a model on disk relies on: that of its own training, and of the models that it came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moviegen.adapters import BASE
from moviegen.config import UserError
from moviegen.modelfile import locate, read_info
from moviegen.provenance.consent import ConsentError, ConsentStore
from moviegen.runfolder import file_sha256, read_json

CONSENTS = "consents.json"  # in a run folder: ids of the records that its training relies on
# of the clips that a model was trained on: frames per second, frames, and pixels, those of stills too
SPANS = ("frame_rates", "num_frames", "height", "width")
CODED = "coded_frames"  # which of them were coded alone, to be given to the model


def trained_on(model: str, adapter: str | None = None) -> list[str]:
    """Ids of the consent records that the training of a model, and of an adapter for it, relied on."""
    infos = _infos(model, adapter)
    return sorted({str(consent) for info in infos for consent in info.get("consents") or []})


def _infos(model: str, adapter: str | None) -> list[Mapping[str, Any]]:
    base = locate(model)
    notes = [base.with_name(base.name + ".json"), *([Path(adapter) / BASE] if adapter else [])]
    records: list[Any] = [read_json(note) for note in notes if note.is_file()]
    return [record.get("info") or {} for record in records if isinstance(record, dict)]


def warn_untrained(
    model: str, asked: Mapping[str, float], given: Iterable[int] = (), adapter: str | None = None
) -> None:
    """Tell on stderr, in one line, what is asked of a model beyond the clips that it, or its adapter, was trained on.

    A json that does not say what they were is not held against it.

    Args:
        asked: numbers by names of `SPANS`.
        given: frames at which a picture is given, from 0.
    """
    told = _spanned(_infos(model, adapter))
    places, odd = told.pop(CODED, []), []
    for name, (low, high) in told.items():
        near = 1e-3 if name == "frame_rates" else 0.0  # as `check_frame_rate`: 29.97 is 30
        if not (1 - near) * low <= asked.get(name, low) <= (1 + near) * high:
            odd.append(
                f"{name}={asked[name]:g} (trained: {' to '.join(f'{n:g}' for n in sorted({low, high}))})"
            )
    for place in sorted({*given} - {*places}) if places else []:
        odd.append(f"image_frame={place} (trained: {', '.join(map(str, places))})")
    if odd:
        print(f"warning: {model} knows no {', '.join(odd)}: such clips may be poor", file=sys.stderr)


def check_frame_rate(model: str, frame_rate: float, adapter: str | None = None) -> None:
    """Raise UserError for a rate (frames per second) beyond those that a model, or its adapter, was trained at."""
    known = _spanned(_infos(model, adapter)).get("frame_rates")
    if known and not 0.999 * known[0] <= frame_rate <= 1.001 * known[1]:
        span = " to ".join(f"{rate:g}" for rate in sorted({*known}))
        raise UserError(f"sampler.frame_rate={frame_rate:g}: {model} was trained at {span} frames per second")


def trained_at(run: Path) -> dict[str, list[float]]:
    """What a model's json says of the clips that its run read: lowest and highest of each of `SPANS`, or nothing.

    And the frames that were coded alone, all of them, where any were.
    """
    return _spanned(read_json(run / "run.json").get("shards") or [])


def _spanned(told: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    rows = list(told)
    found = {name: [number for row in rows for number in row.get(name) or []] for name in SPANS}
    spans = {name: [min(numbers), max(numbers)] for name, numbers in found.items() if numbers}
    coded = sorted({place for row in rows for place in row.get(CODED) or []})
    return spans | ({CODED: coded} if coded else {})


def check_training(model: str, store: ConsentStore, adapter: str | None = None) -> None:
    """`check_consents` of a model on disk, and of an adapter for it."""
    check_consents(model, trained_on(model, adapter), store)


def check_consents(model: str, consents: Iterable[str], store: ConsentStore) -> None:
    """Refuse a model that was trained on people of whom one has revoked; ConsentError names the record.

    A record that is not in the store, as of a model from elsewhere or where the store lies in another folder, is told
    on stderr: its revocation cannot be seen.
    """
    known = set(store.ids())
    for consent in consents:
        if consent not in known:
            said = f"{model} was trained on a person by the consent record {consent}, which is not in "
            said += f"{store.folder.resolve()}: whether it was revoked cannot be seen here"
            print(f"{said}; say where the records are: store=FOLDER", file=sys.stderr)
        elif (record := store.get(consent)).revoked is not None:
            raise ConsentError(
                f"{model} was trained on {record.name}, whose consent {consent} was revoked on {record.revoked}; "
                "train it again without those clips"
            )


def note_model(weights: Path, consents: Iterable[str], store: ConsentStore) -> None:
    """Note in the store that a model relies on these records, so that `revoke` lists it; none is made that it lacks."""
    known = set(store.ids())
    for consent in known.intersection(consents):
        store.record_use(consent, "checkpoint", weights, file_sha256(weights))


def relied_on(models: Iterable[str]) -> dict[str, list[Any]]:
    """What the json of a model made of others says of their training: {"consents": ids} and what `trained_at` tells.

    Nothing of each where theirs say nothing of it.
    """
    names = list(models)
    consents = sorted({consent for model in names for consent in trained_on(model)})
    told: dict[str, list[Any]] = {"consents": consents} if consents else {}
    return told | _spanned(map(read_info, names))
