"""`clipbert eval`: the score of a predictions file. Needs no model, no GPU and no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands.options import DataRootOption, JsonOption, RecipeArgument, SetOption


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDS", help="The predictions that clipbert infer wrote; - is stdin.")
    ],
    recipe: RecipeArgument,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="The split that was predicted.")],
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score the examples that have a prediction, and count the others.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score predictions against the ground truth of a split."""
    from clipbert_cli.build import build_task, read_split
    from clipbert_cli.commands.terminal import note, print_json, print_table, show_logs
    from clipbert_cli.infer.score import evaluate as score
    from clipbert_cli.recipe.load import load_recipe

    show_logs()
    loaded = load_recipe(recipe, overrides=overrides or (), data_root=data_root)
    task = build_task(loaded)
    metrics = score(predictions, task, read_split(loaded, split, task, task.check_truth), allow_partial=allow_partial)
    if as_json:
        print_json(metrics)
        return
    headings, *rows = task.table(metrics)
    print_table(headings, rows)
    if metrics.get("missing"):
        total = metrics["count"] + metrics["missing"]
        note(f"scored {metrics['count']} of {total} examples: {metrics['missing']} have no prediction")
