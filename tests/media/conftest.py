"""What tests of media share: a folder of videos, and memory that is not zero by chance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_media import video


@pytest.fixture(scope="module")
def clip() -> bytes:
    return video(6)


@pytest.fixture
def videos(tmp_path: Path, clip: bytes) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(8):
        (folder / f"video{index}.mp4").write_bytes(clip)
    return folder


@pytest.fixture
def dirty_memory() -> Iterator[None]:
    """New tensors hold the largest value of their type (nan for floats) until something is written."""
    torch.use_deterministic_algorithms(True)
    try:
        assert (torch.empty(9, dtype=torch.uint8) == 255).all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
