"""What several files of tests share."""

import pytest
from model_samples import Generator, saved_generator


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A tiny text-to-video model with random weights, one for each file."""
    return saved_generator(tmp_path_factory.mktemp("generator"))
