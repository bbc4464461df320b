"""What a machine does to a training: it kills processes, and runs out of shared memory, of open files and of disk.

Each ends the command within 10 seconds with one message and exit code 1, and the same command goes on afterwards.
"""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Clipbert, ClipbertProcess, as_options, children_of, eventually, fill, is_running, more_space

from clipbert_cli.runs.checkpoint import damage

Command = Callable[[int], list[str]]

every_moment = pytest.mark.parametrize(
    ("moment", "ranks"), list(itertools.product(("start", "middle", "validation"), (1, 2)))
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def command(made_data: Path, run: Path) -> Command:
    """The command of a training that takes long, with one loading process for each of its `ranks`."""

    def words(ranks: int) -> list[str]:
        settings = [*TINY, "train.batch_size=2", "train.epochs=5000", "data.workers=1"]
        several = ["--nproc-per-node", str(ranks)] if ranks > 1 else []
        data = ["-r", "demo_qa", "--data-root", str(made_data)]
        return ["finetune", "--run", str(run), *data, *as_options(settings), *several]

    return words


def loading(process: subprocess.Popen[str], ranks: int) -> list[int]:
    """Loading processes of the last rank by id, the oldest first."""
    started = [process.pid] if ranks == 1 else children_of(process.pid)
    children = children_of(started[-1]) if len(started) == ranks else []
    return [child for child in children if ignores_sigterm(child)]


def ignores_sigterm(process: int) -> bool:
    """Return whether it is a loading process; others, such as git, may have been started as well."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended meanwhile
        return False
    return bool(int(re.findall(r"^SigIgn:\s*(\w+)", status, re.M)[0], 16) >> (signal.SIGTERM - 1) & 1)


def wait_for(moment: str, process: subprocess.Popen[str], run: Path, ranks: int) -> list[int]:
    """Return the loading processes of the last rank at a moment: `start`, `middle` of an epoch, or `validation`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = loading(process, ranks)
        if len(found) == (2 if moment == "validation" else 1) and (moment == "start" or (run / "latest").exists()):
            return found
        time.sleep(0.01)
    raise AssertionError("the moment did not come")


def kill(process: int) -> float:
    """Kill a process that may be about to end well, and return the time."""
    os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGKILL)
    return time.monotonic()


def descendants(process: int) -> list[int]:
    return [each for child in children_of(process) for each in (child, *descendants(child))]


def assert_ended(process: subprocess.Popen[str], begin: float, *message: str) -> None:
    everything = descendants(process.pid)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begin < 10
    assert process.returncode == 1, stderr
    assert stderr.count("error: ") == stderr.count("next: ") == 1, stderr
    assert "[rank" not in stderr
    assert "Traceback" not in stderr
    for words in message:
        assert words in stderr
    while any(map(is_running, everything)):
        assert time.monotonic() - begin < 10


def assert_goes_on(clipbert: Clipbert, run: Path, words: list[str]) -> None:
    """What was complete is complete, and the command can be given again, with --resume where something was saved."""
    if run.exists():
        assert damage((run / "latest").resolve()) is None
        words = [*words, "--resume"]
    done = clipbert(*words, "--dry-run")
    assert done.returncode == 0, done.stderr


@every_moment
def test_a_killed_loading_process_ends_the_command(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, command: Command, run: Path, moment: str, ranks: int
) -> None:
    process = clipbert_process(*command(ranks))
    victim = wait_for(moment, process, run, ranks)[0]  # another may be about to end
    assert_ended(process, kill(victim), "a loading process was ended by SIGKILL", "lower data.workers")
    assert_goes_on(clipbert, run, command(1))


def test_loading_processes_need_no_shared_memory_with_a_name(
    clipbert_process: ClipbertProcess, made_data: Path, run: Path
) -> None:
    """Containers have a /dev/shm of 64 MB."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of our own here")
    mount = "import ctypes, os, subprocess; os.unshare = ctypes.CDLL(None).unshare; assert not os.unshare(0x20000); \
subprocess.run(['mount', '--make-rprivate', '/'], check=True); \
subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', '/dev/shm'], check=True)"
    settings = as_options([*TINY, "train.epochs=1", "data.workers=2"])
    words = ["finetune", "--run", str(run), "-r", "demo_qa", "--data-root", str(made_data), *settings]
    process = clipbert_process(*words, prelude=mount)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


def test_too_many_open_files_end_the_command(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, command: Command, run: Path
) -> None:
    lower = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))"
    begin = time.monotonic()
    process = clipbert_process(*command(1), prelude=lower)
    assert_ended(process, begin + 30, "Too many open files", "ulimit -n")
    assert_goes_on(clipbert, run, command(1))


@pytest.mark.parametrize("moment", ["middle", "validation"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_limit_of_open_files_that_is_reached_later_ends_the_command(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, command: Command, run: Path, moment: str, ranks: int
) -> None:
    process = clipbert_process(*command(ranks))
    wait_for(moment, process, run, ranks)
    begin = time.monotonic()
    for number in children_of(process.pid) if ranks > 1 else [process.pid]:
        resource.prlimit(number, resource.RLIMIT_NOFILE, (3, 3))
    assert_ended(process, begin, "Too many open files", "ulimit -n")
    assert_goes_on(clipbert, run, command(1))


@every_moment
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_last_one(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, command: Command, disk: Path, moment: str, ranks: int
) -> None:
    run = disk / "run"
    words = [*command(ranks), "--run", run, "--set", "train.save_every_steps=1"]
    if moment == "start":
        (disk / "other").write_bytes(bytes(900_000))
    else:
        more_space(disk, megabytes=16)
    process = clipbert_process(*words)
    begin = time.monotonic() + 30  # from its start
    if moment != "start":
        wait_for(moment, process, run, ranks)
        fill(disk / "other")
        begin = time.monotonic()
    kept = "nothing is kept" if moment == "start" else "is complete"
    assert_ended(process, begin, f"{run}", "No space left on device", kept, "free some space, then ")
    more_space(disk)
    assert_goes_on(clipbert, run, [*command(1), "--run", str(run)])
    assert not list(disk.rglob(".*unfinished*"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_disk_that_is_full_of_predictions_is_one_message(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, trained_run: Path, disk: Path, ranks: int
) -> None:
    fill(disk / "other")
    several = ["--nproc-per-node", str(ranks)] if ranks > 1 else []
    words = ["infer", "--run", trained_run, "--split", "test", "-o", disk / "predictions.jsonl"]
    assert_ended(clipbert_process(*words, *several), time.monotonic() + 30, f"{disk}", "No space left on device")
    assert os.listdir(disk) == ["other"]
    more_space(disk)
    assert clipbert(*words).returncode == 0
    assert len((disk / "predictions.jsonl").read_text().splitlines()) == 48


@pytest.mark.parametrize("free", [150_000, 250_000])
@pytest.mark.parametrize("add", [False, True], ids=["new", "added to"])
def test_a_disk_that_is_full_while_packing_is_one_message_and_the_next_pack_goes_on(
    clipbert: Clipbert,
    made_data: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    add: bool,
) -> None:
    monkeypatch.setattr("clipbert_cli.store.environment._COMMIT_KEYS", 3)
    words = ["pack", made_data / "videos", disk / "store", "--workers", "0"]
    if add:
        first, *_ = sorted((made_data / "videos").iterdir())
        assert clipbert("pack", first, disk / "store").returncode == 0
        words += ["--add", "--on-duplicate", "first"]
    fill(disk / "other")
    os.truncate(disk / "other", (disk / "other").stat().st_size - free)
    done = clipbert(*words)
    assert done.returncode == 1
    assert f"error: {disk / 'store'} cannot be written: No space left on device" in done.stderr
    assert done.stderr.count("error: ") == done.stderr.count("next: ") == 1
    # A new store appears when it is complete; one that was there can be read.
    assert (clipbert("store", "verify", disk / "store").returncode == 0) is (disk / "store").exists() is add
    more_space(disk)
    done = clipbert(*words)
    assert done.returncode == 0, done.stderr
    assert re.search("continued: [1-9][0-9]? files had been packed before", done.stderr)
    assert sorted(os.listdir(disk)) == ["other", "store"]
    assert sorted(os.listdir(disk / "store")) == ["data.mdb"]


# ------------------------------------------------------------------------------------------------ several processes


@pytest.mark.parametrize("rank", [0, 1])
def test_the_process_that_was_killed_is_named(
    clipbert_process: ClipbertProcess, command: Command, run: Path, rank: int
) -> None:
    process = clipbert_process(*command(2))
    wait_for("middle", process, run, 2)
    begin = kill(children_of(process.pid)[rank])
    assert_ended(process, begin, f"process {rank} was ended by SIGKILL", "ran out of memory")


def test_processes_whose_launcher_is_gone_save_and_end(
    clipbert_process: ClipbertProcess, clipbert: Clipbert, command: Command, run: Path
) -> None:
    rarely = as_options(["train.save_every_steps=100000", "train.validate_every_steps=100000"])
    process = clipbert_process(*command(2), *rarely)
    assert process.stderr
    while "step 1 done" not in (line := process.stderr.readline()):
        assert line, "training did not begin"
    ranks = children_of(process.pid)
    begin = kill(process.pid)
    while any(map(is_running, ranks)):
        assert time.monotonic() - begin < 10
    assert "interrupted by SIGTERM after step" in process.communicate(timeout=10)[1]
    assert_goes_on(clipbert, run, [*command(1), *rarely])


# ------------------------------------------------------------------------------------------------ what a kill leaves


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(
    "words",
    [
        ["infer", "--run", "RUN", "--split", "test", "-o", "out.jsonl"],
        ["runs", "export", "RUN", "out"],
        ["store", "show", "STORE", "test0000", "-o", "out.png"],
    ],
    ids=["infer", "runs export", "store show"],
)
def test_the_next_command_of_the_same_name_removes_what_a_killed_one_left(
    clipbert: Clipbert, trained_run: Path, made_data: Path, tmp_path: Path, words: list[str], kind: str
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getppid()):  # one that is gone, and one that may still write
        left = tmp_path / f".{words[-1]}.unfinished-{socket.gethostname()}-{process}"
        if kind == "folder":
            left.mkdir()
        else:
            left.touch()
    given = {"RUN": trained_run, "STORE": made_data / "vis_db"}
    done = clipbert(*(given.get(word, word) for word in words), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hidden = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert hidden == [f".{words[-1]}.unfinished-{socket.gethostname()}-{os.getppid()}"]
    assert (tmp_path / words[-1]).exists()


@pytest.mark.parametrize(
    "words",
    [
        ["finetune", "--nproc-per-node", "2"],
        ["infer", "--nproc-per-node", "2"],
        ["doctor"],
    ],
    ids=["training", "predicting", "examining"],
)
def test_the_next_command_with_temporary_files_removes_those_of_a_killed_one(
    clipbert_process: ClipbertProcess,
    clipbert: Clipbert,
    command: Command,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    predictions = tmp_path / "predictions.jsonl"
    infer = ["infer", "--run", trained_run, "--split", "test", "-o", predictions]
    given = {"finetune": command(1), "infer": infer, "doctor": ["doctor"]}[words[0]]
    process = clipbert_process(*given, *words[1:])
    while not ((made := left_in(temporary)) and children_of(process.pid)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    started = descendants(process.pid)
    kill(process.pid)
    process.wait()
    while any(map(is_running, started)):
        time.sleep(0.05)
    assert left_in(temporary) == made
    assert clipbert(*infer, "--nproc-per-node", "2").returncode == 0
    assert not left_in(temporary)


def left_in(folder: Path) -> list[str]:
    """Return the names in a folder that are ours, or that the launcher of torch gave."""
    return [name for name in os.listdir(folder) if name.startswith((".clipbert", "torchelastic_"))]


# ------------------------------------------------------------------------------------------------ signals


# A suite that was started with nohup ignores the signal, and so would all that it starts.
NOT_IGNORED = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"


def wait_for_steps(process: subprocess.Popen[str]) -> None:
    assert process.stderr
    while "step 1 done" not in (line := process.stderr.readline()):
        assert line, "training did not begin"


def assert_saved(run: Path, stderr: str) -> None:
    step = os.readlink(run / "latest").removeprefix("checkpoints/step_")
    assert f"after step {step} of" in stderr
    assert stderr.count("error: ") == stderr.count("next: ") == 1, stderr
    assert damage((run / "latest").resolve()) is None


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_whose_terminal_is_closed_saves(
    clipbert_process: ClipbertProcess, command: Command, run: Path, ranks: int
) -> None:
    """Nothing can be printed then, which must not be what ends the command."""
    ours, theirs = os.openpty()
    process = clipbert_process(*command(ranks), stderr=theirs, prelude=NOT_IGNORED)
    os.close(theirs)
    eventually((run / "latest").exists, seconds=60)
    os.close(ours)
    begin = time.monotonic()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 129
    assert time.monotonic() - begin < 10
    assert damage((run / "latest").resolve()) is None


@pytest.mark.parametrize("ranks", [1, 2])
def test_sighup_saves_unless_the_command_was_started_to_outlive_its_terminal(
    clipbert_process: ClipbertProcess, command: Command, run: Path, ranks: int
) -> None:
    process = clipbert_process(*command(ranks), prelude=NOT_IGNORED)
    wait_for_steps(process)
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 129, stderr
    assert_saved(run, stderr)

    shutil.rmtree(run)
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = clipbert_process(*command(ranks), prelude=ignoring)
    wait_for_steps(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143, stderr
    assert_saved(run, stderr)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_is_not_waited_for(
    clipbert_process: ClipbertProcess, command: Command, run: Path, ranks: int, number: signal.Signals
) -> None:
    """The loading process of one rank, or the last of several ranks."""
    process = clipbert_process(*command(ranks))
    *_, stopped = wait_for("middle", process, run, ranks) if ranks == 1 else _ranks(process, run)
    everything = descendants(process.pid)
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(0.5)
    begin = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], stderr
    assert stderr.count("waiting for the running step to end") == 1
    assert_says_what_is_kept(run, stderr)
    # The system takes a moment for the processes that were killed.
    eventually(lambda: not any(map(is_running, everything)), seconds=5)


def _ranks(process: subprocess.Popen[str], run: Path) -> list[int]:
    wait_for("middle", process, run, 2)
    return children_of(process.pid)


def assert_says_what_is_kept(run: Path, stderr: str) -> None:
    step = os.readlink(run / "latest").removeprefix("checkpoints/step_")
    assert re.search(f"error: interrupted.*; the checkpoint of step {step} is complete\n", stderr), stderr
    assert f"next: resume with: clipbert finetune --run {run} --resume" in stderr
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_second_ctrl_c_ends_a_step_that_hangs(
    clipbert_process: ClipbertProcess, command: Command, run: Path, ranks: int
) -> None:
    process = clipbert_process(*command(ranks))
    *_, stopped = wait_for("middle", process, run, ranks)
    everything = descendants(process.pid)
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - begin < 8
    assert process.returncode == 130, stderr
    assert_says_what_is_kept(run, stderr)
    assert not any(map(is_running, everything))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_folder_that_was_removed_is_one_message(
    clipbert_process: ClipbertProcess, command: Command, run: Path, ranks: int
) -> None:
    rarely = as_options(["train.save_every_steps=100000", "train.validate_every_steps=100000"])
    process = clipbert_process(*command(ranks), *rarely)
    wait_for_steps(process)
    shutil.rmtree(run)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1, stderr
    assert f"error: {run} was removed or moved during the training" in stderr
    assert stderr.count("error: ") == stderr.count("next: ") == 1, stderr
    assert not run.exists()
