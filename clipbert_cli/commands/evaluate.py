"""`clipbert eval`: the score of a predictions file. Needs no model, no GPU and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import aligned, note, print_json, print_result, show_logs
from clipbert_cli.commands.wrong_paths import refuse_absent_data
from clipbert_cli.errors import UsageError
from clipbert_cli.printable import printable
from clipbert_cli.runs.baseline import listed_scores, sentences
from clipbert_cli.runs.folder import RunFolder

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe
    from clipbert_cli.types import Example


def evaluate(
    predictions: Annotated[Path, options.argument("PREDS", "The predictions that clipbert infer wrote; - is stdin.")],
    split: Annotated[
        str | None, options.split("The split that was predicted; by default that of PREDS.meta.json.")
    ] = None,
    run: Annotated[
        Path | None, options.option("--run", "The run that predicted: take the recipe from its folder.", metavar="DIR")
    ] = None,
    recipe: Annotated[
        str | None,
        options.recipe("The recipe that has the split, instead of --run; by default that of PREDS.meta.json."),
    ] = None,
    overrides: options.Overrides = None,
    data_root: options.DataRoot = None,
    allow_partial: Annotated[
        bool,
        options.option(
            "--allow-partial",
            "Score the records that have a prediction, and count the others and the predictions without a record.",
        ),
    ] = False,
    leave_out_media_errors: Annotated[
        bool,
        options.option(
            "--leave-out-media-errors",
            "Leave out the records whose media are missing or damaged, and count them. By default they count as wrong.",
        ),
    ] = False,
    against: options.Against = None,
    resamples: Annotated[
        int, options.number("--resamples", "How often media items are drawn anew.", least=100, most=1_000_000)
    ] = 2000,
    seed: Annotated[int, options.seed("Seed of these draws.")] = 1,
    as_json: options.Json = False,
) -> None:
    """Score predictions against the ground truth of a split.

    Intervals hold the true score 95 times of 100. They are exact where each media item has one record, else a bootstrap
    over media items, because records of one video are not independent. With --against, each difference has an interval
    and the probability that two equal systems differ by as much.
    """
    if run and recipe:
        raise UsageError(
            "--run and --recipe are given both",
            hint="name either the run that predicted or a recipe that has the split",
        )
    from clipbert_cli.build import build_task
    from clipbert_cli.infer.made_by import belonging_to, read_meta, recipe_and_split
    from clipbert_cli.infer.score import evaluate as score
    from clipbert_cli.splits import read_split
    from clipbert_cli.task.intervals import LEVEL, Resampling
    from clipbert_cli.task.metrics import comparison_tables, score_table

    show_logs()
    # The task is built without its vocabulary, which scoring does not need: no answers file is read.
    folder = RunFolder.of_model(run)[0] if run else None
    loaded, split = recipe_and_split(
        predictions,
        read_meta(predictions),
        command="eval",
        recipe=folder.recipe if folder else recipe,
        split=split,
        overrides=overrides,
        data_root=data_root,
    )
    refuse_absent_data(loaded)
    task = build_task(loaded)
    examples = read_split(loaded, split, task, task.check_truth)
    with belonging_to(loaded, split, (predictions, against), command="eval"):
        found = score(
            predictions,
            task,
            examples,
            resampling=Resampling(resamples, seed),
            against=against,
            allow_partial=allow_partial,
            leave_out_media_errors=leave_out_media_errors,
        )
    metrics = found.metrics
    notes = _notes(loaded, folder, examples, split)
    baselines = folder.baselines()[-1:] if folder else []
    published = loaded.published.get(split, {})
    if as_json:
        how = {"intervals": found.intervals, "resampling": {"level": LEVEL, "resamples": resamples, "seed": seed}}
        compared = {"file": str(against), **{name: asdict(each) for name, each in found.comparisons.items()}}
        known = {
            "against": compared if against else {},
            "published": published,
            "baseline": baselines[0] if baselines else {},
            "notes": notes,
        }
        print_json({**metrics, **how, **{name: value for name, value in known.items() if value}})
        return
    beside = [f"published: {printable(listed_scores(published))}"] if published else []
    beside += [f"without looking: {each}" for record in baselines for each in sentences(record)]
    print_result(*aligned(score_table(found.measures, found.intervals)), *beside)
    for table in comparison_tables(found.comparisons) if against else ():
        print_result("", *aligned(table))
    # In JSON these are the keys `media_errors`, `left_out`, `missing` and `unknown`.
    if failed := metrics.get("media_errors"):
        note(f"{failed} records count as wrong, because their media are missing or damaged")
    if left_out := metrics.get("left_out"):
        note(f"{left_out} records are left out, because their media are missing or damaged")
    for sentence in notes:
        note(sentence)
    if missing := metrics.get("missing"):
        total = metrics["count"] + missing
        note(f"scored {metrics['count']} of {total} records: {missing} have no prediction")
    if unknown := metrics.get("unknown"):
        note(f"{unknown} predictions belong to no record of the split: left out")


def _notes(recipe: Recipe, folder: RunFolder | None, examples: Sequence[Example], split: str) -> list[str]:
    """Return what a model cannot read or answer of a split, as far as its vocabulary and answers are at hand."""
    from clipbert_cli.build import build_task
    from clipbert_cli.recipe.load import resolve
    from clipbert_cli.task.coverage import cut_texts, unknown_answers, unread_words
    from clipbert_cli.text.annotations import read_answers

    sentences: list[str] = []
    if folder and folder.vocabulary.is_file():
        from clipbert_cli.text.tokenizer import Tokenizer

        tokenizer = Tokenizer(folder.vocabulary, max_length=recipe.data.max_text_length)
        sentences += cut_texts(examples, tokenizer, what=split)
        sentences += unread_words(examples, tokenizer, what=split)
    named = resolve(recipe, recipe.data.answers) if recipe.data.answers else None
    answers = folder.answers if folder else named
    if answers and answers.is_file() and build_task(recipe).needs_answers:
        sentences += unknown_answers(examples, build_task(recipe, read_answers(answers)), what=split)
    return sentences
