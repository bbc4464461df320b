"""From a recipe's name to a checked `Recipe`: YAML files, `extends`, `--set`, `--data-root`, `${VAR}`.

    file ─► extends (bases first) ─► --set ─► --data-root ─► ${VAR} ─► schema ─► Recipe

Every value keeps the file or option it came from, so that all mistakes are told together and each names its place.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clipbert_cli.errors import RecipeError
from clipbert_cli.recipe.messages import is_nullable, sentences, type_at, unknown_key
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.variables import Variables, escape, escaped, restore
from clipbert_cli.recipe.yaml_nodes import (
    KeyPath,
    Mistake,
    Node,
    is_null,
    read_file,
    read_yaml,
    shown,
    write_yaml,
)

SET = "--set"
DATA_ROOT = "--data-root"
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with the package: its name, file, task and the first line of its head comment."""

    name: str
    path: Path
    task: str
    summary: str


@dataclass(frozen=True)
class Preview:
    """A recipe as it reads before its machine is known.

    Args:
        recipe: checked; a value with an unset variable still holds its `${NAME}`.
        text: the YAML of `recipe`, such values as they were written.
        unset: one sentence for each variable that a run will need.
    """

    recipe: Recipe
    text: str
    unset: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------------- finding


def shipped_folder() -> Path:
    """The folder of shipped recipes: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: a shipped recipe's name (`msrvtt_qa`), or a file: anything with a `/` or the suffix .yaml or .yml,
            and any name of an existing file that no shipped recipe has. `~` is the home folder.

    Raises:
        RecipeError: no shipped recipe has this name; the nearest names are given. Whether a path exists is not asked.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or _is_path(text):
        return Path(os.path.expanduser(text))
    folder = shipped_folder()
    shipped = folder / f"{text}.yaml"
    if text and shipped.is_file():
        return shipped
    if Path(text).is_file():
        return Path(text)
    near = difflib.get_close_matches(text, _shipped_names(folder), n=3)
    guess = f"; did you mean {' or '.join(near)}?" if near else ""
    raise RecipeError(
        f"no shipped recipe is called {text!r}{guess}",
        hint="clipbert recipes ls lists them; give your own file by its path, such as ./mine.yaml",
    )


def list_recipes() -> list[ShippedRecipe]:
    """The shipped recipes that can be run, by name. Files that start with `_` are bases for others and not listed."""
    folder = shipped_folder()
    return [_describe(folder / f"{name}.yaml") for name in _shipped_names(folder)]


def _describe(path: Path) -> ShippedRecipe:
    values = _plain(_read_chain(path, Variables(os.environ), []))
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return ShippedRecipe(name=path.stem, path=path, task=str(values.get("task")), summary=first.lstrip("# ").strip())


def _shipped_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("_"))


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith(SUFFIXES)


# ---------------------------------------------------------------------------------------------------------- loading


def load_recipe(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Recipe:
    """A checked recipe, ready for a run.

    Args:
        name_or_path: as in `find_recipe`; also the `recipe.yaml` of a run folder.
        overrides: `section.key=value` each; the last one wins.
        data_root: replaces `data.root`.
        environment: what `${NAME}` stands for.

    Raises:
        RecipeError: one line for each mistake, in files, options and variables together.
    """
    variables = Variables(environment)
    root, mistakes = _compose(name_or_path, overrides, data_root, variables)
    filled = variables.fill(root)
    return _check(filled, [*mistakes, *variables.malformed, *variables.unset])


def preview_recipe(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Preview:
    """A recipe as `load_recipe` reads it, but with unset variables left in place.

    Raises:
        RecipeError: any other mistake.
    """
    variables = Variables(environment)
    root, mistakes = _compose(name_or_path, overrides, data_root, variables)
    recipe = _check(variables.fill(root), [*mistakes, *variables.malformed])
    values = escaped(recipe.model_dump())
    for mistake in variables.unset:
        restore(values, _plain(root), mistake.path)
    return Preview(recipe, write_yaml(values), tuple(str(mistake) for mistake in variables.unset))


def dump_recipe(recipe: Recipe) -> str:
    """The YAML of a whole recipe, every key written out; `load_recipe` makes an equal recipe of it."""
    return write_yaml(escaped(recipe.model_dump()))


def resolve(recipe: Recipe, path: str) -> Path:
    """A path of a recipe as a file: relative ones start from `data.root`, `~` is the home folder."""
    return Path(os.path.expanduser(recipe.data.root), os.path.expanduser(path))


def _compose(
    name_or_path: str | Path, overrides: Sequence[str], data_root: Path | None, variables: Variables
) -> tuple[Node, list[Mistake]]:
    mistakes: list[Mistake] = []
    root = _read_chain(find_recipe(name_or_path), variables, mistakes)
    for override in overrides:
        root = _override(root, override, mistakes)
    if data_root is not None:
        root = _put(root, ("data", "root"), Node(escape(str(data_root)), DATA_ROOT))
    return root, mistakes


def _check(root: Node, mistakes: Sequence[Mistake]) -> Recipe:
    found = list(mistakes)
    told = {mistake.path for mistake in found}
    try:
        recipe = Recipe.model_validate(_plain(root))
    except ValidationError as exc:
        found += [mistake for mistake in sentences(exc, root) if mistake.path not in told]
    if found:
        places = list(dict.fromkeys(mistake.origin for mistake in found))
        found.sort(key=lambda mistake: places.index(mistake.origin))
        raise RecipeError("\n".join(str(mistake) for mistake in found), hint=_next_step(found))
    return recipe


def _next_step(mistakes: Sequence[Mistake]) -> str | None:
    if any("environment variable" in mistake.says for mistake in mistakes):
        return "set the variable (export NAME=value), or give the value with --set or --data-root"
    if any("unknown key" in mistake.says for mistake in mistakes):
        return "clipbert recipes show NAME prints every key of a recipe with its value"
    return None


# ------------------------------------------------------------------------------------------------ extends and --set


def _read_chain(path: Path, variables: Variables, mistakes: list[Mistake], below: tuple[Path, ...] = ()) -> Node:
    """A file merged over its bases. `below` are the files that led here, the first one first."""
    if path.resolve() in [file.resolve() for file in below]:
        circle = " extends ".join(shown(file) for file in (*below, path))
        raise RecipeError(f"{circle}: a recipe cannot extend itself")
    node = read_file(path, mistakes)
    values = dict(node.value) if isinstance(node.value, dict) else {}
    extends = values.pop("extends", None)
    own = Node(values, node.origin)
    if extends is None:
        return own
    return _merge(_read_chain(_base(extends, path, variables), variables, mistakes, (*below, path)), own)


def _base(extends: Node, path: Path, variables: Variables) -> Path:
    """The file that `extends` in the file `path` means: a shipped name, or a file relative to that file's folder."""
    if not isinstance(extends.value, str) or not extends.value:
        raise RecipeError(f"{extends.origin}: extends: it must be one recipe's name or file")
    text = variables.fill(extends, ("extends",)).value
    if wrong := [*variables.malformed, *variables.unset]:
        raise RecipeError(str(wrong[0]), hint=_next_step(wrong))
    try:
        base = path.parent / find_recipe(str(text))
    except RecipeError as exc:
        raise RecipeError(f"{extends.origin}: extends: {exc}", hint=exc.hint) from exc
    if not base.exists():
        raise RecipeError(f"{extends.origin}: extends: {shown(base)}: no such recipe file")
    return base


def _merge(base: Node, over: Node) -> Node:
    """Mappings merge key by key; lists, scalars and mixed pairs are replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, value in over.value.items():
        merged[key] = _merge(merged[key], value) if key in merged else value
    return Node(merged, over.origin)


def _override(root: Node, override: str, mistakes: list[Mistake]) -> Node:
    """`root` with one `section.key=value` in it."""
    name, equals, text = override.partition("=")
    path = tuple(name.strip().split("."))
    if not equals:
        mistakes.append(Mistake(SET, (), f" {override}: expected KEY=VALUE, such as train.batch_size=8"))
    elif type_at(path) is type(None):
        mistakes.append(unknown_key(SET, path, dotted=True))
    else:
        return _put(root, path, _typed(path, text, mistakes))
    return root


def _typed(path: KeyPath, text: str, mistakes: list[Mistake]) -> Node:
    """An option's text as the schema's type wants it: kept where it wants text, read as YAML elsewhere."""
    if type_at(path) is str:
        return Node(None if is_nullable(path) and is_null(text) else text, SET)
    try:
        return read_yaml(text, SET, mistakes)
    except RecipeError as exc:
        mistakes.append(Mistake(SET, path, f" is {text}: {str(exc).rpartition(': ')[2]}"))
        return Node(None, SET)


def _put(node: Node, path: KeyPath, value: Node) -> Node:
    """`node` with `value` merged in at a key path; sections on the way keep their origin."""
    if not path:
        return _merge(node, value) if isinstance(value.value, dict) else value
    key = str(path[0])
    inner: dict[str, Node] = dict(node.value) if isinstance(node.value, dict) else {}
    inner[key] = _put(inner.get(key, Node({}, value.origin)), path[1:], value)
    return Node(inner, node.origin)


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value
