"""One public file from the first source that really has it: resumed, checked, whole or absent.

    sources, in order ── 403 404 409 410 …, wrong length, wrong checksum, a web page ──► the next source
          │  ▲
          │  └── time limit, 5xx, connection cut: wait, then go on where it stopped (Range + If-Range)
          ▼
    NAME.part + NAME.part.json ──► size and checksum ──► rename to NAME

`NAME.part.json` says which address the part came from and which version of the file it was (ETag or Last-Modified), so
that two versions are never spliced. A part is only continued under the same version, or where a published checksum
would show the splice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clipbert_cli.assets.catalog import FileEntry, Source
from clipbert_cli.assets.check_file import Received, WrongContent, check_content, check_file
from clipbert_cli.assets.partial_file import Part
from clipbert_cli.assets.transfer import Progress, Refused, Stopped, locked
from clipbert_cli.errors import DownloadError
from clipbert_cli.files import link_or_copy

if TYPE_CHECKING:
    import httpx

RETRIED = {408, 425, 429, *range(500, 600)}


class _Interrupted(Exception):  # noqa: N818
    """The connection ended early or never began; the same source may go on."""


@dataclass(frozen=True)
class Policy:
    """How patient a download is. Seconds; `attempts` counts failures in a row without one new byte."""

    connect: float = 15.0
    read: float = 60.0
    attempts: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0


@dataclass
class Fetcher:
    """Fetches files with one HTTP client, which is safe to share between threads."""

    progress: Progress = field(default_factory=Progress)
    policy: Policy = field(default_factory=Policy)
    mirror: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._client = new_client(self.policy)

    def close(self) -> None:
        self._client.close()

    def fetch(
        self,
        name: str,
        entry: FileEntry,
        target: Path,
        *,
        unless: Callable[[], bool] = lambda: False,
        record: Callable[[Received], None] = lambda received: None,
    ) -> Received | None:
        """Bring `target` about; None where it is already here, or where `unless`, asked under the file's lock, is true.

        `record` is told of the file just before it gets its name: no file is ever here without its record.

        Raises:
            DownloadError: no source gave the file as published; says what each of them did.
            OSError: the disk is full or not writable; the part stays for the next try.
            Stopped: the person interrupted.
        """
        with locked(target, self.stop):
            if target.exists() or unless():
                return None
            failures = []
            for source in sources_of(name, entry, self.mirror):
                try:
                    received = self._fetch_from(source, name, entry, target, record)
                except Refused as exc:
                    failures.append(f"{source}: {exc}")
                    self.progress.say(f"{name}: {failures[-1]}")
                else:
                    return received
                finally:
                    self.progress.end(name)
        tried = "".join(f"\n  {failure}" for failure in failures) or "\n  the catalogue knows no source"
        raise DownloadError(f"{name}: no source gave the file{tried}")

    def _fetch_from(
        self, source: Source, name: str, entry: FileEntry, target: Path, record: Callable[[Received], None]
    ) -> Received:
        if source.url:
            part = Part(target)
            try:
                self._download(source.url, name, entry, part)
                warnings = check_content(name, entry, part.size, part.digests(), part.path)
                received = Received(str(source), part.size, part.digests()["sha256"], warnings)
                record(received)
                part.finish()
            except WrongContent as exc:
                part.discard()
                raise Refused(str(exc)) from None
            finally:
                part.close()
            return received
        from clipbert_cli.assets.hub import download_from_hub

        path = download_from_hub(source, name, self.progress)
        try:
            received = check_file(name, entry, path, self.stop, source=str(source))
        except WrongContent as exc:
            raise Refused(str(exc)) from None
        record(received)
        link_or_copy(path, target)
        return received

    def _download(self, url: str, name: str, entry: FileEntry, part: Part) -> None:
        """All bytes of `url` into `part`, over as many connections as it takes."""
        part.expect(url, checksum_known=bool(entry.sha256 or entry.md5))
        inherited = part.size > 0
        failures = 0
        while True:
            if self.stop.is_set():
                raise Stopped
            before = part.size
            try:
                self._connection(url, name, entry, part)
            except _Interrupted as exc:
                failures = 1 if part.size > before else failures + 1
                if failures >= self.policy.attempts:
                    raise Refused(f"{exc} ({failures} times in a row)") from None
                pause = min(self.policy.backoff * 2 ** (failures - 1), self.policy.longest_wait)
                if part.size == before:
                    self.progress.say(f"{name}: {exc}; again in {pause:.0f} s")
                if self.stop.wait(pause):
                    raise Stopped from None
            else:
                if not inherited or _right(name, entry, part):
                    return
                # What an earlier run left does not belong to this file: once more, from the first byte.
                self.progress.say(f"{name}: what was here before is not part of this file; starting again")
                part.restart()
                inherited, failures = False, 0

    def _connection(self, url: str, name: str, entry: FileEntry, part: Part) -> None:
        """One request and its body.

        Raises:
            Refused: this source will not give the file.
            _Interrupted: it may, another time; `part` keeps what came.
        """
        import httpx

        headers = {"Accept-Encoding": "identity"}
        if not part.resumable:
            part.restart()
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.validator:
                headers["If-Range"] = part.validator
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                total = self._admit(response, url, name, entry, part)
                self.progress.begin(name, total or entry.expected_bytes, part.size)
                if total is None or part.size < total:
                    for chunk in response.iter_raw():
                        part.write(chunk)
                        self.progress.advance(name, len(chunk))
                        if self.stop.is_set():
                            raise Stopped
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as exc:
            raise Refused(_words(exc)) from exc
        except httpx.TransportError as exc:
            raise _Interrupted(_words(exc)) from exc
        if total is not None and part.size != total:
            raise _Interrupted(f"the body ended after {part.size:,} of {total:,} bytes")

    def _admit(self, response: httpx.Response, url: str, name: str, entry: FileEntry, part: Part) -> int | None:
        """Judge the answer's head and make `part` ready for its body; the file's whole size, None where not stated."""
        status = response.status_code
        if status == 416:
            total = _total_of(response)
            if part.size and total == part.size:
                return total
            if part.size:
                part.restart()
                raise _Interrupted("the server has no such range: starting again")
        if status in RETRIED:
            wait = response.headers.get("Retry-After", "")
            if wait.isdigit() and self.stop.wait(min(int(wait), self.policy.longest_wait)):
                raise Stopped
            raise _Interrupted(f"answered {status} {response.reason_phrase}".rstrip())
        if status not in (200, 206):
            raise Refused(f"answered {status} {response.reason_phrase}".rstrip())
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise Refused("answered with a web page, not the file")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding != "identity" and not name.endswith((".gz", ".tgz")):
            raise Refused(f"answered with Content-Encoding {coding}, which cannot be resumed or checked")
        validator = _validator(response)
        length = response.headers.get("Content-Length")
        if status == 206:
            start, total = _range_of(response)
            if start != part.size or (validator and part.validator and validator != part.validator):
                part.restart()
                raise _Interrupted("the file changed at its source: starting again")
        else:
            if part.size:
                part.restart()
            total = int(length) if length and length.isdigit() else None
        if total is not None and entry.bytes and entry.mark == "verified" and total != entry.bytes:
            raise Refused(f"offers {total:,} bytes where {entry.bytes:,} were expected")
        part.came_from(url, validator)
        return total


def sources_of(name: str, entry: FileEntry, mirror: str | None) -> list[Source]:
    """Where a file is looked for, in order."""
    mirrored = [Source(url=f"{mirror.rstrip('/')}/{name}")] if mirror else []
    return [*mirrored, *entry.sources]


def new_client(policy: Policy) -> httpx.Client:
    """The HTTP client of downloads and checks; proxies and certificates come from the environment."""
    import httpx

    from clipbert_cli import __version__

    return httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(policy.read, connect=policy.connect),
        headers={"User-Agent": f"clipbert/{__version__}"},
    )


def _right(name: str, entry: FileEntry, part: Part) -> bool:
    try:
        check_content(name, entry, part.size, part.digests(), part.path)
    except WrongContent:
        return False
    return True


def _validator(response: httpx.Response) -> str | None:
    """What names this version of the file: a strong ETag, else Last-Modified."""
    tag: str = response.headers.get("ETag", "")
    modified: str | None = response.headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def _range_of(response: httpx.Response) -> tuple[int, int | None]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        raise Refused(f"answered 206 with Content-Range {response.headers.get('Content-Range')!r}")
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _total_of(response: httpx.Response) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else None


def _words(exc: Exception) -> str:
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
