"""The MSR-VTT multiple choice test: five captions a video, one of them right.

Input: msrvtt_mc_test.jsonl or msrvtt_mc_test.json (records), or the original MSR_MC_test.csv (tab-separated; a1 to a5,
and an answer counted from 0 or from 1, which the whole column tells).
"""

from __future__ import annotations

from pathlib import Path

from clipbert_cli.assets.convert.base import Output, field, find, integer, one_line, read_records, read_table
from clipbert_cli.assets.convert.msrvtt import video_name
from clipbert_cli.errors import AnnotationError

OPTIONS = 5


def convert(raw: Path, output: Output) -> None:
    path = find(raw, "msrvtt_mc_test.jsonl", "msrvtt_mc_test.json", "MSR_MC_test.csv")
    rows = _table(path, output) if path.suffix == ".csv" else _records(path)
    records = [
        {"qid": qid, "clip_name": video, "options": options, "answer": answer}
        for qid, (video, options, answer) in enumerate(rows)
    ]
    output.records("test.jsonl", records, media="clip_name", words=("options",))


def _records(path: Path) -> list[tuple[str, list[str], int]]:
    rows = []
    for where, record in read_records(path):
        options = field(record, where, "options", "caption", kind=list)
        if len(options) != OPTIONS or not all(isinstance(option, str) for option in options):
            raise AnnotationError(f"{where}: {OPTIONS} captions were expected, not {options!r}")
        answer = integer(field(record, where, "answer", kind=int), where, "answer", allowed=range(OPTIONS))
        video = video_name(field(record, where, "clip_name", "video"), where)
        rows.append((video, [one_line(option) for option in options], answer))
    return rows


def _table(path: Path, output: Output) -> list[tuple[str, list[str], int]]:
    rows = []
    for where, row in read_table(path, separator="\t"):
        options = [one_line(field(row, where, f"a{n}")) for n in range(1, OPTIONS + 1)]
        answer = integer(field(row, where, "answer"), where, "answer", allowed=range(OPTIONS + 1))
        rows.append((video_name(field(row, where, "video_id", "vid_key"), where), options, answer))
    answers = {answer for _, _, answer in rows}
    if {0, OPTIONS} <= answers:
        raise AnnotationError(f"{path}: answers go from 0 to {OPTIONS}: counted from 0 or from 1, not both")
    if not {0, OPTIONS} & answers:
        output.warn(f"{path.name}: no answer is 0 and none is {OPTIONS}: they are taken as counted from 0")
    first = 1 if OPTIONS in answers else 0
    return [(video, options, answer - first) for video, options, answer in rows]
