"""Whose consent a model on disk relies on: that of its own training, and of the models that it came from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moviegen.adapters import BASE
from moviegen.modelfile import locate
from moviegen.provenance.consent import ConsentError, ConsentStore
from moviegen.runfolder import read_json

CONSENTS = "consents.json"  # in a run folder: ids of the records that its training relies on


def trained_on(model: str, adapter: str | None = None) -> list[str]:
    """Ids of the consent records that the training of a model, and of an adapter for it, relied on."""
    base = locate(model)
    notes = [base.with_name(base.name + ".json"), *([Path(adapter) / BASE] if adapter else [])]
    records: list[Any] = [read_json(note) for note in notes if note.is_file()]
    infos = [record.get("info") or {} for record in records if isinstance(record, dict)]
    return sorted({str(consent) for info in infos for consent in info.get("consents") or []})


def check_training(model: str, store: ConsentStore, adapter: str | None = None) -> None:
    """Refuse a model that was trained on people of whom one has revoked; ConsentError names the record."""
    known = set(store.ids())
    for consent in trained_on(model, adapter):
        if consent in known and (record := store.get(consent)).revoked is not None:
            raise ConsentError(
                f"{model} was trained on {record.name}, whose consent {consent} was revoked on {record.revoked}; "
                "train it again without those clips"
            )


def relied_on(models: Iterable[str]) -> dict[str, list[str]]:
    """What the json of a model made of others says of consent: {"consents": ids}, nothing where there are none."""
    found = sorted({consent for model in models for consent in trained_on(model)})
    return {"consents": found} if found else {}
