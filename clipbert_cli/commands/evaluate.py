"""`clipbert eval`: score a predictions file. Loads no model and needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clipbert_cli.commands.options import DataRootOption, JsonOption, RecipeArgument, SetOption


def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PREDS", help="Predictions of clipbert infer; `-` is stdin.")],
    recipe: RecipeArgument,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split that the predictions are of.")],
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score what is there where predictions are missing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score predictions against a split's ground truth.

    Example: clipbert eval preds.jsonl --recipe msrvtt_qa --split test
    """
    from clipbert_cli.commands.terminal import print_json, show_logs
    from clipbert_cli.recipe.load import load_recipe

    show_logs()
    loaded = load_recipe(recipe, overrides=overrides or (), data_root=data_root)

    from clipbert_cli.build import build_task
    from clipbert_cli.infer.score import evaluate as score

    metrics = score(predictions, loaded, split, allow_partial=allow_partial)
    if as_json:
        print_json(metrics)
    else:
        _show(build_task(loaded).table(metrics), metrics)


def _show(rows: Sequence[tuple[str, ...]], metrics: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from clipbert_cli.commands.terminal import note, stderr

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    stderr().print(table)
    if metrics.get("missing"):
        total = metrics["count"] + metrics["missing"]
        note(f"scored {metrics['count']} of {total} examples: {metrics['missing']} have no prediction")
