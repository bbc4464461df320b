"""`clipbert infer`: answers from a trained run, for a split, about single files, or by searching."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipbert_cli.commands.ask import answer_files, search_folder
from clipbert_cli.commands.options import (
    DataRootOption,
    DeviceOption,
    EndpointOption,
    JsonOption,
    MeetingOption,
    NodesOption,
    OverwriteOption,
    ProcessesOption,
    SetOption,
    launched,
)
from clipbert_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from clipbert_cli.infer.ranking import SplitScoring
    from clipbert_cli.types import Kind

JSONL, SCORES = "jsonl", "scores"


def infer(
    context: typer.Context,
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Run folder that clipbert finetune made.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="best|latest|step_N", help="Which checkpoint.")
    ] = "best",
    weights: Annotated[
        Literal["auto", "plain", "ema"],
        typer.Option("--weights", help="Of a run with train.ema_decay; auto: those that validation scored."),
    ] = "auto",
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", metavar="NAME|FILE", help="Take splits and infer settings from this recipe."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Answer every example of this split.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Predictions of the split; default `-`, standard output. A folder of scores.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Form of the split's predictions: jsonl, vqa-submission, or scores (of retrieval: scores.npy in a "
            "folder; the same command goes on after an interruption).",
        ),
    ] = None,
    num_clips: Annotated[
        int | None, typer.Option("--num-clips", min=1, help="Clips of a video; default: the recipe's infer.num_clips.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Answers or media listed; default: the recipe's infer.top.")
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option("--video", metavar="FILE", help="Ask about this video. Repeatable.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="Ask about this image. Repeatable.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", metavar="TEXT", help="What to ask. Repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="TEXT", help="An answer to choose from. Repeatable.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="Find media that show this. Repeatable.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option("--videos", metavar="DIR", help="Folder or store of videos to search in.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder or store of images to search in.")
    ] = None,
    shortlist: Annotated[
        int | None,
        typer.Option(
            "--shortlist",
            min=1,
            metavar="N",
            help="Retrieval: look at all media cheaply first, and score the N best of each text alone with all clips.",
        ),
    ] = None,
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = None,
    nproc_per_node: ProcessesOption = None,
    nnodes: NodesOption = None,
    rdzv_endpoint: EndpointOption = None,
    rdzv_id: MeetingOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a split's questions, ask about single files, or find videos by text.

    Example, a split: clipbert infer --run runs/msrvtt_qa --split test --num-clips 16 -o preds.jsonl

    Example, a file: clipbert infer --run runs/msrvtt_qa --video cat.mp4 --question "what is the cat doing?"

    Example, a search: clipbert infer --run runs/msrvtt_retrieval --text "a dog catches a frisbee" --videos clips/
    """
    files: list[tuple[Kind, Path]] = [("video", file) for file in video or ()]
    files += [("image", file) for file in image or ()]
    folders: list[tuple[Kind, Path]] = [("video", videos)] if videos else []
    folders += [("image", images)] if images else []
    _check_mode(bool(split), files, question or option, text, folders)
    if not split and (output is not None or overwrite or form):
        raise UsageError("--output, --overwrite and --format go with --split", hint="other answers: --json > FILE")
    if split and as_json:
        raise UsageError(
            "--json goes with --video, --image and --text", hint="predictions of a split are JSON lines already"
        )
    if shortlist and not (split or folders):
        raise UsageError("--shortlist goes with --split and --text", hint="leave it out")
    if form == SCORES and (output is None or output == "-"):
        raise UsageError("--format is scores: they are written into a folder", hint="name it: -o FOLDER")
    if launched(context):
        return

    from clipbert_cli.commands.terminal import mute, show_logs
    from clipbert_cli.runtime.distributed import start_world

    show_logs()
    settings = [*(overrides or ()), *([f"infer.num_clips={num_clips}"] if num_clips else [])]
    settings += [f"infer.top={top}"] if top else []
    settings += [f"objective.num_options={len(option)}"] if option else []
    with start_world(device) as world:
        if not world.is_main:
            mute()
        options: dict[str, Any] = {
            "checkpoint": checkpoint,
            "weights": weights,
            "recipe": recipe,
            "overrides": settings,
            "data_root": data_root,
            "world": world,
        }
        if split and form == SCORES:
            _score_split(run, options, split, Path(output or ""), shortlist=shortlist, overwrite=overwrite)
        elif split:
            _answer_split(
                run, options, split, output or "-", form=form or JSONL, shortlist=shortlist, overwrite=overwrite
            )
        elif folders:
            search_folder(run, options, folders[0], text or [], shortlist=shortlist, as_json=as_json)
        else:
            answer_files(run, options, files, question or [], option or [], as_json=as_json)


def _check_mode(split: bool, files: Any, question: Any, text: Any, folders: Any) -> None:
    """Raise UsageError unless the options belong to exactly one way of asking, and all of it is there."""
    modes = {
        "--split": split,
        "--video or --image with --question": bool(files or question),
        "--text with --videos or --images": bool(text or folders),
    }
    if sum(modes.values()) != 1:
        raise UsageError(f"give one of: {'; '.join(modes)}", hint="clipbert infer --help")
    if (files or question) and not (files and question):
        raise UsageError(f"{'--question' if files else '--video or --image'} is missing", hint="clipbert infer --help")
    if (text or folders) and not (text and folders):
        raise UsageError(f"{'--videos or --images' if text else '--text'} is missing", hint="clipbert infer --help")
    if len(folders) > 1:
        raise UsageError("--videos and --images: one search is in one of them", hint="search twice")


def _answer_split(
    run: Path,
    options: dict[str, Any],
    split: str,
    output: str,
    *,
    form: str,
    shortlist: int | None,
    overwrite: bool,
) -> None:
    from clipbert_cli.commands.output import nowhere, writing
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import note
    from clipbert_cli.infer.ranking import SplitScoring
    from clipbert_cli.infer.trained import open_run, predict_split

    world = options["world"]
    with writing(output, overwrite=overwrite) if world.is_main else nowhere() as stream, progress_bar("item") as bar:
        task = bar.add_task(f"{split}", total=None)
        loaded = open_run(run, **options)
        forms = loaded.task.formats()
        if form not in (JSONL, *forms):
            known = " or ".join([JSONL, *([SCORES] if loaded.task.every_pair else []), *forms])
            raise UsageError(f"--format is {form}: predictions of task {loaded.recipe.task} are written as {known}")
        advance = _advance(bar, task, world.size)
        if shortlist:
            answering = _shortlisted(SplitScoring.prepare(loaded, split, shortlist, advance), bar, task).predictions(
                advance
            )
        else:
            answering = predict_split(loaded, split, advance)
        bar.update(task, total=answering.total)
        if form == JSONL:
            for prediction in answering.predictions:
                stream.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
        else:
            stream.write(json.dumps([forms[form](prediction) for prediction in answering.predictions]) + "\n")
    if output != "-":
        note(f"{answering.total} predictions written to {output}")


def _score_split(
    run: Path, options: dict[str, Any], split: str, folder: Path, *, shortlist: int | None, overwrite: bool
) -> None:
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import note
    from clipbert_cli.infer.ranking import SplitScoring
    from clipbert_cli.infer.trained import open_run

    with progress_bar("item") as bar:
        task = bar.add_task(f"{split}", total=None)
        loaded = open_run(run, **options)
        advance = _advance(bar, task, loaded.world.size)
        scoring = _shortlisted(SplitScoring.prepare(loaded, split, shortlist, advance), bar, task)
        bar.update(task, total=scoring.total)
        already = scoring.write(folder, overwrite=overwrite, progress=advance)
    texts = len(scoring.questions.examples)
    note(f"scores of {texts} texts with {scoring.total} media items written to {folder}")
    if already:
        note(f"{already} of the media items were there already")


def _advance(bar: Progress, task: TaskID, processes: int) -> Callable[[int], None]:
    """Moves the bar by what all processes have done, which is some times what this one has."""
    return lambda count: bar.advance(task, count * processes)


def _shortlisted(scoring: SplitScoring, bar: Progress, task: TaskID) -> SplitScoring:
    """The same; says what a shortlist costs, and starts the bar again."""
    from clipbert_cli.commands.terminal import note

    bar.reset(task)
    if scoring.missed is not None and scoring.shortlist is None:
        note(f"the shortlist would hold all {scoring.total} media items: all of them are scored with all clips")
    elif scoring.missed is not None and scoring.shortlist:
        note(
            f"shortlist of {scoring.shortlist.size} of {scoring.total} media items: {scoring.missed:.1f} % of the "
            "texts do not have their own on it; text-to-video recall can lose that much"
        )
    return scoring
