"""What `clipbert infer` does without annotations: questions about single files, and searches in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert_cli.types import Kind


def answer_files(
    run: Path,
    options: dict[str, Any],
    files: Sequence[tuple[Kind, Path]],
    questions: Sequence[str],
    choices: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Ask every question about every file; a table, or JSON.

    Args:
        options: of `inference.open_run`.
        choices: of each question, where the task chooses.
    """
    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.infer.trained import open_run, predict_media

    loaded = open_run(run, **options)
    answers = []
    for kind in dict.fromkeys(kind for kind, _ in files):
        of_kind = list(dict.fromkeys(file for each, file in files if each == kind))
        answering = predict_media(loaded, of_kind, questions, options=choices, kind=kind, progress=lambda count: None)
        asked = [(file, question) for file in of_kind for question in questions]
        for (file, question), prediction in zip(asked, answering.predictions, strict=True):
            answers.append({kind: str(file), "question": question, **prediction.fields})
    if as_json:
        print_json(answers)
        return
    rows = []
    for answer in answers:
        name = str(answer.get("video") or answer.get("image"))
        rows.append((name, answer["question"], loaded.task.answer_text(answer), f"{answer['score']:.3f}"))
    _print_table(("file", "question", "answer", "score"), rows)


def search_folder(
    run: Path,
    options: dict[str, Any],
    folder: tuple[Kind, Path],
    texts: Sequence[str],
    *,
    shortlist: int | None,
    as_json: bool,
) -> None:
    """Find the best media of a folder or store for each text; a table, or JSON.

    Args:
        options: of `inference.open_run`.
        shortlist: see `ranking.search`.
    """
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.infer.ranking import search
    from clipbert_cli.infer.trained import open_run

    kind, path = folder
    loaded = open_run(run, **options)
    with progress_bar(kind) as bar:
        task = bar.add_task("search", total=None)
        found = search(
            loaded,
            path,
            texts,
            kind=kind,
            shortlist=shortlist,
            progress=lambda done, total: bar.update(task, completed=done * loaded.world.size, total=total),
        )
    if as_json:
        print_json(
            [
                {"text": text, "top": [{"media_id": item.media_id, "score": item.score} for item in items]}
                for text, items in zip(texts, found, strict=True)
            ]
        )
        return
    rows = [
        (text, str(rank), item.media_id, f"{item.score:.3f}")
        for text, items in zip(texts, found, strict=True)
        for rank, item in enumerate(items, start=1)
    ]
    _print_table(("text", "rank", kind, "score"), rows)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clipbert_cli.commands.terminal import is_muted

    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    if not is_muted():
        Console(highlight=False, emoji=False).print(table)
