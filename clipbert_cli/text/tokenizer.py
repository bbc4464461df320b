"""BERT's uncased WordPiece tokenizer: texts -> padded token ids. Legend: N texts, L tokens of the longest row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers.implementations import BertWordPieceTokenizer

from clipbert_cli.errors import UnreadableError, WeightsError
from clipbert_cli.foreign import read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Converts to lower case, strips accents, adds [CLS] and [SEP], and cuts rows at `max_length` tokens.

    `id_of` has the ids of the special tokens.

    Args:
        path: a vocab.txt (one entry per line, id = line number from 0), or a folder with one.
        max_length: limit of tokens per row, [CLS] and [SEP] included.

    Raises:
        WeightsError: the file is missing, not UTF-8, or lacks a special token.
    """

    def __init__(self, path: Path, *, max_length: int) -> None:
        self.vocabulary_file = path / "vocab.txt" if path.is_dir() else path
        if not self.vocabulary_file.is_file():
            raise WeightsError(
                f"{self.vocabulary_file}: no such vocabulary",
                hint="set model.tokenizer to a vocab.txt or to a folder with one",
            )
        try:
            entries = read_text(self.vocabulary_file).rstrip("\n").split("\n")
        except UnreadableError as exc:
            raise WeightsError(str(exc), hint="set model.tokenizer to the vocab.txt of bert-base-uncased") from exc
        if missing := [token for token in SPECIAL_TOKENS if token not in entries]:
            raise WeightsError(
                f"{self.vocabulary_file}: not a BERT vocabulary, it lacks {', '.join(missing)}",
                hint="set model.tokenizer to the vocab.txt of bert-base-uncased",
            )
        self._tokenizer = BertWordPieceTokenizer(
            {entry: number for number, entry in enumerate(entries)}, lowercase=True
        )
        self.max_length = max_length
        self.id_of = {token: entries.index(token) for token in SPECIAL_TOKENS}

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(
        self,
        texts: Sequence[str],
        *,
        contexts: Sequence[str | None] | None = None,
        cut: Literal["context", "end"] = "context",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids of rows `[CLS] context text [SEP]`, padded to the longest row.

        Args:
            contexts: the context of each text, None for none.
            cut: how rows of more than `max_length` tokens are shortened. `context` cuts the end of the context first,
                so that options of a question stay readable; `end` cuts the end of the row.

        Returns:
            ids (N, L) int64, [PAD] where padded, and mask (N, L) bool, True = real token.
        """
        rows = self._pieces(texts)
        before: list[list[int]] = [[] for _ in rows]
        if contexts is not None and any(contexts):
            before = self._pieces([context or "" for context in contexts])
        # [CLS] and [SEP] are never cut.
        limit = self.max_length - 2
        for number, (context, text) in enumerate(zip(before, rows, strict=True)):
            kept = context[: max(limit - len(text), 0)] if cut == "context" else context
            rows[number] = [self.id_of["[CLS]"], *[*kept, *text][:limit], self.id_of["[SEP]"]]
        length = max(map(len, rows), default=0)
        ids = np.full((len(rows), length), self.id_of["[PAD]"], dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = True
        return ids, mask

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
