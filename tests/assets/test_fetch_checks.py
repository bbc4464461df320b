"""Files that are not the published ones are refused: by checksum, length, content and encoding."""

import pytest
from fetching import BODY, entry, leftovers

from clipbert_cli.errors import DownloadError


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_is_refused(site, fetch, target, kind):
    page = site.add("/file", BODY)
    with pytest.raises(DownloadError, match=f"its {kind} is [0-9a-f]+, published is 0000"):
        fetch(entry(page.url, **{kind: "0" * (64 if kind == "sha256" else 32)}))
    assert not target.exists()
    assert leftovers(target) == []


def test_a_wrong_checksum_moves_on(site, fetch, target, sha256):
    bad, good = site.add("/bad", BODY[::-1]), site.add("/good", BODY)
    assert fetch(entry(bad.url, good.url, sha256=sha256(BODY))).source == good.url
    assert target.read_bytes() == BODY


def test_a_wrong_length_is_refused_before_the_body_where_the_size_is_verified(site, fetch, target):
    page = site.add("/file", BODY)
    with pytest.raises(DownloadError, match="offers 3,000,000 bytes where 5 were expected"):
        fetch(entry(page.url, bytes=5, mark="verified"))
    assert not target.exists()


def test_another_length_is_a_warning_with_both_numbers_where_the_size_is_not_verified(site, fetch, target):
    page = site.add("/file", BODY)
    received = fetch(entry(page.url, bytes=5, mark="single source"))
    assert received.warnings == ("x/file.bin: 3,000,000 bytes where 5 were expected (single source)",)


def test_a_body_shorter_than_its_content_length_is_never_taken(site, fetch, target):
    page = site.add("/file", BODY, stated_length=len(BODY) + 10, ranges=False)
    with pytest.raises(DownloadError, match="body"):
        fetch(entry(page.url))
    assert not target.exists()


def test_a_body_without_a_stated_length_is_checked_by_its_checksum(site, fetch, target, sha256):
    page = site.add("/file", BODY, states_length=False)
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("facts", "limit"),
    [
        ({"bytes": 5, "mark": "verified"}, "5"),
        ({"bytes": 2_999_999, "mark": "verified"}, "2,999,999"),
        ({"bytes": 100, "mark": "single source"}, "200"),
        ({"about_bytes": 1_000_000}, "2,000,000"),
        ({"about_bytes": 1}, "2"),
    ],
)
def test_a_body_without_an_end_is_left_where_the_size_is_known(site, fetch, target, facts, limit):
    page = site.add("/file", BODY, states_length=False)
    with pytest.raises(DownloadError, match=f"sends more than {limit} bytes"):
        fetch(entry(page.url, **facts))
    assert not target.exists()
    assert leftovers(target) == []


PAGES = [b"<!DOCTYPE html><title>Quota exceeded</title>", b"\n <html><body>Sign in</body></html>"]


@pytest.mark.parametrize("body", PAGES)
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("name", ["x/file.zip", "x/file.json"])
def test_a_web_page_is_refused(site, fetch, tmp_path, body, content_type, name):
    bad = site.add("/bad", body, content_type=content_type)
    with pytest.raises(DownloadError, match="web page"):
        fetch(entry(bad.url), name=name)
    good = site.add("/good", b"PK rest")
    assert fetch(entry(bad.url, good.url), name=name).source == good.url
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [name[2:]]


def test_an_encoded_body_is_refused_but_for_names_that_promise_it(site, fetch, tmp_path):
    page = site.add("/file", b"\x1f\x8b...", headers={"Content-Encoding": "gzip"})
    with pytest.raises(DownloadError, match="Content-Encoding gzip"):
        fetch(entry(page.url), name="x/a.json")
    fetch(entry(page.url), name="x/a.tar.gz")
    assert (tmp_path / "x/a.tar.gz").read_bytes() == b"\x1f\x8b..."
