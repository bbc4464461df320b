"""The HTTP client of downloads, how patient they are, and which failures of a connection another try may not meet."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipbert_cli.assets.check_file import SourceRefusedError
from clipbert_cli.errors import DownloadError, with_causes

if TYPE_CHECKING:
    import httpx


class UnreachedSourceError(SourceRefusedError):
    """No connection to the host of a source was made."""


class UnreachedError(DownloadError):
    """No connection to any of the `hosts` that may have a file was made."""

    def __init__(self, message: Sequence[str], hosts: Sequence[str]) -> None:
        super().__init__(message)
        self.hosts = hosts


class InterruptedDownload(Exception):  # noqa: N818
    """The connection ended early or was never made; the same source may continue after `wait` seconds.

    `is_unreached` says that no connection was made.
    """

    def __init__(self, message: str, *, wait: float = 0.0, is_unreached: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.is_unreached = is_unreached


@dataclass(frozen=True)
class RetryPolicy:
    """The patience of a download; times are in seconds.

    Args:
        attempts: failures in a row between which bytes did not arrive at `lowest_rate`.
        lowest_rate: bytes per second below which a body is left, as a mean over `rate_seconds`. The slowest lines in
            use, such as a satellite telephone of 2,400 bit/s, have 300. At less than 100 a megabyte takes three hours:
            such a server is out of order, or wants to occupy the command for ever.
    """

    connect: float = 15.0
    read: float = 60.0
    attempts: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0
    lowest_rate: float = 100.0
    rate_seconds: float = 30.0


class Pace:
    """The rate at which the body of one answer comes.

    A body that is too slow from its beginning is refused. One that slows down later gets another connection: the line
    may have failed for a moment, and the next source may have another version, which cannot continue what came.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._was_fast = False
        self._since, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            SourceRefusedError, InterruptedDownload: they come too slowly.
        """
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < self._policy.rate_seconds:
            return
        if self._bytes < seconds * self._policy.lowest_rate:
            message = (
                f"sent {self._bytes:,} bytes in {seconds:.0f} seconds, fewer than "
                f"{self._policy.lowest_rate:.0f} bytes per second"
            )
            raise InterruptedDownload(message) if self._was_fast else SourceRefusedError(message)
        self._was_fast = True
        self._since, self._bytes = time.monotonic(), 0


def new_client(policy: RetryPolicy) -> httpx.Client:
    """Return the HTTP client of downloads and checks. Proxies and certificates come from the environment."""
    import httpx

    from clipbert_cli import __version__

    return httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(policy.read, connect=policy.connect),
        headers={"User-Agent": f"clipbert/{__version__}"},
    )


def describe(exc: Exception) -> str:
    """Return the kind of an error and, where it has one, its message."""
    return f"{type(exc).__name__}: {exc}".removesuffix(": ")


def failure_of(exc: httpx.TransportError) -> UnreachedSourceError | InterruptedDownload:
    """Return what a failure of the connection means: another try may help or, where the host has no name, none will."""
    import httpx

    cause = next((link for link in with_causes(exc) if isinstance(link, socket.gaierror)), None)
    if cause is not None and cause.errno == socket.EAI_NONAME:
        return UnreachedSourceError(describe(exc))
    never_made = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
    return InterruptedDownload(describe(exc), is_unreached=isinstance(exc, never_made))
