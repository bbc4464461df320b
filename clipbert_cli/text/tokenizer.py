"""BERT's WordPiece tokenizer: it turns texts into padded token ids. Legend: N texts, L tokens of the longest row."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers.implementations import BertWordPieceTokenizer

from clipbert_cli.errors import UnreadableError, WeightsError
from clipbert_cli.foreign import no_file, read_json, read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# The names of the files in which Hugging Face keeps a tokenizer.
_VOCABULARY, _CONFIG, _WHOLE = "vocab.txt", "tokenizer_config.json", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class TextSettings:
    """The changes of a text before it is divided into pieces.

    The names are those of `tokenizer_config.json`. `strip_accents` None strips them where texts become lower-case.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True

    @classmethod
    def of(cls, folder: Path, entries: Sequence[str]) -> TextSettings:
        """Return the settings that the files of a folder state.

        `tokenizer_config.json` wins over `tokenizer.json`. Where neither says whether letters become lower-case, they
        do unless the vocabulary has upper-case ones. Where neither says anything, accents stay if the vocabulary has
        some: in a list of words that a person wrote, `schläft` would never be found without its accent.

        Raises:
            WeightsError: a file is damaged, or states something else than a WordPiece tokenizer.
        """
        stated: dict[str, Any] = {}
        normalizer = _read(folder / _WHOLE).get("normalizer") or {}
        for name, own in (
            ("do_lower_case", "lowercase"),
            ("strip_accents", "strip_accents"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        ):
            if normalizer.get("type") == "BertNormalizer" and own in normalizer:
                stated[name] = normalizer[own]
        config = _read(folder / _CONFIG)
        stated |= {name: config[name] for name in cls.__slots__ if name in config}
        # "Mn" is the category of the characters that stripping removes.
        if not stated and "Mn" in map(unicodedata.category, unicodedata.normalize("NFD", "".join(entries))):
            stated["strip_accents"] = False
        has_upper_case = any(entry != entry.lower() for entry in entries if not entry.startswith("["))
        stated.setdefault("do_lower_case", not has_upper_case)
        for name, value in stated.items():
            if type(value) is not bool and not (name == "strip_accents" and value is None):
                raise WeightsError(f"{folder}: {name} of the tokenizer is {value!r}, but must be true or false")
        return cls(**stated)


class Tokenizer:
    """Adds [CLS] and [SEP], and cuts rows at `max_length` tokens.

    Whether texts become lower-case and lose their accents is stated by the files beside the vocabulary. `id_of` has the
    ids of the special tokens.

    Attributes:
        entries: the vocabulary in the order of the ids.

    Args:
        path: a vocab.txt (one entry per line, id = line number from 0), or a folder with one or with a tokenizer.json.
        max_length: limit of tokens per row, [CLS] and [SEP] included.

    Raises:
        WeightsError: there is no vocabulary, it lacks a special token, or a file beside it is damaged.
    """

    def __init__(self, path: Path, *, max_length: int) -> None:
        folder = path if path.is_dir() else path.parent
        self.vocabulary_file, entries = _vocabulary(path)
        if missing := [token for token in SPECIAL_TOKENS if token not in entries]:
            raise WeightsError(
                f"{self.vocabulary_file}: not a BERT vocabulary, it lacks {', '.join(missing)}",
                hint="set model.tokenizer to the folder of a BERT model, such as bert-base-uncased",
            )
        self.settings = TextSettings.of(folder, entries)
        self.entries = entries
        self._tokenizer = BertWordPieceTokenizer(
            {entry: number for number, entry in enumerate(entries)},
            lowercase=self.settings.do_lower_case,
            strip_accents=self.settings.strip_accents,
            handle_chinese_chars=self.settings.tokenize_chinese_chars,
        )
        self.max_length = max_length
        self.id_of = {token: entries.index(token) for token in SPECIAL_TOKENS}

    def files(self) -> dict[str, str]:
        """Return the names and contents of the files of a folder from which the same tokenizer can be made."""
        return {
            _VOCABULARY: "\n".join(self.entries) + "\n",
            _CONFIG: json.dumps(asdict(self.settings), indent=1) + "\n",
        }

    @property
    def digest(self) -> str:
        """The SHA-256 of the entries in the order of their ids."""
        return hashlib.sha256("\n".join(self.entries).encode("utf-8", "surrogatepass")).hexdigest()

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

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without [CLS] and [SEP]."""
        return [len(pieces) for pieces in self._pieces(texts)]

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of a text, none of them cut or added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).tokens)

    def unknown(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of each text that the vocabulary does not have: they are all read as [UNK]."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            [
                text[start:end]
                for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                if token == self.id_of["[UNK]"]
            ]
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def token(self, number: int) -> str:
        """Return the token of an id."""
        return str(self._tokenizer.id_to_token(number))

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in (_VOCABULARY, _WHOLE))


def _vocabulary(path: Path) -> tuple[Path, list[str]]:
    """Return the file with the vocabulary and its entries in the order of their ids."""
    file = path / _VOCABULARY if path.is_dir() else path
    whole = path / _WHOLE
    if not file.is_file() and whole.is_file():
        return whole, _entries_of(whole)
    if not file.is_file():
        raise WeightsError(
            no_file(file, "vocabulary"),
            hint="clipbert download bert-base-uncased --to FOLDER fetches pretrained/bert-base-uncased, which has one; "
            "FOLDER is the recipe's data.root. Or set model.tokenizer to a list of words, for a model that starts at "
            "random (docs/own-data.md)",
        )
    try:
        return file, read_text(file).replace("\r\n", "\n").rstrip("\n").split("\n")
    except UnreadableError as exc:
        raise WeightsError(str(exc), hint="set model.tokenizer to the vocab.txt of bert-base-uncased") from exc


def _entries_of(file: Path) -> list[str]:
    """Return the vocabulary of a tokenizer.json."""
    model = _read(file).get("model")
    kind, ids = (model.get("type"), model.get("vocab")) if isinstance(model, Mapping) else (None, None)
    # Files of older versions do not state the type; only WordPiece marks the continuation of a word.
    if kind not in ("WordPiece", None) or not isinstance(ids, Mapping):
        raise WeightsError(
            f"{file}: its model is {kind}, but a vocabulary of WordPiece is needed",
            hint="set model.tokenizer to the folder of a BERT model",
        )
    entry_of = {number: entry for entry, number in ids.items()}
    if set(entry_of) != set(range(len(ids))):
        raise WeightsError(f"{file}: the ids of its vocabulary are not 0 to {len(ids) - 1}, each once")
    return [entry_of[number] for number in range(len(ids))]


def _read(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file."""
    try:
        content = read_json(file)
    except FileNotFoundError:
        return {}
    except UnreadableError as exc:
        raise WeightsError(str(exc), hint="get the file again, or remove it") from exc
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: a JSON object is expected", hint="get the file again, or remove it")
    return content
