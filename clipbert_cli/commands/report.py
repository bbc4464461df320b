"""`clipbert report`: predictions and trainings on one page. Needs no model and no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.output import PAGE, refuse_other_ending, writing
from clipbert_cli.commands.terminal import note, show_logs, warn_of_each
from clipbert_cli.commands.wrong_paths import refuse_absent_data
from clipbert_cli.errors import UsageError
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import summarised


def report_page(
    predictions: Annotated[Path | None, options.argument("PREDS", "The predictions that clipbert infer wrote.")] = None,
    run: Annotated[
        list[Path] | None,
        options.option("--run", "A run whose training is shown. Repeatable: several are compared.", metavar="DIR"),
    ] = None,
    recipe: Annotated[str | None, options.recipe("The recipe that has the split, by default the run's.")] = None,
    split: Annotated[str | None, options.split("The split that was predicted.")] = None,
    output: Annotated[str, options.output("The HTML page to write; - is stdout.")] = "report.html",
    against: options.Against = None,
    blind: Annotated[
        Path | None,
        options.option(
            "--blind",
            "Predictions of the same model, made with data.black_frames=true.",
            metavar="PREDS",
        ),
    ] = None,
    examples: Annotated[int, options.number("--examples", "How many examples to show.", most=5000)] = 200,
    seed: Annotated[int, options.seed("Seed of the sample of examples.")] = 0,
    allow_partial: Annotated[
        bool, options.option("--allow-partial", "Show the records that have a prediction, and count the others.")
    ] = False,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Show predictions and trainings on one page.

    The page has scores with intervals, calibration or ranks, mistakes, and examples with their clips. It holds frames
    of the data: share it like them.

    Example: clipbert report preds.jsonl --run runs/msrvtt_qa --split test -o report.html
    """
    if predictions is None and not run:
        raise UsageError(
            "neither PREDS nor --run is given", hint="clipbert report preds.jsonl --run runs/msrvtt_qa --split test"
        )
    if predictions is None and (against or blind):
        raise UsageError("--against and --blind are given without PREDS", hint="name the predictions first")
    refuse_other_ending(output, PAGE, what="the page")
    from clipbert_cli.infer.made_by import read_meta, recipe_and_split
    from clipbert_cli.report.results_page import Predicted, made_facts, write_report
    from clipbert_cli.splits import files_of

    show_logs()
    folders = [RunFolder.existing(each) for each in run or ()]
    predicted = None
    if predictions is not None:
        made = read_meta(predictions)
        loaded, split = recipe_and_split(
            predictions,
            made,
            command="report",
            recipe=recipe or (folders[0].recipe if folders and not made.meta else None),
            split=split,
            overrides=overrides,
            data_root=data_root,
        )
        files_of(loaded, split)
        refuse_absent_data(loaded)
        predicted = Predicted(
            predictions,
            loaded,
            split,
            against=against,
            blind=blind,
            facts=made_facts(made),
            allow_partial=allow_partial,
        )
    with writing(output, overwrite=overwrite, mode="wb") as stream:
        write_report(stream, predicted, folders, examples=examples, seed=seed)
    if output != "-":
        note(f"wrote {output}" + (": it holds frames and texts of the data" if predicted else ""))
    damaged = [(found.run, found.problem) for found in map(summarised, folders) if found.problem]
    warn_of_each("damaged", damaged)
    if damaged:
        raise typer.Exit(1)
