"""The recipes that come with the package, and the file of a recipe by its name. No recipe is read here."""

from __future__ import annotations

import os
from pathlib import Path

from clipbert_cli.errors import RecipeError
from clipbert_cli.path_kinds import A_RECIPE, look_at, unlike
from clipbert_cli.printable import did_you_mean


def shipped_folder() -> Path:
    """Return the folder of shipped recipes: inside an installed package, else beside it in a checkout."""
    package = Path(os.path.realpath(__file__)).parent.parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_names() -> list[str]:
    """Return the names of the shipped recipes, without the bases for others, whose files start with `_`."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml") if not path.name.startswith("_"))


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe; a path is returned whether it exists or not.

    Args:
        name_or_path: a shipped recipe's name (`msrvtt_qa`), or a file: anything with a `/` or the suffix .yaml or .yml,
            and any name of an existing file that no shipped recipe has. `~` is the home folder.

    Raises:
        PathError: something else is at the path.
        RecipeError: no shipped recipe has this name; the nearest names are given.
    """
    text = str(name_or_path)
    file = Path(os.path.expanduser(text))
    is_path = isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml"))
    shipped = shipped_folder() / f"{text}.yaml"
    if text and not is_path and shipped.is_file():
        return shipped
    if not A_RECIPE.takes(look_at(os.path.expanduser(text))):
        raise unlike(file, A_RECIPE)
    if is_path or file.is_file():
        return file
    raise RecipeError(
        f"no shipped recipe is called {text!r}{did_you_mean(text, shipped_names(), most=3)}",
        hint="clipbert recipes ls lists them; give your own file by its path, such as ./mine.yaml",
    )
