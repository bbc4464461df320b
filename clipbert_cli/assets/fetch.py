"""Download one file from the first source that has it: the published file, or no file.

    sources, in order ── 403, 404, ..., wrong length, wrong checksum, a web page ──► the next source
          │  ▲
          │  └── time limit, 5xx, cut or slowed down: wait, then continue where it stopped (Range and If-Range)
          ▼
    NAME.part + NAME.part.json ──► size and checksum ──► rename to NAME

NAME.part.json holds the address and the version (ETag or Last-Modified) that the bytes in NAME.part belong to, so that
bytes of two versions are never joined: a download continues only with the same version, or where the catalogue has a
checksum, which would reveal the mixture.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.check_file import (
    Contents,
    FetchedFile,
    SourceRefusedError,
    StoppedError,
    WrongContentError,
    check_file,
)
from clipbert_cli.assets.connection import (
    InterruptedDownload,
    Pace,
    RetryPolicy,
    UnreachedError,
    UnreachedSourceError,
    describe,
    failure_of,
    new_client,
)
from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.partial_file import PartialFile
from clipbert_cli.assets.web_page import open_file
from clipbert_cli.errors import DownloadError
from clipbert_cli.foreign import excerpt

if TYPE_CHECKING:
    import httpx

HUB = "https://huggingface.co/"

# Answers that may be another one in a moment; all other errors are final (RFC 9110, section 15).
RETRIED = {408, 425, 429, *range(500, 600)}


class DownloadProgress:
    """Receives the progress of downloads, from several threads. This class ignores it; a command draws it."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """Called when `done` of `total` bytes of a file are there (None: unknown)."""

    def end(self, name: str) -> None:
        """Called when a source has given the file or has refused it."""

    def say(self, message: str) -> None:
        """Called with a line for the user, such as the reason why a source is left."""


@dataclass
class Fetcher:
    """Downloads files through one HTTP client, which several threads may share.

    `has_connected` says whether any host has answered: if none has, the failures of all files are one.
    """

    progress: DownloadProgress = field(default_factory=DownloadProgress)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    mirror: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    contents: Contents = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = new_client(self.policy)
        self.has_connected = False
        self._said: set[tuple[str, str]] = set()

    def close(self) -> None:
        self._client.close()

    def fetch(self, file: PlannedFile) -> FetchedFile | None:
        """Download `file` to its target; return None where it is there already.

        Raises:
            DownloadError: no source gave the file as published; the message lists what each source answered.
            UnreachedError: no connection to any of its hosts was made.
            OSError: the disk is full or not writable; what has arrived stays for the next try.
            StoppedError: `stop` was set.
        """
        if file.target.exists():
            return None
        failures: list[SourceRefusedError] = []
        lines = [f"{file.name}: no source gave the file"]
        sources = sources_of(file.name, file.entry, self.mirror)
        for source in sources:
            try:
                return self._fetch_from(source, file)
            except SourceRefusedError as exc:
                failures.append(exc)
                lines.append(f"  {source}: {exc}")
                # The failure of the last source is part of the error. Without a network all sources fail alike.
                if len(failures) < len(sources) and (self.has_connected or not isinstance(exc, UnreachedSourceError)):
                    self.progress.say(f"{file.name}: {source}: {exc}; trying the next source")
            finally:
                self.progress.end(file.name)
        if failures and all(isinstance(failure, UnreachedSourceError) for failure in failures):
            raise UnreachedError(lines, [host_of(source) for source in sources])
        raise DownloadError(lines if failures else [*lines, "  the catalogue knows no source"])

    def check(self, file: PlannedFile, path: Path, source: str | Path) -> FetchedFile:
        """Compare the file at `path`, which came from `source`, with the catalogue; see `check_file` for the errors."""
        return check_file(file.name, file.entry, path, source=source, stop=self.stop, contents=self.contents)

    def _fetch_from(self, source: str, file: PlannedFile) -> FetchedFile:
        with PartialFile(file.target, checksum_known=bool(file.entry.sha256 or file.entry.md5)) as partial:
            partial.prepare(source)
            while True:
                inherited = partial.size > 0
                self._download(source, file, partial)
                try:
                    fetched = self.check(file, partial.path, source)
                except WrongContentError as exc:
                    partial.restart()
                    if not inherited:
                        raise
                    # The bytes that an earlier run or another source left may be the wrong ones, not this source's.
                    self.progress.say(f"{file.name}: {exc}; starting again from the first byte")
                else:
                    partial.finish()
                    return fetched

    def _download(self, source: str, file: PlannedFile, partial: PartialFile) -> None:
        """Bring all bytes of the file into `partial`, over as many connections as it takes."""
        failures = 0
        ended = time.monotonic()  # the try before
        while True:
            before = partial.size
            try:
                self._connect(source, file, partial)
            except InterruptedDownload as exc:
                # New bytes are progress, however often the server cuts the connection: the count starts again. A few
                # bytes per connection would be without end, too.
                expected, ended = self.policy.lowest_rate * (time.monotonic() - ended), time.monotonic()
                failures = 1 if partial.size - before > expected else failures + 1
                # Without a network every host, file and try would meet the same failure.
                if exc.is_unreached and not self.has_connected:
                    raise UnreachedSourceError(str(exc)) from None
                if failures >= self.policy.attempts:
                    kind = UnreachedSourceError if exc.is_unreached else SourceRefusedError
                    raise kind(f"{exc} ({failures} times in a row)") from None
                pause = min(max(exc.wait, self.policy.backoff * 2 ** (failures - 1)), self.policy.longest_wait)
                if partial.size <= before:
                    self._say_once(host_of(source), f"{exc}; trying again")
                if self.stop.wait(pause):
                    raise StoppedError from None
            else:
                return

    def _say_once(self, host: str, message: str) -> None:
        """Report a failure of a host. The files that come from it, and each further try, meet the same failure."""
        if (host, message) not in self._said:
            self._said.add((host, message))
            self.progress.say(f"{host}: {message}")

    def _connect(self, source: str, file: PlannedFile, partial: PartialFile) -> None:
        """Send one request and append its body to `partial`.

        Raises:
            SourceRefusedError: this source will not give the file.
            InterruptedDownload: it may give the rest another time; `partial` keeps what arrived.
        """
        import httpx

        partial.prepare(source)
        url, headers = request_of(source)
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
            if partial.validator:
                headers["If-Range"] = partial.validator
        try:
            with open_file(self._client, url, headers) as response:
                self.has_connected = True
                total = _accept(response, source, file, partial)
                expected = total or file.entry.expected_bytes
                limit = _limit(file.entry) if total is None else None
                pace = Pace(self.policy)
                self.progress.update(file.name, partial.size, expected)
                if total is None or partial.size < total:
                    # `iter_bytes` would unpack .gz files that a server marks with Content-Encoding: gzip.
                    for chunk in response.iter_raw():
                        partial.write(chunk)
                        if limit is not None and partial.size > limit:
                            partial.restart()
                            raise SourceRefusedError(f"sends more than {limit:,} bytes, the limit for this file")
                        self.progress.update(file.name, partial.size, expected)
                        pace.add(len(chunk))
                        if self.stop.is_set():
                            raise StoppedError
        # Subclasses of TransportError that another try would not change come first.
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as exc:
            raise SourceRefusedError(describe(exc)) from exc
        except httpx.TransportError as exc:
            raise failure_of(exc) from exc
        if total is not None and partial.size != total:
            raise InterruptedDownload(f"the body ended after {partial.size:,} of {total:,} bytes")


def _limit(entry: FileEntry) -> int | None:
    """Return how many bytes a body without a stated length may have: one without an end would fill the disk."""
    if entry.bytes and entry.mark == "verified":
        return entry.bytes
    return 2 * entry.expected_bytes if entry.expected_bytes else None


def _accept(response: httpx.Response, source: str, file: PlannedFile, partial: PartialFile) -> int | None:
    """Judge the head of an answer and prepare `partial` for its body; return the size of the whole file, if stated."""
    status = response.status_code
    answered = f"answered {status} {response.reason_phrase}".rstrip()
    if status == 416 and partial.size:
        # The range begins at or behind the end of the file: either everything is here, or it is another file.
        if response.headers.get("Content-Range", "").strip() == f"bytes */{partial.size}":
            return partial.size
        partial.restart()
        raise InterruptedDownload("the server has no such range")
    if status in RETRIED:
        raise InterruptedDownload(answered, wait=_number(response.headers.get("Retry-After", "")) or 0)
    if response.headers.get("X-Error-Code") == "GatedRepo":
        message = f"access must be requested at {source.partition('/resolve/')[0]}, then set HF_TOKEN"
        raise SourceRefusedError(message)
    if status not in (200, 206):
        raise SourceRefusedError(answered)
    coding = response.headers.get("Content-Encoding", "identity").lower()
    # Some servers call the compression that a .gz file has by itself a content encoding.
    if coding != "identity" and not file.name.endswith((".gz", ".tgz")):
        raise SourceRefusedError(f"answered with Content-Encoding {coding}, which cannot be resumed or checked")
    validator = _validator(response)
    if status == 206:
        start, total = _content_range(response)
        # Some servers ignore If-Range and send a part of the new version.
        if start != partial.size or (validator and partial.validator and validator != partial.validator):
            partial.restart()
            raise InterruptedDownload("the file changed at its source")
    else:
        # 200 in answer to a range: the server knows no ranges, or If-Range did not match. The body is the whole file.
        if partial.size:
            partial.restart()
        total = _number(response.headers.get("Content-Length", ""))
    entry = file.entry
    # Refused before the body comes: the other file may be many gigabytes.
    if total is not None and entry.bytes and entry.mark == "verified" and total != entry.bytes:
        raise SourceRefusedError(f"offers {total:,} bytes where {entry.bytes:,} were expected")
    partial.set_version(source, validator)
    return total


def sources_of(name: str, entry: FileEntry, mirror: str | None) -> list[str]:
    """Return the addresses of a file in the order in which they are tried: the mirror first."""
    return [*([f"{mirror.rstrip('/')}/{name}"] if mirror else []), *entry.sources]


def request_of(source: str) -> tuple[str, dict[str, str]]:
    """Return the address that is asked for a source, and the headers of the request."""
    # A body that the server compresses on the way has other offsets than the file: it could not be continued.
    headers = {"Accept-Encoding": "identity"}
    if not source.startswith(HUB):
        return source, headers
    from huggingface_hub.utils import build_hf_headers

    # The library adds the token from HF_TOKEN or from its login; httpx does not pass it on to other hosts.
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    return f"{endpoint}/{source.removeprefix(HUB)}", {**build_hf_headers(library_name="clipbert"), **headers}


def host_of(source: str) -> str:
    """Return the host that is asked for a file: for the Hub, the one that HF_ENDPOINT may name."""
    return urlsplit(request_of(source)[0]).hostname or ""


@dataclass(frozen=True)
class SourceAnswer:
    """The answer of one source about one file. `ok`: it has the file, and its size agrees with the catalogue."""

    source: str
    ok: bool
    answer: str
    bytes: int | None = None


def check_sources(files: Mapping[str, FileEntry]) -> dict[str, list[SourceAnswer]]:
    """Ask every source of every file, without downloading it; return file -> answers in the order of its sources."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = {name: [pool.submit(_ask, source, entry) for source in entry.sources] for name, entry in files.items()}
        return {name: [future.result() for future in futures] for name, futures in asked.items()}


def _ask(source: str, entry: FileEntry) -> SourceAnswer:
    import httpx

    url, headers = request_of(source)
    # One byte of the file and not HEAD, which many servers answer wrongly or not at all.
    headers["Range"] = "bytes=0-0"
    try:
        with new_client(RetryPolicy(connect=10, read=20)) as client, open_file(client, url, headers) as response:
            status, answered = response.status_code, response.headers
    except (SourceRefusedError, httpx.HTTPError, httpx.InvalidURL) as exc:
        return SourceAnswer(source, False, str(exc) if isinstance(exc, SourceRefusedError) else describe(exc))
    if status not in (200, 206):
        return SourceAnswer(source, False, f"{status} {httpx.codes.get_reason_phrase(status)}")
    resumes = status == 206
    stated = answered.get("Content-Range", "").rpartition("/")[2] if resumes else answered.get("Content-Length", "")
    size, answer = _number(stated), f"{status}, {'can resume' if resumes else 'cannot resume'}"
    if size is not None and entry.bytes and size != entry.bytes:
        answer += f"; {size:,} bytes where the catalogue has {entry.bytes:,} ({entry.mark})"
        return SourceAnswer(source, False, answer, size)
    return SourceAnswer(source, True, answer, size)


def _validator(response: httpx.Response) -> str | None:
    """Return the name of this version of the file: a strong ETag, else Last-Modified.

    A weak ETag (W/"...") does not promise equal bytes, and If-Range may not use it (RFC 9110, section 13.1.5).
    """
    tag: str = response.headers.get("ETag", "")
    modified: str | None = response.headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def _content_range(response: httpx.Response) -> tuple[int, int | None]:
    """Return the first byte of a partial answer, and the size of the whole file where it is stated."""
    stated = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stated.strip())
    first = _number(match[1]) if match else None
    if match is None or first is None or (match[2] != "*" and _number(match[2]) is None):
        raise SourceRefusedError(f"answered 206 with Content-Range {excerpt(stated)!r}")
    return first, _number(match[2])


def _number(text: str) -> int | None:
    """Return a whole number from a header; None for anything else. Python makes no integer of thousands of digits."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
