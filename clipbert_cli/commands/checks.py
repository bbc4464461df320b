"""Checks that several commands make before their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipbert_cli.errors import UsageError
from clipbert_cli.printable import shortened

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


def refuse_absent_data(recipe: Recipe) -> None:
    """Raise UsageError if nothing that the recipe names is there: its root is another folder, or still empty."""
    from clipbert_cli.hub import is_hub_name
    from clipbert_cli.recipe.load import resolve

    data, model = recipe.data, recipe.model
    of_splits = [file for split in data.splits.values() if split for file in (split.annotations, split.media)]
    named = [data.answers, *of_splits, model.vocabulary, model.weights.checkpoint, model.visual.weights]
    files = dict.fromkeys(file for file in named if file and not is_hub_name(file))
    if of_splits and not any(resolve(recipe, file).exists() for file in files):
        from clipbert_cli.assets.catalog import load_catalog

        download = f"; clipbert download {recipe.name} --to DIR --pack makes it"
        origin = recipe.origin("data.root")
        stated = f", or correct data.root ({origin})" if origin and origin != "--data-root" else ""
        raise UsageError(
            f"nothing that the recipe names is in {resolve(recipe, '.')}: {shortened([*files], 2)}",
            hint=f"give the folder that holds these with --data-root DIR{stated}"
            + (download if load_catalog().needs_of(recipe.name) else ""),
        )
