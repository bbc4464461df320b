"""Servers that send next to nothing, and machines without a network: one message soon, and what came is kept."""

import subprocess
import sys
import time
from contextlib import suppress

import pytest
from fetching import BODY, entry
from running import can_be_without_network

from clipbert_cli.assets.check_file import SourceRefusedError
from clipbert_cli.assets.connection import Pace, RetryPolicy
from clipbert_cli.errors import DownloadError

SMALL = BODY[:20_000]
POLICY = RetryPolicy(read=5, attempts=3, backoff=0.01, lowest_rate=2000, rate_seconds=0.3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"states_length": False},
        {"ranges": False},
        {"etag": None},
        {"stated_length": 10**15},
        {"crawls": [500]},
    ],
)
def test_a_body_that_crawls_is_left_and_what_came_is_kept(site, fetch, target, options):
    page = site.add("/file", SMALL, **{"crawls": [0], **options})
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"sent \d+ bytes in \d+ seconds, fewer than 2000") as caught:
        fetch(entry(page.url), policy=POLICY)
    assert time.monotonic() - began < 20
    assert len(caught.value.lines) == 2
    assert len(page.requests) == 1
    part = target.with_name("file.bin.part")
    assert SMALL.startswith(part.read_bytes())
    assert part.stat().st_size > 0


def test_the_same_command_continues_what_crawled(site, fetch, target):
    page = site.add("/file", SMALL, crawls=[0])
    with pytest.raises(DownloadError):
        fetch(entry(page.url), policy=POLICY)
    here = target.with_name("file.bin.part").stat().st_size
    fetch(entry(page.url), policy=POLICY)
    assert target.read_bytes() == SMALL
    assert page.requests[-1][:2] == (206, here)


def test_the_next_source_is_tried_after_one_that_crawls(site, fetch, target):
    slow, good = site.add("/slow", SMALL, crawls=[0]), site.add("/good", SMALL)
    assert fetch(entry(slow.url, good.url), policy=POLICY).source == good.url


def test_a_line_that_slows_down_gets_another_connection(site, fetch, target):
    """The first answer is fast, then crawls; the second one gives the rest."""
    page = site.add("/file", BODY[:2_000_000], pause=0.05, crawls=[1_000_000])
    fetch(entry(page.url), policy=POLICY)
    assert target.read_bytes() == BODY[:2_000_000]
    assert [request[0] for request in page.requests] == [200, 206]


@pytest.mark.parametrize("size", [1, 5])
def test_a_few_bytes_per_connection_are_no_progress(site, fetch, target, size):
    page = site.add("/file", SMALL, cuts=[size] * 99)
    with pytest.raises(DownloadError, match="3 times in a row"):
        fetch(entry(page.url), policy=RetryPolicy(attempts=3, backoff=0.01, lowest_rate=2000))
    assert target.with_name("file.bin.part").stat().st_size == 3 * size


def test_the_slowest_lines_in_use_are_fast_enough(monkeypatch):
    """2,400 bit/s in packets of 1,200 bytes, and a second of silence in each ten."""
    clock = [0.0]
    monkeypatch.setattr("clipbert_cli.assets.connection.time.monotonic", lambda: clock[0])
    pace = Pace(RetryPolicy())
    for packet in range(200):
        clock[0] += 5 if packet % 2 else 4
        pace.add(1200)
    pace = Pace(RetryPolicy())
    for _ in range(29):
        clock[0] += 1
        pace.add(1)
    clock[0] += 1
    with pytest.raises(SourceRefusedError, match="sent 30 bytes in 30 seconds, fewer than 100"):
        pace.add(1)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5000},
        {"Content-Length": "-5"},
        {"Content-Length": "²"},
        {"Content-Range": "bytes 0-1/" + "9" * 5000},
        {"Content-Range": "bytes " + "9" * 5000 + "-1/*"},
    ],
)
def test_a_number_in_a_header_that_is_none_is_one_message(site, fetch, target, headers):
    page = site.add("/file", SMALL, states_length=False, headers=headers)
    with suppress(DownloadError):
        fetch(entry(page.url), policy=RetryPolicy(read=1, attempts=2, backoff=0.01))


@pytest.mark.parametrize("files", [1, 4])
def test_a_host_without_a_name_is_not_tried_again(fetch, tmp_path, files):
    began = time.monotonic()
    for number in range(files):
        with pytest.raises(DownloadError, match="ConnectError") as caught:
            fetch(entry("http://no-such-host.invalid/a"), policy=RetryPolicy(), target=tmp_path / f"{number}")
        assert "in a row" not in str(caught.value)
    assert time.monotonic() - began < 10


OFFLINE = """
import sys
from pathlib import Path
from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.errors import DownloadError
for url in sys.argv[2:]:
    entry = FileEntry.model_validate({"sources": [url]})
    try:
        Fetcher().fetch(PlannedFile("x/file.bin", entry, Path(sys.argv[1])))
    except DownloadError as exc:
        print(str(exc).splitlines()[1])
"""


@pytest.mark.skipif(not can_be_without_network(), reason="this user may not make a network namespace")
def test_without_a_network_nothing_is_tried_again(target):
    addresses = ["http://example.org/a", "https://huggingface.co/a", "http://192.0.2.1/a", "http://[2001:db8::1]/a"]
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", OFFLINE, str(target), *addresses, "http://203.0.113.1:8080/a"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - began < 40
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all("in a row" not in line for line in lines)
