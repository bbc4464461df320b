"""Hugging Face's own library against a server on this machine that answers as its hosts do."""

import json
import os
import random
import subprocess
import sys

import pytest

COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
BODY = random.Random(2).randbytes(2_000_000)

SCRIPT = """
import json, sys
from pathlib import Path
from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.assets.fetch import Policy
from clipbert_cli.assets.transfer import Progress
from clipbert_cli.errors import DownloadError

class Listener(Progress):
    count = 0
    def advance(self, name, count):
        self.count += count

progress = Listener()
entry = FileEntry.model_validate(json.loads(sys.argv[1]))
try:
    received = Fetcher(policy=Policy(read=5), progress=progress).fetch("x/file.bin", entry, Path(sys.argv[2]))
except DownloadError as exc:
    print(json.dumps({"error": str(exc)}))
else:
    print(json.dumps({"source": received.source, "sha256": received.sha256, "advanced": progress.count}))
"""


@pytest.fixture
def hub(site, tmp_path):
    """`hub(entry)` fetches in a process whose hub is `site`."""

    def run(sources, environment=None, **facts):
        environment = {
            **os.environ,
            **(environment or {}),
            "HF_ENDPOINT": site.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": "hf_secret",
            "HF_HUB_DISABLE_XET": "1",
        }
        entry = json.dumps({"sources": sources, **facts})
        target = tmp_path / "data/x/file.bin"
        command = [sys.executable, "-c", SCRIPT, entry, str(target)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), target

    return run


def serve(site, body=BODY, path="file.bin", repo="owner/name", **options):
    headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(body)), "X-Linked-Etag": '"v1"'}
    return site.add(f"/{repo}/resolve/{COMMIT}/{path}", body, headers=headers, **options)


SOURCE = {"repo": "owner/name", "path": "file.bin", "revision": COMMIT}


def test_a_file_comes_through_the_library_and_its_cache(site, hub, tmp_path, sha256):
    page = serve(site)
    result, target = hub([SOURCE], sha256=sha256(BODY), bytes=len(BODY), mark="verified")
    assert result == {
        "source": f"hf://owner/name@{COMMIT}/file.bin",
        "sha256": sha256(BODY),
        "advanced": len(BODY),
    }
    assert target.read_bytes() == BODY
    assert any((tmp_path / "hf/hub/models--owner--name").rglob("*"))
    assert page.requests[0][3]["authorization"] == "Bearer hf_secret"
    # A second data folder costs no second download.
    target.unlink()
    asked = len([request for request in page.requests if request[2]])
    result, target = hub([SOURCE], sha256=sha256(BODY))
    assert target.read_bytes() == BODY
    assert len([request for request in page.requests if request[2]]) == asked


def test_a_cut_connection_is_resumed_by_the_library(site, hub, sha256):
    body = BODY * 12  # the library goes on from whole blocks of 10 MiB
    page = serve(site, body)

    def cut_the_first_body(page):
        if len(page.requests) == 1:  # after the HEAD
            page.cuts = [23_000_000]

    page.hook = cut_the_first_body
    _, target = hub([SOURCE], sha256=sha256(body))
    assert target.read_bytes() == body
    assert page.requests[-1][:2] == (206, 20 * 2**20)


def test_an_absent_file_moves_on_to_the_next_source(site, hub, sha256):
    good = site.add("/good", BODY)
    result, target = hub([SOURCE, {"url": good.url}], sha256=sha256(BODY))
    assert result["source"] == good.url
    assert target.read_bytes() == BODY


def test_another_file_than_published_is_refused(site, hub):
    serve(site)
    result, target = hub([SOURCE], sha256="0" * 64)
    assert "published is 0000" in result["error"]
    assert not target.exists()


def test_a_closed_repository_says_what_to_do(site, hub):
    headers = {"X-Error-Code": "GatedRepo", "X-Repo-Commit": COMMIT}
    site.add(f"/owner/name/resolve/{COMMIT}/file.bin", statuses=[403] * 9, headers=headers)
    result, _ = hub([SOURCE])
    assert "access must be requested at https://huggingface.co/owner/name, then set HF_TOKEN" in result["error"]


def test_a_hub_out_of_reach_is_said(hub):
    result, _ = hub([SOURCE], environment={"HF_HUB_OFFLINE": "1"})
    assert "out of reach, and not in the Hugging Face cache" in result["error"]
