"""What the tests with a browser share."""

import time
from typing import Any

PATIENCE_MS = 120_000  # of a machine with other work


def opened(browser: Any, **form: Any) -> Any:
    """An empty page of a browser that knows nothing yet."""
    context = browser.new_context(**form)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


def wait_until(page: Any, script: str, argument: Any = None, seconds: float = PATIENCE_MS / 1000) -> None:
    """Poll a condition; the pages' own policy forbids the usual way, which evaluates text in the page."""
    end = time.monotonic() + seconds
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, f"not so within {seconds} s: {script}"
        time.sleep(0.05)
