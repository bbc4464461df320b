"""The recipes that come with the package, and the file of a recipe by its name. No recipe is read here."""

from __future__ import annotations

import os
from pathlib import Path

from clipbert_cli.errors import RecipeError, UnreadableError
from clipbert_cli.foreign import read_json
from clipbert_cli.printable import did_you_mean


def shipped_folder() -> Path:
    """Return the folder of shipped recipes: inside an installed package, else beside it in a checkout."""
    package = Path(os.path.realpath(__file__)).parent.parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_names() -> list[str]:
    """Return the names of the shipped recipes, without the bases for others, whose files start with `_`."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml") if not path.name.startswith("_"))


def _refuse_predictions(name: str) -> None:
    """Raise RecipeError for predictions, which a meta file beside them tells, with the recipe that made them."""
    try:
        meta = read_json(Path(f"{os.path.expanduser(name)}.meta.json"))
    except (OSError, UnreadableError):
        return
    made = meta.get("recipe") if isinstance(meta, dict) else None
    if not isinstance(made, dict):
        return
    own = made.get("name")
    # The run has the settings of a recipe that is not shipped.
    file = own if own in shipped_names() else Path(str(meta.get("run"))) / "recipe.yaml"
    raise RecipeError(f"{name} is a file of predictions, made with recipe {own}", hint=f"name that recipe: {file}")


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe; a path is returned whether it exists or not.

    Args:
        name_or_path: a shipped recipe's name (`msrvtt_qa`), or a file: anything with a `/` or the suffix .yaml or .yml,
            and any name of an existing file that no shipped recipe has. `~` is the home folder.

    Raises:
        RecipeError: no shipped recipe has this name; the nearest names are given. A folder, and that of a run, is said
            to be one.
    """
    text = str(name_or_path)
    if os.path.isfile(os.path.join(os.path.expanduser(text), "recipe.yaml")):
        raise RecipeError(
            f"{text} is the folder of a run, not a recipe",
            hint=f"name its recipe, {Path(text) / 'recipe.yaml'}; a training goes on with --run {text} --resume",
        )
    _refuse_predictions(text)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        return Path(os.path.expanduser(text))
    shipped = shipped_folder() / f"{text}.yaml"
    if text and shipped.is_file():
        return shipped
    if Path(text).is_file():
        return Path(text)
    if Path(text).is_dir():
        raise RecipeError(
            f"{text} is a folder, not a recipe", hint="clipbert recipes ls lists the shipped recipes by their names"
        )
    raise RecipeError(
        f"no shipped recipe is called {text!r}{did_you_mean(text, shipped_names(), most=3)}",
        hint="clipbert recipes ls lists them; give your own file by its path, such as ./mine.yaml",
    )
