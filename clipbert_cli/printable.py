"""Text from outside in messages: a terminal shows it and does not obey it, and there is not too much of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 20
"""The number of mistakes or names that a message lists before it counts the others."""


LONGEST = 2000
"""The number of characters in a line of a message. A wrong value may have millions."""


COUNTED = 10_000
"""The number of mistakes at which a file is not read on: a million wrong records take minutes."""


def printable(text: str) -> str:
    """Return one line of text in which everything that is not printable is escaped as `repr` does it.

    Escape sequences, line breaks and marks that turn the direction of writing come from file names, field names, server
    replies and broken lines. Text that was made printable before stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def clipped(text: str) -> str:
    """Return a line of a message; of one that is longer than anybody reads, its start and its end."""
    left_out = len(text) - LONGEST
    return text if left_out <= 0 else f"{text[: LONGEST - 500]} ... ({left_out} characters) ... {text[-500:]}"


class Lines(tuple[str, ...]):
    """A text of several lines, each of which may have foreign text in it."""

    def __str__(self) -> str:
        return "\n".join(map(printable, self))


def shortened(names: Sequence[str], limit: int = SHOWN) -> str:
    """Return the first names in one line, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def listed(mistakes: Sequence[str], *, limit: int | None = None) -> list[str]:
    """Return the first mistakes, one per line, and a line that says how many more there are.

    A mistake that is in more than three places of a file, such as `train.jsonl:9: question is missing`, is listed once.

    Args:
        limit: with so many mistakes the file was not read to its end.
    """
    alike: dict[str, list[str]] = {}
    for number, mistake in enumerate(mistakes):
        # Without a place before it, each mistake is listed.
        alike.setdefault(mistake.partition(": ")[2] or str(number), []).append(mistake)
    lines: list[str] = []
    for same in alike.values():
        lines += same if len(same) < 4 else [f"{same[0]} (and {len(same) - 1} more like this)"]
    rest = len(lines) - SHOWN
    if limit is not None and len(mistakes) >= limit:
        return [*lines[:SHOWN], f"... and more: reading ended after {limit:,} mistakes"]
    return [*lines[:SHOWN], *([f"... and {rest} more"] if rest > 0 else [])]


def similar(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are most similar to a word, whatever their case, the most similar first.

    Args:
        cutoff: how similar they must be, from 0 to 1 (`difflib`).
    """
    folded = {name.casefold(): name for name in known}
    return [folded[near] for near in difflib.get_close_matches(word.casefold(), folded, n=most, cutoff=cutoff)]


def nearest(wanted: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to one of the wanted ones, whatever their case; None if none is."""
    names = list(known)
    found = [
        (difflib.SequenceMatcher(None, near.casefold(), word.casefold()).ratio(), near)
        for word in wanted
        for near in similar(word, names)
    ]
    return max(found)[1] if found else None


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return the end of a message about an unknown word: a question that names the nearest known ones, if any is."""
    near = similar(word, known, most=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def plural(count: int, word: str, ending: str = "s") -> str:
    """Return the number and the word, with its ending unless the number is 1: `1 process`, `2 processes`."""
    return f"{count} {word}{'' if count == 1 else ending}"
