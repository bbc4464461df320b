"""Web pages in place of files: Google Drive's question before a large download, its quota and its sign-in pages."""

import threading

import pytest
from fetching import BODY, entry, leftovers

from clipbert_cli.assets import web_page
from clipbert_cli.assets.fetch import check_sources
from clipbert_cli.errors import DownloadError

FIELDS = {"id": "1z0TMsZ41", "export": "download", "confirm": "t", "uuid": "8d2f-4c&b"}


def question(action, fields=FIELDS):
    """The page with which Drive says that a file is too large for its virus scan."""
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{value.replace("&", "&amp;")}">' for name, value in fields.items()
    )
    return f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>
        <meta http-equiv="content-type" content="text/html; charset=utf-8"/></head><body>
        <p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
        <a href="/open?id=1z0TMsZ41">clipbert.pt</a> (849M) is too large. Would you still like to download this file?
        <form id="other" action="/elsewhere"><input type="hidden" name="wrong" value="1"></form>
        <form id="download-form" action="{action}" method="get">
        <input type="submit" id="uc-download-link" value="Download anyway"/>{hidden}</form>
        <input type="hidden" name="after" value="1"></body></html>""".encode()


def page(title):
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body><p>Sorry</p></body></html>".encode()


QUOTA = page("Google Drive - Quota exceeded")
SIGN_IN = page("Google Drive: Sign-in")


@pytest.fixture
def drive(site):
    """A file behind a question; `drive.asked` is the page with the question, `drive.file` the file's."""

    class Drive:
        file = site.add("/download", BODY)
        # Pages that a server makes for each request know no ranges.
        asked = site.add("/uc", question(file.url), content_type="text/html; charset=utf-8", ranges=False)

    return Drive


def test_the_form_leads_to_the_file_with_all_its_fields(drive, fetch, target):
    assert fetch(entry(drive.asked.url + "?export=download&id=1z0TMsZ41")).source.startswith(drive.asked.url)
    assert target.read_bytes() == BODY
    assert drive.file.queries == ["id=1z0TMsZ41&export=download&confirm=t&uuid=8d2f-4c%26b"]
    assert leftovers(target) == []


@pytest.mark.parametrize("action", ["/download", "download?at=APZUnT", "//{host}/download"])
def test_the_forms_address_may_be_relative_and_have_fields_of_its_own(drive, site, fetch, target, action):
    drive.asked.body = question(action.format(host=site.url.partition("//")[2]))
    fetch(entry(drive.asked.url))
    assert target.read_bytes() == BODY
    assert ("at=APZUnT&id=" in drive.file.queries[0]) == ("at=" in action)


def test_a_confirmed_download_continues_where_it_was_cut(drive, fetch, target):
    drive.file.cuts = [1_000_000]
    fetch(entry(drive.asked.url))
    assert target.read_bytes() == BODY
    assert [(status, first) for status, first, _, _ in drive.file.requests] == [(200, 0), (206, 1_000_000)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (QUOTA, "answered with a web page, not the file: 'Google Drive - Quota exceeded'"),
        (SIGN_IN, "answered with a web page, not the file: 'Google Drive: Sign-in'"),
        (page("a\n  b" + "x" * 500), "not the file: 'a b" + "x" * 54 + "...'"),
        (b"<html>\xff\xfe<title>\x1b[31m</title>", "not the file: "),
        (b"<html>", "answered with a web page, not the file"),
    ],
)
@pytest.mark.parametrize("behind_the_question", [False, True])
def test_another_page_is_refused_with_its_title(drive, fetch, target, body, says, behind_the_question):
    refusing = drive.file if behind_the_question else drive.asked
    refusing.body, refusing.content_type = body, "text/html; charset=utf-8"
    with pytest.raises(DownloadError) as caught:
        fetch(entry(drive.asked.url))
    assert says in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not target.exists()
    assert leftovers(target) == []


@pytest.mark.parametrize(
    "action", ["file:///etc/passwd", "javascript:void(0)", "ftp://127.0.0.1/x", "http://", "http://[::1"]
)
def test_a_form_that_leads_to_no_web_address_is_refused(drive, fetch, target, action):
    drive.asked.body = question(action)
    with pytest.raises(DownloadError, match="Virus scan warning"):
        fetch(entry(drive.asked.url))
    assert not target.exists()


def test_a_page_that_asks_again_and_again_is_left(drive, fetch):
    drive.asked.body = question(drive.asked.url)
    with pytest.raises(DownloadError, match="Virus scan warning"):
        fetch(entry(drive.asked.url))
    assert len(drive.asked.requests) == 2


def test_a_page_without_an_end_is_read_in_part(drive, fetch):
    drive.asked.body = page("Endless") + b" " * 20 * web_page.PAGE_BYTES
    drive.asked.states_length = False
    with pytest.raises(DownloadError, match="Endless"):
        fetch(entry(drive.asked.url))
    assert drive.asked.requests[0].sent < len(drive.asked.body)


def test_a_page_that_trickles_is_left_after_a_while(drive, fetch, monkeypatch):
    monkeypatch.setattr(web_page, "PAGE_SECONDS", 0.3)
    drive.asked.body = page("Slow") + b" " * 500_000
    drive.asked.pause = 0.2
    with pytest.raises(DownloadError, match="Slow"):
        fetch(entry(drive.asked.url))
    assert drive.asked.requests[0].sent < len(drive.asked.body)


def test_the_next_source_is_tried(drive, site, fetch):
    drive.asked.body = QUOTA
    copy = site.add("/copy", BODY)
    assert fetch(entry(drive.asked.url, copy.url)).source == copy.url


def test_two_downloads_at_once_are_answered_each(drive, site, fetch, tmp_path):
    other = site.add("/other", BODY[::-1])
    asked = site.add("/uc2", question(other.url), content_type="text/html")
    threads = [
        threading.Thread(target=fetch, args=[entry(url)], kwargs={"name": name})
        for url, name in ((drive.asked.url, "x/one.bin"), (asked.url, "x/two.bin"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x/one.bin").read_bytes() == BODY
    assert (tmp_path / "x/two.bin").read_bytes() == BODY[::-1]


def test_a_check_of_sources_looks_behind_the_question(drive):
    (answer,) = check_sources({"x": entry(drive.asked.url)})["x"]
    assert (answer.ok, answer.answer, answer.bytes) == (True, "206, can resume", len(BODY))
    drive.file.body, drive.file.content_type, drive.file.ranges = QUOTA, "text/html", False
    (answer,) = check_sources({"x": entry(drive.asked.url)})["x"]
    assert (answer.ok, answer.answer) == (
        False,
        "answered with a web page, not the file: 'Google Drive - Quota exceeded'",
    )
