"""`clipbert search`: the media of a folder or store that match a text best."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import doing, print_json, print_table, show_logs, warn
from clipbert_cli.errors import UsageError
from clipbert_cli.foreign import standard_input

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


@options.expand
def search(
    media: Annotated[Path, options.argument("MEDIA", "A folder of media files, or a store that clipbert pack made.")],
    texts: Annotated[
        list[str], options.argument("TEXT", "What the media should show; - reads one text per line of stdin.")
    ],
    model: options.ModelOptions,
    top: Annotated[int | None, options.number("--top", "How many media items to list. By default infer.top.")] = None,
    as_json: options.Json = False,
) -> None:
    """Find videos by text with a trained retrieval run.

    With --set data.media=image it finds images. Every item is decoded and scored with every text, so the time grows
    with the size of the folder.
    """
    if texts == ["-"]:
        try:
            texts = [line.decode().strip() for line in standard_input() if line.strip()]
        except UnicodeDecodeError as exc:
            raise UsageError("TEXT is -, but stdin is not UTF-8", hint="write one text per line, in UTF-8") from exc
        if not texts:
            raise UsageError("TEXT is -, but stdin has no text", hint="write one text per line")
    with doing("loading torch"):
        from clipbert_cli.commands.progress import counting
        from clipbert_cli.infer.ranking import search as find
        from clipbert_cli.infer.trained import selected_recipes
        from clipbert_cli.task.coverage import unknown_words

    show_logs()
    # --top is a setting like any other. Last it wins over --set infer.top.
    settings = [f"infer.top={top}"] if top else []
    _refuse_other_task(selected_recipes(model.selection(settings=settings))[0], model.run, texts)
    with model.opened(settings=settings) as opened, counting("search", "item") as show:
        found = find(opened, media, texts, progress=show)
    for sentence in unknown_words(texts, opened.setup.tokenizer):
        warn(sentence)
    results = list(zip(texts, found, strict=True))
    if as_json:
        print_json(
            [
                {"text": text, "top": [{"media_id": item.media_id, "score": item.score} for item in items]}
                for text, items in results
            ]
        )
        return
    rows = [
        (text, str(rank), item.media_id, f"{item.score:.3f}")
        for text, items in results
        for rank, item in enumerate(items, start=1)
    ]
    print_table(("text", "rank", "media", "score"), rows)


def _refuse_other_task(recipe: Recipe, run: Path, texts: Sequence[str]) -> None:
    """Raise UsageError if no task that finds media by text uses the model of a run."""
    from clipbert_cli.task.registry import ranking_task

    if ranking_task(recipe.task) is None:
        words = ["clipbert", "ask", "--run", str(run), f"--{recipe.data.media}", "FILE", *texts]
        raise UsageError(
            f"--run is {run}, a run of task {recipe.task}: a run of task retrieval is expected",
            hint=f"questions about a file are answered by: {shlex.join(words)}",
        )
