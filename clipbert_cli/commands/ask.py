"""`clipbert ask`: answers to questions about single files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import doing, note, print_json, print_table, show_logs, warn
from clipbert_cli.errors import DecodeError, UnreadableError, UsageError
from clipbert_cli.foreign import open_file, standard_input
from clipbert_cli.path_kinds import QUESTIONS

if TYPE_CHECKING:
    from clipbert_cli.types import Kind


@options.expand
def ask(
    model: options.ModelOptions,
    questions: Annotated[
        list[str] | None,
        options.argument("QUESTION", "What to ask about every file. With --option it may be left out."),
    ] = None,
    video: Annotated[
        list[str] | None, options.option("--video", "A video to ask about. Repeatable.", metavar="FILE")
    ] = None,
    image: Annotated[
        list[str] | None, options.option("--image", "An image to ask about. Repeatable.", metavar="FILE")
    ] = None,
    option: Annotated[
        list[str] | None,
        options.option("--option", "An answer to choose from, for multiple choice. Repeatable.", metavar="TEXT"),
    ] = None,
    file: Annotated[
        Path | None,
        options.option(
            "--questions",
            "Read questions from a file of JSON lines, or from stdin if FILE is -. A line has video or image, "
            "question, and for multiple choice options. Each line is answered by one JSON line, as soon as possible "
            "and in the same order.",
            metavar="FILE",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Answer questions about video and image files with a trained run."""
    if file is not None:
        beside = {"QUESTION": questions, "--video": video, "--image": image, "--option": option}
        if given := [name for name, value in beside.items() if value]:
            raise UsageError(
                f"--questions is given together with {' and '.join(given)}",
                hint='leave these out; a line of the file is such as {"video": "a.mp4", "question": "who sings?"}',
            )
        _answer_lines(model, file)
        return
    files, texts = _sort(questions or [], video or [], image or [])
    if not files or not (texts or option):
        missing = "QUESTION" if files else "--video or --image"
        raise UsageError(
            f"{missing} is missing", hint='clipbert ask --run RUN --video cat.mp4 "what is the cat doing?"'
        )

    with doing("loading torch"):
        from clipbert_cli.infer.asking import ask_files
        from clipbert_cli.infer.trained import selected_recipes
        from clipbert_cli.task.coverage import unknown_words
        from clipbert_cli.task.registry import task_class

    recipe = selected_recipes(model.selection())[0]
    if task_class(recipe.task).ranks_media:
        words = ["clipbert", "search", str(Path(files[0][1]).parent), *texts, "--run", str(model.run)]
        raise UsageError(
            f"--run is {model.run}, a run of task {recipe.task}, which answers no questions",
            hint=f"name a run that answers questions; what shows a text is found by: {shlex.join(words)}",
        )
    show_logs()
    paths = [(kind, Path(file)) for kind, file in files]
    with model.opened() as opened:
        # All files are answered before anything is printed: a damaged one leaves no half result on stdout.
        # Without a question, the options alone are compared with the file.
        try:
            answers = [
                {asked.kind: asked.name, "question": asked.question or None, **prediction.fields}
                for asked, prediction in ask_files(opened, paths, texts or [""], options=option or ())
            ]
        except DecodeError as exc:
            raise DecodeError(
                str(exc), hint=exc.hint or "give --video before a video, --image before a picture"
            ) from exc
    for sentence in unknown_words([*texts, *(option or ())], opened.setup.tokenizer):
        warn(sentence)
    if as_json:
        print_json(answers)
        return
    text = opened.setup.task.answer_text
    rows = [
        (answer.get("video") or answer["image"], answer["question"], text(answer), f"{answer['score']:.3f}")
        for answer in answers
    ]
    if texts:
        print_table(["file", "question", "answer", "score"], rows)
    else:
        print_table(["file", "answer", "score"], [(file, *rest) for file, _, *rest in rows])


def _answer_lines(model: options.ModelOptions, file: Path) -> None:
    """Answer the questions of a file or of stdin, and exit with 1 if any of them has no answer."""
    from clipbert_cli.infer.question_lines import answer_lines
    from clipbert_cli.task.coverage import unknown_words

    show_logs()
    total = failed = unknown = 0
    with _questions(file) as stream, model.opened() as opened:
        for answer in answer_lines(opened, stream):
            print_json(answer)
            total, failed = total + 1, failed + ("error" in answer)
            if "error" not in answer:
                texts = [answer.get("question") or "", *answer.get("options", ())]
                unknown += bool(unknown_words(texts, opened.setup.tokenizer))
    if unknown:
        note(f"{unknown} of {total} questions or their options have words that are not in the vocabulary")
    if failed:
        note(f"{failed} of {total} questions have no answer: their lines have the reason as `error`")
        raise typer.Exit(1)


@contextmanager
def _questions(file: Path) -> Iterator[IO[bytes]]:
    """Open the file of questions; stdin stays open."""
    if file == Path("-"):
        yield standard_input()
        return
    try:
        stream = open_file(file)
    except (OSError, ValueError, UnreadableError) as exc:
        # /dev/zero and its like have no lines and no end.
        why = "a device" if file.is_char_device() else f"which cannot be read: {getattr(exc, 'strerror', None) or exc}"
        raise UsageError(f"--questions is {file}, {why}", hint=QUESTIONS.hint) from exc
    with stream:
        yield stream


def _sort(
    words: Sequence[str], videos: Sequence[str], images: Sequence[str]
) -> tuple[list[tuple[Kind, str]], list[str]]:
    """Return the files to ask about with their kinds, and the questions.

    The shell turns `--video *.mp4` into `--video a.mp4 b.mp4 c.mp4`, where only the first file belongs to the option. A
    question is hardly ever the path of an existing file, so such words are files of that option too.

    Raises:
        UsageError: it cannot be known whether a file is a video or an image, or it seems to be neither.
    """
    from clipbert_cli.store.discover import has_suffix

    found = [word for word in words if os.path.isfile(word)]
    for word in found:
        if bool(videos) == bool(images) or not (has_suffix(Path(word), "video") or has_suffix(Path(word), "image")):
            raise UsageError(
                f"{word} is a file, but stands where a question is expected", hint="give --video or --image before it"
            )
    for word in words:
        if word not in found and re.fullmatch(r"\S+\.[A-Za-z0-9]{2,5}", word):
            raise UsageError(
                f"{word} stands where a question is expected, but looks like a file, and there is none of this name",
                hint="check the name; an answer is printed, and written to a file by: > FILE",
            )
    # Videos and images are decoded in different ways, so the option that named a file decides and not its ending.
    files: list[tuple[Kind, str]] = [("video", file) for file in (*videos, *(found if videos else ()))]
    files += [("image", file) for file in (*images, *(found if images else ()))]
    return files, [word for word in words if word not in found]
