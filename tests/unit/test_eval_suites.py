"""Prompt suites: ours, toyworld's, and readers of public files with all their quirks."""

import csv
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from moviegen_eval.generate import generate
from moviegen_eval.suites import count_tags, cross_counts, open_suite

ROWS = [  # prompt in the txt, prompt in the csv, concept, motion
    ("a dog runs", "a dog runs", "animal", "high"),
    ("a hand waves", "a hand waves ", "human - hand", "medium"),
    ("a dog runs", "a dog runs", "animal,camera motion", "low"),
    ('a "glass" cow, blue', 'a "glass" cow, blue', "unusual activity,unusual activity", "medium"),
    ("sm\u00f6rg\u00e5s falls", "smorgas falls", "physics - gravity,human - activity", "high"),
]


def write_bench(folder: Path) -> Path:
    folder.mkdir()
    (folder / "MovieGenVideoBench.txt").write_text("".join(f"{row[0]}\n" for row in ROWS), encoding="utf-8")
    with (folder / "MovieGenVideoBenchWithTag.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "concept", "motion_level"])
        writer.writerows(row[1:] for row in ROWS)
    return folder


def test_our_own_suite_has_200_prompts_tagged_by_concept_and_motion() -> None:
    suite = open_suite("own")
    assert len(suite.prompts) >= 200 and suite.num_unique() == len(suite.prompts)
    levels = Counter(prompt.tags["motion_level"][0] for prompt in suite.prompts)
    assert set(levels) == {"low", "medium", "high"} and min(levels.values()) >= 40
    families = count_tags(suite, family=True)
    assert set(families) == {
        "human", "animal", "scene", "camera motion", "physics", "unusual subject", "unusual activity",
        "sequential motion",
    }  # fmt: skip
    assert min(families.values()) >= 10
    assert all(prompt.text.isascii() and prompt.text == prompt.text.strip() for prompt in suite.prompts)
    assert suite.digest == open_suite("own").digest
    table = cross_counts(suite)
    assert sum(table["animal"].values()) == families["animal"]
    assert suite.prompts[17].study_tags().keys() == {"concept", "concept_family", "motion_level"}


def test_toyworld_prompts_come_with_their_specs() -> None:
    suite = open_suite("toyworld:level=2,num=9")
    assert len(suite.prompts) == 9 and all("spec" in prompt.fields for prompt in suite.prompts)
    assert open_suite("toyworld:level=2,num=9").digest == suite.digest
    with pytest.raises(ValueError, match="suite toyworld: 'levels=2'; expected level="):
        open_suite("toyworld:levels=2")


def test_movie_gen_video_bench_is_joined_by_row_and_says_what_is_odd(tmp_path: Path) -> None:
    suite = open_suite(f"movie_gen_video:{write_bench(tmp_path / 'bench')}")
    assert [prompt.id for prompt in suite.prompts] == [f"mgv-{n:04d}" for n in range(5)]
    assert [prompt.text for prompt in suite.prompts] == [row[0] for row in ROWS]
    assert suite.prompts[2].tags == {"concept": ("animal", "camera motion"), "motion_level": ("low",)}
    said = "; ".join(suite.remarks)
    for words in (
        "2 rows differ between txt and csv: 1, 4",
        "5 rows, 4 unique",
        "1 rows repeat",
        "another version",
    ):
        assert words in said
    assert "never shipped" in suite.licence and len(suite.sources) == 2


def test_tags_are_counted_by_both_rules(tmp_path: Path) -> None:
    suite = open_suite(f"movie_gen_video:{write_bench(tmp_path / 'bench')}")
    assert count_tags(suite)["unusual activity"] == 1
    assert count_tags(suite, rule="occurrences")["unusual activity"] == 2
    assert count_tags(suite, family=True)["human"] == 2
    assert suite.prompts[3].study_tags()["concept"] == "unusual activity"


def test_rows_that_do_not_match_are_refused(tmp_path: Path) -> None:
    folder = write_bench(tmp_path / "bench")
    (folder / "MovieGenVideoBench.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"has 5 rows but MovieGenVideoBench\.txt has 2"):
        open_suite(f"movie_gen_video:{folder}")
    assert len(open_suite(f"movie_gen_video:{folder / 'MovieGenVideoBenchWithTag.csv'}").prompts) == 5


def test_movie_gen_audio_bench_keeps_its_ids_with_their_gaps(tmp_path: Path) -> None:
    rows = [
        {"id": n, "video_prompt": f"video {n}", "audio_prompt": f"sound {n}", "music_prompt": "a piano"}
        for n in (0, 1, 4)
    ]
    file = tmp_path / "MovieGenAudioBenchSfxMusic.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = open_suite(f"movie_gen_audio:{tmp_path}")
    assert [prompt.id for prompt in suite.prompts] == ["mga-0000", "mga-0001", "mga-0004"]
    assert suite.prompts[2].fields == {"video_prompt": "video 4", "music_prompt": "a piano"}
    assert "ids run to 4 with 2 gaps" in suite.remarks
    other = tmp_path / "MovieGenAudioBenchSfx.jsonl"
    other.write_text(json.dumps(rows[0]) + "\n")
    both = open_suite(f"movie_gen_audio:{tmp_path}")
    assert len(both.prompts) == 3
    said = "MovieGenAudioBenchSfx.jsonl is there too and is not read"
    assert any(remark.startswith(said) for remark in both.remarks)
    alone = open_suite(f"movie_gen_audio:{other}")
    assert not any("there too" in remark for remark in (*suite.remarks, *alone.remarks))
    file.write_text('{"id": "0", "video_prompt": "a", "audio_prompt": "b"}\n')
    with pytest.raises(ValueError, match="id is '0'; expected int"):
        open_suite(f"movie_gen_audio:{tmp_path}")


def test_tgve_plus_and_vbench_are_read_with_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "tgve.csv").write_text(
        "video_path,instruction,input_caption,output_caption,task\n"
        "DAVIS/bear.mp4,make it snow,a bear,a bear in snow,background\n"
    )
    edit = open_suite(f"tgve_plus:{tmp_path / 'tgve.csv'}").prompts[0]
    assert (edit.id, edit.text, edit.tags) == ("tgve-0000", "make it snow", {"edit_type": ("background",)})
    assert edit.fields == {
        "source_text": "a bear", "target_text": "a bear in snow", "source_video": "DAVIS/bear.mp4",
    }  # fmt: skip
    (tmp_path / "tgve.csv").write_text("clip,words\na,b\n")
    with pytest.raises(ValueError, match="no column for the video among clip, words"):
        open_suite(f"tgve_plus:{tmp_path / 'tgve.csv'}")
    (tmp_path / "full.json").write_text(json.dumps([{"prompt_en": "a cup", "dimension": ["color"]}]))
    assert open_suite(f"vbench:{tmp_path / 'full.json'}").prompts[0].tags == {"dimension": ("color",)}


def test_tgve_is_read_video_by_video_past_its_headings(tmp_path: Path) -> None:
    file = tmp_path / "LOVEU-TGVE-2023_Dataset.csv"
    columns = "Video name,Our GT caption,{} Change Caption,{} Change Caption,{} Change Caption,{},Source\n"
    head = columns.format("Style", "Object", "Background", "Multiple Changes Caption")
    bear = "bear,A bear walks.,a bear in oil,a lion walks.,a bear in snow,a lion in snow in oil,web\n"
    file.write_text(
        f"{head}DAVIS Videos:,,,,,,\n{bear},,,,,,\nYoutube Videos:,,,,,,\n{bear.replace('bear,', 'cat,')}"
    )
    suite = open_suite(f"tgve:{file}")
    assert [prompt.id for prompt in suite.prompts][::3] == [
        "tgve-001-style",
        "tgve-001-multiple",
        "tgve-004-background",
    ]
    assert suite.prompts[1].text == "a lion walks." and suite.prompts[1].tags == {"edit_type": ("object",)}
    assert suite.prompts[1].fields == {
        "source_text": "A bear walks.",
        "target_text": "a lion walks.",
        "source_video": "DAVIS_480p/480p_videos/bear",
    }
    assert suite.prompts[4].fields["source_video"] == "youtube_480p/480p_videos/cat"
    assert "2 videos, 4 edits each" in suite.remarks
    file.write_text(f"{head}bear,A bear walks.,,a lion,a bear in snow,a lion in snow,web\n")
    with pytest.raises(ValueError, match="bear has no 'Style Change Caption'"):
        open_suite(f"tgve:{file}")
    file.write_text(f"{head}DAVIS Videos:,,,,,,\n")
    with pytest.raises(ValueError, match="holds no video with a caption"):
        open_suite(f"tgve:{file}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("owm", "did you mean 'own'"),
        ("movie_gen_video", "its files are not shipped; write movie_gen_video:path"),
        ("movie_gen_video:nowhere", "nowhere: no such file or folder"),
        ("vbench:nowhere.json", "cannot be read"),
    ],
)
def test_a_suite_that_is_not_there_is_one_line(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        open_suite(name)


def test_a_prompt_file_that_is_not_utf8_or_repeats_an_id_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_bytes(b"id,prompt\na,sm\xf6r\n")
    with pytest.raises(ValueError, match=r"own\.csv: is not UTF-8"):
        open_suite(str(file))
    file.write_text("id,prompt\na,one\na,two\n")
    with pytest.raises(ValueError, match="id 'a' is given twice"):
        open_suite(str(file))
    file.write_text("id,prompt\na,one,two\n")
    with pytest.raises(ValueError, match=r"own\.csv:2: has another number of columns"):
        open_suite(str(file))
    (tmp_path / "p.jsonl").write_text(
        '{"id": "x", "prompt": "a star", "set": "free", "tags": {"concept": ["sky"]}}\n'
    )
    assert open_suite(str(tmp_path / "p.jsonl")).prompts[0].tags == {"concept": ("sky",), "set": ("free",)}


def test_the_progress_of_a_generation_is_shown_and_its_last_line_is_the_reason_of_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nprintf 'generate:  50%%\\r' >&2\necho 'error: no such model' >&2\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(ValueError, match=r"^moviegen generate: no such model \(exit code 2\)$"):
        generate({"out": str(tmp_path / "arm"), "suite": "toyworld:level=1,num=1", "model": "m"})
    assert "generate:  50%" in capsys.readouterr().err


BENCH = os.environ.get("MOVIE_GEN_BENCH", "")  # the folder `benchmark` of facebookresearch/MovieGenBench


@pytest.mark.skipif(not BENCH, reason="MOVIE_GEN_BENCH names no folder with the files, which are not shipped")
def test_the_real_movie_gen_files_have_the_counts_that_are_known() -> None:
    suite = open_suite(f"movie_gen_video:{BENCH}")
    assert (len(suite.prompts), suite.num_unique()) == (1003, 998)
    assert "3 rows differ between txt and csv: 282, 283, 689" in "; ".join(suite.remarks)
    assert "another version" not in "; ".join(suite.remarks)
    assert count_tags(suite)["unusual activity"] == 213
    assert count_tags(suite, rule="occurrences")["unusual activity"] == 234
    families = count_tags(suite, family=True)
    assert (families["human"], families["physics"], families["scene"]) == (340, 178, 200)
    assert cross_counts(suite)["animal"] == {"low": 44, "medium": 47, "high": 27}
    audio = open_suite(f"movie_gen_audio:{BENCH}")
    assert len(audio.prompts) == 527 and "ids run to 537 with 11 gaps" in audio.remarks
