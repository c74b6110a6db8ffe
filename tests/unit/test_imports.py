"""The pinned versions fit together: a mismatched torch and torchvision fail on import, not on install."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_torchvision_torchmetrics_lightning_and_open_clip_import() -> None:
    code = "import torchvision, torchmetrics, lightning, open_clip; import torchvision.ops"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lightning_is_none_of_the_malicious_uploads() -> None:
    assert metadata.version("lightning") not in ("2.6.2", "2.6.3")
    assert "!=2.6.2,!=2.6.3" in (ROOT / "pyproject.toml").read_text()


def test_every_dependency_has_a_pin() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {
        re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)
    }
    for text in metadata.requires("moviegen") or []:
        name = re.match(r"[\w.-]+", text)
        assert name is not None
        if "cuda" not in text and name[0] != "moviegen" and "decord2" not in text:
            assert re.sub(r"[-_.]+", "-", name[0]).lower() in pinned, text
