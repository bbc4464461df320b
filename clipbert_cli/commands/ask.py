"""`clipbert ask`: answers to questions about single files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands.options import JsonOption, ModelOptions, expand_options
from clipbert_cli.errors import UsageError

if TYPE_CHECKING:
    from clipbert_cli.types import Kind


@expand_options
def ask(
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", help="What to ask about every file.")],
    model: ModelOptions,
    video: Annotated[
        list[Path] | None, typer.Option("--video", metavar="FILE", help="A video to ask about. Repeatable.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="An image to ask about. Repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="TEXT", help="An answer to choose from, for multiple choice. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer questions about video and image files with a trained run."""
    # Videos and images are decoded in different ways, so the option that named a file decides and not its ending.
    files: list[tuple[Kind, Path]] = [*(("video", file) for file in video or ())]
    files += [("image", file) for file in image or ()]
    _refuse_files(model.run, questions, video or [], image or [])
    if not files:
        raise UsageError(
            "--video or --image is missing", hint='clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
        )

    from clipbert_cli.commands.terminal import print_json, print_table, show_logs
    from clipbert_cli.infer.trained import ask_files, open_run
    from clipbert_cli.runtime.distributed import start_world

    show_logs()
    with start_world(model.device) as world:
        opened = open_run(model.selection(), world)
        # All files are answered before anything is printed: a damaged one leaves no half result on stdout.
        answers = [
            {kind: prediction.media_id, "question": question, **prediction.fields}
            for kind, question, prediction in ask_files(opened, files, questions, options=option or ())
        ]
    if as_json:
        print_json(answers)
        return
    text = opened.setup.task.answer_text
    rows = [
        (answer.get("video") or answer["image"], answer["question"], text(answer), f"{answer['score']:.3f}")
        for answer in answers
    ]
    print_table(("file", "question", "answer", "score"), rows)


def _refuse_files(run: Path, questions: Sequence[str], videos: Sequence[Path], images: Sequence[Path]) -> None:
    """Raise UsageError for a question that names an existing file, with the command that was probably meant.

    The shell turns `--video *.mp4` into `--video a.mp4 b.mp4 c.mp4`, where only the first file belongs to the option.
    """
    # A real question is hardly ever the path of an existing file, so this refuses no question by mistake.
    found = [question for question in questions if Path(question).is_file()]
    if not found:
        return
    # The shell has expanded one pattern, so that the files belong to the option that was given.
    option = "--image" if images and not videos else "--video"
    words = ["clipbert", "ask", "--run", str(run)]
    for name, files in (("--video", videos), ("--image", images), (option, found)):
        words += [word for file in files for word in (name, str(file))]
    words += [question for question in questions if question not in found] or ["what is in it?"]
    raise UsageError(
        f"{found[0]} is a file, but stands where a question is expected",
        hint=f"give {option} before each file: {shlex.join(words)}",
    )
