"""The vote log, and which votes count: everything that does not is counted and named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from moviegen_eval.study.simulate import Simulation, simulate
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import VoteTable, read_votes, table_of
from moviegen_eval.study.validity import valid_votes
from moviegen_eval.study.votes import Vote, VoteLog
from study_samples import small_study, vote, with_rules, write_log

STUDY = small_study(gold=3)


def counted(study: Study, votes: list[Vote]) -> tuple[list[Vote], dict[str, int]]:
    """The votes that count, and how many do not by reason."""
    valid, left_out = valid_votes(table_of(votes), study)
    return list(valid.votes()), {out.reason: out.count for out in left_out}


def test_a_vote_comes_back_from_the_log_as_it_was_written(tmp_path: Path) -> None:
    first = vote(STUDY, reason='hands, "six fingers"\n\u2026', details={"viewport": [390, 844], "replays": 2})
    second = vote(STUDY, answer="tie", shown_left=None, watch_seconds=(None, 2.25), undoes=first.id, time="")
    table = read_votes(write_log(tmp_path / "votes.jsonl", [first, second]))
    assert list(table.votes()) == [first, second]
    assert table.left_out == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("answer", "left", "expected a, tie, b, none"),
        ("shown_left", "left", "expected a, b, null"),
        ("time", "2026-01-01T00:00:00", "expected ISO 8601 with its offset"),
        ("id", "7", "expected 32 hex digits"),
        ("study", "small", "expected the 64 hex digits"),
        ("watch_seconds", (1.0, float("nan")), "expected [left, right]"),
        ("watch_seconds", (1.0, -1.0), "expected [left, right]"),
        ("rater", "", "expected a text of 1 to 200 characters"),
        ("reason", "x" * 10_001, "expected a text of at most 10000"),
        ("undoes", "first", "expected the id of a vote or null"),
        ("answer", "none", "undoes names no vote"),
    ],
)
def test_a_vote_that_cannot_be_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"^vote ") as caught:
        replace(vote(STUDY), **{key: value})
    assert message in str(caught.value)


def test_lines_that_are_no_votes_are_counted_and_named_and_spoil_no_other(tmp_path: Path) -> None:
    good = vote(STUDY)
    row = json.loads(good.to_line())
    lines = [
        good.to_line().encode(),
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b"\n",
        json.dumps(row | {"answer": "left"}).encode() + b"\n",
        json.dumps(row | {"answer": 3}).encode() + b"\n",
        json.dumps({k: v for k, v in row.items() if k != "axis"}).encode() + b"\n",
        json.dumps(row | {"anwser": "a"}).encode() + b"\n",
        b'{"study": NaN}\n',
        b"[" * 100_000 + b"\n",
        good.to_line().encode()[:40],
    ]
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b"".join(lines))
    table = read_votes(path)
    found = {out.reason: out.places for out in table.left_out}
    assert len(table) == 1
    assert found["the line is not UTF-8"] == ("line 2",)
    assert found["the line is no JSON object"] == ("line 3",)
    assert found["answer is not a, tie, b, none"] == ("line 5: answer is 'left'", "line 6: answer is 3")
    assert found["key 'axis' is missing"] == ("line 7",)
    assert found["unknown key 'anwser'"] == ("line 8",)
    assert found["the line is not JSON, or only a part of a line"] == ("line 9", "line 10", "line 11")


def test_a_log_that_a_killed_writer_left_torn_takes_votes_again(tmp_path: Path) -> None:
    path = write_log(tmp_path / "votes.jsonl", [vote(STUDY)])
    with path.open("ab") as file:
        file.write(vote(STUDY).to_line().encode()[:50])
    with VoteLog(path) as log:
        log.append(vote(STUDY, rater="r2"))
    table = read_votes(path)
    assert [table.rater[row] for row in range(len(table))] == ["r1", "r2"]
    assert [out.count for out in table.left_out] == [1]


def test_votes_of_other_studies_items_and_axes_are_left_out_by_name() -> None:
    changed = replace(STUDY, seed=5)
    votes = [vote(STUDY), vote(changed), vote(STUDY, item="p99"), vote(STUDY, axis="beauty")]
    valid, left_out = counted(STUDY, votes)
    assert valid == votes[:1]
    assert left_out == {
        "a vote of another study, or of this one before it was changed": 1,
        "its item is not in the study": 1,
        "its axis is not in the study": 1,
    }


def test_a_vote_twice_counts_once_and_one_id_for_two_votes_counts_for_none() -> None:
    one, other = vote(STUDY), vote(STUDY, rater="r2")
    clash = replace(other, answer="b")
    assert counted(STUDY, [one, one, one])[0] == [one]
    assert counted(STUDY, [one, one, one])[1] == {"the same vote twice: one of them counts": 2}
    valid, left_out = counted(STUDY, [one, other, clash])
    assert valid == [one]
    assert left_out == {"one id for different votes: none of them counts": 2}


def test_an_undo_takes_back_only_a_vote_of_the_same_rater_on_the_same_item() -> None:
    first = vote(STUDY, time="2026-01-01T00:00:00.000+00:00")
    second = vote(STUDY, answer="b", undoes=first.id, time="2026-01-01T00:01:00.000+00:00")
    assert counted(STUDY, [first, second])[0] == [second]
    third = vote(STUDY, answer="none", undoes=second.id)
    valid, left_out = counted(STUDY, [first, second, third])
    assert valid == []
    assert left_out == {"taken back by its rater": 2, "takes a vote back and answers nothing": 1}
    thief = vote(STUDY, rater="r2", answer="none", undoes=first.id)
    assert counted(STUDY, [first, thief])[0] == [first]


def test_of_a_rater_twice_on_one_item_the_earliest_vote_counts_in_any_order() -> None:
    early = vote(STUDY, time="2026-01-01T10:00:00.000+00:00")
    late = vote(STUDY, answer="b", time="2026-01-01T12:00:00.000+02:00".replace("12:00", "13:00"))
    for votes in ([early, late], [late, early]):
        valid, left_out = counted(STUDY, votes)
        assert [one.id for one in valid] == [early.id]
        assert left_out == {"a rater twice on one item and axis: the earliest counts": 1}


def test_votes_without_watching_are_left_out_where_the_study_says_so() -> None:
    study = with_rules(STUDY, min_watch_seconds=2.0)
    votes = [
        vote(study, rater=f"r{n}", watch_seconds=w)
        for n, w in enumerate([(3.0, 3.0), (3.0, 1.0), (None, None)])
    ]
    valid, left_out = counted(study, votes)
    assert [one.rater for one in valid] == ["r0", "r2"]
    assert left_out == {"a video watched for less than 2 s": 1}


def test_raters_below_the_declared_gold_accuracy_are_left_out_with_their_numbers() -> None:
    study = with_rules(STUDY, min_gold_accuracy=0.6)
    right = {"gold-0": "a", "gold-1": "tie", "gold-2": "b"}
    votes = [vote(study, item, answer, "good") for item, answer in right.items()]
    votes += [vote(study, item, "b", "bad") for item in right]
    votes += [vote(study, rater="good"), vote(study, rater="bad")]
    valid, left_out = counted(study, votes)
    assert {one.rater for one in valid} == {"good"}
    assert left_out == {"rater bad: 1 of 3 gold answers right, below 0.6": 4}


def test_a_rater_with_a_side_is_left_out_only_where_chance_does_not_explain_it() -> None:
    study = with_rules(small_study(40), max_side_bias=0.5)
    items = [item.id for item in study.items]
    sides = ["a", "b"] * 20
    steady = [
        vote(study, item, side, "left", shown_left=side) for item, side in zip(items, sides, strict=True)
    ]
    short = [vote(study, item, "a", "short") for item in items[:3]]
    valid, left_out = counted(study, steady + short)
    assert {one.rater for one in valid} == {"short"}
    assert [reason.split(" (")[0] for reason in left_out] == [
        "rater left: left in 40 of 40 answers, bias above 0.5"
    ]


def test_every_vote_counts_or_is_named_exactly_once() -> None:
    rng = np.random.default_rng(0)
    study = with_rules(small_study(30, gold=6), min_gold_accuracy=0.7, min_watch_seconds=0.5)
    table = simulate(study, Simulation(careless=2, raters=8), 0)
    rows = rng.integers(0, len(table), size=2 * len(table))
    doubled: VoteTable = table.take(rows)
    valid, left_out = valid_votes(doubled, study)
    assert len(valid) + sum(out.count for out in left_out) == len(doubled)
    assert len(np.unique(valid.id)) == len(valid)
    assert {out.reason for out in left_out} >= {"the same vote twice: one of them counts"}
