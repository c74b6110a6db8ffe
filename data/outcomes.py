"""What became of every source: printed as a table, written to outcomes.json and outcomes.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class FileOutcome:
    """One source file, or one toyworld series."""

    source: str  # the source's key in the config
    file: str
    split: str
    samples: int = 0
    retimed: bool = False
    cropped: bool = False
    sound_only: bool = False
    has_caption: bool = False
    is_series: bool = False  # a toyworld series: captions come from the renderer
    rule: str | None = None  # why it was dropped
    detail: str = ""
    spans_dropped: Counter[str] = field(default_factory=Counter)  # rule -> spans, where the rest was kept

    @property
    def result(self) -> str:
        """kept, kept with dropped spans named, or dropped."""
        if self.rule is not None:
            return "dropped"
        return "kept" if self.samples else "dropped"

    def drop(self, rule: str, detail: str) -> FileOutcome:
        """Mark the whole file as dropped."""
        self.rule, self.detail = rule, detail
        return self

    def settle(self) -> None:
        """A file that lost all of its spans is dropped by the rule that took most of them."""
        if not self.samples and self.rule is None and self.spans_dropped:
            self.rule = self.spans_dropped.most_common(1)[0][0]

    def record(self) -> dict[str, Any]:
        """Plain values for json."""
        return asdict(self) | {"result": self.result, "spans_dropped": dict(self.spans_dropped)}


def from_record(row: Mapping[str, Any]) -> FileOutcome:
    """The outcome whose `record` this is."""
    values: dict[str, Any] = {one.name: row[one.name] for one in fields(FileOutcome) if one.name in row}
    values["spans_dropped"] = Counter(row.get("spans_dropped", {}))
    return FileOutcome(**values)


def summary(outcomes: Sequence[FileOutcome]) -> dict[str, Any]:
    """Counts over all files: kept, retimed, cropped, dropped by rule, captions missing, samples."""
    kept = [o for o in outcomes if o.result == "kept"]
    return {
        "files": len(outcomes),
        "kept": len(kept),
        "retimed": sum(o.retimed for o in kept),
        "cropped": sum(o.cropped for o in kept),
        "sound_only": sum(o.sound_only for o in kept),
        "dropped": len(outcomes) - len(kept),
        "dropped_by_rule": dict(Counter(o.rule or "no samples" for o in outcomes if o.result == "dropped")),
        "spans_dropped_by_rule": dict(sum((o.spans_dropped for o in kept), Counter())),
        "captions_missing": sum(not (o.has_caption or o.is_series) for o in kept),
        "samples": sum(o.samples for o in outcomes),
    }


def words(outcome: FileOutcome) -> str:
    """One phrase: what became of a file."""
    if outcome.result == "dropped":
        return f"dropped ({outcome.rule or 'no samples'}): {outcome.detail}".rstrip(": ")
    parts = ["kept", *(["retimed"] if outcome.retimed else []), *(["cropped"] if outcome.cropped else [])]
    parts += ["sound only"] if outcome.sound_only else []
    text = f"{', '.join(parts)}: {outcome.samples} samples"
    if not (outcome.has_caption or outcome.is_series):
        text += ", no caption"
    for rule, count in outcome.spans_dropped.items():
        text += f"; {count} spans dropped ({rule})"
    return text


def table(outcomes: Sequence[FileOutcome]) -> str:
    """The whole printed report: a line a file, then the totals."""
    width = min(60, max((len(o.file) for o in outcomes), default=0))
    lines = [f"  {_short(o.file, width):<{width}}  {o.split:<6} {words(o)}" for o in outcomes]
    total = summary(outcomes)
    counts = ", ".join(f"{total[name]} {name}" for name in ("kept", "retimed", "cropped", "dropped"))
    lines.append(f"{total['files']} sources: {counts}; {total['samples']} samples")
    for name, title in (("dropped_by_rule", "dropped"), ("spans_dropped_by_rule", "spans dropped")):
        if total[name]:
            lines.append(f"{title} by rule: " + ", ".join(f"{rule} {n}" for rule, n in total[name].items()))
    if total["sound_only"]:
        lines.append(f"sound only: {total['sound_only']} (flac, in tars of their own; not for video models)")
    if total["captions_missing"]:
        lines.append(f"captions missing: {total['captions_missing']} (none invented; not for text-to-video)")
    return "\n".join(lines)


def as_csv(outcomes: Sequence[FileOutcome]) -> str:
    """The same as comma-separated values."""
    names = [
        "source",
        "file",
        "split",
        "result",
        "rule",
        "samples",
        "retimed",
        "cropped",
        "sound_only",
        "has_caption",
        "detail",
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(outcome.record() for outcome in outcomes)
    return text.getvalue()


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else "..." + text[3 - width :]
