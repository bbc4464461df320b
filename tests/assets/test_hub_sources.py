"""Sources in repositories of the Hugging Face Hub, from a server on this machine that answers as its hosts do."""

import random

import pytest
from fetching import entry

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.fetch import check_sources
from clipbert_cli.errors import DownloadError

COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
BODY = random.Random(2).randbytes(200_000)
ADDRESS = f"/owner/name/resolve/{COMMIT}/file.bin"
SOURCE = f"https://huggingface.co{ADDRESS}"


@pytest.fixture(autouse=True)
def hub(site, monkeypatch):
    """The hub, which sends a request on to the server that stores large files."""
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return site.add(ADDRESS, statuses=[302] * 9, headers={"Location": "/stored"})


def from_hub(*others, **facts):
    return FileEntry.model_validate({"sources": [SOURCE, *others], **facts})


def test_a_file_comes_from_the_hub_with_the_token(site, hub, fetch, target, sha256):
    page = site.add("/stored", BODY)
    fetched = fetch(from_hub(sha256=sha256(BODY), bytes=len(BODY), mark="verified"))
    assert fetched.source == SOURCE
    assert target.read_bytes() == BODY
    assert hub.requests[0][3]["authorization"] == "Bearer hf_secret"
    assert len(page.requests) == 1


def test_a_cut_connection_to_the_hub_is_continued(site, hub, fetch, target):
    page = site.add("/stored", BODY, cuts=[70_000])
    fetch(from_hub())
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, 70_000)
    assert len(hub.requests) == 2  # the address of the stored file may have expired


def test_the_token_goes_to_no_other_source(site, hub, fetch, target):
    hub.statuses = [404]
    good = site.add("/good", BODY)
    assert fetch(from_hub(good.url)).source == good.url
    assert target.read_bytes() == BODY
    assert "authorization" not in {name.lower() for name in good.requests[0][3]}


def test_another_file_than_published_is_refused(site, hub, fetch, target):
    site.add("/stored", BODY)
    with pytest.raises(DownloadError, match="published is 0000"):
        fetch(from_hub(sha256="0" * 64))
    assert not target.exists()


def test_a_closed_repository_says_what_to_do(hub, fetch):
    hub.statuses, hub.headers = [403], {"X-Error-Code": "GatedRepo"}
    message = "access must be requested at https://huggingface.co/owner/name, then set HF_TOKEN"
    with pytest.raises(DownloadError, match=message):
        fetch(from_hub())


def test_a_hub_that_cannot_be_reached_is_reported(fetch, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"huggingface.co/owner/name.*ConnectError"):
        fetch(from_hub())


def test_the_hub_can_be_checked(site, hub):
    site.add("/stored", BODY)
    (answer,) = check_sources({"x/file.bin": from_hub(bytes=len(BODY))})["x/file.bin"]
    assert (answer.ok, answer.answer, answer.bytes) == (True, "206, can resume", len(BODY))
    (answer,) = check_sources({"x/file.bin": entry("http://127.0.0.1:9/x")})["x/file.bin"]
    assert not answer.ok
