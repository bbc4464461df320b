"""One file over real HTTP, with everything that goes wrong on the way."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.fetch import Fetcher, Policy, Progress
from clipbert_cli.assets.files import Stopped
from clipbert_cli.errors import DownloadError

QUICK = Policy(connect=2, read=0.5, attempts=3, backoff=0.01)
BODY = random.Random(1).randbytes(3_000_000)


class Listener(Progress):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def entry(*urls, **facts):
    return FileEntry.model_validate({"sources": [{"url": url} for url in urls], **facts})


@pytest.fixture
def fetch(tmp_path):
    fetchers = []

    def run(what, *, name="x/file.bin", target=None, policy=QUICK, mirror=None, progress=None, stop=None):
        fetcher = Fetcher(policy=policy, mirror=mirror, progress=progress or Progress(), stop=stop or threading.Event())
        fetchers.append(fetcher)
        return fetcher.fetch(name, what, target or tmp_path / name)

    yield run
    for fetcher in fetchers:
        fetcher.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "x/file.bin"


def leftovers(target):
    return sorted(path.name for path in target.parent.glob(target.name + "*") if path != target)


def test_a_file_arrives_with_its_facts(site, fetch, target, sha256):
    page = site.add("/file", BODY)
    received = fetch(entry(page.url, bytes=len(BODY), sha256=sha256(BODY), mark="verified"))
    assert target.read_bytes() == BODY
    assert (received.source, received.bytes, received.sha256) == (page.url, len(BODY), sha256(BODY))
    assert leftovers(target) == []


def test_a_file_that_is_here_is_not_asked_for_again(site, fetch, target):
    page = site.add("/file", BODY)
    fetch(entry(page.url))
    assert fetch(entry(page.url)) is None
    assert len(page.requests) == 1


@pytest.mark.parametrize("facts", ["checksum", "nothing"])
def test_a_hundred_cuts_cost_no_byte_twice(site, fetch, target, sha256, facts):
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


def test_it_gives_up_on_a_source_without_progress_and_keeps_the_part(site, fetch, target):
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
    assert fetch(entry(silent.url, good.url), policy=Policy(read=0.1, attempts=2, backoff=0.01)).source == good.url
    assert len(silent.requests) == 2


def test_a_slow_server_is_waited_for(site, fetch, target):
    page = site.add("/file", BODY[:400_000], pause=0.05)
    fetch(entry(page.url))
    assert target.read_bytes() == BODY[:400_000]
    assert len(page.requests) == 1


def test_a_stall_in_the_body_goes_on_where_it_stopped(site, fetch, target):
    pauses = iter([0.0, 1.0])

    def stall_once(page):
        page.pause = next(pauses, 0.0)

    page = site.add("/file", BODY, cuts=[100_000], hook=stall_once)
    fetch(entry(page.url), policy=Policy(read=0.2, attempts=3, backoff=0.01))
    assert target.read_bytes() == BODY


def test_nobody_listening_moves_on(site, fetch, target):
    good = site.add("/good", BODY)
    assert fetch(entry("http://127.0.0.1:9/file", good.url)).source == good.url


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
def test_a_file_that_changes_between_the_parts_is_not_spliced(site, fetch, target, honours_if_range):
    other = BODY[::-1]

    def change(page):
        if page.requests:
            page.body, page.etag = other, '"v2"'

    page = site.add("/file", BODY, cuts=[1_000_000], hook=change, honours_if_range=honours_if_range)
    fetch(entry(page.url))
    assert target.read_bytes() == other


def test_a_part_of_another_run_is_not_spliced_either(site, fetch, target):
    page = site.add("/file", BODY, cuts=[1_000_000, 0, 0, 0])
    with pytest.raises(DownloadError):
        fetch(entry(page.url))
    page.body, page.etag, page.cuts = BODY[::-1], '"v2"', []
    fetch(entry(page.url))
    assert target.read_bytes() == BODY[::-1]


def test_a_part_that_is_whole_already_is_done(site, fetch, target, sha256):
    page = site.add("/file", BODY)
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(BODY)
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert [request[0] for request in page.requests] == [416]


def test_a_part_that_is_too_long_starts_again(site, fetch, target, sha256):
    page = site.add("/file", BODY)
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(BODY + b"more")
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert [request[0] for request in page.requests] == [416, 200]


def test_a_part_of_something_else_starts_again(site, fetch, target, sha256):
    page = site.add("/file", BODY)
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(b"?" * 1000)
    fetch(entry(page.url, sha256=sha256(BODY)))
    assert target.read_bytes() == BODY
    assert [request[:2] for request in page.requests] == [(206, 1000), (200, 0)]


def test_a_part_goes_on_at_another_source_under_a_checksum(site, fetch, target, sha256):
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


@pytest.mark.parametrize("name", ["x/a.zip", "x/a.tar.gz"])
def test_what_is_no_archive_is_refused(site, fetch, tmp_path, name):
    with pytest.raises(DownloadError, match=r"it is no \.(zip|gz) file"):
        fetch(entry(site.add("/file", b"Quota exceeded").url), name=name)


def test_an_encoded_body_is_refused_but_for_names_that_promise_it(site, fetch, tmp_path):
    page = site.add("/file", b"\x1f\x8b...", headers={"Content-Encoding": "gzip"})
    with pytest.raises(DownloadError, match="Content-Encoding gzip"):
        fetch(entry(page.url), name="x/a.json")
    fetch(entry(page.url), name="x/a.tar.gz")
    assert (tmp_path / "x/a.tar.gz").read_bytes() == b"\x1f\x8b..."


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


def test_a_stop_leaves_a_part_that_goes_on(site, fetch, target, eventually):
    page = site.add("/file", BODY, pause=0.02)
    stop = threading.Event()
    raised = []

    def run():
        try:
            fetch(entry(page.url), stop=stop)
        except Stopped as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    part = target.with_name("file.bin.part")
    eventually(lambda: part.exists() and part.stat().st_size > 200_000)
    stop.set()
    thread.join(5)
    assert raised
    assert not thread.is_alive()
    here = part.stat().st_size
    page.pause = 0
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, here)


def test_two_threads_fetch_one_file_once(site, fetch, target):
    page = site.add("/file", BODY, pause=0.005)
    threads = [threading.Thread(target=fetch, args=(entry(page.url),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert target.read_bytes() == BODY
    assert len(page.requests) == 1
    assert leftovers(target) == []


def _fetch_in_process(url, target):
    Fetcher(policy=QUICK).fetch("x/file.bin", entry(url), target)


def test_two_processes_fetch_one_file_once(site, target):
    page = site.add("/file", BODY, pause=0.005)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch_in_process, args=(page.url, target)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert target.read_bytes() == BODY
    assert len(page.requests) == 1
    assert leftovers(target) == []


SCRIPT = """
import sys
from pathlib import Path
from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.fetch import Fetcher, Policy
entry = FileEntry.model_validate({"sources": [{"url": sys.argv[1]}]})
Fetcher(policy=Policy(read=5)).fetch("x/file.bin", entry, Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_a_part_that_goes_on(site, target, eventually):
    """Killed three times; the fourth process ends it, and no byte was sent twice beyond what was on its way."""
    page = site.add("/file", BODY, pause=0.03)
    part = target.with_name("file.bin.part")
    for round_ in range(1, 4):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, page.url, str(target)])
        eventually(lambda mark=round_ * 400_000: part.exists() and part.stat().st_size > mark)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
    here = part.stat().st_size
    page.pause = 0
    subprocess.run([sys.executable, "-c", SCRIPT, page.url, str(target)], check=True)
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, here)
    assert leftovers(target) == []


def test_a_full_disk_is_said_and_the_part_stays(site, target):
    """A file size limit of the process is what every user can set; the write fails as on a full disk."""
    page = site.add("/file", BODY)
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))\n"
        f"try:\n{''.join('    ' + line + chr(10) for line in SCRIPT.strip().splitlines())}"
        "except OSError as exc:\n    sys.exit(f'{exc.errno}')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, page.url, str(target)], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.strip() == "27"  # EFBIG
    assert not target.exists()
    assert target.with_name("file.bin.part").stat().st_size == 1_000_000
    subprocess.run([sys.executable, "-c", SCRIPT, page.url, str(target)], check=True)
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, 1_000_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk_is_said_and_the_part_stays(site, fetch, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        page = site.add("/file", BODY)
        with pytest.raises(OSError, match="No space left"):
            fetch(entry(page.url), target=disk / "x/file.bin")
        assert 900_000 < (disk / "x/file.bin.part").stat().st_size < 1_100_000
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        fetch(entry(page.url), target=disk / "x/file.bin")
        assert (disk / "x/file.bin").read_bytes() == BODY
        assert page.requests[-1][0] == 206
    finally:
        subprocess.run(["umount", str(disk)], check=True)
