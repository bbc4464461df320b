"""Load a recipe by its name and check it: YAML files, `extends`, `--set`, `--data-root`, `${VAR}`.

    file ─► extends (bases first) ─► --set ─► --data-root ─► ${VAR} ─► schema ─► Recipe

Every value keeps the line or option it came from, so that all mistakes are reported together, each with its place.
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from clipbert_cli.errors import PathError, RecipeError
from clipbert_cli.printable import listed
from clipbert_cli.recipe.messages import MAX_GUESSES, as_written, sentences, unknown_key
from clipbert_cli.recipe.schema import Recipe, SplitConfig
from clipbert_cli.recipe.settings import all_settings, annotation_at, bare, setting_of
from clipbert_cli.recipe.shipped import find_recipe, shipped_folder, shipped_names
from clipbert_cli.recipe.values import (
    Entries,
    Entry,
    KeyPath,
    Mistake,
    Origin,
    Variables,
    escaped,
    key_name,
    merge,
    nested,
    plain_tag,
    put,
    read_file,
    read_text,
    read_yaml,
    shown,
    write_yaml,
)

SET, DATA_ROOT = "--set", "--data-root"


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with the package: its name, its task and the first line of its head comment."""

    name: str
    task: str
    summary: str


@dataclass(frozen=True)
class Preview:
    """A recipe as it reads on a machine that may lack some of its environment variables.

    Args:
        recipe: checked; a value with an unset variable still holds its `${NAME}`.
        values: plain values from which `write_yaml` makes a file that loads as the same recipe.
        unset: one sentence per variable that a run will need.
        published: one sentence per setting that is right for a published run only and that a person's own recipe has
            from a shipped one.
    """

    recipe: Recipe
    values: dict[str, Any]
    unset: tuple[str, ...]
    published: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------------- finding


def list_recipes() -> list[ShippedRecipe]:
    """Return the shipped recipes by name, without the bases for others, whose files start with `_`."""
    found = []
    for name in shipped_names():
        path = shipped_folder() / f"{name}.yaml"
        task = _read_chain(path, Variables(os.environ), [])[("task",)].value
        found.append(ShippedRecipe(name, str(task), read_text(path).partition("\n")[0].lstrip("# ").strip()))
    return found


# ---------------------------------------------------------------------------------------------------------- loading


def load_recipe(
    source: str | Path | Recipe,
    *,
    overrides: Sequence[str] | None = None,
    data_root: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Recipe:
    """Return a checked recipe, ready for a run.

    Args:
        source: a name or file as in `find_recipe`; the `recipe.yaml` of a run folder; or a recipe, for one with other
            settings.
        overrides: `section.key=value` each; the last one wins.
        data_root: replaces `data.root`.
        environment: the values of `${NAME}`.

    Raises:
        RecipeError: one line per mistake, in files, options and variables together.
    """
    return _load(source, overrides, data_root, Variables(environment), allow_unset=False).recipe


def preview_recipe(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] | None = None,
    data_root: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Preview:
    """Return a recipe as `load_recipe` reads it, but with unset variables left in place.

    Raises:
        RecipeError: any other mistake.
    """
    return _load(name_or_path, overrides, data_root, Variables(environment), allow_unset=True)


def dump_recipe(recipe: Recipe) -> str:
    """Return the YAML of a whole recipe, every key written out.

    `load_recipe` makes an equal recipe of it if `data.root` is absolute.
    """
    return write_yaml(escaped(recipe.model_dump()))


def resolve(recipe: Recipe, path: str) -> Path:
    """Return a path of a recipe, absolute: relative ones start at `data.root`, `~` is the home folder."""
    return Path(os.path.expanduser(recipe.data.root), os.path.expanduser(path)).absolute()


def _load(
    source: str | Path | Recipe,
    overrides: Sequence[str] | None,
    data_root: Path | None,
    variables: Variables,
    *,
    allow_unset: bool,
) -> Preview:
    found: list[Mistake] = []
    if isinstance(source, Recipe):
        start = Path(source.name)
        written = read_yaml(dump_recipe(source), f"recipe {source.name}", found, lines=False)
    else:
        start = find_recipe(source)
        written = _read_chain(start, variables, found)
    for override in overrides or ():
        written = _override(written, override, found)
    if data_root is not None:
        # The option is a path as it is: a `${` in it is no variable.
        written = put(written, ("data", "root"), {(): Entry(escaped(str(data_root)), Origin(DATA_ROOT))})
    filled = {path: variables.fill(entry, path, is_text=_is_text) for path, entry in written.items()}
    filled = _with_own_root(filled, unset={mistake.path for mistake in variables.unset})
    filled = _with_own_published(filled, start)
    found += [] if allow_unset else variables.unset
    # A key given twice or a variable that is not set would be reported again by the schema, with a worse reason.
    known = {mistake.path for mistake in found}
    try:
        recipe = Recipe.model_validate(nested(filled))
    except ValidationError as exc:
        found += [mistake for mistake in sentences(exc, filled) if mistake.path not in known]
    if found:
        # Two bases may extend one file, which is read twice then.
        raise RecipeError(listed(list(dict.fromkeys(map(str, found)))), hint=_next_step(found, start))
    recipe = recipe.with_origins(_origins(filled, start))
    values = escaped(recipe.model_dump())
    for path in {mistake.path for mistake in variables.unset}:
        # A list is restored whole: its other items are in `written` as they were written, too.
        at = path if path in written else path[:-1]
        functools.reduce(operator.getitem, at[:-1], values)[at[-1]] = written[at].value
    unset = tuple(dict.fromkeys(str(mistake) for mistake in variables.unset))
    return Preview(recipe, values, unset, () if _is_shipped(start) else _published(filled))


def _origins(entries: Entries, start: Path) -> dict[str, str]:
    """Return where the value of each key comes from; of what an extended recipe states, that it is inherited."""
    return {
        key_name(path): f"{'inherited from ' if _is_inherited(entry.origin, start) else ''}{entry.origin}"
        for path, entry in entries.items()
    }


def _is_inherited(origin: Origin, start: Path) -> bool:
    return bool(origin.line) and origin.place != shown(start)


def _with_own_root(entries: Entries, *, unset: Collection[KeyPath]) -> Entries:
    """Return the entries with a relative `data.root` made absolute, if a person's file states it.

    It starts at the folder of that file, so that the recipe works from any folder. What a shipped recipe, an option or
    a pipe states starts at the current folder.
    """
    path = ("data", "root")
    root = entries.get(path)
    if root is None or not isinstance(root.value, str) or not root.origin.line or path in unset:
        return entries
    file = Path(root.origin.place).absolute()
    if _is_shipped(file) or not file.is_file():
        return entries
    folder = file.parent / os.path.expanduser(root.value)
    # `..` would stand in every message.
    return {**entries, path: Entry(os.path.realpath(folder) if ".." in folder.parts else str(folder), root.origin)}


def _with_own_published(entries: Entries, start: Path) -> Entries:
    """Return the entries without the published scores of other models and of other records.

    A recipe that extends a published one has its own model or data. An option that replaces the task, or the
    annotations of a split, leaves the scores of its file behind.
    """
    replaced = {path for path, entry in entries.items() if entry.origin.place == SET}
    own = {}
    for path, entry in entries.items():
        if path[:1] == ("published",) and len(path) > 1 and path not in replaced:
            split = ("data", "splits", path[1])
            if _is_inherited(entry.origin, start) or replaced & {("task",), split, (*split, "annotations")}:
                continue
        own[path] = entry
    return own


def _is_shipped(file: Path) -> bool:
    return file.absolute().parent == shipped_folder()


def _published(entries: Entries) -> tuple[str, ...]:
    """Return a sentence for each setting that only a published run needs and that comes from a shipped recipe."""
    found = {key: entries.get(tuple(key.split("."))) for key, each in all_settings().items() if each.published_only}
    return tuple(
        f"{key} is {as_written(entry.value)}, as a published run has it ({entry.origin})"
        for key, entry in found.items()
        if entry and _is_shipped(Path(entry.origin.place))
    )


def _next_step(mistakes: Sequence[Mistake], recipe: Path) -> str | None:
    if any("environment variable DATA" in mistake.says for mistake in mistakes) and _is_shipped(recipe):
        return f"give the folder of the data with --data-root; clipbert download {recipe.stem} --to DIR --pack makes it"
    if any("environment variable" in mistake.says for mistake in mistakes):
        return "set the variable (export NAME=value), or give the value with --set or --data-root"
    if any("unknown key" in mistake.says for mistake in mistakes):
        return "clipbert recipes explain lists all settings"
    if any("expected KEY=VALUE" in mistake.says for mistake in mistakes):
        return "write the value behind the key; clipbert recipes explain KEY says what it may be"
    if key := next((key_name(each.path) for each in mistakes if bare(annotation_at(each.path)) is SplitConfig), None):
        return f"name its files: --set {key}.annotations=FILE --set {key}.media=FOLDER"
    if len(mistakes) == 1 and (setting := setting_of(key_name(mistakes[0].path))):
        return f"clipbert recipes explain {setting.key} says what the value means"
    return None


def _is_text(path: KeyPath) -> bool:
    return bare(annotation_at(path)) is str


# ------------------------------------------------------------------------------------------------ extends and --set


def _read_chain(path: Path, variables: Variables, mistakes: list[Mistake], above: tuple[Path, ...] = ()) -> Entries:
    """Return the entries of a file merged over those of its bases. `above` are the files that led to this one."""
    # Only the files that led here: two bases of one recipe may extend the same file.
    if os.path.realpath(path) in map(os.path.realpath, above):
        circle = " extends ".join(shown(file) for file in (*above, path))
        raise RecipeError(f"{circle}: a recipe cannot extend itself")
    own = read_file(path, mistakes)
    keys = [key[0] for key in own if len(key) == 1]
    # Another file may be YAML as well, such as answers in JSON. A few unknown keys are mistakes in a recipe.
    if len(keys) > 3 and not {"extends", *Recipe.model_fields} & set(keys):
        hint = "to start from a recipe that works: clipbert recipes copy NAME mine.yaml"
        raise RecipeError(f"{shown(path)} is no recipe: none of its {len(keys)} keys is a setting", hint=hint)
    # Not a setting, so the schema must not see it.
    extends = own.pop(("extends",), None)
    result: Entries = {(): own[()]}
    for base in _bases(extends, path, variables) if extends else ():
        result = merge(result, _read_chain(base, variables, mistakes, (*above, path)))
    return merge(result, own)


def _bases(extends: Entry, path: Path, variables: Variables) -> list[Path]:
    """Return the files that `extends` of the file `path` names: shipped recipes, or files relative to its folder."""
    # Filled before all other values: bases decide which of those are used at all.
    names = variables.fill(extends, ("extends",), is_text=lambda _: True).value
    if variables.unset:
        raise RecipeError(str(variables.unset[0]), hint=_next_step(variables.unset, path))
    names = names if isinstance(names, list) else [names]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise RecipeError(f"{extends.origin}: extends: it must be the name or file of a recipe, or a list of them")
    bases = []
    for name in names:
        try:
            # A shipped recipe has an absolute path, which stays as it is.
            base = path.parent / find_recipe(name)
        except (PathError, RecipeError) as exc:
            raise RecipeError(f"{extends.origin}: extends: {exc}", hint=exc.hint) from exc
        if not base.exists():
            raise RecipeError(f"{extends.origin}: extends: {shown(base)}: no such recipe file")
        bases.append(base)
    return bases


def _override(entries: Entries, override: str, mistakes: list[Mistake]) -> Entries:
    """Return the entries with one `section.key=value` in them."""
    name, equals, text = override.partition("=")
    path = tuple(name.strip().split("."))
    if not equals:
        mistakes.append(Mistake(SET, (), f" {override}: expected KEY=VALUE, such as train.batch_size=8"))
        return entries
    annotation = annotation_at(path)
    if annotation is None:
        mistakes.append(unknown_key(SET, path, guess=len(mistakes) < MAX_GUESSES))
        return entries
    if not text.strip():
        mistakes.append(Mistake(SET, path, " is empty: give a value after =, or null for none"))
        return entries
    if bare(annotation) is str:
        # Text needs no quotes on a command line, where the shell already has its own.
        is_null = NoneType in get_args(annotation) and plain_tag(text.strip()) == plain_tag("")
        return put(entries, path, {(): Entry(None if is_null else text, Origin(SET))})
    own: list[Mistake] = []
    try:
        value = read_yaml(text, SET, own, lines=False)
    except RecipeError as exc:
        # Its position within the option helps nobody; the reason does.
        mistakes.append(Mistake(SET, path, f" is {text}: {str(exc).rpartition(': ')[2]}"))
        value = {(): Entry(None, Origin(SET))}
    mistakes += [Mistake(SET, (*path, *mistake.path), mistake.says) for mistake in own]
    return put(entries, path, value)
