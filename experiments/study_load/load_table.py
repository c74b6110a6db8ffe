"""The rows of the README's table, from what the load test found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a row says, and the facts in it.
ROWS = {
    "raters, kills": "raters kills",
    "votes sent, acknowledged, in the database, in votes.jsonl": (
        "votes_sent votes_acknowledged votes_stored lines_in_the_log"
    ),
    "lost, stored twice, of another rater, never sent": "lost stored_twice of_another_rater not_sent_by_anybody",
    "pairs shown twice to a rater, items beyond their number of raters, sides other than the seed's": (
        "pairs_repeated over_the_wanted_number wrong_side"
    ),
    "requests that met a dead server and were repeated": "requests_repeated",
    "files (database, its log, votes.jsonl, links, output) with an address of a rater": "addresses_found",
    "seconds to answer a vote while the server was up: median, 95 %, 99 %": (
        "vote_seconds_median vote_seconds_95 vote_seconds_99"
    ),
    "seconds of a start after a kill, median": "restart_seconds_median",
    "processor seconds of the server for a vote, its two videos and its next task": "server_processor_seconds_per_vote",
}


def cells(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Row and values: counts as they are, times with three digits."""

    def shown(value: float) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return [(row, ", ".join(shown(facts[name]) for name in names.split())) for row, names in ROWS.items()]
