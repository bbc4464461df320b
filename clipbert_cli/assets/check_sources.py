"""Ask sources whether they have their file, and with which size, without downloading it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clipbert_cli.assets.catalog import FileEntry, FileSource
from clipbert_cli.assets.check_file import SourceRefusedError
from clipbert_cli.assets.connection import RetryPolicy, describe, new_client
from clipbert_cli.assets.fetch import request_of
from clipbert_cli.assets.web_page import open_file

POLICY = RetryPolicy(connect=10, read=20)


@dataclass(frozen=True)
class SourceAnswer:
    """The answer of one source about one file. `ok`: it has the file, and its size agrees with the catalogue."""

    source: str
    ok: bool
    answer: str
    bytes: int | None = None


def check_sources(files: Mapping[str, FileEntry]) -> dict[str, list[SourceAnswer]]:
    """Ask every source of every file, eight at a time; return file -> answers in the order of its sources."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = {name: [pool.submit(_ask, source, entry) for source in entry.sources] for name, entry in files.items()}
        return {name: [future.result() for future in futures] for name, futures in asked.items()}


def _ask(source: FileSource, entry: FileEntry) -> SourceAnswer:
    import httpx

    url, headers = request_of(source)
    # One byte of the file and not HEAD, which many servers answer wrongly or not at all.
    headers["Range"] = "bytes=0-0"
    try:
        with new_client(POLICY) as client, open_file(client, url, headers) as response:
            status, answered = response.status_code, response.headers
    except SourceRefusedError as exc:
        return SourceAnswer(str(source), False, str(exc))
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return SourceAnswer(str(source), False, describe(exc))
    if status not in (200, 206):
        return SourceAnswer(str(source), False, f"{status} {httpx.codes.get_reason_phrase(status)}")
    resumes = status == 206
    stated = answered.get("Content-Range", "").rpartition("/")[2] if resumes else answered.get("Content-Length", "")
    size = int(stated) if stated.isdigit() else None
    answer = f"{status}, {'can resume' if resumes else 'cannot resume'}"
    if size is not None and entry.bytes and size != entry.bytes:
        answer += f"; {size:,} bytes where the catalogue has {entry.bytes:,} ({entry.mark})"
        return SourceAnswer(str(source), False, answer, size)
    return SourceAnswer(str(source), True, answer, size)
