"""A wrong result, a crash and a hang are told from each other, and none of them passes for a result."""

from collections.abc import Iterator

import pytest
import rank_cases as cases

from moviegen.parallel.testing import RankDeathError, RankError, Ranks


@pytest.fixture
def pair() -> Iterator[Ranks]:
    group = Ranks(2)
    yield group
    group.kill()


def test_every_rank_answers_and_all_end_in_order(pair: Ranks) -> None:
    assert pair.run(cases.summed) == [1.0, 1.0]
    assert pair.run(cases.summed) == [1.0, 1.0]
    pair.close()
    assert pair.exit_codes == [0, 0]


def test_a_wrong_result_is_an_assertion_with_its_traceback(pair: Ranks) -> None:
    with pytest.raises(RankError, match=r"rank 1:\n(.*\n)*.*the loss is wrong"):
        pair.run(cases.wrong_on_one)


def test_a_crash_is_no_result(pair: Ranks) -> None:
    with pytest.raises(RankDeathError, match="rank 1 was ended by SIGABRT before it gave an answer"):
        pair.run(cases.die_on_one)


def test_a_hang_is_no_result(pair: Ranks) -> None:
    pair.run(cases.summed)  # the start of the ranks is not timed
    with pytest.raises(RankDeathError, match=r"ranks \[1\] gave no answer within 2 s"):
        pair.run(cases.hang_on_one, timeout=2)


def test_a_crash_at_the_end_neither_hides_a_result_nor_passes(pair: Ranks) -> None:
    assert pair.run(cases.abort_at_exit) == [1.0, 1.0]
    with pytest.raises(RankDeathError, match="after all results were given: rank 1 was ended by SIGABRT"):
        pair.close()


def test_a_crash_at_the_end_does_not_hide_a_wrong_result(pair: Ranks) -> None:
    with pytest.raises(RankError, match=r"rank 1:\n(.*\n)*.*the loss is wrong"):
        pair.run(cases.wrong_and_abort_at_exit)
