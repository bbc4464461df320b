"""What the meta file of predictions says about them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from clipbert_cli.infer.made_by import MAX_COMPARED, meta_file, read_meta


@pytest.mark.parametrize("size", [MAX_COMPARED + 1, 2**33, 2**40])
@pytest.mark.parametrize("stated", [True, False])
def test_predictions_that_are_too_large_are_not_compared(size: int, stated: bool, tmp_path: Path) -> None:
    path = tmp_path / "preds.jsonl"
    with path.open("wb") as file:
        file.truncate(size)
    written = {"bytes": size if stated else size - 1, "crc32": 0}
    meta_file(path).write_text(json.dumps({"predictions": written}))
    started = time.process_time()
    made = read_meta(path)
    assert time.process_time() - started < 1
    assert made.meta is None
    assert made.unknown == f"unknown: {path} is too large to be compared with preds.jsonl.meta.json"
