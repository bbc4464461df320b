"""`clipbert preview`: the data of a split, or of a folder, as the model sees them, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.output import PAGE, refuse_other_ending, writing
from clipbert_cli.commands.terminal import note, show_logs, warn
from clipbert_cli.commands.typed_line import typed_line
from clipbert_cli.commands.wrong_paths import refuse_absent_data
from clipbert_cli.errors import UsageError
from clipbert_cli.types import Kind


def preview(
    context: typer.Context,
    media: Annotated[
        Path | None, options.argument("MEDIA", "A folder of media files or a store, to preview without annotations.")
    ] = None,
    recipe: Annotated[str | None, options.recipe("The recipe that has the split.")] = None,
    split: Annotated[str | None, options.split("The split to preview, for example train.")] = None,
    output: Annotated[str, options.output("The HTML page to write; - is stdout.")] = "preview.html",
    kind: Annotated[
        Kind | None, options.option("--kind", "What a folder holds. By default the names of its files decide.")
    ] = None,
    examples: Annotated[int, options.number("--examples", "How many media items to show.", most=5000)] = 50,
    seed: Annotated[int, options.seed("Seed of the sample and of what training draws.")] = 0,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Show the data as the model sees them, before any training.

    The page has the sampled clips with their times, the tokens of the texts and what is cut, masked words and
    negatives, and how answers, lengths, durations and formats are distributed. It holds frames of the data: share it
    like them.

    Example: clipbert preview --recipe msrvtt_qa --split train -o preview.html
    """
    if media is None and recipe and split is None:
        again = typed_line(context).with_values({}, "--split", "train")
        raise UsageError("--split is missing", hint=f"name the split, for example: {again}")
    if (media is None) == (recipe is None) or (recipe is None) != (split is None):
        raise UsageError(
            "name either MEDIA, or --recipe and --split",
            hint="clipbert preview --recipe msrvtt_qa --split train, or clipbert preview videos/",
        )
    refuse_other_ending(output, PAGE, what="the page")
    from clipbert_cli.recipe.load import load_recipe
    from clipbert_cli.report.data_page import preview_media, preview_split
    from clipbert_cli.splits import files_of

    show_logs()
    loaded = load_recipe(recipe, overrides=overrides, data_root=data_root) if recipe else None
    if loaded is not None and split is not None:
        files_of(loaded, split)
        refuse_absent_data(loaded)
    with writing(output, overwrite=overwrite, mode="wb") as stream:
        if loaded is not None and split is not None:
            problems, has_media = preview_split(loaded, split, stream, examples=examples, seed=seed)
        else:
            assert media is not None
            problems, has_media = preview_media(media, stream, kind=kind, examples=examples, seed=seed)
    if output != "-":
        note(f"wrote {output}: it holds frames and texts of the data")
    for sentence in problems:
        warn(sentence)
    if not has_media:
        # The page has what is known of the texts, but whoever looks for clips must not miss that there are none.
        warn("the page shows no media")
        raise typer.Exit(1)
