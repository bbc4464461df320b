"""The HTTP client of downloads, how patient they are, and which failures of a connection another try may not meet."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from clipbert_cli.assets.check_file import SourceRefusedError
from clipbert_cli.errors import DownloadError, with_causes

if TYPE_CHECKING:
    import httpx


class Unreached(StrEnum):
    """Why no connection to a host was made."""

    NO_NETWORK = "this machine has no network"
    NO_NAME = "its name was not found"
    NO_ANSWER = "it did not answer"


class UnreachedSourceError(SourceRefusedError):
    """No connection to the host of a source was made."""

    def __init__(self, message: str, why: Unreached) -> None:
        super().__init__(message)
        self.why = why


class UnreachedError(DownloadError):
    """No connection to any host that may have a file was made; `hosts` says why."""

    def __init__(self, message: Sequence[str], hosts: Mapping[str, Unreached]) -> None:
        super().__init__(message)
        self.hosts = hosts


class InterruptedDownload(Exception):  # noqa: N818
    """The connection ended early or was never made; the same source may continue after `wait` seconds.

    Args:
        unreached: why no connection was made, so that other files of this host would not come either.
    """

    def __init__(self, message: str, *, wait: float = 0.0, unreached: Unreached | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        self.unreached = unreached


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


_NO_ROUTE = (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def failure_of(exc: httpx.TransportError) -> UnreachedSourceError | InterruptedDownload:
    """Return what a failure of the connection means: another try may help, or none will.

    No other try helps where the host's name does not exist or this machine has no network.
    """
    import httpx

    message = describe(exc)
    cause = next((link for link in with_causes(exc) if isinstance(link, OSError)), None)
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return UnreachedSourceError(message, Unreached.NO_NAME)
    is_without_route = isinstance(cause, socket.gaierror) or getattr(cause, "errno", 0) in _NO_ROUTE
    if is_without_route and not _has_network():
        return UnreachedSourceError(f"{message}; {Unreached.NO_NETWORK}", Unreached.NO_NETWORK)
    if not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return InterruptedDownload(message)
    is_unnamed = isinstance(cause, socket.gaierror)
    return InterruptedDownload(message, unreached=Unreached.NO_NAME if is_unnamed else Unreached.NO_ANSWER)


def _has_network() -> bool:
    """Return whether this machine has a route to other machines. Nothing is sent."""
    # Addresses that are reserved for documentation: a UDP socket that connects to them only looks up the route.
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
        except OSError:
            continue
        return True
    return False
