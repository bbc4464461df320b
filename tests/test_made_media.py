"""The makers of small media."""

from running import under_other_memory

MADE = """
import sys, zlib
sys.path.insert(0, "tests")
from made_media import video
made = [
    video(48),
    video(48, options={"crf": "20", "g": "48"}),
    video(48, options={"x264-params": "keyint=12"}),
    video(20, height=56, container="mpegts"),
    video(20, container="matroska"),
    video(20, codec="libvpx-vp9", container="webm"),
    video(20, codec="libvpx", container="webm"),
    video(20, codec="mpeg4", container="avi"),
]
print([zlib.crc32(each) for each in made])
"""


def test_a_made_video_has_the_same_bytes_whatever_is_in_memory() -> None:
    """Tests compare sizes and checksums of videos that they make twice."""
    printed = under_other_memory(MADE)
    assert printed[0] == printed[1]
