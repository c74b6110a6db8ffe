"""What `verify` and `info` found, for people who only want to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moviegen.provenance.code import Reading

if TYPE_CHECKING:
    from moviegen.provenance.verify import Findings

SIGNATURES = {
    "development": "unchanged since it was signed, but by a development certificate that nobody vouches for: it does "
    "not prove who made it",
    "untrusted": "unchanged since it was signed by {signer}, whom nothing here says to trust (trust=CERTIFICATES.pem)",
    "trusted": "unchanged since it was signed by {signer}, who is trusted here",
    "broken": "NOT TO BE TRUSTED: the file was changed after {signer} had signed it ({reasons})",
}
INFO_KEYS = ("prompt", "original", "image_path", "seed", "checkpoint", "decoder", "adapter_path", "commit")


def in_words(found: Findings) -> Iterator[str]:
    """Lines on one file: what it is, then the three kinds of evidence."""
    marks = [reading for reading in (found.picture, found.sound) if reading is not None and reading.found]
    if found.manifest.state == "broken" and not marks:
        yield "Made by a model? Its manifest says so, but cannot be trusted."
    elif marks or found.manifest.generated:
        yield "Made by a model? Yes."
    else:
        yield "Made by a model? Nothing found that says so, which does not prove that it was not."
    yield f"Signature: {_signature(found, bool(marks))}"
    yield from _watermarks(found)
    yield f"Side-car: {_sidecar(found)}"


def _signature(found: Findings, marked: bool) -> str:
    manifest = found.manifest
    if manifest.state != "none":
        text = SIGNATURES[manifest.state]
        return text.format(signer=manifest.signer or "somebody", reasons=", ".join(manifest.reasons))
    if found.card.get("manifest"):
        return "gone: its side-car says that it was signed; copying the streams or encoding anew drops the manifest"
    if "manifest" in found.card.get("without", {}):
        return f"none: {found.card['without']['manifest']} when it was made"
    if marked:
        return "none: it never had one, or lost it when it was copied into another file or encoded anew"
    return "none"


def _watermarks(found: Findings) -> Iterator[str]:
    without = found.card.get("without", {})
    for where, reading in (("picture", found.picture), ("sound", found.sound)):
        if reading is None:
            continue
        if not reading.found:
            why = without.get(f"{where} watermark") or without.get(f"readable {where} watermark")
            note = f"; it was made without: {why}" if why else ""
            scores = f"score {reading.score:.1f}, needed {reading.threshold:.1f}"
            yield f"Watermark in the {where}: none found ({scores}){note}"
            continue
        yield f"Watermark in the {where}: {_mark(found, reading)}"


def _mark(found: Findings, reading: Reading) -> str:
    shown = f"{reading.payload & (1 << reading.bits) - 1:0{reading.bits // 4}x}"
    signs, scores = f"{reading.chip_accuracy:.0%} of its signs intact", f"score {reading.score:.1f}"
    quality = f"{signs}, {scores}, needed {reading.threshold:.1f}"
    accuracy = found.accuracy(reading)
    if accuracy is None:
        return f"found, it says {shown} ({quality})"
    if accuracy == 1:
        return f"found, it says {shown}, as stated for this file: all {reading.bits} bits ({quality})"
    wrong = f"{accuracy:.0%} of its {reading.bits} bits agree"
    return f"found, it says {shown}, but {found.identifier or 0:08x} is stated for this file: {wrong} ({quality})"


def _sidecar(found: Findings) -> str:
    if found.sidecar is None:
        return "none"
    if found.sidecar_by == "identifier" and not found.same_file:
        return f"{found.sidecar} has the identifier that the watermark says: this file, or a copy, was made as it tells"
    if found.same_file:
        return f"{found.sidecar.name} describes this very file"
    return f"{found.sidecar.name} has its name, but describes other bytes: the file was changed or replaced since"


def told(found: Findings, card: dict[str, Any]) -> Iterator[str]:
    """How the file was made: from its side-car in full, else from its manifest."""
    yield str(found.path)
    yield from (f"  {line}" for line in in_words(found))
    record = found.manifest.generation or found.card
    if not record:
        yield "  Nothing tells how it was made."
        return
    yield "How it was made:"
    rows = {key: card[key] for key in INFO_KEYS if card.get(key) is not None}
    rows |= {key: record.get(key) for key in ("model", "model_sha256", "prompt_sha256", "seed", "created")}
    settings = dict(record.get("settings") or {})
    before = settings.pop("history", None) or []
    rows |= {"settings": settings, "label": record.get("label")}
    rows["made from"] = ", ".join(found.manifest.ingredients) or None
    yield from _listed(rows)
    for step in before:  # of a film: the models of its pictures and its sound
        yield "Before that:"
        yield from _listed(step)


def _listed(rows: Mapping[str, Any]) -> Iterator[str]:
    """A line for each value, more where it holds others."""
    for key, value in rows.items():
        if value is None or value == {}:
            continue
        if isinstance(value, Mapping):
            yield f"  {key}:"
            yield from (f"    {name}: {inner}" for name, inner in value.items())
        else:
            yield f"  {key}: {value}"
