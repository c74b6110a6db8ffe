"""Votes from and to other people's tools: csv, jsonl, Mechanical Turk, Prolific, VideoGen-RewardBench."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from moviegen_eval.study.axes import AXES
from moviegen_eval.study.batches import MTURK, PROLIFIC, export_batch, hash_rater, import_batch, pair_word
from moviegen_eval.study.exchange import export_csv, export_jsonl, import_csv, import_jsonl
from moviegen_eval.study.rewardbench import export_rewardbench, import_rewardbench
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.table import table_of
from study_samples import small_study, vote, write_log, write_study

from moviegen import cli

STUDY = small_study(4)


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_votes_go_through_csv_and_jsonl_unchanged(tmp_path: Path) -> None:
    votes = [
        vote(STUDY, reason='=HYPERLINK("x"), "quoted"\nnew line \u00e9', details={"viewport": [1, 2]}),
        vote(STUDY, answer="tie", rater="-r2", shown_left=None, watch_seconds=(None, 1.5), time=""),
        vote(STUDY, answer="b", rater="'=r3", undoes="0" * 32, source="mturk"),
    ]
    votes += list(simulate(STUDY, Simulation(raters=4), 0).votes())
    export_csv(table_of(votes), tmp_path / "votes.csv")
    export_jsonl(table_of(votes), tmp_path / "votes.jsonl")
    assert import_csv(tmp_path / "votes.csv", STUDY).votes == votes
    assert import_jsonl(tmp_path / "votes.jsonl").votes == votes
    cells = [row[name] for row in read_rows(tmp_path / "votes.csv") for name in ("rater", "reason", "item")]
    assert not [cell for cell in cells if cell[:1] in ("=", "-", "+", "@")]


def test_a_csv_of_somebody_else_needs_four_columns_and_may_name_arms_or_sides(tmp_path: Path) -> None:
    path = written(
        tmp_path / "theirs.csv",
        "\ufeffrater,item,axis,answer,shown_left\n"
        "ann,p0-ours-other,overall,ours,\n"
        "ann,p1-ours-other,overall,other,\n"
        "ann,p2-ours-other,overall,Left,b\n"
        "ann,p3-ours-other,overall,same,a\n",
    )
    found = import_csv(path, STUDY)
    assert [one.answer for one in found.votes] == ["a", "b", "b", "tie"]
    assert {one.study for one in found.votes} == {STUDY.digest}
    assert {one.source for one in found.votes} == {"csv"}
    assert [one.id for one in import_csv(path, STUDY).votes] == [one.id for one in found.votes]


def test_rows_that_are_no_votes_are_counted_and_named(tmp_path: Path) -> None:
    path = written(
        tmp_path / "theirs.csv",
        "rater,item,axis,answer,watch_left\n"
        "ann,p0-ours-other,overall,a,3\n"
        "ann,p1-ours-other,overall,better,3\n"
        "ann,p1-ours-other,overall,worse,3\n"
        "ann,p1-ours-other\n"
        ",p1-ours-other,overall,a,3\n"
        "ann,p2-ours-other,overall,left,3\n"
        "ann,p3-ours-other,overall,b,soon\n",
    )
    found = import_csv(path, STUDY)
    reasons = {out.reason: out.places for out in found.left_out}
    assert len(found.votes) == 1
    assert reasons["answer is not a, tie, b, none"] == (
        "line 3: answer is 'better'",
        "line 4: answer is 'worse'",
    )
    assert reasons["a row of another length than the first line"][0].startswith("line 5: 2 cells")
    assert [place.split(":")[0] for place in reasons["rater is not a text of 1 to 200 characters"]] == [
        "line 6"
    ]
    assert sum(map(len, reasons.values())) == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"rater,item,axis,answer\nJos\xe9,p0,overall,a\n",
            "1 lines are not utf-8 (the first is line 2); nothing was",
        ),
        (b"", "is empty; expected a csv"),
        (b"rater,item,answer\n", "column 'axis' is missing; found rater, item, answer"),
        (b"rater,rater,item,axis,answer\n", "column 'rater' stands there twice"),
        (b'rater,item,axis,answer\n"open,p0\n', "is not csv"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "theirs.csv").write_bytes(data)
    with pytest.raises(ValueError) as caught:
        import_csv(tmp_path / "theirs.csv", STUDY)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_csv_in_another_encoding_is_read_where_that_is_named(tmp_path: Path) -> None:
    path = written(
        tmp_path / "excel.csv", "rater,item,axis,answer\nJos\u00e9,p0-ours-other,overall,a\n", "cp1252"
    )
    assert import_csv(path, STUDY, "cp1252").votes[0].rater == "Jos\u00e9"
    with pytest.raises(ValueError, match="encoding=latin-99 is not known"):
        import_csv(path, STUDY, "latin-99")


def test_a_batch_tells_no_worker_which_arm_is_which(tmp_path: Path) -> None:
    opaque = replace(
        STUDY,
        items=tuple(replace(i, video_a=f"{n}x.mp4", video_b=f"{n}y.mp4") for n, i in enumerate(STUDY.items)),
    )
    (path,) = export_batch(STUDY, opaque, tmp_path, MTURK, "https://host/{video}")
    rows, text = read_rows(path), path.read_text()
    assert len(rows) == len(STUDY.items)
    assert not [name for name in ("ours", "other") if name in text]
    assert {row["video_left"].endswith("x.mp4") for row in rows} == {True, False}
    with pytest.raises(ValueError, match=r"must hold \{video\}"):
        export_batch(STUDY, opaque, tmp_path, MTURK, "https://host/")


def test_results_of_mechanical_turk_become_votes_in_terms_of_arms(tmp_path: Path) -> None:
    left_a, left_b = (pair_word(STUDY, "p0-ours-other", "overall", left) for left in "ab")
    path = written(
        tmp_path / "Batch.csv",
        "HITId,AssignmentId,WorkerId,AssignmentStatus,SubmitTime,WorkTimeInSeconds,Input.pair,Answer.choice.left,"
        "Answer.choice.right,Answer.choice.tie,Answer.reason\n"
        f"h,1,W1,Approved,Mon Jan 05 10:00:00 PST 2026,30,{left_a},true,false,false,sharper\n"
        f"h,2,W2,Submitted,,30,{left_b},true,false,false,\n"
        f"h,3,W3,Approved,,30,{left_a},false,false,true,\n"
        f"h,4,W4,Rejected,,30,{left_a},true,false,false,\n"
        f"h,5,W5,Approved,,30,{left_a},false,false,false,\n"
        "h,6,W6,Approved,,30,unknown,true,false,false,\n",
    )
    found = import_batch(path, STUDY, MTURK)
    assert [(one.answer, one.shown_left) for one in found.votes] == [("a", "a"), ("b", "b"), ("tie", "a")]
    assert found.votes[0].rater == hash_rater(STUDY, "W1")
    assert "W1" not in found.votes[0].to_line()
    assert found.votes[0].reason == "sharper"
    assert {out.reason: out.count for out in found.left_out} == {
        "submission rejected": 1,
        "its choice is none of left, right, tie": 1,
        "its pair is no task of this study": 1,
    }


def test_of_prolific_only_submissions_that_stand_count(tmp_path: Path) -> None:
    (batch,) = export_batch(STUDY, STUDY, tmp_path, PROLIFIC, "https://host/{video}", set_size=3)
    tasks = read_rows(batch)
    assert sorted(row["set"] for row in tasks) == ["0", "0", "0", "1"]
    people = ["p1", "p2", "p3", "p4"]
    lines = [f"{person},{row['pair']},right" for person, row in zip(people, tasks, strict=True)]
    answers = written(tmp_path / "answers.csv", "\n".join(["PROLIFIC_PID,pair,choice", *lines]) + "\n")
    submissions = written(
        tmp_path / "prolific.csv",
        "Submission id,Participant id,Status\n1,p1,APPROVED\n2,p2,AWAITING REVIEW\n3,p3,RETURNED\n",
    )
    found = import_batch(answers, STUDY, PROLIFIC, submissions=submissions)
    assert [one.rater for one in found.votes] == [hash_rater(STUDY, person) for person in ("p1", "p2")]
    assert all(one.answer != one.shown_left for one in found.votes)
    assert {out.reason for out in found.left_out} == {"submission returned", "submission not in submissions"}
    assert len(import_batch(answers, STUDY, PROLIFIC).votes) == 4


def test_videogen_rewardbench_becomes_a_study_with_its_votes(tmp_path: Path) -> None:
    path = written(
        tmp_path / "videogen-rewardbench.csv",
        "path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A\n"
        'a/1.mp4,b/1.mp4,Gen 3,kling 1.5,"a cat, asleep",A,same,B,A,24\n'
        "a/2.mp4,b/2.mp4,kling 1.5,pika,a dog,same,B,?,B,24\n"
        "a/3.mp4,b/3.mp4,pika,pika,a dog,A,A,A,A,24\n",
    )
    study, found = import_rewardbench(path)
    assert [axis.key for axis in study.axes] == ["VQ", "MQ", "TA", "Overall"]
    assert [arm.name for arm in study.arms] == ["Gen_3", "kling_1.5", "pika"]
    assert study.items[0].prompt == "a cat, asleep"
    assert [(one.item, one.axis, one.answer) for one in found.votes][:4] == [
        ("row2", "VQ", "a"),
        ("row2", "MQ", "tie"),
        ("row2", "TA", "b"),
        ("row2", "Overall", "a"),
    ]
    assert {out.reason: out.count for out in found.left_out} == {
        "a row without two different models and all its cells": 1,
        "an answer that is none of A, B, same": 1,
    }
    export_rewardbench(study, table_of(found.votes), tmp_path / "back.csv")
    assert [list(row.values()) for row in read_rows(tmp_path / "back.csv")] == [
        ["a/1.mp4", "b/1.mp4", "Gen_3", "kling_1.5", "a cat, asleep", "A", "same", "B", "A"],
        ["a/2.mp4", "b/2.mp4", "kling_1.5", "pika", "a dog", "same", "B", "", "B"],
    ]
    with pytest.raises(ValueError, match="column 'path_A' is missing"):
        import_rewardbench(written(tmp_path / "other.csv", "prompt,VQ\nx,A\n"))


def test_votes_leave_for_rewardbench_as_the_leading_answer_of_those_that_count(tmp_path: Path) -> None:
    study = replace(small_study(3, gold=1), axes=(AXES["overall"], AXES["realness"]))
    study = replace(study, items=tuple(replace(i, prompt=f"={i.prompt}") for i in study.items))
    names = [item.id for item in study.items]
    given = [("a", "r1"), ("a", "r2"), ("b", "r3")]
    log = [vote(study, names[0], answer, rater) for answer, rater in given]
    log += [vote(study, names[1], "a", "r1"), vote(study, names[1], "b", "r2")]  # no leading answer
    log += [vote(study, names[1], "a", "r1", axis="realness"), vote(study, names[3], "a", "r1")]
    log += [replace(log[0], id="f" * 32, study="0" * 64, rater="r9")]
    write_log(tmp_path / "votes.jsonl", log)
    path = write_study(tmp_path, study)
    words = [f"study={path}", f"votes={tmp_path / 'votes.jsonl'}", f"out={tmp_path / 'rb.csv'}"]
    assert cli.main(["eval", "study", "export", "format=videogen_rewardbench", *words]) == 0
    rows = read_rows(tmp_path / "rb.csv")
    assert [(row["Overall"], row["realness"]) for row in rows] == [("A", ""), ("same", "A"), ("", "")]
    assert rows[0]["prompt"] == "'=prompt 0"
    assert import_rewardbench(tmp_path / "rb.csv")[0].items[0].prompt == "=prompt 0"
