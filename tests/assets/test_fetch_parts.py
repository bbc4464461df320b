"""A download continues where it ended: no byte is sent twice, and bytes of two versions are never joined."""

import random

import pytest
from fetching import BODY, entry, leftovers

from clipbert_cli.assets.connection import RetryPolicy
from clipbert_cli.errors import DownloadError


@pytest.mark.parametrize("facts", ["checksum", "nothing"])
def test_after_a_hundred_cuts_no_byte_was_sent_twice(site, fetch, target, sha256, facts):
    draw = random.Random(7)
    page = site.add("/file", BODY, cuts=[draw.randrange(1, 50_000) for _ in range(100)])
    fetch(entry(page.url, **({"sha256": sha256(BODY)} if facts == "checksum" else {})))
    assert target.read_bytes() == BODY
    assert len(page.requests) == 101
    assert sum(sent for _, _, sent, _ in page.requests) == len(BODY)
    firsts = [first for _, first, _, _ in page.requests]
    assert firsts == sorted(firsts)


def test_a_cut_before_the_first_byte_is_retried(site, fetch, target):
    page = site.add("/file", BODY, cuts=[0, 0])
    fetch(entry(page.url))
    assert target.read_bytes() == BODY


def test_a_source_without_progress_is_given_up_and_the_bytes_stay(site, fetch, target):
    page = site.add("/file", BODY, cuts=[1000, *[0] * 10])
    with pytest.raises(DownloadError, match="3 times in a row"):
        fetch(entry(page.url))
    assert not target.exists()
    assert leftovers(target) == ["file.bin.part", "file.bin.part.json"]
    page.cuts.clear()
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, 1000)
    assert page.requests[-1][3]["If-Range"] == '"v1"'


def test_after_a_stall_the_download_continues_where_it_stopped(site, fetch, target):
    pauses = iter([0.0, 1.0])

    def stall_once(page):
        page.pause = next(pauses, 0.0)

    page = site.add("/file", BODY, cuts=[100_000], hook=stall_once)
    fetch(entry(page.url), policy=RetryPolicy(read=0.2, attempts=3, backoff=0.01))
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_starts_again(site, fetch, target, sha256):
    page = site.add("/file", BODY, ranges=False, cuts=[500_000, 700_000])
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert [request[0] for request in page.requests] == [200, 200, 200]


def test_a_server_that_names_no_version_is_resumed_only_under_a_checksum(site, fetch, target, sha256):
    page = site.add("/file", BODY, etag=None, cuts=[500_000])
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert "Range" not in page.requests[1][3]
    target.unlink()
    page.cuts, page.requests = [500_000], []
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert page.requests[1][:2] == (206, 500_000)


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_bytes_of_two_versions_are_never_joined(site, fetch, target, honours_if_range):
    other = BODY[::-1]

    def change(page):
        if page.requests:
            page.body, page.etag = other, '"v2"'

    page = site.add("/file", BODY, cuts=[1_000_000], hook=change, honours_if_range=honours_if_range)
    fetch(entry(page.url))
    assert target.read_bytes() == other


def test_bytes_of_an_earlier_run_are_not_joined_with_another_version(site, fetch, target):
    page = site.add("/file", BODY, cuts=[1_000_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetch(entry(page.url))
    page.body, page.etag, page.cuts = BODY[::-1], '"v2"', []
    fetch(entry(page.url))
    assert target.read_bytes() == BODY[::-1]


@pytest.mark.parametrize(
    ("part", "answers"),
    [
        (BODY, [(416, len(BODY))]),
        (BODY + b"more", [(416, len(BODY) + 4), (200, 0)]),
        (b"?" * 1000, [(206, 1000), (200, 0)]),
    ],
    ids=["complete", "too long", "something else"],
)
def test_a_partial_file_is_finished_or_starts_again(site, fetch, target, sha256, part, answers):
    page = site.add("/file", BODY)
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(part)
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert [request[:2] for request in page.requests] == answers


def test_with_a_checksum_another_source_continues_the_file(site, fetch, target, sha256):
    bad, good = site.add("/bad", BODY, cuts=[1_000_000, *[0] * 9]), site.add("/good", BODY, etag='"other"')
    fetch(entry(bad.url, good.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert good.requests[0][:2] == (206, 1_000_000)
    assert "If-Range" not in good.requests[0][3]


def test_without_a_checksum_another_source_starts_from_its_first_byte(site, fetch, target):
    bad, good = site.add("/bad", b"x" * 2_000_000, cuts=[1_000_000, *[0] * 9]), site.add("/good", BODY)
    fetch(entry(bad.url, good.url))
    assert target.read_bytes() == BODY
    assert good.requests[0][:2] == (200, 0)
