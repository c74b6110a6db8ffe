"""The report on form: how rated videos were made alike, what they are held against, and scores that do not compare."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_samples import NUM_ITEMS, report_config, write_comparison
from moviegen_eval.report import report
from moviegen_eval.report.sections import exclusion_words
from moviegen_eval.study.build import build
from moviegen_eval.study.study import ExclusionRules, load_study, save_study

from moviegen.media import read_clip, to_png_bytes, write_video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder)
    yield folder


def test_the_page_says_how_rated_videos_were_made_alike_and_shows_what_they_are_held_against(
    root: Path, tmp_path: Path
) -> None:
    study = load_study(root / "study.yaml")
    (root / "face.png").write_bytes(to_png_bytes(np.full((40, 30, 3), 90, np.uint8)))
    items = [replace(item, reference="face.png") for item in study.items]
    for n, item in enumerate(items):
        if item.gold is None and n % 2:  # wide, where its partner is square
            clip = read_clip(root / item.video_b)
            write_video(root / "wide" / f"{n}.mp4", clip.frames[:, :16], clip.frame_rate)
            items[n] = replace(item, video_b=f"wide/{n}.mp4")
    save_study(replace(study, items=tuple(items)), root / "other.yaml")
    build({"study": str(root / "other.yaml"), "out": str(tmp_path / "built")})
    changes = {
        "study": str(root / "other.yaml"),
        "votes": None,
        "scores": None,
        "out": str(tmp_path / "r.html"),
    }
    assert "not stated: built= names the folder" in report(report_config(root, **changes)).read_text()
    source = report(report_config(root, **changes, built=str(tmp_path / "built"))).read_text()
    assert f"black bars in {NUM_ITEMS // 2}" in source and f"{NUM_ITEMS + 2} pairs with gold items" in source
    assert source.count('src="data:image/png;base64,') == 4 and source.count(">reference</span>") == 4
    with pytest.raises(ValueError, match="was built for study"):
        report(report_config(root, built=str(tmp_path / "built")))
    with pytest.raises(ValueError, match="built without a study"):
        report(report_config(root, study=None, votes=None, built=str(tmp_path / "built")))


def test_scores_that_do_not_compare_never_share_a_row(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "scores", tmp_path / "scores")
    file = tmp_path / "scores" / "scores.json"
    values = json.loads(file.read_text())
    for one in values["scores"]:
        if (one["arm"], one["output"]) == ("sora", "flicker"):
            one["manifest"]["code"] = "another"
    values |= {"normal": {}, "differences": {"width": {"ours": "32", "sora": "64"}}}
    file.write_text(json.dumps(values))
    changes = {"scores": str(tmp_path / "scores"), "out": str(tmp_path / "r" / "report.html")}
    page = report(report_config(root, **changes))
    rows = (page.parent / "report.files" / "metrics.csv").read_text().splitlines()
    assert sum(row.startswith("flicker,") for row in rows) == 3
    assert sum(row.startswith("motion,") for row in rows) == 1
    source = page.read_text()
    assert "each arm has a row of its own: flicker of ours and of sora do not compare: code is" in source
    assert (
        "Automatic metrics were taken of unlike videos (unlike=as_they_are): width ours 32, sora 64" in source
    )


def test_settings_say_what_videos_are_beside_what_cards_state_and_which_rules_apply(
    root: Path, tmp_path: Path
) -> None:
    page = report(report_config(root, out=str(tmp_path / "r.html")))
    rows = (page.parent / "r.files" / "settings.csv").read_text().splitlines()
    assert "frame rate,same,not stated,not stated,not stated" in rows
    assert "frame rate as measured,same,8 frames/s,8 frames/s,8 frames/s" in rows
    assert "width as measured,same,32 pixels,32 pixels,32 pixels" in rows
    assert exclusion_words(ExclusionRules()) == "none"
    rules = ExclusionRules(min_gold_accuracy=0.6, min_watch_seconds=1.5)
    assert exclusion_words(rules) == "min_gold_accuracy 0.6, min_gold_votes 3, min_watch_seconds 1.5"


def test_the_page_prints_dates_of_votes_and_axes_without_an_alpha(root: Path, tmp_path: Path) -> None:
    study = load_study(root / "study.yaml")
    lines = [json.loads(line) for line in (root / "votes.jsonl").read_text().splitlines()]
    first = {item.id for item in study.items if item.gold is None}
    kept, seen = [], set()
    for n, line in enumerate(line for line in lines if line["item"] in first):
        if (line["item"], line["axis"]) not in seen:  # one vote an item: nobody to agree with
            seen.add((line["item"], line["axis"]))
            kept.append(line | {"time": f"2026-03-{1 + n % 9:02d}T12:00:00+00:00"})
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    changes = {
        "votes": str(tmp_path / "votes.jsonl"),
        "scores": None,
        "out": str(tmp_path / "r" / "report.html"),
    }
    page = report(report_config(root, **changes))
    assert "2026-03-01 to 2026-03-09" in page.read_text()
    alpha = (page.parent / "report.files" / "alpha.csv").read_text().splitlines()
    assert alpha[1:] == ["overall,not defined,-,-,-", "realness,not defined,-,-,-"]
