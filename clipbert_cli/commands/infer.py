"""`clipbert infer`: answers from a trained run, for a split or for single files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbert_cli.commands.options import DataRootOption, DeviceOption, JsonOption, OverwriteOption, SetOption
from clipbert_cli.errors import UsageError

if TYPE_CHECKING:
    from clipbert_cli.data.probe import Kind


def infer(
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Run folder that clipbert finetune made.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="best|latest|step_N", help="Which checkpoint.")
    ] = "best",
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", metavar="NAME|FILE", help="Take splits and infer settings from this recipe."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Answer every example of this split.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Predictions of the split; default `-`, standard output."),
    ] = None,
    num_clips: Annotated[
        int | None, typer.Option("--num-clips", min=1, help="Clips of a video; default: the recipe's infer.num_clips.")
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
    overrides: SetOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a split's questions, or questions about single files.

    Example, a split: clipbert infer --run runs/msrvtt_qa --split test --num-clips 16 -o preds.jsonl

    Example, a file: clipbert infer --run runs/msrvtt_qa --video cat.mp4 --question "what is the cat doing?"
    """
    from clipbert_cli.commands.terminal import show_logs

    files: list[tuple[Kind, Path]] = [("video", file) for file in video or ()]
    files += [("image", file) for file in image or ()]
    if bool(split) == bool(files or question):
        raise UsageError("give either --split, or --video/--image with --question", hint="clipbert infer --help")
    if not split and not (files and question):
        raise UsageError(f"{'--question' if files else '--video or --image'} is missing", hint="clipbert infer --help")
    if files and (output is not None or overwrite):
        raise UsageError("--output and --overwrite go with --split", hint="answers about files: --json > FILE")
    if split and as_json:
        raise UsageError("--json goes with --video and --image", hint="predictions of a split are JSON lines already")
    show_logs()
    settings = [*(overrides or ()), *([f"infer.num_clips={num_clips}"] if num_clips else [])]
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "recipe": recipe,
        "overrides": settings,
        "data_root": data_root,
        "device": device,
    }
    if split:
        _answer_split(run, options, split, output or "-", overwrite=overwrite)
    else:
        _answer_files(run, options, files, question or [], as_json=as_json)


def _answer_split(run: Path, options: dict[str, Any], split: str, output: str, *, overwrite: bool) -> None:
    from clipbert_cli.commands.output import writing
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import note
    from clipbert_cli.inference import open_run, predict_split

    with writing(output, overwrite=overwrite) as stream, progress_bar("example") as bar:
        task = bar.add_task(f"{split}", total=None)
        answering = predict_split(open_run(run, **options), split, lambda count: bar.advance(task, count))
        bar.update(task, total=answering.total)
        for prediction in answering.predictions:
            stream.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
    if output != "-":
        note(f"{answering.total} predictions written to {output}")


def _answer_files(
    run: Path, options: dict[str, Any], files: Sequence[tuple[Kind, Path]], questions: Sequence[str], *, as_json: bool
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.inference import open_run, predict_media

    loaded = open_run(run, **options)
    answers = []
    for kind in dict.fromkeys(kind for kind, _ in files):
        of_kind = list(dict.fromkeys(file for each, file in files if each == kind))
        predictions = predict_media(loaded, of_kind, questions, kind=kind, progress=lambda count: None).predictions
        asked = [(file, question) for file in of_kind for question in questions]
        for (file, question), prediction in zip(asked, predictions, strict=True):
            answers.append({kind: str(file), "question": question, **prediction.fields})
    if as_json:
        print_json(answers)
        return
    table = Table("file", "question", "answer", "score", box=None, pad_edge=False)
    for row in answers:
        name = str(row.get("video") or row.get("image"))
        table.add_row(*map(Text, (name, row["question"], row["answer"], f"{row['score']:.3f}")))
    Console(highlight=False, emoji=False).print(table)
