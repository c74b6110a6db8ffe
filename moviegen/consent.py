"""`moviegen consent add|list|revoke`: the records without which no real person's face is used."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from moviegen.config import build
from moviegen.provenance.consent import Consent, ConsentError, ConsentStore, file_sha256


@dataclass(frozen=True)
class ConsentListConfig:
    """The key of conf/consent_list.yaml, which says what it is."""

    store: Path


@dataclass(frozen=True)
class ConsentRevokeConfig(ConsentListConfig):
    """The keys of conf/consent_revoke.yaml, which says what they are."""

    id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class ConsentAddConfig(ConsentListConfig):
    """The keys of conf/consent_add.yaml, which says what they are."""

    id: str | None = None
    name: str = ""
    files: tuple[str, ...] = ()
    evidence: str | None = None
    expires: str | None = None
    purpose: str = ""
    covers: str = "subject"
    kind: str = "signed form"
    licence: str = "custom:as the evidence says"
    scope: tuple[str, ...] = ("training", "sampling")


def add(cfg: DictConfig) -> None:
    """Add a record; ConsentError (a ValueError) where something is missing or the id is taken."""
    config: ConsentAddConfig = build(cfg)
    for name in ("id", "name", "files", "evidence", "expires", "purpose"):
        if not getattr(config, name):
            raise ConsentError(
                f"a consent record needs {name}=...: who, which files, what proves it, until when, why"
            )
    store = ConsentStore(config.store)
    store.add(
        Consent(
            id=str(config.id),
            covers=config.covers,
            name=config.name,
            kind=config.kind,
            licence=config.licence,
            scope=config.scope,
            purpose=config.purpose,
            expires=str(config.expires),
            evidence_sha256=file_sha256(str(config.evidence)),
            files=tuple(file_sha256(path) for path in config.files),
            added=store.today.isoformat(),
        )
    )
    print(f"{config.store}/{config.id}.json: consent of {config.name} until {config.expires}")


def list_records(cfg: DictConfig) -> None:
    """Print a line for each record: id, state, name, scope, files and uses."""
    config: ConsentListConfig = build(cfg)
    store = ConsentStore(config.store)
    for consent_id in store.ids():
        record = store.get(consent_id)
        expired = datetime.date.fromisoformat(record.expires) < store.today
        state = f"valid until {record.expires}" if not expired else f"expired on {record.expires}"
        state = f"revoked on {record.revoked}" if record.revoked else state
        uses = store.uses(consent_id)
        print(
            f"{consent_id}: {state}; {record.covers} {record.name} ({record.kind}, {record.licence}), for "
            f"{' and '.join(record.scope)}: {record.purpose}; {len(record.files)} files, {len(uses)} uses"
        )
    if not store.ids():
        print(f"{store.folder}: no consent records; moviegen consent add writes one")


def revoke(cfg: DictConfig) -> None:
    """Revoke a record, and list the shards, runs (with all of their checkpoints) and models that were made by it."""
    config: ConsentRevokeConfig = build(cfg)
    if not config.id:
        raise ConsentError("say which record: id=...")
    uses = ConsentStore(config.store).revoke(config.id, config.reason)
    print(f"{config.id} is revoked; {len(uses)} uses" + (":" if uses else ""))
    for use in uses:
        gone = "" if Path(use["path"]).exists() else " (no longer there)"
        print(f"  {use['kind']} {use['path']}, sha256 {use['sha256'][:16]}, {use['date']}{gone}")
