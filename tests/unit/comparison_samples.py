"""A small comparison on disk: arms, a study of two axes, simulated votes and scores."""

from pathlib import Path
from typing import Any

from arm_samples import NUM_PROMPTS, write_arm, write_suite
from moviegen_eval.arms import SettingsCard, write_card
from moviegen_eval.score import score
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.study import Study, load_study
from moviegen_eval.study.votes import VoteLog
from moviegen_eval.study_draft import draft

ARMS = ("ours", "sora", "luma")
NOISE = {"ours": 0.0, "sora": 10.0, "luma": 30.0}


def write_comparison(root: Path) -> Study:
    """Arms, scores, study.yaml and votes.jsonl under `root`."""
    write_suite(root / "suite.csv")
    for name in ARMS:
        write_arm(root / name, noise=NOISE[name])
        steps = 50 if name == "ours" else None
        write_card(root / name, SettingsCard(name, model=f"model {name}", steps=steps, date="2026-01-01"))
    arms = {name: str(root / name) for name in ARMS}
    common = {"suite": str(root / "suite.csv"), "arms": arms}
    score(common | {"out": str(root / "scores"), "metrics": ["flicker", "motion"], "bootstrap_count": 200})
    axes = ["overall", {"key": "realness", "raters": 4}]
    draft(common | {"out": str(root / "study.yaml"), "axes": axes, "same_gold": 2, "title": "A <b>study</b>"})
    study = load_study(root / "study.yaml")
    strengths = {"ours": 1.0, "sora": 0.5, "luma": -2.0}
    table = simulate(study, Simulation(strengths, raters=9), seed=3)
    with VoteLog(root / "votes.jsonl", durable=False) as log:
        log.append(table.votes())
    return study


def report_config(root: Path, **changes: Any) -> dict:
    """A complete config of the comparison's report."""
    values = {
        "study": str(root / "study.yaml"), "votes": str(root / "votes.jsonl"), "scores": str(root / "scores"),
        "out": str(root / "report" / "report.html"), "resamples": 200, "grid_items": 4, "grid_height": 32,
    }  # fmt: skip
    return values | changes


NUM_ITEMS = 2 * NUM_PROMPTS
