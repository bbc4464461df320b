"""A download that is stopped, killed or out of disk space leaves no wrong file, and the next one continues it."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from fetching import BODY, entry, leftovers
from running import eventually

from clipbert_cli.assets.check_file import StoppedError


def test_a_stopped_download_is_continued(site, fetch, target):
    page = site.add("/file", BODY, pause=0.02)
    stop = threading.Event()
    raised = []

    def run():
        try:
            fetch(entry(page.url), stop=stop)
        except StoppedError as exc:
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


SCRIPT = """
import sys
from pathlib import Path
from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.download_plan import PlannedFile
from clipbert_cli.assets.connection import RetryPolicy
from clipbert_cli.assets.fetch import Fetcher
entry = FileEntry.model_validate({"sources": [sys.argv[1]]})
Fetcher(policy=RetryPolicy(read=5)).fetch(PlannedFile("x/file.bin", entry, Path(sys.argv[2])))
"""


def test_the_download_of_a_killed_process_is_continued(site, fetch, target):
    """Two processes are killed; a third download continues after the last byte that the second one has written."""
    page = site.add("/file", BODY, pause=0.03)
    part = target.with_name("file.bin.part")
    for round_ in range(1, 3):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, page.url, str(target)])
        eventually(lambda mark=round_ * 400_000: part.exists() and part.stat().st_size > mark)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
    here = part.stat().st_size
    page.pause = 0
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, here)
    assert leftovers(target) == []


def test_a_full_disk_is_reported_and_what_arrived_stays(site, fetch, target):
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
    fetch(entry(page.url))
    assert target.read_bytes() == BODY
    assert page.requests[-1][:2] == (206, 1_000_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk_is_reported_and_what_arrived_stays(site, fetch, tmp_path):
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
