"""A fetch that is stopped, killed, out of disk or done twice at once leaves no wrong file, and its part goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest
from fetching import BODY, QUICK, entry, leftovers

from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.assets.transfer import Stopped


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
from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.assets.fetch import Policy
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
