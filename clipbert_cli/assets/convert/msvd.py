"""MSVD-QA: open-ended questions about the 1,970 videos of MSVD. The captions of MSVD are in `caption_lists.py`.

The questions number the videos, 1 to 1970. youtube_mapping.txt says which file is which; the media id is that of the
captions, such as `-4wsuPCjDBc_5_15`.
"""

from __future__ import annotations

import re
from pathlib import Path

from clipbert_cli.assets.convert.msrvtt import write_questions
from clipbert_cli.assets.convert.raw_files import find, integer
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError
from clipbert_cli.foreign import excerpt, read_text_lines

VIDEOS = range(1, 1971)
# The number that the authors' own program trains with.
ANSWERS = 1000


def convert_questions(raw: Path, writer: RecordWriter) -> None:
    """Convert {train,val,test}_qa.json with youtube_mapping.txt.

    The vocabulary is that of train_ans2label.json if it is there, else the 1,000 most frequent training answers.
    """
    names = _mapping(find(raw, "youtube_mapping.txt"))

    def video(value: str | int, where: str) -> str:
        return names[integer(str(value).removeprefix("vid"), where, "video_id", allowed=VIDEOS)]

    write_questions(raw, writer, video=video, answers=ANSWERS)


def _mapping(path: Path) -> dict[int, str]:
    """Return number -> name of the file without its ending, from lines such as `-4wsuPCjDBc_5_15 vid1`."""
    names: dict[int, str] = {}
    for number, line in enumerate(read_text_lines(path), start=1):
        found = re.fullmatch(r"(\S+)\s+vid(\d{1,4})", line.strip())
        if found is None and line.strip():
            raise AnnotationError(f"{path}, line {number}: `NAME vidN` was expected, not {excerpt(line)}")
        if found:
            names[integer(found[2], f"{path}, line {number}", "video", allowed=VIDEOS)] = found[1]
    if missing := [number for number in VIDEOS if number not in names]:
        raise AnnotationError(f"{path}: vid{missing[0]} is not in it, and {len(missing) - 1:,} others")
    return names
