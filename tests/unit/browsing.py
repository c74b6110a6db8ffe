"""What the tests with a browser share."""

import time
from typing import Any


def wait_until(page: Any, script: str, argument: Any = None, seconds: float = 60.0) -> None:
    """Poll a condition; the pages' own policy forbids the usual way, which evaluates text in the page."""
    end = time.monotonic() + seconds
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, f"not so within {seconds} s: {script}"
        time.sleep(0.05)
