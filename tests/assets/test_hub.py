"""Hugging Face's own library against a server on this machine that answers as its hosts do."""

import json
import os
import random
import subprocess
import sys

import pytest
from http_site import Site

COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
BODY = random.Random(2).randbytes(2_000_000)

SCRIPT = """
import json, sys
from pathlib import Path
from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.fetch import Fetcher, RetryPolicy
from clipbert_cli.assets.transfer import DownloadProgress
from clipbert_cli.errors import DownloadError

class Listener(DownloadProgress):
    count = 0
    def advance(self, name, count):
        self.count += count

for line in sys.stdin:
    entry, target = json.loads(line)
    file = PlannedFile("x/file.bin", FileEntry.model_validate(entry), Path(target))
    progress = Listener()
    try:
        fetched = Fetcher(policy=RetryPolicy(read=5), progress=progress).fetch(file)
        result = {"source": fetched.source, "sha256": fetched.sha256, "advanced": progress.count}
    except DownloadError as exc:
        result = {"error": str(exc)}
    print(json.dumps(result), flush=True)
"""


@pytest.fixture(scope="module")
def site():
    server = Site()
    yield server
    server.close()


def start(site, cache, **environment):
    """Start a process that downloads: the library reads its settings when it is imported."""
    names = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    environment = {
        **{name: value for name, value in os.environ.items() if name.upper() not in names},
        **environment,
        "HF_ENDPOINT": site.url,
        "HF_HOME": str(cache),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def process(site, cache):
    with start(site, cache) as process:
        yield process
    assert process.returncode == 0


@pytest.fixture
def hub(process, tmp_path):
    """`hub(sources, **facts)` downloads a file in the process; returns the result and the target."""

    def run(sources, process=process, **facts):
        target = tmp_path / "data/x/file.bin"
        process.stdin.write(json.dumps([{"sources": sources, **facts}, str(target)]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline()), target

    return run


def serve(site, repo, body=BODY, **options):
    headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(body)), "X-Linked-Etag": '"v1"'}
    return site.add(f"/{repo}/resolve/{COMMIT}/file.bin", body, headers=headers, **options)


def source(repo):
    """A source of the catalogue. Each test has its own repository, since the library's cache is shared."""
    return {"repo": repo, "path": "file.bin", "revision": COMMIT}


def test_a_file_comes_through_the_library_and_its_cache(site, hub, cache, sha256):
    page = serve(site, "owner/name")
    result, target = hub([source("owner/name")], sha256=sha256(BODY), bytes=len(BODY), mark="verified")
    assert result == {
        "source": f"hf://owner/name@{COMMIT}/file.bin",
        "sha256": sha256(BODY),
        "advanced": len(BODY),
    }
    assert target.read_bytes() == BODY
    assert any((cache / "hub/models--owner--name").rglob("*"))
    assert page.requests[0][3]["authorization"] == "Bearer hf_secret"
    # A second data folder costs no second download.
    target.unlink()
    asked = len([request for request in page.requests if request[2]])
    result, target = hub([source("owner/name")], sha256=sha256(BODY))
    assert target.read_bytes() == BODY
    assert len([request for request in page.requests if request[2]]) == asked


def test_a_cut_connection_is_resumed_by_the_library(site, hub, sha256):
    body = BODY * 12  # the library goes on from whole blocks of 10 MiB
    page = serve(site, "owner/cut", body)

    def cut_the_first_body(page):
        if len(page.requests) == 1:  # after the HEAD
            page.cuts = [23_000_000]

    page.hook = cut_the_first_body
    _, target = hub([source("owner/cut")], sha256=sha256(body))
    assert target.read_bytes() == body
    assert page.requests[-1][:2] == (206, 20 * 2**20)


def test_an_absent_file_moves_on_to_the_next_source(site, hub, sha256):
    good = site.add("/good", BODY)
    result, target = hub([source("owner/absent"), {"url": good.url}], sha256=sha256(BODY))
    assert result["source"] == good.url
    assert target.read_bytes() == BODY


def test_another_file_than_published_is_refused(site, hub):
    serve(site, "owner/other")
    result, target = hub([source("owner/other")], sha256="0" * 64)
    assert "published is 0000" in result["error"]
    assert not target.exists()


def test_a_closed_repository_says_what_to_do(site, hub):
    headers = {"X-Error-Code": "GatedRepo", "X-Repo-Commit": COMMIT}
    site.add(f"/owner/gated/resolve/{COMMIT}/file.bin", statuses=[403] * 9, headers=headers)
    result, _ = hub([source("owner/gated")])
    assert "access must be requested at https://huggingface.co/owner/gated, then set HF_TOKEN" in result["error"]


def test_a_hub_that_cannot_be_reached_is_reported(site, hub, tmp_path):
    with start(site, tmp_path / "hf", HF_HUB_OFFLINE="1") as process:
        result, _ = hub([source("owner/name")], process)
    assert "cannot be reached, and not in the Hugging Face cache" in result["error"]
