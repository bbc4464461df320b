"""The splits of a recipe: their examples, their media, and what does not fit together. Without torch."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from clipbert_cli.errors import AnnotationError, RecipeError, StoreError, UsageError
from clipbert_cli.printable import SHOWN, Lines, listed, plural, shortened
from clipbert_cli.recipe.load import resolve
from clipbert_cli.text.annotations import read_examples
from clipbert_cli.text.fields import Columns, RecordError, unknown_names, unmatched
from clipbert_cli.types import Example, media_id_of, with_occurrences

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe, SplitConfig
    from clipbert_cli.store.source import MediaSource
    from clipbert_cli.task.base import Task
    from clipbert_cli.text.fields import Record

logger = logging.getLogger("clipbert")


@dataclass(frozen=True)
class Split:
    """Examples and the media that they belong to: a split of the recipe, or files that a person asks about."""

    examples: Sequence[Example]
    media: MediaSource


def files_of(recipe: Recipe, split: str) -> SplitConfig:
    """Return the files of a split; raise UsageError if the recipe has no such split."""
    files = recipe.data.splits.get(split)
    if files is None:
        known = ", ".join(name for name, named in recipe.data.splits.items() if named) or "none"
        raise UsageError(
            f"recipe {recipe.name} has no split {split!r}; it has {known}",
            # What was typed may be a file or a run, which no key of a recipe is.
            hint="name another split" + (f", or add data.splits.{split} to the recipe" if split.isidentifier() else ""),
        )
    return files


def read_split(
    recipe: Recipe,
    split: str,
    task: Task,
    check: Callable[[Example], None] | None = None,
    *,
    columns: Columns | None = None,
) -> list[Example]:
    """Read the examples of one split, and check what their purpose needs.

    Args:
        check: `task.check_training` or `task.check_truth`, for training and scoring. By default the split is predicted:
            its truth is not checked, and is unknown where it cannot be read.
        columns: receives the fields that the records have. Without it, entries of `data.fields` that match none of them
            are warned of.

    Raises:
        UsageError: the recipe has no such split.
        AnnotationError: the file is missing or has bad records.
    """
    files = files_of(recipe, split)
    if mistakes := unknown_names(recipe.data.fields):
        raise RecipeError(listed(mistakes))
    own = Columns(recipe.data.fields) if columns is None else columns
    unneeded = task.unneeded_fields(check)
    required = [*((name,) for name in task.required_fields), task.truth_fields if check else ()]

    def parse(record: Record) -> Example:
        if recipe.data.media == "image" and (record.has("start") or record.has("end")):
            raise RecordError("start and end are times of a video, but data.media is image")
        own.add(record)
        try:
            example = task.parse(record)
        except RecordError:
            # All fields that the record lacks are named together: a table may have several wrong headings.
            record.require(*required)
            # Test sets whose answers are not published often have "" or -1 in their place.
            example = task.parse(record.without(unneeded))
        if recipe.data.media_id != "stem":
            example = dataclasses.replace(example, media_id=media_id_of(example.media_id, recipe.data.media_id))
        # The check runs with the parsing, so that all bad records of a file are reported together with their lines.
        if check:
            if example.target is None:
                record.require(task.truth_fields)
            check(example)
        return example

    path = resolve(recipe, files.annotations)
    examples = read_examples(path, parse, names=recipe.data.fields, each=task.list_field)
    needed = {name: names for name, names in recipe.data.fields.items() if name not in unneeded}
    for entry in unmatched(needed, own).values() if columns is None else ():
        logger.warning("%s, which no record of %s has", entry, path)
    # Only predictions are found by their keys. Training splits of millions of records need none.
    return examples if check == task.check_training else with_occurrences(examples)


def open_split_media(recipe: Recipe, split: str) -> MediaSource:
    """Open the media of a split that `read_split` has read.

    Raises:
        StoreError: they are missing or damaged.
    """
    from clipbert_cli.store.lmdb_store import open_media

    data = recipe.data
    files = data.splits[split]
    assert files is not None, split
    path = resolve(recipe, files.media)
    return open_media(path, kind=data.media, frame_rate=data.fps_of_frames, names=data.media_id)


def open_split(
    recipe: Recipe,
    name: str,
    task: Task,
    check: Callable[[Example], None] | None = None,
    *,
    columns: Columns | None = None,
) -> Split:
    """Read a split's examples, open its media, and compare the two.

    Args:
        check, columns: see `read_split`.

    Raises:
        ClipbertError: see `read_split`; or the store is missing, or lacks media that the examples need.
    """
    from clipbert_cli.store.source import MediaFolder

    examples = read_split(recipe, name, task, check, columns=columns)
    source = open_split_media(recipe, name)
    # All missing items are reported before training starts, and not the first one in the middle of an epoch.
    if missing := source.missing(example.media_id for example in examples):
        _report_missing(recipe, name, source, missing)
        source.absent = frozenset(missing)
    if outside := source.segments_outside({example.media_id for example in examples} - source.absent):
        raise AnnotationError(
            [
                f"{len(outside)} segments of split {name!r} begin after the end of their videos:",
                *listed([f"  {mistake}" for mistake in outside]),
            ],
            hint="start and end are seconds of the media file; for videos that are cut out already, do not read "
            "them: data.fields: {start: null, end: null}",
        )
    if source.kind == "video" and not source.has_records:
        folder = isinstance(source, MediaFolder)
        logger.warning(
            "%s %s: each video is decoded once more on first use (%s)",
            source.path,
            "is a folder of files" if folder else "has no media records",
            "clipbert pack makes a store of it" if folder else f"add them: clipbert store scan {source.path}",
        )
    return Split(examples, source)


def _report_missing(recipe: Recipe, split: str, source: MediaSource, missing: Sequence[str]) -> None:
    """Warn of media that a split needs and that are not there.

    Raises:
        StoreError: `data.on_missing_media` is `error`.
    """
    from clipbert_cli.store.near_misses import fix, near_misses

    misses = near_misses(source, missing)
    message = [
        f"{source.path} lacks {plural(len(missing), source.kind)} that split {split!r} needs:",
        *listed([f"  {miss}" for miss in misses]),
    ]
    if len(misses) > SHOWN:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".missing.txt", delete=False) as file:
            file.writelines(f"{miss}\n" for miss in misses)
        message.append(f"All of them are in {file.name}")
    if recipe.data.on_missing_media == "error":
        if any(miss.nearest is None for miss in misses):
            message.append(f"it has {plural(len(source), source.kind)}, such as {shortened(list(islice(source, 3)))}")
        raise StoreError(message, hint=fix(misses, source))
    logger.warning(Lines([*message, "their records are left out of training, and count as wrong in evaluation"]))


def learnable(task: Task, split: str, examples: Sequence[Example]) -> list[Example]:
    """Return what can be learned of a split's examples, and report what is left out."""
    learned = [(example, task.learnable(example)) for example in examples]
    left = [answer for example, kept in learned if kept is None for answer in task.answers_in(example)]
    kept = [example for _, example in learned if example is not None]
    if not kept:
        raise AnnotationError(
            f"no record of split {split!r} has an answer that is in data.answers{task.alike_answer(left)}",
            hint="correct data.answers",
        )
    if left:
        logger.warning(
            "%d of %d records of split %r have answers that are not in data.answers, such as %s: left out%s",
            *(len(learned) - len(kept), len(learned), split, shortened([repr(answer) for answer in left[:3]])),
            task.alike_answer(left),
        )
    return kept


def check_columns(recipe: Recipe, task: Task, read: Mapping[str, Columns]) -> list[str]:
    """Return warnings about the fields of the splits in `read`, one sentence each.

    Raises:
        RecipeError: an entry of `data.fields` matches no record of any of them.
    """
    fields = recipe.data.fields
    there = ", ".join(dict.fromkeys(own for columns in read.values() for own in columns.all))
    if wrong := unmatched(fields, *read.values()):
        raise RecipeError(
            listed([f"{entry}, but no record of {' or '.join(read)} has it" for entry in wrong.values()]),
            hint=f"the records have {there}; take one of these, or remove the entry",
        )
    warnings = []
    for name, columns in read.items():
        here = ", ".join(columns.all)
        absent = unmatched(fields, columns)
        warnings += [f"{entry}, which no record of split {name!r} has; they have {here}" for entry in absent.values()]
        warnings += [
            f"no record of split {name!r} has {field}, which task {recipe.task} reads where it is there; the "
            f"records have {here}: name it with data.fields.{field}, or set that to null"
            for field in task.expected_fields
            if not columns.has(field) and fields.get(field, field) is not None and field not in absent
        ]
    unread = dict.fromkeys(own for columns in read.values() for own in columns.unread(task.fields))
    if unread:
        warnings.append(f"fields of the records that task {recipe.task} does not read: {', '.join(unread)}")
    return warnings
