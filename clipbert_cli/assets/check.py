"""Asks sources whether they answer, with which size and checksum, without downloading: for people with a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clipbert_cli.assets.catalog import FileEntry, Source
from clipbert_cli.assets.fetch import Policy, new_client

PATIENCE = Policy(connect=10, read=20)


@dataclass(frozen=True)
class Answer:
    """What one source said of one file. `good`: it answers, and nothing that it states contradicts the catalogue."""

    source: str
    good: bool
    says: str
    bytes: int | None = None
    checksum: str | None = None


def check_sources(files: Mapping[str, FileEntry]) -> dict[str, list[Answer]]:
    """Every source of every file, eight at a time; file -> answers in the order of its sources."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = {
            name: [pool.submit(_ask_hub if source.repo else _ask, source, entry) for source in entry.sources]
            for name, entry in files.items()
        }
        return {name: [future.result() for future in futures] for name, futures in asked.items()}


def _ask(source: Source, entry: FileEntry) -> Answer:
    """One byte of the file: many servers treat HEAD worse than GET."""
    import httpx

    try:
        with (
            new_client(PATIENCE) as client,
            client.stream("GET", source.url or "", headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as r,
        ):
            status, headers = r.status_code, r.headers
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return Answer(str(source), False, f"{type(exc).__name__}: {exc}".rstrip(": "))
    if status not in (200, 206):
        return Answer(str(source), False, f"{status} {httpx.codes.get_reason_phrase(status)}")
    if headers.get("Content-Type", "").startswith("text/html"):
        return Answer(str(source), False, f"{status}, but a web page")
    stated = headers.get("Content-Range", "").rpartition("/")[2] if status == 206 else headers.get("Content-Length", "")
    resumes = "resumes" if status == 206 else "cannot resume"
    return _judge(source, entry, f"{status}, {resumes}", int(stated) if stated.isdigit() else None, _md5(headers))


def _ask_hub(source: Source, entry: FileEntry) -> Answer:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    address = hf_hub_url(source.repo or "", source.path or "", revision=source.revision, repo_type=source.repo_type)
    try:
        metadata = get_hf_file_metadata(address)
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled) as exc:
        return Answer(str(source), False, (str(exc).strip().splitlines() or [type(exc).__name__])[0])
    tag = metadata.etag or ""
    return _judge(source, entry, "200, resumes", metadata.size, f"sha256:{tag}" if len(tag) == 64 else None)


def _judge(source: Source, entry: FileEntry, says: str, size: int | None, checksum: str | None) -> Answer:
    wrong = []
    if size is not None and entry.bytes and size != entry.bytes:
        wrong.append(f"{size:,} bytes where the catalogue has {entry.bytes:,} ({entry.mark})")
    if checksum:
        kind, _, value = checksum.partition(":")
        published = getattr(entry, kind)
        if published and value != published:
            wrong.append(f"{kind} {value} where the catalogue has {published}")
    return Answer(str(source), not wrong, "; ".join([says, *wrong]), size, checksum)


def _md5(headers: Mapping[str, str]) -> str | None:
    """An md5 that the server states: Google's x-goog-hash, Content-MD5, or a storage ETag that is one."""
    stated = [word.strip() for word in headers.get("x-goog-hash", "").split(",")]
    encoded = next((word[4:] for word in stated if word.startswith("md5=")), headers.get("Content-MD5", ""))
    if encoded:
        return f"md5:{base64.b64decode(encoded).hex()}"
    tag = headers.get("ETag", "").strip('"')
    is_md5 = len(tag) == 32 and set(tag) <= set("0123456789abcdef") and "AmazonS3" in headers.get("Server", "")
    return f"md5:{tag}" if is_md5 else None
