"""One group of processes for all tests of this folder: to start it takes longer than most of them."""

from collections.abc import Iterator

import pytest

from moviegen.parallel.testing import Ranks


@pytest.fixture(scope="session")
def groups() -> Iterator[list[Ranks]]:
    """The groups that were started: the last is in use, the others have failed and are gone."""
    started: list[Ranks] = []
    yield started
    if started:
        started[-1].close()  # a rank that dies now fails the session on its own, after all results


@pytest.fixture
def ranks(groups: list[Ranks]) -> Ranks:
    """Four processes; new ones after a failure, which ends them all."""
    if not groups or not groups[-1].alive:
        groups.append(Ranks(4))
    return groups[-1]
