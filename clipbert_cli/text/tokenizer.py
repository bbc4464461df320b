"""BERT's uncased WordPiece tokenizer: texts to padded token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers.implementations import BertWordPieceTokenizer

from clipbert_cli.errors import WeightsError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Lower-cases, strips accents, adds [CLS] and [SEP], cuts at `max_length` tokens (both included).

    `id_of` has the ids of the special tokens.

    Args:
        path: a vocab.txt (one entry a line, id = line number from 0), or a folder that holds one.

    Raises:
        WeightsError: no such file, or a special token is not in it.
    """

    def __init__(self, path: Path, *, max_length: int) -> None:
        self.vocabulary_file = path / "vocab.txt" if path.is_dir() else path
        if not self.vocabulary_file.is_file():
            raise WeightsError(
                f"{self.vocabulary_file}: no such vocabulary",
                hint="set model.tokenizer to a vocab.txt or to a folder that holds one",
            )
        try:
            entries = self.vocabulary_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except UnicodeDecodeError as exc:
            raise WeightsError(f"{self.vocabulary_file}: not UTF-8 text ({exc.reason})") from exc
        if missing := [token for token in SPECIAL_TOKENS if token not in entries]:
            raise WeightsError(f"{self.vocabulary_file}: not a BERT vocabulary, it lacks {', '.join(missing)}")
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
        """Token ids of N texts, padded to the longest of them: [CLS] context text [SEP].

        Args:
            contexts: what each text follows, None for nothing.
            cut: what goes from a row of more than `max_length` tokens: the end of the context, and of the text only
                where that does not suffice (`context`); or the end of both together (`end`).

        Returns:
            ids (N, L) int64 and mask (N, L) bool, True = real token.
        """
        rows = self._pieces(texts)
        before: list[list[int]] = [[] for _ in rows]
        if contexts is not None and any(contexts):
            before = self._pieces([context or "" for context in contexts])
        room = self.max_length - 2
        for number, (context, text) in enumerate(zip(before, rows, strict=True)):
            kept = context[: max(room - len(text), 0)] if cut == "context" else context
            rows[number] = [self.id_of["[CLS]"], *[*kept, *text][:room], self.id_of["[SEP]"]]
        length = max(map(len, rows), default=0)
        ids = np.full((len(rows), length), self.id_of["[PAD]"], dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = True
        return ids, mask

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
