"""Many raters at once, and a server that is killed between and in the middle of their answers: no vote is lost."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "study_load" / "load.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the raters have loopback addresses of their own")
def test_no_vote_is_lost_when_the_server_is_killed_at_random_instants(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("study_load", SCRIPT)
    assert spec is not None and spec.loader is not None
    load = sys.modules["study_load"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    settings = load.Settings(
        out=tmp_path, raters=20, seconds=6.0, kills=2, items=60, think_seconds=0.3, video_bytes=5_000
    )
    facts = asyncio.run(load.run_load(settings))
    assert {name: facts[name] for name in load.GOALS} == dict.fromkeys(load.GOALS, 0)
    assert facts["votes_stored"] == facts["votes_acknowledged"] == facts["lines_in_the_log"] > 20
    assert facts["kills"] == 3 and facts["taken_back"] > 0 and facts["requests_repeated"] > 0
    assert facts["exit_code"] == 130  # Ctrl-C ends it, and says that the same command goes on
