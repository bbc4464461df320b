"""Token ids and padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from goldens import golden_folder, golden_json

from clipbert_cli.errors import WeightsError
from clipbert_cli.text.tokenizer import Tokenizer

SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"


@pytest.mark.golden
def test_token_ids_are_the_originals() -> None:
    for block in golden_json("text/text.json")["tokenise"]:
        tokenizer = Tokenizer(golden_folder() / "text" / "vocab.txt", max_length=block["max_length"])
        for item in block["items"]:
            ids, mask = tokenizer([item["text"]])
            assert ids[0].tolist() == item["ids"][: item["n_valid"]], item["text"]
            assert mask.all()


def test_a_batch_is_padded_to_its_longest_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(SPECIAL + "cat\ndog\n")
    ids, mask = Tokenizer(tmp_path, max_length=20)(["cat", "Cat dog", ""])
    assert ids.tolist() == [[2, 5, 3, 0], [2, 5, 6, 3], [2, 3, 0, 0]]
    assert ids.dtype == np.int64
    assert mask.sum(axis=1).tolist() == [3, 4, 2]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such vocabulary"), (b"cat\n", "lacks"), (b"\xff", "UTF-8")]
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        Tokenizer(path, max_length=20)
