"""Annotation files to examples, answer vocabularies, and groups of examples by media item.

All bad records of a file are reported together, with file, line, field and value, before anything runs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clipbert_cli.errors import AnnotationError, RecipeError, UnreadableError
from clipbert_cli.foreign import no_file, read_json
from clipbert_cli.printable import COUNTED, listed
from clipbert_cli.text.fields import MissingFieldError, Names, Record, RecordError, encodable
from clipbert_cli.text.record_files import read_records
from clipbert_cli.types import Example, Group, composed


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


def read_examples(
    path: Path, parse: Callable[[Record], Example], *, names: Names | None = None, each: str | None = None
) -> list[Example]:
    """Return the examples of an annotation file, all of them checked.

    Args:
        parse: makes an example from a record, or raises RecordError.
        names: see `Record`.
        each: the field of which each text is an example, if it holds a list.

    Raises:
        AnnotationError: there are bad lines, bad records or duplicate example ids, all named in the message, or the
            file is missing or empty.
    """
    if not path.is_file():
        raise AnnotationError(
            no_file(path, "annotation file"),
            hint="check data.splits and data.root of the recipe, or give --data-root",
        )
    examples: list[Example] = []
    places: list[str] = []
    mistakes: list[str] = []
    lacking: list[MissingFieldError] = []
    read = 0
    for record in read_records(path, names=names):
        if len(mistakes) == COUNTED:
            break
        if isinstance(record, str):
            mistakes.append(record)
            continue
        read += 1
        try:
            made = [parse(part) for part in record.each(each)]
        except RecordError as exc:
            mistakes.append(f"{record.place}: {exc}")
            if isinstance(exc, MissingFieldError):
                lacking.append(exc)
            continue
        examples += made
        places += [record.place] * len(made)
    mistakes += _repeated_ids(examples, places)
    if mistakes:
        # Where all records lack a field, it has another name.
        hint = lacking[0].hint if lacking and len(lacking) == read else "fix or remove these lines; nothing was started"
        raise AnnotationError(listed(mistakes, limit=COUNTED), hint=hint)
    if not examples:
        raise AnnotationError(
            f"{path}: no records in it",
            hint="write one JSON object per line, a JSON list, or a CSV file with a row of headings",
        )
    return examples


def _repeated_ids(examples: Sequence[Example], places: Sequence[str]) -> list[str]:
    """Return a message for each id that an earlier record has as well.

    Some data sets number the questions of each video: their ids are unique per media item only.
    """
    media_of: dict[str, str] = {}
    own = [(each, each.example_id, place) for each, place in zip(examples, places, strict=True) if each.example_id]
    per_item = any(media_of.setdefault(own_id, each.media_id) != each.media_id for each, own_id, _ in own)
    first: dict[tuple[str, str], str] = {}
    mistakes = []
    for example, own_id, place in own:
        key = (example.media_id if per_item else "", own_id)
        if (before := first.setdefault(key, place)) is not place:
            of = f" of {example.media_id!r}" if per_item else ""
            mistakes.append(f"{place}: example id {own_id!r}{of} is also that of {before}")
    return mistakes


def read_answers(path: Path) -> dict[str, int]:
    """Read an answer vocabulary, a JSON object {answer: label} or a list whose positions are the labels.

    Answers are in Unicode's form NFC, as records are.

    Returns:
        answer -> label, in the order of the labels, which are 0 to the number of answers - 1, each once.

    Raises:
        AnnotationError: the file is missing or not JSON, the labels are others, or an answer is not encodable.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise AnnotationError(
            f"{path}: no such answer vocabulary",
            hint="make it with clipbert recipes answers, or check data.answers and --data-root",
        ) from None
    except UnreadableError as exc:
        raise AnnotationError(str(exc), hint="check data.answers and data.root, or give --data-root") from exc
    try:
        content = composed(content)
    except ValueError:
        raise AnnotationError(f"{path}: two answers differ in their Unicode form alone") from None
    if isinstance(content, list) and all(isinstance(answer, str) for answer in content):
        if len(set(content)) != len(content):
            raise AnnotationError(f"{path}: an answer is in the list twice")
        content = {answer: label for label, answer in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise AnnotationError(f"{path}: expected a list of answers (texts), or an object of answers and labels")
    if any(type(label) is not int for label in content.values()) or {*content.values()} != {*range(len(content))}:
        raise AnnotationError(f"{path}: the labels must be the integers 0 to {len(content) - 1}, each once")
    try:
        return {encodable("an answer", answer): content[answer] for answer in sorted(content, key=content.__getitem__)}
    except RecordError as exc:
        raise AnnotationError(f"{path}: {exc}") from exc


def group_by_media(examples: Sequence[Example], *, max_examples: int) -> list[Group]:
    """Return groups of at most `max_examples` examples of one media item, in the order of the file."""
    of_media: dict[str, list[Example]] = {}
    for example in examples:
        of_media.setdefault(example.media_id, []).append(example)
    return [
        Group(media_id, tuple(members[start : start + max_examples]))
        for media_id, members in of_media.items()
        for start in range(0, len(members), max_examples)
    ]
