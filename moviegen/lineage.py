"""Whose consent a model on disk relies on: that of its own training, and of the models that it came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moviegen.adapters import BASE
from moviegen.modelfile import locate, read_info
from moviegen.provenance.consent import ConsentError, ConsentStore
from moviegen.runfolder import read_json

CONSENTS = "consents.json"  # in a run folder: ids of the records that its training relies on
SPANS = ("frame_rates", "num_frames")  # of the clips that a model was trained on: frames per second, frames


def trained_on(model: str, adapter: str | None = None) -> list[str]:
    """Ids of the consent records that the training of a model, and of an adapter for it, relied on."""
    base = locate(model)
    notes = [base.with_name(base.name + ".json"), *([Path(adapter) / BASE] if adapter else [])]
    records: list[Any] = [read_json(note) for note in notes if note.is_file()]
    infos = [record.get("info") or {} for record in records if isinstance(record, dict)]
    return sorted({str(consent) for info in infos for consent in info.get("consents") or []})


def trained_at(run: Path) -> dict[str, list[float]]:
    """What a model's json says of the clips that its run read: lowest and highest of each of `SPANS`, or nothing."""
    return _spanned(read_json(run / "run.json").get("shards") or [])


def _spanned(told: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    rows = list(told)
    found = {name: [number for row in rows for number in row.get(name) or []] for name in SPANS}
    return {name: [min(numbers), max(numbers)] for name, numbers in found.items() if numbers}


def check_training(model: str, store: ConsentStore, adapter: str | None = None) -> None:
    """Refuse a model that was trained on people of whom one has revoked; ConsentError names the record.

    A record that is not in the store, as of a model from elsewhere, is told on stderr: its revocation cannot be seen.
    """
    known = set(store.ids())
    for consent in trained_on(model, adapter):
        if consent not in known:
            said = f"{model} was trained on a person by the consent record {consent}, which is not in {store.folder}"
            print(f"{said}: whether it was revoked cannot be seen here", file=sys.stderr)
        elif (record := store.get(consent)).revoked is not None:
            raise ConsentError(
                f"{model} was trained on {record.name}, whose consent {consent} was revoked on {record.revoked}; "
                "train it again without those clips"
            )


def relied_on(models: Iterable[str]) -> dict[str, list[Any]]:
    """What the json of a model made of others says of their training: {"consents": ids} and `SPANS`.

    Nothing of each where theirs say nothing of it.
    """
    names = list(models)
    consents = sorted({consent for model in names for consent in trained_on(model)})
    told: dict[str, list[Any]] = {"consents": consents} if consents else {}
    return told | _spanned(map(read_info, names))
