"""Damaged media are decoded or reported; benchmarks/damaged.py does the same with more files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def damaged() -> Any:
    spec = importlib.util.spec_from_file_location(
        "benchmarks_damaged", Path(__file__).parents[2] / "benchmarks" / "damaged.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = sys.path[:]
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


def test_damaged_media_are_decoded_or_reported_and_pack_survives_them(damaged: Any) -> None:
    report = damaged.run(100, seed=3)
    outcomes = report["outcomes"]
    assert sum(outcomes.values()) == 100
    assert outcomes["reported"] > 20
    assert outcomes["decoded"] > 5
    assert outcomes["decoded up to damage"] > 5
    assert report["pack"]["videos"]["packed"] > 0
    assert report["pack"]["videos"]["skipped"] > 0


def test_memory_stays_flat_over_damaged_media(damaged: Any) -> None:
    media = [(name, data) for name, data in damaged.good_media().items() if name in ("h264_0.mp4", "picture_png.png")]
    assert damaged.memory_growth(media, damaged.np.random.default_rng(0), items=300) < 0.05
