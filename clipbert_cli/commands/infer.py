"""`clipbert infer`: the predictions of a trained run for a split."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.output import nowhere, refuse_other_ending, writing
from clipbert_cli.commands.terminal import doing, is_muted, note, show_logs
from clipbert_cli.commands.wrong_paths import refuse_absent_data
from clipbert_cli.errors import UsageError
from clipbert_cli.printable import plural

if TYPE_CHECKING:
    from clipbert_cli.infer.trained import RunSelection, TrainedRun

JSONL, SCORES, SUBMISSION = "jsonl", "scores", "vqa-submission"


@dataclass(frozen=True)
class Request:
    """The options that say which split to predict, and where and how predictions are written."""

    split: Annotated[str, options.split("The split of the recipe, for example val or test.")]
    output: Annotated[str, options.output("Where to write the predictions; - is stdout. A folder for scores.")] = "-"
    form: Annotated[
        str,
        options.option(
            "--format",
            "How to write the predictions: jsonl is one JSON object per line; vqa-submission is the list that the "
            "VQA evaluation server reads; scores (retrieval only) is a folder with scores.npy. If writing a folder was "
            "stopped, the same command continues it.",
            metavar="NAME",
        ),
    ] = JSONL
    clip_scores: Annotated[
        bool,
        options.option("--clip-scores", "Also write what each clip says on its own, with its frames and their times."),
    ] = False
    overwrite: options.Overwrite = False


@options.expand
def infer(
    context: typer.Context,
    model: options.ModelOptions,
    processes: options.ProcessOptions,
    request: Request,
    recipe: Annotated[
        str | None,
        options.recipe("Take the splits and the inference settings from this recipe instead of the run's own."),
    ] = None,
    data_root: options.DataRoot = None,
) -> None:
    """Predict every example of a split with a trained run.

    Questions about single files are answered by clipbert ask; clipbert search finds media by text.
    """
    # Checked before several processes are started, each of which would report it.
    if request.form == SCORES and request.output == "-":
        raise UsageError("--format is scores, which are written into a folder", hint="name the folder: -o FOLDER")
    endings = {JSONL: [".jsonl"], SCORES: [], SUBMISSION: [".json"]}
    if request.form not in endings:
        raise UsageError(
            f"--format is {request.form}: it must be one of {', '.join(endings)}", hint="leave --format out"
        )
    refuse_other_ending(request.output, endings[request.form], what=f"--format {request.form}")
    if request.clip_scores and request.form != JSONL:
        raise UsageError(
            f"--clip-scores is given with --format {request.form}, which has none", hint="leave one of them out"
        )
    if options.launched(context, processes):
        return

    with doing("loading torch"):
        from clipbert_cli.build import files_named
        from clipbert_cli.infer.trained import open_run, selected_recipes
        from clipbert_cli.splits import files_of

    show_logs()
    selection = model.selection(recipe=recipe, data_root=data_root)
    # Before the output: who names no run or no split learns nothing from a file that exists.
    selected = selected_recipes(selection)[0]
    files_of(selected, request.split)
    refuse_absent_data(selected)
    # All processes predict and gather; the main one writes.
    with options.started(model.device) as world:

        def load() -> TrainedRun:
            with doing(f"loading {selection.run}"):
                return open_run(selection, world)

        if request.form == SCORES:
            _write_scores(request, load)
        else:
            _write_predictions(request, selection, load, inputs=files_named(selected).values())


def _write_predictions(
    request: Request, selection: RunSelection, load: Callable[[], TrainedRun], *, inputs: Iterable[Path]
) -> None:
    from clipbert_cli.build import evaluation_sampling
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.infer.made_by import describe
    from clipbert_cli.infer.prediction_lines import prediction_lines, with_times

    # The output is opened first: an existing file or a full disk is reported before the model is loaded.
    stream_to = nowhere() if is_muted() else writing(request.output, overwrite=request.overwrite, inputs=inputs)
    with stream_to as stream:
        run = dataclasses.replace(load(), clip_scores=request.clip_scores)
        if request.form == SUBMISSION:
            # Without lines, so that another task is refused before it predicts.
            run.setup.task.submission(())
        made_by = {} if request.output == "-" else describe(run, selection, request.split)
        with counting(request.split, "item") as show:
            split = run.setup.split(request.split)
            evaluation = run.setup.evaluation(split)
            predictions = run.predict(evaluation, _Adding(show, evaluation.total, run))
            lines = prediction_lines(run.setup.task, split.examples, predictions)
            if request.clip_scores:
                lines = with_times(lines, split.media, evaluation_sampling(run.setup.recipe))
            if request.form == SUBMISSION:
                stream.write(json.dumps(run.setup.task.submission(lines)) + "\n")
            # Line by line as they come, for a pipe that reads along.
            for line in lines:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    if request.output != "-":
        _write_meta(Path(request.output), made_by)
        note(f"{plural(evaluation.total, 'prediction')} written to {request.output}")


def _write_meta(predictions: Path, made_by: dict[str, Any]) -> None:
    """Write what made the predictions beside them; a pipe or a device has no place for it."""
    from clipbert_cli.infer.made_by import meta_file
    from clipbert_cli.runs.checkpoint import content_of

    if is_muted() or not predictions.is_file():
        return
    with writing(str(meta_file(predictions)), overwrite=True) as stream:
        json.dump({**made_by, "predictions": content_of(predictions)}, stream, ensure_ascii=False, indent=1)


def _write_scores(request: Request, load: Callable[[], TrainedRun]) -> None:
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.infer.ranking import write_scores

    run = load()
    run.setup.task.require_ranking("--format scores")
    with counting(request.split, "item") as show:
        split = run.setup.split(request.split)
        items = len({example.media_id for example in split.examples})
        # The processes share the folder and the main one opens it, so no stream is opened here.
        already = write_scores(
            run, split, Path(request.output), overwrite=request.overwrite, progress=_Adding(show, items, run)
        )
    texts = plural(len(split.examples), "text")
    note(f"scores of {texts} with {plural(items, 'media item')} written to {request.output}")
    if already:
        note(f"{already} of the media items were there already")


class _Adding:
    """Moves a progress bar by the number of finished items.

    A process knows only its own items. All processes have about the same number, so the bar counts them all.
    """

    def __init__(self, show: Callable[[int, int | None], None], total: int, run: TrainedRun) -> None:
        self.show, self.total, self.processes = show, total, run.setup.world.size
        self.done = 0
        show(0, total)

    def __call__(self, count: int) -> None:
        self.done += count * self.processes
        self.show(self.done, self.total)
