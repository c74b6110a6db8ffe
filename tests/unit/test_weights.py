"""The manifest of external weights, and files held against it."""

import hashlib
import json
from pathlib import Path

import pytest

from moviegen import perceptual, weights


def test_every_entry_says_source_licence_checksum_and_what_runs_without_it() -> None:
    rows = weights.read_manifest()
    assert len(rows) == len(json.loads(weights.MANIFEST.read_text()))
    for row in rows.values():
        assert row.used_by and row.source and row.licence and row.without
        assert row.sha256 is None or len(row.sha256) == 64
        assert row.checksum == weights.UNKNOWN or row.sha256 or row.sha256_prefix
    assert {net: rows[f"stlpips_{net}"].sha256 for net in ("alex", "vgg")} == perceptual.SHA256


@pytest.mark.parametrize("name", ["lpips_alex_head", "lpips_vgg_head", "dists_head"])
def test_the_heads_that_come_with_torchmetrics_are_the_manifest_s(name: str) -> None:
    import torchmetrics

    row = weights.read_manifest()[name]
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / row.file
    assert weights.check_weight(name, path)["sha256"] == row.sha256


def test_a_file_of_another_checksum_is_refused_and_an_unknown_one_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ValueError, match=r"sha256 is d9298a10.*, expected 7be5be79\.\.\."):
        weights.check_weight("alexnet", file)
    assert weights.check_weight("i3d_fvd", file)["sha256"] == found
    with pytest.raises(ValueError, match="no such file; it comes from: torchvision"):
        weights.check_weight("vgg16", tmp_path / "absent")
    with pytest.raises(ValueError, match="not in the manifest"):
        weights.check_weight("clip", file)
