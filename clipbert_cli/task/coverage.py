"""The parts of a split that a model cannot read or answer: texts that are cut, words and answers that are not known."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from clipbert_cli.text.annotations import normal_form
from clipbert_cli.types import Example

if TYPE_CHECKING:
    from clipbert_cli.task.base import Task
    from clipbert_cli.text.tokenizer import Tokenizer

_MOST = 10_000
"""The number of examples whose texts are counted; of larger splits as many, evenly spread."""

_SHOWN = 60
"""The number of characters of a text that a message shows."""


def cut_texts(examples: Sequence[Example], tokenizer: Tokenizer, *, what: str) -> list[str]:
    """Return a sentence about the texts that are longer than the tokenizer's limit; an empty list if there are none.

    Args:
        what: the kind of examples, such as `training`.
    """
    counted, some = _counted(examples)
    rows = [(example.context or "", text) for example in counted for text in example.texts]
    parts = (tokenizer.count(texts) for texts in zip(*rows, strict=True))
    lengths = [2 + context + own for context, own in zip(*parts, strict=True)]
    cut = sum(length > tokenizer.max_length for length in lengths)
    if not cut:
        return []
    longest = max(range(len(rows)), key=lengths.__getitem__)
    text = " ".join(filter(None, rows[longest]))
    limit = f"data.max_text_length, {tokenizer.max_length} tokens"
    sentence = f"{cut:,} of {len(rows):,} {what} texts{some} are longer than {limit}, and are cut"
    return [f"{sentence}; the longest has {lengths[longest]}: {_excerpt(text)!r}"]


def unread_words(examples: Sequence[Example], tokenizer: Tokenizer, *, what: str) -> list[str]:
    """Return a sentence about texts whose words are not all in the vocabulary; an empty list if there are none."""
    counted, some = _counted(examples)
    texts = [text for example in counted for text in (*filter(None, [example.context]), *example.texts)]
    unknown = [words for words in tokenizer.unknown(texts) if words]
    if not unknown:
        return []
    sentence = f"{len(unknown):,} of {len(texts):,} {what} texts{some} have words that are not in the vocabulary"
    return [f"{sentence} and are read as [UNK], such as {_first(itertools.chain.from_iterable(unknown))}"]


def _counted(examples: Sequence[Example]) -> tuple[Sequence[Example], str]:
    """Return the examples whose texts are counted, and how a sentence says that these are not all."""
    counted = examples[:: -(-len(examples) // _MOST)] if examples else ()
    some = "" if len(counted) == len(examples) else f" among {len(counted):,} of {len(examples):,} examples"
    return counted, some


def unknown_words(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Return a sentence for each text that has words which are not in the vocabulary."""
    sentences = []
    for text, unknown in zip(texts, tokenizer.unknown(texts), strict=True):
        if unknown:
            (count,) = tokenizer.count([text])
            what = "no word" if len(unknown) == count else f"not {_first(unknown)}"
            sentences.append(f"the model's vocabulary has {what} of {_excerpt(text)!r}: it reads [UNK] instead")
    return sentences


def unknown_answers(examples: Sequence[Example], task: Task, *, what: str) -> list[str]:
    """Return a sentence about the examples that no prediction can answer rightly; an empty list if there are none."""
    unknown = [answer for answer in map(task.unknown_answer, examples) if answer is not None]
    if not unknown:
        return []
    sentence = f"{len(unknown):,} of {len(examples):,} {what} answers are not in data.answers and count as wrong"
    return [f"{sentence}, such as {_first(unknown)}{task.alike_answer(unknown)}"]


def alike_answers(answers: Iterable[str]) -> list[str]:
    """Return a sentence about answers that `objective.normalize_answers` makes equal; an empty list if none."""
    forms: dict[str, list[str]] = {}
    for answer in answers:
        forms.setdefault(normal_form(answer), []).append(answer)
    alike = [each for each in forms.values() if len(each) > 1]
    if not alike:
        return []
    example = " and ".join(repr(_excerpt(answer)) for answer in alike[0][:3])
    sentence = f"{sum(map(len, alike)):,} answers differ in case, blanks or marks at the end alone, such as {example}"
    advice = "objective.normalize_answers: true makes them equal; set it, and make the list again"
    return [f"{sentence}: {advice} (clipbert recipes answers)"]


def guessed(trained: Sequence[Example], examples: Sequence[Example], task: Task) -> list[str]:
    """Return a sentence if a guess answers all of validation, else an empty list."""
    guess = task.guess(trained, examples) if examples else {}
    if guess.get(task.main_metric, 0) < 100:
        return []
    sentence = f"validation cannot tell a model from a guess: {task.main_metric} is 100 by {guess['what']}"
    return [f"{sentence}; add records with other answers or media"]


def shared_media(trained: Sequence[Example], examples: Sequence[Example]) -> list[str]:
    """Return a sentence about the media of validation that are trained on as well; an empty list if there are none."""
    known, own = {example.media_id for example in trained}, {example.media_id for example in examples}
    shared = sorted(own & known)
    if not shared:
        return []
    return [f"{len(shared):,} of {len(own):,} media of validation are trained on as well, such as {shared[0]!r}"]


def _first(words: Iterable[str]) -> str:
    """Return the first three different words, for messages."""
    return ", ".join(repr(_excerpt(word)) for word in itertools.islice(dict.fromkeys(words), 3))


def _excerpt(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
