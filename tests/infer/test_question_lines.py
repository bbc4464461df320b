"""How a stream is divided into lines and windows."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from clipbert_cli.infer import question_lines
from clipbert_cli.infer.question_lines import Line, read_windows


def line(number: int, padding: int = 0) -> bytes:
    return json.dumps({"video": f"{number}.mp4", "question": "?" * (1 + padding)}).encode() + b"\n"


def names(window: list[Line]) -> list[str]:
    return [each.fields.get("video", each.fields.get("line")) for each in window]


def never() -> None:
    raise AssertionError("nothing had to be waited for")


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], Callable[[bytes], int], Callable[[], None]]]:
    """The reading end, and functions that write and close the other one."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        yield stream, lambda data: os.write(writing, data), lambda: os.close(writing)


def test_a_window_is_what_is_there() -> None:
    with pipe() as (stream, write, close):
        windows = read_windows(stream, never)
        write(line(0) + line(1) + line(2)[:10])
        assert names(next(windows)) == ["0.mp4", "1.mp4"]
        write(line(2)[10:])
        assert names(next(windows)) == ["2.mp4"]
        write(line(3).rstrip())
        close()
        assert [names(window) for window in windows] == [["3.mp4"]]


def test_whoever_waits_for_a_line_notices_a_request_to_stop() -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with pipe() as (stream, _, close):
        with pytest.raises(StopError):
            next(read_windows(stream, stop))
        close()


def test_a_window_has_an_upper_bound_and_the_rest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_lines, "_WINDOW", 4)
    stream = io.BytesIO(b"".join(map(line, range(10))))
    assert [len(window) for window in read_windows(stream, never)] == [4, 4, 2]


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_chunks_may_end_anywhere(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_lines, "_CHUNK", chunk)
    stream = io.BytesIO(b"\n".join([line(0), b"", line(1, padding=50), b"  \r", line(2).rstrip()]))
    assert [name for window in read_windows(stream, never) for name in names(window)] == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.parametrize("length", [101, 250, 100_000])
def test_a_line_that_is_too_long_is_one_mistake_with_its_number(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_lines, "_MOST_BYTES", 100)
    monkeypatch.setattr(question_lines, "_CHUNK", 64)
    stream = io.BytesIO(line(0) + b"x" * length + b"\n" + line(2))
    found = [each for window in read_windows(stream, never) for each in window]
    assert names(found) == ["0.mp4", 2, "2.mp4"]
    assert "longer than" in str(found[1].asked)


@pytest.mark.parametrize(("length", "read"), [(2**29, ["0.mp4", 2, "2.mp4"]), (2**33, ["0.mp4", 2])])
def test_a_line_without_end_takes_neither_memory_nor_time(length: int, read: list[str | int], tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(line(0))
        file.seek(length)
        file.write(b"\n" + line(2))
    began = time.process_time()
    with (tmp_path / "a.jsonl").open("rb") as stream:
        found = [each for window in read_windows(stream, never) for each in window]
    assert time.process_time() - began < 5
    assert names(found) == read
    assert "longer than 16 MiB; after one of 1 GiB no more is read" in str(found[1].asked)
