"""Groups of processes that several tests share: to start one takes longer than most of them."""

from collections.abc import Iterator

import pytest

from moviegen.parallel.testing import Ranks

MOST = (
    8  # tests leave process groups behind, each with a thread of gloo that polls: hundreds fill a processor
)


@pytest.fixture(scope="module")
def groups() -> Iterator[list[Ranks]]:
    """The groups that were started: the last is in use, the others have failed and are gone."""
    started: list[Ranks] = []
    yield started
    if started:
        started[-1].close()  # a rank that dies now fails the session on its own, after all results


@pytest.fixture
def ranks(groups: list[Ranks]) -> Ranks:
    """Four processes; new ones after a failure, which ends them all, and after so many tests."""
    if groups and groups[-1].alive and groups[-1].num_jobs >= MOST:
        groups[-1].close()
    if not groups or not groups[-1].alive:
        groups.append(Ranks(4))
    return groups[-1]
