"""Paths of a command line at which something else is than the command expects: one message, and the line to type.

They are found before the parser reads the line, so that what a path is comes before an option that is missing.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.commands.typed_line import TypedLine, TypedValue, arguments_of, options_of, typed_name
from clipbert_cli.errors import ClipbertError, UsageError
from clipbert_cli.path_kinds import (
    A_FOLDER,
    A_MEDIA_FILE,
    A_MODEL,
    A_PLACE,
    A_RECIPE,
    A_RUN,
    A_STORE,
    MEDIA,
    PREDICTIONS,
    QUESTIONS,
    RECIPE_FILE,
    SOURCES,
    AtPath,
    Expected,
    PathKind,
    look_at,
    unlike,
)
from clipbert_cli.printable import shortened
from clipbert_cli.recipe.shipped import shipped_names

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe

_EXPECTED: dict[str, Expected] = {
    "--run": A_MODEL,
    "report --run": A_RUN,
    "finetune --run": A_RUN,
    "pretrain --run": A_RUN,
    "RUN": A_RUN,
    "--recipe": A_RECIPE,
    "NAME|FILE": A_RECIPE,
    "PREDS": PREDICTIONS,
    "--against": PREDICTIONS,
    "--blind": PREDICTIONS,
    "SRC": SOURCES,
    "STORE": A_STORE,
    "MEDIA": MEDIA,
    "preview MEDIA": dataclasses.replace(
        MEDIA, hint="name a folder of media files or a store, or a split: clipbert preview --recipe NAME --split train"
    ),
    "--video": A_MEDIA_FILE,
    "--image": A_MEDIA_FILE,
    "--questions": QUESTIONS,
    "--data-root": A_PLACE,
    "--to": A_PLACE,
    "demo FOLDER": A_PLACE,
    "runs ls FOLDER": A_FOLDER,
    "RAW_DIR": A_FOLDER,
}
"""What is expected by option or name of an argument, after the name of the command where that decides."""

_NEW = {"finetune --run": "--resume", "pretrain --run": "--resume", "pack STORE": "--add"}
"""Paths that a command makes, unless this option is given."""

_TEXTS = ("--split", "TEXT", "QUESTION", "MEDIA_ID")
"""Values that are no paths, with which one may have been exchanged."""

_LOOKED_AT = 1000
"""The number of names among which a similar one is looked for."""


def refuse_wrong_paths(line: TypedLine) -> None:
    """Raise UsageError for the first path of a command line at which something else is than expected, or nothing."""
    given = [each.parameter for each in line.values]
    is_complete = None not in given and all(each in given for each in arguments_of(line.command) if each.required)
    for value in line.values:
        expected = _expected(line, value)
        if expected is None or (value.text == "-" and expected in (PREDICTIONS, QUESTIONS)):
            continue
        found, what = look_at(os.path.expanduser(value.text) if expected is A_RECIPE else value.text), ""
        is_nothing = found.kind is PathKind.NOTHING and not expected.takes(found)
        if value.text in shipped_names() and (expected is A_RECIPE or is_nothing):
            found, what = AtPath(PathKind.RECIPE), "a shipped recipe"
        # With fewer or more words than arguments, a word may be meant for another one.
        if expected.takes(found) or (found.kind is PathKind.NOTHING and not is_complete):
            continue
        hint = (
            _exchanged(line, value, expected, found)
            or _moved(line, value, found)
            or _with_other_path(line, value, expected, found)
            or _predicted_first(line, value, expected, found)
        )
        raise unlike(value.text, expected, name=typed_name(value.parameter), what=what, hint=hint)


def _expected(line: TypedLine, value: TypedValue) -> Expected | None:
    if value.parameter is None:
        return None
    full = _full_name(line, value.parameter)
    if full in _NEW and not line.value(_NEW[full]):
        return None
    return _EXPECTED.get(full) or _EXPECTED.get(typed_name(value.parameter))


def _full_name(line: TypedLine, parameter: Any) -> str:
    """Return an option or argument after the name of its command, such as `pack STORE`."""
    return f"{line.path.partition(' ')[2]} {typed_name(parameter)}"


# ------------------------------------------------------------------------------------------ what to type


def _exchanged(line: TypedLine, value: TypedValue, expected: Expected, found: AtPath) -> str | None:
    """Return the command line with the path and another word in each other's place, if that is what was meant."""
    # A name with an ending is a file that is missing, and no text.
    is_file = found.kind is PathKind.NOTHING and re.search(r"\.[A-Za-z0-9]{2,5}$", value.text)
    for other in line.values:
        there = look_at(other.text)
        if other.parameter is None or there.kind in (PathKind.NOTHING, PathKind.OTHER) or not expected.takes(there):
            continue
        wanted = _expected(line, other)
        is_new = _full_name(line, other.parameter) in _NEW and found.kind in (PathKind.NOTHING, PathKind.STORE)
        if is_new or (wanted and not wanted.takes(there)) or (typed_name(other.parameter) in _TEXTS and not is_file):
            return f"exchange them: {line.with_values({value.place: other.text, other.place: value.text})}"
    return None


def _moved(line: TypedLine, value: TypedValue, found: AtPath) -> str | None:
    """Return the command line with an option before a word that is given for an argument, and that the option takes."""
    # Where the argument is needed, it would be missing.
    if value.parameter in arguments_of(line.command) and not value.parameter.required:
        for name, option in options_of(line.command).items():
            expected = _EXPECTED.get(_full_name(line, option)) or _EXPECTED.get(name)
            if (
                expected in (A_RUN, A_RECIPE)
                and found.kind in (PathKind.RUN, PathKind.RECIPE)
                and expected.takes(found)
            ):
                words = [word for place, word in enumerate(line.words) if place != value.place]
                return shlex.join(["clipbert", *words, name, value.text])
    return None


def _with_other_path(line: TypedLine, value: TypedValue, expected: Expected, found: AtPath) -> str | None:
    """Return the command line with the path that is meant: inside, around, named by or similar to the given one."""
    if found.kind is PathKind.NOTHING:
        from clipbert_cli.store.discover import unmatched_pattern

        if pattern := unmatched_pattern([value.text]):
            return pattern
    for path in _related(value.text, expected, found):
        there = look_at(path)
        is_name = expected is A_RECIPE and path in shipped_names()
        if not is_name and (there.kind is PathKind.NOTHING or not expected.takes(there)):
            continue
        more = ["--checkpoint", Path(os.path.realpath(value.text)).name]
        is_of_step = found.kind is PathKind.CHECKPOINT and more[0] in options_of(line.command) and expected is A_RUN
        again = line.with_values({value.place: path}, *(more if is_of_step else []))
        return f"is {path} meant? {again}" if found.kind is PathKind.NOTHING else again
    return None


def _related(text: str, expected: Expected, found: AtPath) -> Iterator[str]:
    """Yield the paths that may be meant by another one."""
    runs = [*map(str, found.runs), *([str(found.run)] if found.run else [])]
    yield from (*runs, *map(str, found.stores))
    if expected is A_RECIPE:
        yield from (os.path.join(run, RECIPE_FILE) for run in (text, *runs))
    around = {PathKind.RECIPE: A_RUN.sentence, PathKind.MEDIA_FILE: MEDIA.sentence}
    if expected is PREDICTIONS or around.get(found.kind) == expected.sentence:
        yield text.removesuffix(".meta.json")
        yield os.path.dirname(text) or "."
    if on_hub := re.match(r"https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?$", text):
        yield f"hf:{on_hub[1]}"
    if found.kind is PathKind.NOTHING:
        path = Path(text)
        folders = [path.parent, *([Path("runs")] if expected in (A_MODEL, A_RUN) else [])]
        names = [each for folder in folders if folder.is_dir() for each in islice(folder.iterdir(), _LOOKED_AT)]
        # The ending would make any two names similar.
        stems = {each.stem: str(each) for each in names if each.suffix == path.suffix}
        yield from (stems[near] for near in difflib.get_close_matches(path.stem, stems, n=3))


def _predicted_first(line: TypedLine, value: TypedValue, expected: Expected, found: AtPath) -> str | None:
    """Return how to make the predictions that are expected."""
    if expected is not PREDICTIONS:
        return None
    run = value.text if A_MODEL.takes(found) else str(line.value("--run") or found.run or "RUN")
    split = line.value("--split") or split_of(run) or "SPLIT"
    file = value.text if found.kind is PathKind.NOTHING else "preds.jsonl"
    blind = ["--set", "data.black_frames=true"] if typed_name(value.parameter) == "--blind" else []
    infer = ["clipbert", "infer", "--run", run, "--split", split, "-o", file, *blind]
    return f"predict first: {shlex.join(infer)}"


def split_of(run: str) -> str | None:
    """Return the split of a run that is predicted most often; None if there is no run or it has no splits."""
    names = splits_of(run)
    return next((name for name in ("test", "val") if name in names), names[-1] if names else None)


def splits_of(run: str) -> list[str]:
    """Return the names of the splits of a run or a checkpoint in it; none if it cannot be read."""
    from clipbert_cli.commands.completion_values import split_names

    try:
        return split_names(Path(look_at(run).run or run, RECIPE_FILE))
    except (ClipbertError, OSError, ValueError, AttributeError, TypeError):
        return []


def refuse_absent_data(recipe: Recipe) -> None:
    """Raise UsageError if nothing that the recipe names is there: its root is another folder, or still empty."""
    from clipbert_cli.build import files_named
    from clipbert_cli.recipe.load import resolve

    files = files_named(recipe)
    if any(recipe.data.splits.values()) and not any(path.exists() for path in files.values()):
        from clipbert_cli.assets.catalog import load_catalog

        root = resolve(recipe, ".")
        names = [*dict.fromkeys(os.path.relpath(path, root) for path in files.values())]
        download = f"; clipbert download {recipe.name} --to DIR --pack makes it"
        origin = recipe.origin("data.root")
        stated = f", or correct data.root ({origin})" if origin and origin != "--data-root" else ""
        raise UsageError(
            f"nothing that the recipe names is in {root}: {shortened(names, 2)}",
            hint=f"give the folder that holds these with --data-root DIR{stated}"
            + (download if load_catalog().needs_of(recipe.name) else ""),
        )
