"""The values that completion lists: recipes, settings, splits, runs, stores, media ids, assets.

Each press of Tab waits for this module, so it imports no schema, no store and no model: it reads the files themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbert_cli.foreign import read_text
from clipbert_cli.path_kinds import look_at

if TYPE_CHECKING:
    from clipbert_cli.commands.completion import Cursor

Candidates = Iterable[tuple[str, str]]
"""Values and what they mean."""

MAX_YAML_BYTES = 2**20
"""The limit of a recipe that is looked into."""

_ENTRIES = 1000
"""How many entries of a folder, and how many media ids, are looked at."""


def _fixed(*values: str) -> Callable[[Cursor], Candidates]:
    return lambda cursor: ((value, "") for value in values)


def _recipes(cursor: Cursor) -> Candidates:
    from clipbert_cli.recipe.shipped import shipped_names

    yield from ((name, "shipped recipe") for name in shipped_names())
    yield from ((path.name, "recipe file") for path in sorted(Path().glob("*.y*ml")))


def _folders(kind: str) -> Callable[[Cursor], Candidates]:
    """Return a source of the `runs` or the `stores` in the typed folder and in the folders in it."""

    def source(cursor: Cursor) -> Candidates:
        typed = cursor.word[: cursor.word.rfind("/") + 1]
        folder = os.path.expanduser(typed or ".")
        return ((typed + os.path.relpath(path, folder), "") for path in getattr(look_at(folder), kind))

    return source


def _checkpoints(cursor: Cursor) -> Candidates:
    folder = Path(os.path.expanduser(cursor.line.value("--run") or cursor.line.value("RUN") or "."), "checkpoints")
    names = (path.name.removeprefix("step_") for path in islice(folder.glob("step_*"), _ENTRIES))
    steps = sorted(int(name) for name in names if re.fullmatch("[0-9]{1,18}", name))
    return ((name, "") for name in ("best", "latest", *(f"step_{step}" for step in steps)))


def _splits(cursor: Cursor) -> Candidates:
    from clipbert_cli.recipe.shipped import find_recipe

    recipe, run = cursor.line.value("--recipe"), cursor.line.value("--run")
    file = find_recipe(recipe) if recipe else Path(os.path.expanduser(run), "recipe.yaml") if run else None
    # Without a recipe or a run, the names that every shipped recipe has.
    names = split_names(file) if file else ("train", "val", "test")
    return ((name, "") for name in names)


def split_names(file: Path, depth: int = 8) -> list[str]:
    """Return the names of the splits in a recipe file and in those that it extends, `depth` files far."""
    from clipbert_cli.recipe.shipped import find_recipe

    content = _yaml(file)
    bases = content.get("extends") or []
    names: dict[str, object] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        names |= dict.fromkeys(split_names(file.parent / find_recipe(base), depth - 1) if depth else (), True)
    names |= (content.get("data") or {}).get("splits") or {}
    # `val: null` removes a split of a base.
    return [name for name, split in names.items() if split is not None]


def _yaml(file: Path) -> Mapping[str, Any]:
    import yaml

    content = yaml.load(read_text(file, limit=MAX_YAML_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content if isinstance(content, dict) else {}


def _settings(cursor: Cursor) -> Candidates:
    """Yield keys of settings, and for a whole key its values."""
    # Other words need no recipe to be read.
    splits = [name for name, _ in _splits(cursor)] if cursor.word.startswith("data.sp") else []
    found = {
        key.replace("NAME", name): each
        for key, each in _settings_page().items()
        for name in (splits if "NAME" in key else [""])
    }
    key, equals, _ = cursor.word.partition("=")
    matching = [name for name in found if name == key or (not equals and name.startswith(key))]
    if len(matching) > 1 and not equals:
        yield from ((name, found[name][0]) for name in matching)
        return
    for name in matching:
        if not equals:
            # The shell inserts what two candidates share, the key. It would take a single one as the whole word.
            yield f"{name}=", found[name][0]
        yield from ((f"{name}={value}", "") for value in found[name][1])


def _keys(cursor: Cursor) -> Candidates:
    found = {key: each for key, each in _settings_page().items() if "NAME" not in key}
    sections = dict.fromkeys(key.rpartition(".")[0] for key in found if "." in key)
    return (*((section, "section") for section in sections), *((key, meaning) for key, (meaning, _) in found.items()))


def _settings_page() -> dict[str, tuple[str, list[str]]]:
    """Return meaning and values of each setting, from docs/settings.md: importing the schema takes 0.2 seconds."""
    package = Path(os.path.realpath(__file__)).parents[1]
    installed = package / "settings.md"
    page = (installed if installed.is_file() else package.parent / "docs/settings.md").read_text(encoding="utf-8")
    found = {}
    for entry in page.split("\n### `")[1:]:
        key, _, rest = entry.partition("`\n\n")
        facts = dict(re.findall(r"^\* (value|default): (.*)$", rest, flags=re.M))
        words = re.split(r", | or ", facts["value"])
        # A value that is described by a sentence or as `text` is no choice.
        choices = [word for word in words if re.fullmatch(r"\w+", word) and word != "text"]
        default = facts["default"].strip("`")
        values = choices if len(choices) == len(words) else [default] if facts["default"].startswith("`") else []
        found[key] = rest.partition("\n")[0], values
    return found


def _media_ids(cursor: Cursor) -> Candidates:
    from clipbert_cli.store.environment import open_environment

    store = Path(os.path.expanduser(cursor.line.value("STORE") or ""))
    with open_environment(store).lmdb.begin() as transaction, transaction.cursor() as keys:
        found = keys.set_range(cursor.word.encode()) if cursor.word else keys.first()
        names = (key.decode("utf-8", "replace") for key in keys.iternext(values=False)) if found else ()
        # The records of a store (store/records.py) have keys that begin with this name.
        media = (name for name in names if not name.startswith("/clipbert/"))
        return [(name, "") for name in islice(media, _ENTRIES) if name.startswith(cursor.word)]


def _catalog() -> Mapping[str, Any]:
    return _yaml(Path(os.path.realpath(__file__)).parents[1] / "assets/catalog.yaml")


def _assets(cursor: Cursor) -> Candidates:
    catalog = _catalog()
    for name, asset in catalog["assets"].items():
        yield name, asset["title"]
        yield from ((f"{name}/{part}", each["title"]) for part, each in asset["parts"].items())
    yield from ((name, "recipe and all it needs") for name in catalog["recipes"] if "*" not in name)


def _converters(cursor: Cursor) -> Candidates:
    parts = [part for asset in _catalog()["assets"].values() for part in asset["parts"].values()]
    return ((part["convert"], part["title"]) for part in parts if "convert" in part)


# By option or name of an argument, after the path of the command where the name means several things. Where there is
# no source and no choice, the shell completes names of files.
SOURCES: dict[str, Callable[[Cursor], Candidates]] = {
    "--recipe": _recipes,
    "NAME|FILE": _recipes,
    "--split": _splits,
    "--set": _settings,
    "KEY": _keys,
    "--run": _folders("runs"),
    "RUN": _folders("runs"),
    "--checkpoint": _checkpoints,
    "--device": _fixed("cpu", "cuda"),
    "--nproc-per-node": _fixed("gpu"),
    "--format": _fixed("jsonl", "scores", "vqa-submission"),
    "STORE": _folders("stores"),
    "MEDIA_ID": _media_ids,
    "ASSET": _assets,
    "assets convert NAME": _converters,
}
