"""The bench of layouts, at a size that takes no time."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_bench_measures_layouts_beside_one_process_and_the_ceiling(tmp_path: Path) -> None:
    script = ROOT / "experiments" / "speed" / "scaling" / "run.py"
    size = ["--dim", "64", "--layers", "1", "--heads", "2", "--grid", "2", "4", "4", "--ceiling", "128"]
    words = [*size, "--rounds", "1", "--only", "shard", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "numbers.json").read_text())}
    prefix = "scaling/64x1_64/float32_cpu2"
    assert figures[f"{prefix}/one/speedup"]["value"] == 1
    for name in ("speed", "share_of_ceiling", "ceiling"):
        assert all(figures[f"{prefix}/{layout}/{name}"]["value"] > 0 for layout in ("one", "shard"))
    assert figures[f"{prefix}/shard/speedup"]["n"] == 1
