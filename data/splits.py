"""Which files belong to one split: a file and its copies never stand in two."""

from __future__ import annotations

from collections.abc import Sequence


def one_split(identity: str, split: str, node: str, shown: str, seen: dict[str, tuple[str, str]]) -> None:
    """Note the split that a source asks for a content; ValueError where another split was asked for it before.

    Args:
        identity: the content's hash.
        seen: split and source of each content so far.
    """
    other_split, other_node = seen.setdefault(identity, (split, node))
    if other_split != split:
        asked = f"{other_split} (source {other_node}) and {split} (source {node})"
        raise ValueError(f"{shown}: asked for in two splits, {asked}; one file belongs to one split")


def together(identities: Sequence[Sequence[str]]) -> list[list[int]]:
    """Numbers of things that share an identity, directly or through others, in groups by their last number."""
    above: dict[str, str] = {}

    def top(one: str) -> str:
        while above.setdefault(one, one) != one:
            above[one] = above[above[one]]
            one = above[one]
        return one

    for own in identities:
        for other in own[1:]:
            above[top(other)] = top(own[0])
    groups: dict[str, list[int]] = {}
    for number, own in enumerate(identities):
        groups.setdefault(top(own[0]), []).append(number)
    return sorted(groups.values(), key=lambda group: group[-1])
