"""C2PA manifests: what says, signed and inside the file, that and how it was generated.

The manifest is written last, for any change to the file after it breaks it, and copying the streams into another file
drops it. It never holds the prompt, only its hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from moviegen.config import UserError
from moviegen.media import MediaError
from moviegen.provenance.certificate import DEVELOPMENT_NAME, Signer

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = SOURCE_TYPES + "trainedAlgorithmicMedia"
EDITED = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
GENERATION = "org.moviegen.generation"  # our own assertion
MIME_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".png": "image/png",
    ".m4a": "audio/mp4", ".flac": "audio/flac", ".wav": "audio/wav",
}  # fmt: skip
JPEG = dict.fromkeys((".jpg", ".jpeg"), "image/jpeg")
INGREDIENT_TYPES = MIME_TYPES | JPEG | {".webp": "image/webp"}


@dataclass(frozen=True)
class ManifestState:
    """What a file's manifest says, and whether it still holds."""

    state: str  # "none", "broken" (the file was changed), "development", "untrusted", "trusted"
    signer: str = ""
    generation: dict[str, Any] | None = None  # our assertion
    generated: bool = False  # it says that a trained model made the file
    ingredients: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()  # of "broken"


def sign(
    source: Path,
    out: Path,
    name: str,
    record: dict[str, Any],
    signer: Signer,
    ingredients: tuple[Path, ...] = (),
    timestamp_url: str | None = None,
) -> None:
    """Write `source` with a manifest to `out`.

    Args:
        source: a whole file, of a type in MIME_TYPES by the suffix of `name`.
        out: another path; its suffix does not matter.
        name: what the file is called.
        record: goes into our assertion; its "watermarks" are bound to the file.
        signer: key and certificate.
        ingredients: files that went into it: the source of an edit, a reference.
        timestamp_url: of a time-stamping service, asked over the network; None for none.

    Raises:
        UserError: the key does not sign, or an ingredient cannot be read.
        MediaError: the file cannot be written.
    """
    import c2pa

    mime = MIME_TYPES[Path(name).suffix.lower()]
    info = c2pa.C2paSignerInfo(signer.algorithm.encode(), signer.chain, signer.key, timestamp_url)
    try:
        plain = c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        definition = _definition(name, record, ingredients)
        with (
            c2pa.Context(plain) as context,
            c2pa.Signer.from_info(info) as key,
            c2pa.Builder(definition, context=context) as builder,
        ):
            for path in ingredients:
                _add_ingredient(builder, path)
            with source.open("rb") as reading, out.open("w+b") as writing:
                builder.sign(key, mime, reading, writing)
    except c2pa.C2paError as error:
        if "Io" in type(error).__name__:
            raise MediaError(name, f"cannot be signed: {error}", "write") from error
        raise UserError(f"{name} cannot be signed with {signer.name}: {error}") from error


def _definition(name: str, record: dict[str, Any], ingredients: tuple[Path, ...]) -> dict[str, Any]:
    agent = {"name": "moviegen", "version": metadata.version("moviegen")}
    source_type = EDITED if ingredients else GENERATED
    actions: list[dict[str, Any]] = [
        {"action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": agent}
    ]
    assertions: list[dict[str, Any]] = [{"label": GENERATION, "data": _written(record)}]
    for mark in record.get("watermarks", ()):
        block = {"scope": {"extent": mark["in"]}, "value": record["identifier"]}
        assertions.append({"label": "c2pa.soft-binding", "data": {"alg": mark["name"], "blocks": [block]}})
    if record.get("watermarks"):
        actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
    assertions.append({"label": "c2pa.actions.v2", "data": {"actions": actions}})
    return {"claim_generator_info": [agent], "title": name, "assertions": assertions}


def _written(value: Any) -> Any:
    """A plain value as a manifest keeps it: c2pa takes whole numbers in a list for bytes, cut off at 8 bits."""
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            return str(list(value))
        return [_written(one) for one in value]
    return value


def _add_ingredient(builder: Any, path: Path) -> None:
    mime = INGREDIENT_TYPES.get(path.suffix.lower())
    if mime is None:
        return  # named in our assertion by its hash
    try:
        with path.open("rb") as reading:
            about = {"title": path.name, "relationship": "inputTo"}
            builder.add_ingredient(json.dumps(about), mime, reading)
    except OSError as error:
        raise UserError(f"ingredient {path} cannot be read: {error.strerror}") from error


def read_manifest(path: Path, anchors: Path | None = None) -> ManifestState:
    """What the manifest of a file says. `anchors`: PEM certificates that are trusted.

    Raises UserError where `anchors` cannot be read. A file without a manifest, or of a kind that has none, is "none".
    """
    import c2pa

    settings = _settings(anchors)
    try:
        mime = MIME_TYPES.get(path.suffix.lower())
        with (
            c2pa.Context(settings) as context,
            path.open("rb") as file,
            c2pa.Reader(mime, file, context=context) as reader,
        ):
            told = json.loads(reader.json())
    except c2pa.C2paError as error:
        kind = type(error).__name__  # its subclasses are set at run time
        if "ManifestNotFound" in kind or "NotSupported" in kind or "type is unsupported" in str(error):
            return ManifestState("none")
        return ManifestState("broken", reasons=(" ".join(str(error).split())[:160],))
    return _state(told)


def _settings(anchors: Path | None) -> Any:
    import c2pa

    verify = {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False}
    if anchors is None:
        return c2pa.Settings.from_dict({"verify": verify})
    try:
        text = anchors.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"trust={anchors}: cannot be read as PEM certificates") from error
    if "BEGIN CERTIFICATE" not in text:
        raise UserError(f"trust={anchors}: holds no PEM certificate")
    return c2pa.Settings.from_dict({"verify": verify, "trust": {"user_anchors": text}})


def _state(told: dict[str, Any]) -> ManifestState:
    active = told["manifests"][told["active_manifest"]]
    found = {one["label"].removesuffix("__1"): one["data"] for one in active.get("assertions", ())}
    actions = found.get("c2pa.actions.v2", found.get("c2pa.actions", {})).get("actions", [])
    types = {action.get("digitalSourceType") for action in actions}
    signature = active.get("signature_info") or {}
    signer = signature.get("common_name") or signature.get("issuer") or "somebody who gives no name"
    problems = [one["code"] for one in told.get("validation_status") or []]
    faults = tuple(code for code in problems if code != "signingCredential.untrusted")
    if told.get("validation_state") == "Invalid" or faults:
        state = "broken"
    elif "signingCredential.untrusted" not in problems:
        state = "trusted"
    else:
        state = "development" if signer == DEVELOPMENT_NAME else "untrusted"
    parts = tuple(str(one.get("title")) for one in active.get("ingredients", ()))
    return ManifestState(
        state, signer, found.get(GENERATION), bool(types & {GENERATED, EDITED}), parts, faults
    )
