"""Text rows as the model reads them: their tokens, which are masked, and what was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipbert_cli.task.base import Task
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Texts


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
