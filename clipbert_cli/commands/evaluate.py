"""`clipbert eval`: the score of a predictions file. Needs no model, no GPU and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands.options import DataRootOption, JsonOption, SetOption
from clipbert_cli.errors import UsageError
from clipbert_cli.printable import printable


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDS", help="The predictions that clipbert infer wrote; - is stdin.")
    ],
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="The split that was predicted.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="The run that predicted: take the recipe from its folder."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", metavar="NAME|FILE", help="The recipe that has the split, instead of --run."),
    ] = None,
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="Score the records that have a prediction, and count the others and the predictions without a record.",
        ),
    ] = False,
    leave_out_media_errors: Annotated[
        bool,
        typer.Option(
            "--leave-out-media-errors",
            help="Leave out the records whose media are missing or damaged, and count them. By default they count as "
            "wrong.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score predictions against the ground truth of a split."""
    if (run is None) == (recipe is None):
        raise UsageError(
            "--run and --recipe are given both" if run else "--run or --recipe is missing",
            hint="name either the run that predicted or a recipe that has the split",
        )

    from clipbert_cli.build import build_task, read_split
    from clipbert_cli.commands.terminal import note, print_json, print_result, show_logs
    from clipbert_cli.infer.score import evaluate as score
    from clipbert_cli.recipe.load import load_recipe
    from clipbert_cli.runs.folder import RunFolder

    show_logs()
    # The task is built without its vocabulary, which scoring does not need: no answers file is read.
    source = RunFolder.of_model(run)[0].recipe if run else str(recipe)
    loaded = load_recipe(source, overrides=overrides or (), data_root=data_root)
    task = build_task(loaded)
    metrics = score(
        predictions,
        task,
        read_split(loaded, split, task, task.check_truth),
        allow_partial=allow_partial,
        leave_out_media_errors=leave_out_media_errors,
    )
    if as_json:
        print_json(metrics)
        return
    print_result(*aligned(task.table(metrics)))
    # In JSON these are the keys `media_errors`, `left_out`, `missing` and `unknown`.
    if failed := metrics.get("media_errors"):
        note(f"{failed} records count as wrong, because their media are missing or damaged")
    if left_out := metrics.get("left_out"):
        note(f"{left_out} records are left out, because their media are missing or damaged")
    if missing := metrics.get("missing"):
        total = metrics["count"] + missing
        note(f"scored {metrics['count']} of {total} records: {missing} have no prediction")
    if unknown := metrics.get("unknown"):
        note(f"{unknown} predictions belong to no record of the split: left out")


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of text as the lines of a table with the first column to the left and all others to the right.

    The headings are printed into pipes and files as well: the numbers of a log mean nothing without them.
    """
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
