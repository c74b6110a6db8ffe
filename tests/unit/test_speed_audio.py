"""The bench of sound codecs, at a size that takes no time."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "speed" / "audio" / "run.py"


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_the_codec_is_timed_beside_a_peer_of_equal_work(monkeypatch, operation: str) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("speed_audio", SCRIPT)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    sound = torch.zeros(1, 4096)
    ours = bench.our_codec("toy")
    peer, _ = bench.equal_peer(ours, operation, sound)
    flops = [bench.flops_of(bench.calls(codec, sound)[operation]) for codec in (ours, peer)]
    assert flops[1] == pytest.approx(flops[0], rel=0.5)  # widths are few where they are small
    case = f"audio/toy/{operation}_0.1s_float32_cpu"
    try:
        found = {
            figure.name: figure.value for figure in bench.compare("toy", operation, 0.1, torch.float32, 3)
        }
    except RuntimeError as error:
        if "steady ceiling" not in str(error):
            raise
        pytest.skip("something else runs on this machine")
    assert found[f"{case}/share_of_ceiling"] > 0
