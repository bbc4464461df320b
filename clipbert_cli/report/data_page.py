"""`clipbert preview`: the data of a split as the model sees them, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from clipbert_cli.build import build_task, evaluation_sampling, local_place, read_vocabulary, training_sampling
from clipbert_cli.errors import ClipbertError
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.recipe.load import resolve
from clipbert_cli.report.charts import Chart, histogram
from clipbert_cli.report.media_facts import Counts, media_facts, most_frequent
from clipbert_cli.report.page import write_page
from clipbert_cli.report.thumbnails import Thumbnails
from clipbert_cli.splits import open_split_media, read_split
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.task.base import Task
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Group, Kind

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe

T = TypeVar("T")


def preview_split(recipe: Recipe, split: str, stream: IO[bytes], *, examples: int, seed: int) -> tuple[list[str], bool]:
    """Write the preview of a split.

    Args:
        examples: how many media items are shown.

    Returns:
        what could not be read of media and words, which the page says too; and whether any media item can be seen.

    Raises:
        ClipbertError: there is no such split, or its annotations are missing or wrong.
    """
    problems: list[str] = []
    answers = _tried(lambda: read_vocabulary(recipe), problems)
    task = build_task(recipe, answers)
    records = read_split(recipe, split, task)
    vocabulary, limit = recipe.model.vocabulary, recipe.data.max_text_length
    tokenizer = _tried(lambda: Tokenizer(local_place(recipe, vocabulary), max_length=limit), problems)
    source = _tried(lambda: open_split_media(recipe, split), problems)
    groups = group_by_media(records, max_examples=recipe.data.max_examples_per_group)
    is_training = split in recipe.data.train_splits
    sampling = training_sampling(recipe) if is_training else evaluation_sampling(recipe)
    # What training draws for the texts in the first epoch.
    draw = task.draw(groups, training=is_training) or (lambda group, rng: group)

    def texts(place: int, group: Group) -> list[dict[str, Any]]:
        return _texts(task, tokenizer, group, draw(group, np.random.default_rng((seed, place))))

    media = list(dict.fromkeys(example.media_id for example in records))
    files = recipe.data.splits[split]
    assert files is not None
    facts = [
        ("task", recipe.task),
        ("annotations", str(resolve(recipe, files.annotations))),
        ("media", str(resolve(recipe, files.media))),
        ("examples", f"{len(records):,} of {len(media):,} {recipe.data.media}s"),
        ("sampling", described(sampling) + (" (training)" if is_training else "")),
    ]
    if source is not None:
        facts.append(("media that are missing", _counted(source.missing(media))))
    clips = Thumbnails(
        source,
        sampling,
        items=min(examples, len(groups)),
        rotation=recipe.data.rotation,
        problem="; ".join(problems),
        seed=seed,
        canvas=True,
    )
    context = {
        "title": f"Preview of {recipe.name}, {split}",
        "has_texts": True,
        "is_training": is_training,
        "problems": problems,
        "facts": facts + _overlaps(recipe, split, task, set(media)),
        "charts": _text_charts(tokenizer, records),
        "tables": _text_tables(task, records, answers is not None),
    }
    return _write(stream, context, clips, groups, texts, examples=examples, seed=seed)


def preview_media(
    media: Path, stream: IO[bytes], *, kind: Kind | None, examples: int, seed: int
) -> tuple[list[str], bool]:
    """Write the preview of a folder of media files or of a store, without annotations; returns as `preview_split`.

    Args:
        kind: as in `open_media`.

    Raises:
        StoreError: there are no media.
    """
    source, sampling = open_media(media, kind=kind), ClipSampling("clips", num_clips=4, num_frames=2)
    facts = [("media", f"{len(source):,} {source.kind}s in {media}"), ("sampling", described(sampling))]
    context = {"title": f"Preview of {media}", "has_texts": False, "is_training": False, "facts": facts}
    context |= {"problems": [], "charts": [], "tables": []}
    groups = [Group(media_id, ()) for media_id in source]
    clips = Thumbnails(source, sampling, items=min(examples, len(groups)), seed=seed)
    return _write(stream, context, clips, groups, lambda place, group: [], examples=examples, seed=seed)


def _write(
    stream: IO[bytes],
    context: Mapping[str, Any],
    thumbnails: Thumbnails,
    groups: Sequence[Group],
    texts: Callable[[int, Group], list[dict[str, Any]]],
    *,
    examples: int,
    seed: int,
) -> tuple[list[str], bool]:
    """Write the page with some of the groups; return what is wrong, and whether any media item can be seen."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(groups), size=min(examples, len(groups)), replace=False)
    # A fair sample in the order of the split.
    chosen = [groups[place] for place in sorted(places.tolist())]
    source, problems, has_media = thumbnails.source, [*context["problems"]], False
    charts, tables, unusable = [*context["charts"]], [*context["tables"]], []
    if source is not None:
        # Without records each item has to be decoded: only those that the page shows are.
        looked_at = dict.fromkeys(group.media_id for group in (groups if source.has_records else chosen))
        found = media_facts(source, list(looked_at))
        charts, tables, unusable = charts + found.charts, tables + found.tables, found.problems
        count, has_media = len(unusable), len(unusable) < found.examined
        context["facts"].append(("media that were looked at", f"{found.examined:,}, {count:,} of them cannot be used"))
        problems += [f"{count:,} of {found.examined:,} media that were looked at cannot be used"] if count else []
    shown = (
        {"media_id": group.media_id, "strip": thumbnails.strip(group.media_id), "examples": texts(place, group)}
        for place, group in enumerate(chosen)
    )
    of_media = {
        "holds_data": True,
        "charts": charts,
        "tables": tables,
        "media_problems": unusable,
        "shown": shown,
        "chosen": len(chosen),
        "total": len(groups),
    }
    write_page(stream, "preview.html", {**context, **of_media})
    return problems, has_media


def described(sampling: ClipSampling) -> str:
    """Return a sampling policy as a person says it."""
    clips = f"{sampling.num_clips} clip{'s' if sampling.num_clips > 1 else ''}"
    if sampling.num_frames == 1:
        return f"{clips} of 1 frame, {sampling.strategy}"
    return f"{clips} of {sampling.num_frames} frames at {sampling.fps:g} frames per second, {sampling.strategy}"


def _tried(read: Callable[[], T], problems: list[str]) -> T | None:
    """Return what can be read; the reason why it cannot is one of the problems."""
    try:
        return read()
    except ClipbertError as exc:
        problems.append(str(exc))
        return None


def _counted(media: Sequence[str]) -> str:
    return f"{len(media):,}" + (f", such as {media[0]}" if media else "")


def _overlaps(recipe: Recipe, split: str, task: Task, media: set[str]) -> list[tuple[str, str]]:
    """Return how many media items the other splits share with this one."""
    rows = []
    for name, files in recipe.data.splits.items():
        if name == split or files is None:
            continue
        try:
            shared = _counted(sorted(media & {example.media_id for example in read_split(recipe, name, task)}))
        except ClipbertError as exc:
            shared = f"unknown: {exc}"
        rows.append((f"media shared with {name}", shared))
    return rows


# ------------------------------------------------------------------------------------------------------ texts


def _text_charts(tokenizer: Tokenizer | None, examples: Sequence[Example]) -> list[Chart]:
    if tokenizer is None:
        return []
    contexts = tokenizer.count([example.context or "" for example in examples for _ in example.texts])
    texts = tokenizer.count([text for example in examples for text in example.texts])
    # Both [CLS] and [SEP] count. The context of options is a part of their row.
    lengths = [2 + context + text for context, text in zip(contexts, texts, strict=True)]
    cut = sum(length > tokenizer.max_length for length in lengths)
    title = f"tokens per text row; {cut:,} of {len(lengths):,} have more than {tokenizer.max_length} and are cut"
    chart = histogram(title, lengths, x_label="tokens")
    return [chart] if chart else []


def _text_tables(task: Task, examples: Sequence[Example], has_answers: bool) -> list[tuple[str, Counts]]:
    counted = {
        "answer": Counter(filter(None, map(task.truth_text, examples))),
        "answer outside the vocabulary": Counter(
            answer
            for example in examples
            for answer in (task.answers_in(example) if has_answers else ())
            if answer not in task.answers
        ),
        "answer type": Counter(each.answer_type for each in examples if each.answer_type),
    }
    texts = Counter(" | ".join(filter(None, (each.context, *each.texts))) for each in examples)
    records = Counter((each.media_id, each.context, each.texts) for each in examples)
    counted["text that occurs more than once"] = Counter({text: count for text, count in texts.items() if count > 1})
    counted["exact repeat of a record"] = Counter(
        {f"{media_id}: {own[0]}": count for (media_id, _, own), count in records.items() if count > 1}
    )
    return [(name, most_frequent(each, 25 if name == "answer" else 12)) for name, each in counted.items() if each]


def _texts(task: Task, tokenizer: Tokenizer | None, group: Group, drawn: Group) -> list[dict[str, Any]]:
    """Return each example of a group with the rows of text that were drawn for it; none without a tokenizer."""
    rows = [[] for _ in drawn.examples] if tokenizer is None else token_rows(task, tokenizer, drawn.examples)
    return [
        {"context": example.context, "texts": example.texts, "truth": task.truth_text(own), "rows": own_rows}
        for example, own, own_rows in zip(drawn.examples, group.examples, rows, strict=True)
    ]


def token_rows(task: Task, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[list[dict[str, Any]]]:
    """Return the text rows of each example.

    A row has its `text` as it was written, with its context before it; its `role` for the media item, such as
    `negative`; its `tokens` as (token, the word that has to be predicted there, if any); and the tokens that were
    `cut`.
    """
    texts = task.collate(examples, tokenizer, labelled=False)
    # The id of each word that has to be predicted, by text row and token.
    true_ids: dict[tuple[int, int], int] = {}
    if texts.word_positions is not None:
        places = zip(*texts.word_positions.tolist(), strict=True)
        true_ids = dict(zip(places, texts.targets["words"].tolist(), strict=True))
    found = []
    place = 0
    for example in examples:
        rows = []
        for role, text in zip(task.roles(example), example.texts, strict=True):
            ids = texts.ids[place, : int(texts.mask[place].sum())].tolist()
            tokens = [
                (tokenizer.token(number), tokenizer.token(true_ids[place, at]) if (place, at) in true_ids else "")
                for at, number in enumerate(ids)
            ]
            written = f"{example.context} {text}" if example.context else text
            cut = _cut(tokenizer, example.context, text, [true or token for token, true in tokens])
            rows.append({"text": written, "role": role, "tokens": tokens, "cut": cut})
            place += 1
        found.append(rows)
    return found


def _cut(tokenizer: Tokenizer, context: str | None, text: str, kept: Sequence[str]) -> list[str]:
    """Return the tokens of a row that are not in it; [CLS] and [SEP] are never cut."""
    whole = [token for part in (context, text) if part for token in tokenizer.pieces(part)]
    inner = kept[1:-1]
    missing = len(whole) - len(inner)
    # The end of the context is cut, or the end of the row: the rest before it is as it was.
    begin = next((n for n, (a, b) in enumerate(zip(whole, inner, strict=False)) if a != b), len(inner))
    return whole[begin : begin + missing] if missing > 0 else []
