"""Checks that several commands make before their work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clipbert_cli.errors import UsageError
from clipbert_cli.printable import shortened

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


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
