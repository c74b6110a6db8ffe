"""A mirror of a report in Weights & Biases: figures, tables and files. The files stay the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.numbers import NUMBERS, read_numbers
from moviegen_eval.report.compared import all_tables
from moviegen_eval.report.comparison import Comparison


def mirror(
    settings: Mapping[str, str], folder: Path, files: Sequence[str], comparison: Comparison | None
) -> None:
    """Log to a run of its own; offline unless `mode` says otherwise. ValueError where wandb is not installed."""
    try:
        import wandb
    except ImportError:
        raise ValueError("report: wandb is not installed: pip install wandb, or leave wandb=null") from None
    place = Path(settings.get("dir", str(folder)))
    run = wandb.init(
        project=settings.get("project", "moviegen-eval"),
        name=settings.get("name"),
        mode=settings.get("mode", "offline"),  # type: ignore[arg-type]
        dir=str(place),
        job_type="report",
    )
    try:
        figures = read_numbers(folder / NUMBERS)
        run.summary.update({figure.name: figure.value for figure in figures})
        columns: Any = ["name", "value", "low", "high", "n", "unit"]
        data: Any = [[getattr(figure, key) for key in columns] for figure in figures]
        run.log({"figures": wandb.Table(columns=columns, data=data)})
        for table in all_tables(comparison) if comparison else []:
            rows: Any = [list(row) for row in table.rows]
            run.log({table.name: wandb.Table(columns=list(table.head), data=rows)})
        page = next((name for name in files if name.endswith(".html")), None)
        if page:
            run.log({"report": wandb.Html((folder / page).read_text(encoding="utf-8"))})
    finally:
        run.finish()
