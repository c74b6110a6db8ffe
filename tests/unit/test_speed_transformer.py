"""The bench of transformer blocks, at a size that takes no time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_bench_measures_all_blocks_beside_the_ceiling(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    words = ["--dim", "256", "--grid", "2", "4", "4", "--text", "8", "--rounds", "3", "--ceiling", "256"]
    script = ROOT / "experiments" / "speed" / "transformer" / "run.py"
    done = subprocess.run(
        [sys.executable, script, *words, "--threads", "1", "--out", tmp_path], capture_output=True, text=True
    )
    if "no round had a steady ceiling" in done.stderr:
        pytest.skip("something else runs on this machine")
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "numbers.json").read_text())}
    prefix = "transformer/256_32_8/float32_cpu"
    for peer in ("wan", "ltx", "cogvideox"):
        assert figures[f"{prefix}/ratio_to_{peer}"]["value"] > 0
        assert figures[f"{prefix}/{peer}_share_of_ceiling"]["value"] > 0
    # two products in the backward pass for each of the forward one; so few tokens take plain products for attention
    forward = 2 * (6 * 256**2 + 3 * 256 * 682) + 2 * 2 * 256**2 * 8 / 32 + 4 * (32 + 8) * 256
    assert figures[f"{prefix}/flops_per_token"]["value"] == pytest.approx(3 * forward, rel=1e-9)
