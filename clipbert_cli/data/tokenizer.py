"""BERT's uncased WordPiece tokenizer: texts to padded token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers.implementations import BertWordPieceTokenizer

from clipbert_cli.errors import WeightsError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
    """Lower-cases, strips accents, adds [CLS] and [SEP], cuts at `max_length` tokens (both included).

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
        self._tokenizer.enable_truncation(max_length)
        self.pad_id = entries.index("[PAD]")

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of N texts, padded to the longest of them.

        Returns:
            ids (N, L) int64 and mask (N, L) bool, True = real token.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        length = max(map(len, rows))
        ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = True
        return ids, mask
