"""One form of answers that people write in several: `objective.normalize_answers`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from clipbert_cli.errors import RecipeError


def normal_form(answer: str) -> str:
    """Return an answer in lower case, with single spaces, and without punctuation marks at its end: ` Red. ` -> `red`.

    An answer of nothing but such marks stays as it is.
    """
    text = " ".join(unicodedata.normalize("NFC", answer).casefold().split())
    return text.rstrip(".,;:!? ") or text


def normal_answers(answers: Iterable[str]) -> dict[str, int]:
    """Return normal form -> label of the answers, in their order.

    Raises:
        RecipeError: two answers have the same form.
    """
    found: dict[str, str] = {}
    for answer in answers:
        if (other := found.setdefault(normal_form(answer), answer)) != answer:
            raise RecipeError(
                f"data.answers has {other!r} and {answer!r}, which objective.normalize_answers makes equal",
                hint="keep one of them, or make the list again with clipbert recipes answers",
            )
    return {answer: label for label, answer in enumerate(found)}
