"""What tests of packing share: a folder of videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.made_media import video

pytest.register_assert_rewrite("data.dali_cases")  # a failed comparison of pixels says by how much


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
