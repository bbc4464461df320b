"""One file over real HTTP: passing faults are retried, others lead to the next source, and every source is named."""

import threading

import pytest
from fetching import BODY, QUICK, entry, leftovers

from clipbert_cli.assets.connection import RetryPolicy
from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.fetch import DownloadProgress, Fetcher
from clipbert_cli.errors import DownloadError


class Listener(DownloadProgress):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def test_a_file_arrives_with_its_facts(site, fetch, target, sha256):
    page = site.add("/file", BODY)
    received = fetch(entry(page.url, bytes=len(BODY), sha256=sha256(BODY), mark="verified"))
    assert target.read_bytes() == BODY
    assert (received.source, received.bytes, received.sha256) == (page.url, len(BODY), sha256(BODY))
    assert leftovers(target) == []


def test_a_file_that_is_there_is_not_requested_again(site, fetch, target):
    page = site.add("/file", BODY)
    fetch(entry(page.url))
    assert fetch(entry(page.url)) is None
    assert len(page.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 451])
def test_a_refusal_moves_on_at_once(site, fetch, target, status):
    bad, good = site.add("/bad", BODY, statuses=[status] * 9), site.add("/good", BODY)
    progress = Listener()
    received = fetch(entry(bad.url, good.url), progress=progress)
    assert received.source == good.url
    assert target.read_bytes() == BODY
    assert len(bad.requests) == 1
    assert f"answered {status}" in progress.said[0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_fault_is_retried_at_the_same_source(site, fetch, target, status):
    page = site.add("/file", BODY, statuses=[status, status])
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert [request[0] for request in page.requests] == [status, status, 200]


def test_a_fault_that_stays_moves_on(site, fetch, target):
    bad, good = site.add("/bad", BODY, statuses=[503] * 9), site.add("/good", BODY)
    assert fetch(entry(bad.url, good.url)).source == good.url
    assert len(bad.requests) == QUICK.attempts


def test_retry_after_is_waited_for(site, fetch, target):
    page = site.add("/file", BODY, statuses=[503], headers={"Retry-After": "1"})
    with pytest.MonkeyPatch.context() as patch:
        waits = []
        stop = threading.Event()
        patch.setattr(stop, "wait", lambda seconds: waits.append(seconds))
        fetch(entry(page.url), stop=stop)
    assert waits[0] == 1


def test_a_silent_server_is_left_after_the_time_limit(site, fetch, target):
    silent, good = site.add("/silent", BODY, stall=9), site.add("/good", BODY)
    assert fetch(entry(silent.url, good.url), policy=RetryPolicy(read=0.1, attempts=2, backoff=0.01)).source == good.url
    assert len(silent.requests) == 2


def test_a_slow_server_is_waited_for(site, fetch, target):
    page = site.add("/file", BODY[:400_000], pause=0.05)
    fetch(entry(page.url))
    assert target.read_bytes() == BODY[:400_000]
    assert len(page.requests) == 1


def test_a_closed_port_moves_on_to_the_next_source(site, fetch, target):
    good = site.add("/good", BODY)
    assert fetch(entry("http://127.0.0.1:9/file", good.url)).source == good.url


def test_a_redirect_is_followed(site, fetch, target):
    page = site.add("/file", BODY, cuts=[1000])
    site.add("/old", statuses=[302, 302], headers={"Location": page.url})
    fetch(entry(site.url + "/old"))
    assert target.read_bytes() == BODY
    assert page.requests[1][:2] == (206, 1000)


def test_a_mirror_comes_first_and_the_rest_after_it(site, fetch, target):
    page = site.add("/file", BODY)
    assert fetch(entry(page.url), mirror=f"{site.url}/mirror/").source == page.url
    assert site.missing == ["/mirror/x/file.bin"]
    target.unlink()
    mirrored = site.add("/mirror/x/file.bin", BODY)
    assert fetch(entry(page.url), mirror=f"{site.url}/mirror").source == mirrored.url


def test_every_source_is_named_when_none_gives_the_file(site, fetch, target):
    bad = site.add("/bad", statuses=[409] * 9)
    with pytest.raises(DownloadError) as caught:
        fetch(entry(bad.url, site.url + "/none"))
    assert str(caught.value).splitlines() == [
        "x/file.bin: no source gave the file",
        f"  {bad.url}: answered 409 Conflict",
        f"  {site.url}/none: answered 404 Not Found",
    ]


@pytest.mark.parametrize("files", [1, 3])
def test_without_a_network_no_host_is_tried_again(tmp_path, files):
    """Each host, each file and each further try would meet the same failure."""
    listener = Listener()
    fetcher = Fetcher(policy=QUICK, progress=listener)
    for number in range(files):
        with pytest.raises(DownloadError, match="Connection refused"):
            fetcher.fetch(
                PlannedFile(f"x/{number}.bin", entry("http://localhost:9/a", "http://127.0.0.1:9/a"), tmp_path / "f")
            )
    fetcher.close()
    assert listener.said == []


def test_hosts_that_cannot_be_reached_are_reported_where_another_host_answers(site, tmp_path):
    listener = Listener()
    fetcher = Fetcher(policy=QUICK, progress=listener)
    page = site.add("/file", BODY)
    fetcher.fetch(PlannedFile("x/0.bin", entry(page.url), tmp_path / "first"))
    fetcher.fetch(
        PlannedFile("x/1.bin", entry("http://localhost:9/a", "http://no-such-host.invalid/a", page.url), tmp_path / "f")
    )
    fetcher.close()
    assert [message.split("; ")[-1] for message in listener.said] == ["trying again", *["trying the next source"] * 2]
    assert "3 times in a row" in listener.said[1]
    assert "no-such-host.invalid" in listener.said[-1]
