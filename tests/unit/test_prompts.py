"""Prompts from outside: every form of file, ids that are rows, and what is refused by line."""

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from moviegen.config import UserError, compose
from moviegen.prompts import Prompt, one_prompt, read_prompts


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def test_a_bench_file_keeps_duplicates_and_its_lines_are_the_ids(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path / "bench.txt", "a red star\r\n\r\na red star\n"))
    assert [(p.id, p.text) for p in prompts] == [("00001", "a red star"), ("00003", "a red star")]


def test_a_line_ends_with_a_line_feed_and_no_other_mark_starts_a_new_prompt(tmp_path: Path) -> None:
    for mark in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"):
        with pytest.raises(
            UserError, match=rf"p\.txt:2: the prompt holds a .* U\+{ord(mark):04X}, as character 6"
        ):
            read_prompts(write(tmp_path / "p.txt", f"a red star\na cat{mark}a dog"))


def test_the_bench_has_the_same_ids_as_a_table_and_its_columns_become_tags(tmp_path: Path) -> None:
    table = 'prompt,concept,motion_level\n"a star, red",scene,low\na star,"animal\ttwo",\n"a star, red",scene,high\n'
    prompts = read_prompts(write(tmp_path / "bench.csv", table))
    assert [(p.id, p.text) for p in prompts] == [
        ("00001", "a star, red"),
        ("00002", "a star"),
        ("00003", "a star, red"),
    ]
    assert [p.tags for p in prompts] == [
        {"concept": "scene", "motion_level": "low"},
        {"concept": "animal\ttwo"},
        {"concept": "scene", "motion_level": "high"},
    ]
    lines = read_prompts(write(tmp_path / "bench.txt", "a star, red\na star\na star, red"))
    assert [(p.id, p.text) for p in lines] == [(p.id, p.text) for p in prompts]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a red star,scene\n", "first line must name a column prompt, it is 'a red star,scene'"),
        ("prompt,concept\na star, red,scene\n", "p.csv:2: row 1 has not the 2 cells .* in quotes"),
        ("prompt,concept\na star\n", "p.csv:2: row 1 has not the 2 cells"),
        ("prompt,concept\n,scene\n", "p.csv:2: the prompt is empty"),
        ('prompt\n"a star\n', "p.csv: no csv after line 1"),
        ("prompt\n", "p.csv holds no prompt"),
        ("", "first line must name a column prompt"),
        ("prompt,seed\na star,x\n", "p.csv:2: seed is 'x'; it must be a whole number"),
        ("id,prompt\n../x,a star\n", "p.csv:2: id '../x' cannot name a file"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_row(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_prompts(write(tmp_path / "p.csv", table))


def test_columns_called_as_fields_of_a_record_mean_the_same(tmp_path: Path) -> None:
    table = (
        'prompt,image,image_frame,seed,id,concept,tags\na star,s.png,3,"[3, 4]",x-1,scene,t\na cat,,,5,,,\n'
    )
    assert read_prompts(write(tmp_path / "p.csv", table)) == [
        Prompt("x-1", "a star", image=str(tmp_path / "s.png"), image_frame=3, seeds=(3, 4),
               tags={"concept": "scene", "tags": "t"}),
        Prompt("00002", "a cat", seeds=(5,)),
    ]  # fmt: skip


def test_files_of_other_kinds_are_refused_and_those_without_a_suffix_are_lines(tmp_path: Path) -> None:
    for name in ("p.json", "p.tsv", "p.YAML", "p.parquet"):
        with pytest.raises(UserError, match=rf"{name}: prompts are read from \.txt .*, \.csv .* and \.jsonl"):
            read_prompts(write(tmp_path / name, "prompt\tmotion\na star\tlow"))
    for name in ("prompts", "bench.v1", "p.md"):
        assert [p.text for p in read_prompts(write(tmp_path / name, "a red star"))] == ["a red star"]


def test_a_record_may_carry_all_that_a_clip_needs(tmp_path: Path) -> None:
    row = {
        "id": "a-1",
        "prompt": "a red\n star ",
        "set": "heldout",
        "spec": {"camera": "static"},
        "seed": [3, 4],
    }
    row |= {"original": "star", "image": "given.png", "tags": {"concept": "scene"}}
    found = read_prompts(write(tmp_path / "p.jsonl", json.dumps(row)))
    image = str(tmp_path / "given.png")
    spec = {"camera": "static"}
    assert found == [
        Prompt("a-1", "a red  star", "heldout", spec, "star", image, seeds=(3, 4), tags={"concept": "scene"})
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promt": "x"}, "unknown key 'promt'; did you mean 'prompt'"),
        ({"prompt": ""}, "p.jsonl:1: the prompt is empty"),
        ({"prompt": "\u200b \u200d"}, "the prompt is empty"),
        ({"prompt": "a\x00b"}, r"control character, U\+0000, as character 2"),
        ({"prompt": "a\x1b[31mb"}, r"control character, U\+001B"),
        ({"prompt": 7}, "is no prompt"),
        ({"id": "../x"}, "cannot name a file"),
        ({"id": "x" * 101}, "cannot name a file"),
        ({"id": "recipe"}, "not recipe or run"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"seed": [1, "2"]}, "seed is"),
        ({"spec": [1]}, r"spec is \[1\]; it must be an object"),
        ({"image": 3}, "image is 3; it must be a text"),
        ({"image_frame": 0}, "image_frame is 0, of no image"),
    ],
)
def test_a_record_that_is_wrong_is_refused_with_its_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_prompts(write(tmp_path / "p.jsonl", json.dumps({"id": "1", "prompt": "a star"} | change)))


def test_characters_of_any_language_and_joined_emoji_are_no_control_characters() -> None:
    text = (
        "ein Stern \u0645\u0631\u062d\u0628\u0627 \u661f \U0001f468\u200d\U0001f469\u200d\U0001f467 \u00a0x"
    )
    assert one_prompt(f" {text}\t") == [Prompt("00001", text)]


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_ten_thousand_prompts_are_read_at_once_in_little_memory(tmp_path: Path, name: str) -> None:
    texts = [f"a red star number {number} moves left, \u00e9 " + "and on " * 20 for number in range(10_000)]
    lines = {
        "p.txt": "\n".join(texts),
        "p.csv": "prompt\n" + "\n".join(f'"{text}"' for text in texts),
        "p.jsonl": "\n".join(json.dumps({"id": str(i), "prompt": text}) for i, text in enumerate(texts)),
    }
    file = write(tmp_path / name, lines[name])
    start = time.process_time()
    prompts = read_prompts(file)
    assert time.process_time() - start < 5  # half a second on an idle core
    assert [p.text for p in prompts] == [text.strip() for text in texts]
    tracemalloc.start()
    read_prompts(file)
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        "a cat, a dog",
        'a (big) cat: "hi" {x} [y]',
        "it's",
        "'quoted' words and more 'quoted' words",
        "costs ${5}, a=b",
        "back\\slash\\",
        '"STOP" on a sign',
        "7",
        "x: 'y'",
    ],
)
def test_a_prompt_on_the_command_line_is_taken_as_it_stands(text: str) -> None:
    assert compose("generate", [f"prompt={text}"])["prompt"] == text


def test_a_prompt_in_single_quotes_is_read_as_hydra_would() -> None:
    assert compose("generate", ["prompt='a \\'big\\' cat, a dog'"])["prompt"] == "a 'big' cat, a dog"
    assert compose("generate", ["prompt=null"])["prompt"] is None
