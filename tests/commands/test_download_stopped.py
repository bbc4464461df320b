"""`clipbert download` interrupted, killed, twice at once, and on a terminal: in processes of its own."""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import time

import pytest
from download_world import EVERYTHING, World
from http_site import Site
from running import eventually

from clipbert_cli.files import lock


@pytest.fixture
def world(tmp_path):
    server = Site()
    yield World(server, tmp_path)
    server.close()


def part_size(world):
    part = world.data / "pretrained/w.pth.part"
    return part.stat().st_size if part.exists() else 0


def test_ctrl_c_exits_130_at_once_and_the_download_can_be_continued(world):
    page = world.pages["lab/w.pth"]
    page.body, page.pause = os.urandom(3_000_000), 0.4  # slow enough not to end before the signal comes
    process = world.start("lab/weights")
    eventually(lambda: part_size(world) > 300_000)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    here = part_size(world)
    assert here > 300_000
    page.pause = 0
    world.run("lab/weights")
    assert page.requests[-1][:2] == (206, here)
    assert (world.data / "pretrained/w.pth").read_bytes() == page.body


def test_a_full_disk_is_one_message_and_the_download_goes_on(world):
    page = world.pages["lab/w.pth"]
    page.body = os.urandom(3_000_000)
    limit = (1_000_000, resource.RLIM_INFINITY)
    process = world.start("lab/weights", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "File too large" in stderr
    assert "w.pth" in stderr
    assert "Traceback" not in stderr
    here = part_size(world)
    assert 0 < here <= 1_000_000
    world.run("lab/weights")
    assert page.requests[-1][:2] == (206, here)
    assert (world.data / "pretrained/w.pth").read_bytes() == page.body


def test_ctrl_c_does_not_wait_for_a_silent_server(world):
    world.pages["lab/w.pth"].stall = 9
    process = world.start("lab/weights")
    eventually(lambda: world.pages["lab/w.pth"].requests)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)  # the server is silent for a minute
    assert process.returncode == 130
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.4])
def test_a_killed_download_is_finished_by_the_next(world, after):
    for page in world.pages.values():
        page.pause = 0.05
    process = world.start("lab_qa", "--workers", "2")
    eventually(lambda: world.requests() > 0)
    time.sleep(after)
    process.kill()
    process.communicate()
    for page in world.pages.values():
        page.pause = 0
    assert set(world.states("lab_qa").values()) == {"complete"}
    # Killed between a part's completion and the removal of its archives, the archives stay; nothing else may.
    archives = {f"downloads/{name}" for name in world.pages}
    assert sorted(set(world.tree()) - archives) == EVERYTHING


def test_two_downloads_at_once_request_each_file_once(world):
    for page in world.pages.values():
        page.pause = 0.05
    processes = [world.start("lab_qa", "--json") for _ in range(2)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
        assert json.loads(stdout)["complete"] == 3
    assert all(len(page.requests) == 1 for page in world.pages.values())
    assert world.tree() == EVERYTHING


def test_a_second_download_says_that_it_waits_for_the_first(world):
    with lock(world.data / ".download.lock"):
        process = world.start("lab/weights")
        assert (
            process.stderr.readline() == f"another process is downloading into {world.data}: waiting until it is done\n"
        )
        assert world.requests() == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert world.requests() == 1


def on_a_terminal(command, **environment):
    """What the command writes to stderr where that is a terminal of 80 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=child, env={**os.environ, "COLUMNS": "80", **environment}
    )
    os.close(child)
    shown = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        try:
            block = os.read(parent, 65536) if ready else b""
        except OSError:
            block = b""
        if not block:
            break
        shown += block
    os.close(parent)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_one_bar_per_file_with_rate_and_time_left(world):
    world.pages["lab/w.pth"].body = os.urandom(900_000)
    world.pages["lab/w.pth"].pause = 0.1
    shown = on_a_terminal(world.command("lab/weights", "--to", world.data), TERM="xterm-256color")
    assert "w.pth" in shown
    assert "/900.0 kB" in shown
    assert re.search(r"\d [kM]B/s", shown)
    assert re.search(r"0:00:0\d", shown)


def test_no_color_is_respected(world):
    world.document["files"]["lab/w.pth"]["bytes"] = 5  # a warning, which has a colour
    command = world.command("lab/weights", "--to", world.data)
    assert "\x1b[33m" in on_a_terminal(command, TERM="xterm-256color")
    (world.data / "pretrained/w.pth").unlink()
    assert not re.search(r"\x1b\[3\dm", on_a_terminal(command, TERM="xterm-256color", NO_COLOR="1"))
