"""Who rates what: balance, no repeats, sides from a stored seed, gold items, leases, undo, restoring."""

import dataclasses
import uuid
from collections import Counter

import pytest
from moviegen_eval.study.assign import Desk, RefusedError, Rules, left_side
from page_samples import OVERALL, REALNESS, SECONDS, cast, make_study


def desk_of(study, **rules) -> Desk:
    settings = {"gold_every": 0, "ahead": 0} | rules
    return Desk(study, Rules(**settings), {item.id: SECONDS for item in study.items})


def joined(desk: Desk, name: str, now: float = 0.0):
    rater = desk.join(name, f"code{name}", None, now)
    desk.event("consent", name, now)
    return rater


def answer(desk: Desk, rater, own, now: float = 0.0, side: str = "left", **changes):
    given = cast({"id": own.id}, side, details={}) | changes
    return desk.vote(rater, given, now)


def rate_all(desk: Desk, names: list[str]) -> None:
    """All raters answer in turn until nobody gets another task."""
    raters = [joined(desk, name) for name in names]
    busy = True
    while busy:
        busy = False
        for rater in raters:
            status, todo = desk.next(rater, 0.0)
            if status == "task":
                answer(desk, rater, todo[0])
                busy = True


def test_every_item_gets_exactly_the_wanted_number_of_raters_and_none_sees_a_pair_twice() -> None:
    study = make_study(12, (OVERALL, REALNESS))
    desk = desk_of(study)
    rate_all(desk, [f"r{n}" for n in range(9)])
    for axis in study.axes:
        assert {task.voted for task in desk.tasks[axis.key].values()} == {axis.raters}
    for rater in desk.raters.values():
        assert max(Counter(own.item for own in rater.assignments.values()).values()) == 1


def test_few_raters_finish_a_study_of_several_axes_when_a_pair_may_come_once_on_each_axis() -> None:
    study = make_study(5, (OVERALL, REALNESS))
    desk = desk_of(study, pairs_once=False)
    rate_all(desk, ["r0", "r1", "r2"])
    assert all(task.voted == task.needed for tasks in desk.tasks.values() for task in tasks.values())
    seen = Counter(
        (own.rater, own.item, own.axis) for r in desk.raters.values() for own in r.assignments.values()
    )
    assert max(seen.values()) == 1


def test_a_mirrored_pair_is_the_same_pair() -> None:
    study = make_study(1)
    item = study.items[0]
    mirrored = dataclasses.replace(
        item, id="m", arm_a=item.arm_b, arm_b=item.arm_a, video_a=item.video_b, video_b=item.video_a
    )
    desk = desk_of(dataclasses.replace(study, items=(item, mirrored)))
    rater = joined(desk, "r")
    answer(desk, rater, desk.next(rater, 0.0)[1][0])
    assert desk.next(rater, 0.0)[0] == "done"


def test_items_stay_balanced_while_raters_come_and_go() -> None:
    desk = desk_of(make_study(20, (REALNESS,)))
    for number in range(8):
        rater = joined(desk, f"r{number}")
        for _ in range(5):
            answer(desk, rater, desk.next(rater, 0.0)[1][0])
        counts = [task.voted for task in desk.tasks["realness"].values()]
        assert max(counts) - min(counts) <= 1


def test_a_rater_stays_on_one_axis_and_raters_spread_over_the_axes() -> None:
    desk = desk_of(make_study(10, (OVERALL, REALNESS)))
    for number in range(5):
        rater = joined(desk, f"r{number}")
        axes = set()
        for _ in range(4):
            own = desk.next(rater, 0.0)[1][0]
            axes.add(own.axis)
            answer(desk, rater, own)
        assert len(axes) == 1
    assert Counter(rater.axis for rater in desk.raters.values()) == {"realness": 3, "overall": 2}


def test_sides_follow_from_the_seed_are_balanced_and_stored_as_shown() -> None:
    study = make_study(60, (REALNESS,))
    desk = desk_of(study)
    rate_all(desk, [f"r{n}" for n in range(4)])
    rows = [row for table, row in desk.pending if table == "votes"]
    assert all(r["shown_left"] == left_side(study.seed, r["rater"], r["item"], r["axis"]) for r in rows)
    assert all(row["answer"] == row["shown_left"] for row in rows)  # everybody said left
    assert 60 <= sum(row["shown_left"] == "a" for row in rows) <= 120
    other = [left_side(study.seed + 1, row["rater"], row["item"], row["axis"]) for row in rows]
    assert other != [row["shown_left"] for row in rows]


def test_one_task_in_each_block_is_a_gold_item_at_a_place_that_differs() -> None:
    study = make_study(60, (REALNESS,), num_gold=6)
    desk = desk_of(study, gold_every=5)
    places = set()
    for number in range(4):
        rater = joined(desk, f"r{number}")
        for _ in range(25):
            answer(desk, rater, desk.next(rater, 0.0)[1][0])
        golds = [own.number for own in rater.assignments.values() if own.item.startswith("g")]
        assert [number // 5 for number in golds] == [0, 1, 2, 3, 4]
        assert len({own.item for own in rater.assignments.values()}) == 25
        places |= {number % 5 for number in golds}
    assert len(places) > 1


def test_a_task_that_is_left_open_goes_to_others_and_its_late_answer_still_counts() -> None:
    desk = desk_of(make_study(1, (OVERALL,)), lease_seconds=10.0)
    slow, quick, third = (joined(desk, name) for name in ("slow", "quick", "third"))
    left_open = desk.next(slow, 0.0)[1][0]
    answer(desk, quick, desk.next(quick, 1.0)[1][0])
    assert desk.next(third, 5.0)[0] == "wait"
    answer(desk, third, desk.next(third, 11.0)[1][0])
    assert answer(desk, slow, left_open, 12.0) is not None
    assert desk.tasks["overall"]["i0"].voted == 3
    assert desk.next(slow, 13.0)[0] == "done"


def test_a_pause_frees_what_is_open_and_the_same_task_comes_back() -> None:
    desk = desk_of(make_study(1, (dataclasses.replace(OVERALL, raters=1),)))
    first, second = joined(desk, "first"), joined(desk, "second")
    own = desk.next(first, 0.0)[1][0]
    assert desk.next(second, 1.0)[0] == "wait"
    desk.event("pause", "first", 2.0)
    assert desk.next(second, 3.0)[0] == "task"
    desk.event("resume", "first", 4.0)
    assert desk.next(first, 5.0)[1] == [own]


def test_an_answer_counts_once_and_can_be_taken_back_by_its_rater_alone() -> None:
    desk = desk_of(make_study(3))
    rater, other = joined(desk, "r"), joined(desk, "o")
    own = desk.next(rater, 0.0)[1][0]
    first = uuid.uuid4().hex
    assert answer(desk, rater, own, id=first) is not None
    assert answer(desk, rater, own, id=first) is None  # sent again: the acknowledgment was lost
    with pytest.raises(RefusedError, match="answered already"):
        answer(desk, rater, own)
    with pytest.raises(RefusedError, match="not handed out to you"):
        answer(desk, other, own, undoes=first)
    with pytest.raises(RefusedError, match="taken by another"):
        answer(desk, other, desk.next(other, 0.0)[1][0], id=first)
    second = answer(desk, rater, own, side="tie", undoes=first)
    assert second is not None and (second.answer, second.undoes) == ("tie", first)
    with pytest.raises(RefusedError, match="answered already"):
        answer(desk, rater, own, undoes=first)  # that one does not stand any more
    assert desk.tasks["overall"][own.item].voted == 1


def test_an_answer_before_both_videos_were_watched_is_refused_and_changes_nothing() -> None:
    desk = desk_of(make_study(3))
    rater = joined(desk, "r")
    own = desk.next(rater, 0.0)[1][0]
    before = len(desk.pending)
    with pytest.raises(RefusedError, match="watch both videos first"):
        answer(desk, rater, own, watch_seconds=[SECONDS, 0.1])
    assert (len(desk.pending), rater.votes) == (before, {})


def test_the_rule_that_would_leave_a_vote_out_for_watching_too_little_holds_on_the_page_too() -> None:
    study = make_study(3)
    study = dataclasses.replace(study, exclusion=dataclasses.replace(study.exclusion, min_watch_seconds=3.0))
    desk = desk_of(study)
    rater = joined(desk, "r")
    own = desk.next(rater, 0.0)[1][0]
    with pytest.raises(RefusedError, match=r"3\.00 s needed"):
        answer(desk, rater, own)
    assert answer(desk, rater, own, watch_seconds=[3.0, 3.0]) is not None


def test_nothing_is_handed_out_before_consent_or_while_the_study_is_closed() -> None:
    desk = desk_of(make_study(3))
    rater = desk.join("r", "code", None, 0.0)
    with pytest.raises(RefusedError, match="consent"):
        desk.next(rater, 0.0)
    desk.event("consent", "r", 0.0)
    own = desk.next(rater, 0.0)[1][0]
    desk.event("close", None, 0.0)
    assert desk.next(rater, 0.0) == ("closed", [])
    assert answer(desk, rater, own) is not None  # what was shown may still be answered
    desk.event("open", None, 0.0)
    assert desk.next(rater, 0.0)[0] == "task"


def test_the_state_is_rebuilt_from_what_was_written() -> None:
    study = make_study(8, (OVERALL, REALNESS), num_gold=2)
    desk = desk_of(study, gold_every=4, ahead=1)
    raters = [joined(desk, f"r{n}") for n in range(3)]
    for round_number in range(5):
        for rater in raters:
            own = desk.next(rater, float(round_number))[1][0]
            vote = answer(desk, rater, own, float(round_number))
            if vote and round_number == 2:
                answer(desk, rater, own, 2.0, side="tie", undoes=vote.id)
    desk.event("pause", "r1", 6.0)
    tables = {
        name: [row for table, row in desk.pending if table == name] for name in ("raters", "assignments")
    }
    tables |= {name: [row for table, row in desk.pending if table == name] for name in ("votes", "events")}
    again = desk_of(study, gold_every=4, ahead=1)
    again.restore(*tables.values())
    for old, new in zip(desk.raters.values(), again.raters.values(), strict=True):
        assert (old.assignments, old.votes, old.seen, old.paused) == (
            new.assignments,
            new.votes,
            new.seen,
            new.paused,
        )
    assert desk.next(desk.raters["r0"], 9.0) == again.next(again.raters["r0"], 9.0)


def test_a_limit_of_tasks_ends_a_raters_session() -> None:
    desk = desk_of(make_study(9), tasks_per_rater=4, ahead=1)
    rater = joined(desk, "r")
    for _ in range(4):
        answer(desk, rater, desk.next(rater, 0.0)[1][0])
    assert desk.next(rater, 0.0) == ("done", [])
    assert len(rater.assignments) == 4
