"""`moviegen eval study draft`: a study file from arms and a suite, with gold items and references."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_samples import write_arm, write_suite
from moviegen_eval.study.study import Study, load_study
from moviegen_eval.study_draft import draft

from moviegen import cli
from moviegen.media import read_clip, to_png_bytes

NUM = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("draft")
    write_suite(folder / "suite.csv", NUM)
    for name, noise in (("ours", 0.0), ("sora", 20.0), ("kling1.5", 30.0)):
        write_arm(folder / name, noise, NUM)
    return folder


def settings(root: Path, out: Path, *arms: str, **changes: Any) -> dict[str, Any]:
    given = {name: str(root / name) for name in arms or ("ours", "sora")}
    base = {"out": str(out), "suite": str(root / "suite.csv"), "arms": given, "axes": ["overall"]}
    return base | changes


def test_gold_items_show_a_video_twice_or_with_a_copy_that_is_worse(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "study.yaml"
    draft(settings(root, out, same_gold=2, degraded_gold=4))
    study = load_study(out)
    gold = [item for item in study.items if item.gold is not None]
    assert [item.gold for item in gold] == ["tie", "tie", "b", "b", "a", "a"]
    assert {item.arm_a for item in gold} == {"ours", "sora"} and len({item.prompt for item in gold}) == NUM
    for item in gold:
        frames = [read_clip(study.video(item, side)).frames.astype(int) for side in ("a", "b")]
        assert (np.abs(frames[0] - frames[1]).mean() > 3) == (item.gold != "tie")
        if item.gold != "tie":
            bad = study.video(item, "b" if item.gold == "a" else "a")
            assert bad.parent == tmp_path / "study-gold"
    again = draft(settings(root, tmp_path / "b" / "study.yaml", same_gold=2, degraded_gold=4))
    assert [item.id for item in again.items] == [item.id for item in study.items]
    with pytest.raises(ValueError, match="8 gold items are to be drawn from 6 items"):
        draft(settings(root, tmp_path / "c.yaml", same_gold=8))
    with pytest.raises(ValueError, match="degraded_gold must be at least 0, got -1"):
        draft(settings(root, tmp_path / "c.yaml", degraded_gold=-1))


def with_fields(root: Path, path: Path, field: str, lacking: int = 0) -> str:
    """The suite as lines whose prompts name a file."""
    rows = [
        {"id": f"p-{n:02d}", "prompt": f"a thing number {n}"}
        | ({"fields": {field: f"{n}.png"}} if n >= lacking else {})
        for n in range(NUM)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def faces(folder: Path) -> str:
    folder.mkdir()
    for n in range(NUM):
        (folder / f"{n}.png").write_bytes(to_png_bytes(np.full((20, 20, 3), 10 * n, np.uint8)))
    return str(folder)


def test_what_a_pair_is_held_against_comes_from_the_suite_and_is_missed_by_name(
    root: Path, tmp_path: Path
) -> None:
    suite, pictures = with_fields(root, tmp_path / "s.jsonl", "face"), faces(tmp_path / "faces")
    out, axes = tmp_path / "study.yaml", ["identity", "face_consistency"]
    with pytest.raises(ValueError, match="axis 'identity' is judged against a reference, but item 'p-00'"):
        draft(settings(root, out, suite=suite, axes=axes))
    study = draft(settings(root, out, suite=suite, axes=axes, faces=pictures, same_gold=1))
    assert [study.reference(item) for item in study.items[:2]] == [
        tmp_path / "faces" / "0.png",
        tmp_path / "faces" / "1.png",
    ]
    assert study.items[-1].gold and study.items[-1].reference
    source = with_fields(root, tmp_path / "e.jsonl", "source_video")
    edits = draft(settings(root, tmp_path / "e.yaml", suite=source, axes=["edit_text"], sources=pictures))
    assert edits.without_reference()[1] == []
    (tmp_path / "faces" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"prompt p-03: .*3\.png is not there \(1 such references\)"):
        draft(settings(root, tmp_path / "d.yaml", suite=suite, axes=axes, faces=pictures))
    (tmp_path / "faces" / "3.png").write_bytes((tmp_path / "faces" / "4.png").read_bytes())
    some = with_fields(root, tmp_path / "some.jsonl", "face", lacking=2)
    with pytest.raises(ValueError, match=r"\(2 such items\)"):
        draft(settings(root, tmp_path / "d.yaml", suite=some, axes=axes, faces=pictures))
    assert not (tmp_path / "d.yaml").exists()


def test_every_opponent_gets_the_same_drawn_prompts(root: Path, tmp_path: Path) -> None:
    study = draft(settings(root, tmp_path / "s.yaml", "ours", "sora", "kling1.5", max_items=3))
    prompts: dict[str, list[str]] = {}
    for item in study.items:
        prompts.setdefault(item.arm_b, []).append(item.prompt)
    assert prompts["sora"] == prompts["kling1.5"] and len(set(prompts["sora"])) == 3


def test_a_study_file_that_is_there_is_not_replaced_by_accident(root: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "s.yaml"
    words = [
        f"out={out}",
        f"suite={root / 'suite.csv'}",
        f"arms.ours={root / 'ours'}",
        f"arms.sora={root / 'sora'}",
    ]
    assert cli.main(["eval", "study", "draft", *words]) == 0
    before = out.read_bytes()
    assert cli.main(["eval", "study", "draft", *words, "seed=1"]) == 2
    assert "is there already; overwrite=true replaces it" in capsys.readouterr().err
    assert out.read_bytes() == before and isinstance(load_study(out), Study)
