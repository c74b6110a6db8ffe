"""`moviegen export`: a training checkpoint to model files, with the averaged weights where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from moviegen.checkpoint import load_averages
from moviegen.config import UserError, build, check_targets
from moviegen.lineage import CONSENTS, check_consents, note_model, trained_at
from moviegen.modelfile import DTYPES, Dtype, save_model
from moviegen.provenance.consent import ConsentStore
from moviegen.runfolder import read_json
from moviegen.targets import MODEL_TARGETS


@dataclass(frozen=True)
class ExportConfig:
    """The keys of conf/export.yaml, which says what they are."""

    run_dir: Path
    out: str
    checkpoint: str = "latest"
    dtype: Dtype = "bfloat16"
    store: Path = Path("consents")


def export(cfg: DictConfig) -> None:
    """Write the files OUT.safetensors and OUT.json. Raises UserError for no run, one of an adapter, or a checkpoint
    that is damaged or of another architecture than the run's config; ConsentError where one of the people that it was
    trained on has revoked.
    """
    config: ExportConfig = build(cfg)
    run = config.run_dir
    record, checkpoints = run / "run.json", run / "checkpoints"
    for path in (record, checkpoints):
        if not path.exists():
            raise UserError(f"{run} is no run folder of moviegen train: it has no {path.relative_to(run)}")
    try:
        settings: Any = read_json(record)["config"]
        node = settings["task"]
        adapter = settings.get("adapter")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{record} does not describe a training ({type(error).__name__}: {error})") from error
    if adapter:
        raise UserError(
            f"{run} trained an adapter, not a model: give {run / 'adapter'} as adapter=... of generate"
        )
    check_targets(node, MODEL_TARGETS, "task")
    task = build(node)
    consents = read_json(run / CONSENTS) if (run / CONSENTS).is_file() else []
    store = ConsentStore(config.store)
    check_consents(str(run), consents, store)
    saved = load_averages(checkpoints, config.checkpoint, task)
    step = saved.manifest.step
    info: dict[str, Any] = {"steps": step, "checkpoint": str(saved.path), "stage": saved.stage}
    info |= {"consents": consents} if consents else {}
    info |= trained_at(run)
    save_model(Path(config.out), task, node, DTYPES[config.dtype], info)
    note_model(Path(f"{config.out}.safetensors"), consents, store)
    print(f"{config.out}.safetensors written from step {step}")
