"""Fixtures of the download tests: a server, and a fetch from it."""

import hashlib
import threading

import pytest
from fetching import QUICK
from http_site import Site

from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.fetch import DownloadProgress, Fetcher


@pytest.fixture
def site():
    server = Site()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sha256():
    return lambda data: hashlib.sha256(data).hexdigest()


@pytest.fixture
def fetch(tmp_path):
    fetchers = []

    def run(what, *, name="x/file.bin", target=None, policy=QUICK, mirror=None, progress=None, stop=None):
        progress, stop = progress or DownloadProgress(), stop or threading.Event()
        fetcher = Fetcher(policy=policy, mirror=mirror, progress=progress, stop=stop)
        fetchers.append(fetcher)
        return fetcher.fetch(PlannedFile(name, what, target or tmp_path / name))

    yield run
    for fetcher in fetchers:
        fetcher.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "x/file.bin"
