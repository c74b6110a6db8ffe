"""One group of processes for all tests of this folder: to start it takes longer than most of them."""

from collections.abc import Iterator

import pytest

from moviegen.parallel.testing import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Four processes; a rank that dies when they are closed fails the session on its own, after all results."""
    group = Ranks(4)
    yield group
    group.close()
