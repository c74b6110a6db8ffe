"""Tables of captions and of edit pairs: text is taken as it stands, whatever breaks its lines."""

import csv
import json
from pathlib import Path

import pytest
from moviegen_data.edit_lists import list_pairs
from moviegen_data.files import read_captions

BREAKS = ["\n", "\r\n", "\u2028", "\x85", "\x0b", "\x0c"]


def written(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("mark", BREAKS, ids=ascii)
def test_a_caption_of_several_lines_keeps_its_words_apart(tmp_path: Path, mark: str) -> None:
    rows = [("file", "caption"), ("a.mp4", f"a red star{mark}moves left"), ("b.mp4", "a blue circle")]
    captions = read_captions(written(tmp_path / "captions.csv", *rows))
    assert {name: row["caption"] for name, row in captions.rows.items()} == {
        "a.mp4": "a red star moves left",
        "b.mp4": "a blue circle",
    }


@pytest.mark.parametrize("mark", BREAKS, ids=ascii)
def test_an_instruction_of_several_lines_is_one_row(tmp_path: Path, mark: str) -> None:
    told = f"make the star blue{mark}and leave the rest"
    rows = [("source", "target", "instruction"), ("a.mp4", "b.mp4", told), ("c.mp4", "d.mp4", "make it red")]
    first, second = list_pairs(written(tmp_path / "pairs.csv", *rows))
    assert first.instruction == told.replace("\r\n", "\n") and second.before == tmp_path / "c.mp4"
    # JSON escapes some of these marks; U+2028 and U+0085 may stand in a line as they are.
    lines = [json.dumps(dict(zip(rows[0], row, strict=True)), ensure_ascii=False) for row in rows[1:]]
    (tmp_path / "pairs.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    first, second = list_pairs(tmp_path / "pairs.jsonl")
    assert first.instruction == told and second.instruction == "make it red"
