"""Damaged media are decoded or reported; benchmarks/damaged.py does the same with more files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("damaged")


def test_damaged_media_are_decoded_or_reported_and_pack_survives_them(damaged: Any, tmp_path: Path) -> None:
    report = damaged.decode_and_pack(damaged.good_media(), tmp_path, 100, seed=3)
    assert sum(value for value in report.values() if isinstance(value, int)) == 100
    assert report["reported"] > 20
    assert report["decoded"] > 5
    assert report["decoded up to damage"] > 5
    assert report["pack of videos"]["packed"] > 0
    assert report["pack of videos"]["skipped"] > 0


def test_memory_stays_flat_over_damaged_media(damaged: Any) -> None:
    media = {name: data for name, data in damaged.good_media().items() if name in ("h264_0.mp4", "picture_png.png")}
    assert damaged.memory_growth(media, 300, seed=0) < 0.05
