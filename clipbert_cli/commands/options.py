"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str,
    typer.Option("--recipe", "-r", metavar="NAME|FILE", help="Recipe: a shipped name (clipbert recipes ls) or a file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. train.batch_size=8. Repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Folder that the recipe's relative paths start from."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="cpu|cuda|cuda:N", help="Default: the first GPU, or the CPU.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]
