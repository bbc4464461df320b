"""`clipbert preview`: the data of a split as the model sees them, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from clipbert_cli.build import (
    build_task,
    evaluation_sampling,
    local_place,
    read_vocabulary,
    training_sampling,
)
from clipbert_cli.errors import ClipbertError
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.recipe.load import resolve
from clipbert_cli.report.charts import Chart, histogram
from clipbert_cli.report.media_facts import Counts, MediaFacts, media_facts, most_frequent
from clipbert_cli.report.page import write_page
from clipbert_cli.report.thumbnails import Strip, Thumbnails
from clipbert_cli.splits import open_split_media, read_split
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.source import MediaSource
from clipbert_cli.task.base import Task
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Group, Kind, Texts

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Token:
    """A token as the model sees it; `true` is the word that it has to predict there, if any."""

    text: str
    true: str = ""


@dataclass(frozen=True)
class TokenRow:
    """One text row.

    Args:
        text: as it was written, with its context before it.
        role: what the row is for its media item, such as `negative`.
        cut: the tokens that did not fit.
    """

    text: str
    role: str
    tokens: list[Token]
    cut: list[str]


def token_rows(task: Task, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[list[TokenRow]]:
    """Return the rows of each example."""
    texts = task.collate(examples, tokenizer, labelled=False)
    true_ids = _true_ids(texts)
    rows = []
    place = 0
    for example in examples:
        own = []
        for role, text in zip(task.roles(example), example.texts, strict=True):
            length = int(texts.mask[place].sum())
            ids = texts.ids[place, :length].tolist()
            hidden = [true_ids.get((place, at)) for at in range(length)]
            tokens = [
                Token(tokenizer.token(number), "" if true is None else tokenizer.token(true))
                for number, true in zip(ids, hidden, strict=True)
            ]
            written = f"{example.context} {text}" if example.context else text
            own.append(TokenRow(written, role, tokens, _cut(tokenizer, example.context, text, tokens)))
            place += 1
        rows.append(own)
    return rows


def _true_ids(texts: Texts) -> dict[tuple[int, int], int]:
    """Return the id of each word that has to be predicted, by text row and token."""
    if texts.word_positions is None:
        return {}
    rows, tokens = texts.word_positions.tolist()
    return dict(zip(zip(rows, tokens, strict=True), texts.targets["words"].tolist(), strict=True))


def _cut(tokenizer: Tokenizer, context: str | None, text: str, kept: Sequence[Token]) -> list[str]:
    """Return the tokens of a row that are not in it; [CLS] and [SEP] are never cut."""
    whole = [token for part in (context, text) if part for token in tokenizer.pieces(part)]
    inner = [each.true or each.text for each in kept[1:-1]]
    missing = len(whole) - len(inner)
    # The end of the context is cut, or the end of the row: the rest before it is as it was.
    begin = next((n for n, (a, b) in enumerate(zip(whole, inner, strict=False)) if a != b), len(inner))
    return whole[begin : begin + missing] if missing > 0 else []


@dataclass(frozen=True)
class Shown:
    """One media item of a page with its examples."""

    media_id: str
    strip: Strip
    examples: list[ShownExample]


@dataclass(frozen=True)
class ShownExample:
    """One example of a page; `rows` are empty where there is no tokenizer."""

    example: Example
    truth: str
    rows: list[TokenRow]


@dataclass(frozen=True)
class _Data:
    """The facts about a split; what could not be read is in `problems`."""

    recipe: Recipe
    split: str
    task: Task
    examples: Sequence[Example]
    source: MediaSource | None
    tokenizer: Tokenizer | None
    has_answers: bool
    problems: list[str]

    @property
    def is_training(self) -> bool:
        return self.split in self.recipe.data.train_splits

    @property
    def sampling(self) -> ClipSampling:
        return training_sampling(self.recipe) if self.is_training else evaluation_sampling(self.recipe)


@dataclass(frozen=True)
class Problems:
    """The gaps of a page; `no_media` if none of its media items can be seen."""

    sentences: list[str]
    no_media: bool


def preview_split(recipe: Recipe, split: str, stream: IO[bytes], *, examples: int, seed: int) -> Problems:
    """Write the preview of a split. Media or words that cannot be read are named on the page, and returned.

    Args:
        examples: how many media items are shown.

    Raises:
        ClipbertError: there is no such split, or its annotations are missing or wrong.
    """
    data = _read(recipe, split)
    groups = group_by_media(data.examples, max_examples=recipe.data.max_examples_per_group)
    chosen = _draw(groups, examples, seed)
    clips = data.sampling.num_clips * data.sampling.num_frames if recipe.data.media == "video" else 1
    thumbnails = Thumbnails(
        data.source,
        data.sampling,
        rotation=recipe.data.rotation,
        frames=len(chosen) * clips,
        problem="; ".join(data.problems),
        seed=seed,
        canvas=True,
    )
    facts = _media_facts(data, chosen)
    context = {
        "title": f"Preview of {recipe.name}, {split}",
        "holds_data": True,
        "has_texts": True,
        "facts": _facts(data, facts),
        "problems": data.problems,
        "charts": [*_text_charts(data), *(facts.charts if facts else [])],
        "tables": [*_text_tables(data), *(facts.tables if facts else [])],
        "media_problems": facts.problems if facts else [],
        "shown": _shown(data, chosen, thumbnails, seed),
        "is_training": data.is_training,
        "total": len(groups),
        "chosen": len(chosen),
    }
    write_page(stream, "preview.html", context)
    return _problems(facts, data.problems)


def preview_media(media: Path, stream: IO[bytes], *, kind: Kind | None, examples: int, seed: int) -> Problems:
    """Write the preview of a folder of media files or of a store, without annotations.

    Args:
        kind: as in `open_media`.

    Raises:
        StoreError: there are no media.
    """
    source, sampling = open_media(media, kind=kind), ClipSampling("clips", num_clips=4, num_frames=2)
    groups = [Group(media_id, ()) for media_id in source]
    chosen = _draw(groups, examples, seed)
    clips = sampling.num_clips * sampling.num_frames if source.kind == "video" else 1
    thumbnails = Thumbnails(source, sampling, frames=len(chosen) * clips, seed=seed)
    facts = media_facts(source, list(source) if source.has_records else [group.media_id for group in chosen])
    context = {
        "title": f"Preview of {media}",
        "holds_data": True,
        "has_texts": False,
        "facts": [
            ("media", f"{len(source):,} {source.kind}s in {media}"),
            ("sampling", described(sampling)),
            _examined(facts),
        ],
        "problems": [],
        "charts": facts.charts,
        "tables": facts.tables,
        "media_problems": facts.problems,
        "shown": (Shown(group.media_id, thumbnails.strip(group.media_id), []) for group in chosen),
        "is_training": False,
        "total": len(groups),
        "chosen": len(chosen),
    }
    write_page(stream, "preview.html", context)
    return _problems(facts, [])


def _problems(facts: MediaFacts | None, known: Sequence[str]) -> Problems:
    """Return what is known to be wrong, and how many media cannot be used."""
    if facts is None:
        return Problems([*known], no_media=True)
    count = len(facts.problems)
    unusable = [f"{count:,} of {facts.examined:,} media that were looked at cannot be used"] if count else []
    return Problems([*known, *unusable], no_media=count == facts.examined)


def described(sampling: ClipSampling) -> str:
    """Return a sampling policy as a person says it."""
    clips = f"{sampling.num_clips} clip{'s' if sampling.num_clips > 1 else ''}"
    if sampling.num_frames == 1:
        return f"{clips} of 1 frame, {sampling.strategy}"
    return f"{clips} of {sampling.num_frames} frames at {sampling.fps:g} frames per second, {sampling.strategy}"


def _draw(groups: Sequence[Group], count: int, seed: int) -> list[Group]:
    """Return a fair sample in the order of the split."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(groups), size=min(count, len(groups)), replace=False)
    return [groups[place] for place in sorted(places.tolist())]


# ------------------------------------------------------------------------------------------------------ reading


def _read(recipe: Recipe, split: str) -> _Data:
    problems: list[str] = []
    answers: Mapping[str, int] | None = None
    tokenizer: Tokenizer | None = None
    source: MediaSource | None = None
    try:
        answers = read_vocabulary(recipe)
    except ClipbertError as exc:
        problems.append(str(exc))
    task = build_task(recipe, answers)
    examples = read_split(recipe, split, task)
    try:
        tokenizer = Tokenizer(local_place(recipe, recipe.model.vocabulary), max_length=recipe.data.max_text_length)
    except ClipbertError as exc:
        problems.append(str(exc))
    try:
        source = open_split_media(recipe, split)
    except ClipbertError as exc:
        problems.append(str(exc))
    return _Data(recipe, split, task, examples, source, tokenizer, answers is not None, problems)


def _media_facts(data: _Data, chosen: Sequence[Group]) -> MediaFacts | None:
    if data.source is None:
        return None
    # Without records each item has to be decoded: only those that the page shows are.
    of_all = (example.media_id for example in data.examples)
    ids = list(dict.fromkeys(of_all if data.source.has_records else (group.media_id for group in chosen)))
    return media_facts(data.source, ids)


# ------------------------------------------------------------------------------------------------------ sections


def _facts(data: _Data, facts: MediaFacts | None) -> list[tuple[str, str]]:
    media = {example.media_id for example in data.examples}
    files = data.recipe.data.splits[data.split]
    assert files is not None
    rows = [
        ("task", data.recipe.task),
        ("annotations", str(resolve(data.recipe, files.annotations))),
        ("media", str(resolve(data.recipe, files.media))),
        ("examples", f"{len(data.examples):,} of {len(media):,} {data.recipe.data.media}s"),
        ("sampling", described(data.sampling) + (" (training)" if data.is_training else "")),
    ]
    if data.source is not None:
        missing = data.source.missing(media)
        rows.append(("media that are missing", f"{len(missing):,}" + (f", such as {missing[0]}" if missing else "")))
    if facts is not None:
        rows.append(_examined(facts))
    return rows + _overlaps(data, media)


def _examined(facts: MediaFacts) -> tuple[str, str]:
    return ("media that were looked at", f"{facts.examined:,}, {len(facts.problems):,} of them cannot be used")


def _overlaps(data: _Data, media: set[str]) -> list[tuple[str, str]]:
    """Return how many media items the other splits share with this one."""
    rows = []
    for name, files in data.recipe.data.splits.items():
        if name == data.split or files is None:
            continue
        try:
            others = {example.media_id for example in read_split(data.recipe, name, data.task)}
        except ClipbertError as exc:
            rows.append((f"media shared with {name}", f"unknown: {exc}"))
            continue
        shared = sorted(media & others)
        rows.append((f"media shared with {name}", f"{len(shared):,}" + (f", such as {shared[0]}" if shared else "")))
    return rows


def _text_charts(data: _Data) -> list[Chart]:
    if data.tokenizer is None:
        return []
    contexts = data.tokenizer.count([example.context or "" for example in data.examples for _ in example.texts])
    texts = data.tokenizer.count([text for example in data.examples for text in example.texts])
    # Both [CLS] and [SEP] count. The context of options is a part of their row.
    lengths = [2 + context + text for context, text in zip(contexts, texts, strict=True)]
    limit = data.recipe.data.max_text_length
    cut = sum(length > limit for length in lengths)
    title = f"tokens per text row; {cut:,} of {len(lengths):,} have more than {limit} and are cut"
    chart = histogram(title, lengths, x_label="tokens")
    return [chart] if chart else []


def _text_tables(data: _Data) -> list[tuple[str, Counts]]:
    truths = filter(None, map(data.task.truth_text, data.examples))
    tables = [("answer", most_frequent(Counter(truths), 25))]
    if data.has_answers:
        known = data.task.answers
        answers = (answer for example in data.examples for answer in data.task.answers_in(example))
        outside = Counter(answer for answer in answers if answer not in known)
        tables.append(("answer outside the vocabulary", most_frequent(outside)))
    tables.append(
        ("answer type", most_frequent(Counter(each.answer_type for each in data.examples if each.answer_type)))
    )
    texts = Counter(" | ".join(filter(None, (each.context, *each.texts))) for each in data.examples)
    repeated = Counter({text: count for text, count in texts.items() if count > 1})
    tables.append(("text that occurs more than once", most_frequent(repeated)))
    same = Counter((each.media_id, each.context, each.texts) for each in data.examples)
    exact = Counter({f"{key[0]}: {key[2][0]}": count for key, count in same.items() if count > 1})
    tables.append(("exact repeat of a record", most_frequent(exact)))
    return [(name, rows) for name, rows in tables if rows]


def _shown(data: _Data, chosen: Sequence[Group], thumbnails: Thumbnails, seed: int) -> Iterator[Shown]:
    """Yield each chosen media item, with what training draws for its texts in the first epoch."""
    groups = group_by_media(data.examples, max_examples=data.recipe.data.max_examples_per_group)
    draw = data.task.draw(groups, training=data.is_training)
    for place, group in enumerate(chosen):
        drawn = group if draw is None else draw(group, np.random.default_rng((seed, place)))
        rows: list[list[TokenRow]] = [[] for _ in group.examples]
        if data.tokenizer is not None:
            rows = token_rows(data.task, data.tokenizer, drawn.examples)
        shown = [
            ShownExample(example, data.task.truth_text(own), own_rows)
            for example, own, own_rows in zip(drawn.examples, group.examples, rows, strict=True)
        ]
        yield Shown(group.media_id, thumbnails.strip(group.media_id), shown)
