"""Several processes from one command: one message, one exit code, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from running import TINY, Clipbert, ClipbertProcess, as_options, children_of, link_videos

TWO = ("--nproc-per-node", "2")


def arguments(made_data: Path, run: Path, *overrides: str) -> list[str]:
    options = as_options([*TINY, "train.batch_size=2", *overrides])
    return ["finetune", "-r", "demo_qa", "--run", str(run), "--data-root", str(made_data), *options]


def test_the_first_error_of_a_process_is_the_only_message(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    """A process that cannot read a video ends all, with its own message alone. Arguments may contain spaces.

    These are started as a person starts them: no import prints anything either.
    """
    videos = link_videos(made_data / "videos", tmp_path / "my videos", cut="train0003.mp4")
    media = [f"data.splits.{split}.media={videos}" for split in ("train", "val")]
    media.append("data.on_bad_media=error")
    process = clipbert_process(*arguments(made_data, tmp_path / "a run", *media), *TWO, is_forked=False)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert stderr.count("error: ") == 1
    assert "my videos" in stderr
    assert "FFmpeg cannot read it" in stderr
    for word in ("Traceback", "ChildFailedError", "Root Cause", "rendezvous"):
        assert word not in stderr
    assert stdout == ""


def test_a_wrong_setting_is_reported_once_with_its_own_exit_code(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    process = clipbert_process(*arguments(made_data, tmp_path / "run", "train.bacth_size=3"), *TWO)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2, stderr
    assert stderr.count("did you mean train.batch_size") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_to_the_launcher_stops_all_processes_which_save_first(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = clipbert_process(*arguments(made_data, run, "train.epochs=10000", "data.workers=1"), *TWO)
    deadline = time.monotonic() + 300
    while not (run / "latest").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert f"error: interrupted by {number.name} after step " in stderr
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr
    step = os.readlink(run / "latest").removeprefix("checkpoints/step_")
    assert f"after step {step} of" in stderr
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_two_machines_meet_and_train_together(
    clipbert_process: ClipbertProcess, made_data: Path, tmp_path: Path
) -> None:
    """Two launchers stand for two machines with a shared disk."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    together = ["--nnodes", 2, "--rdzv-endpoint", place, "--rdzv-id", "test", "--json"]
    command = [*arguments(made_data, tmp_path / "run"), *together]
    machines = [clipbert_process(*command) for _ in range(2)]
    ended = [(*machine.communicate(timeout=300), machine.returncode) for machine in machines]
    assert [code for *_, code in ended] == [0, 0], ended
    (answer,) = [json.loads(stdout) for stdout, *_ in ended if stdout]  # the main process prints for all
    assert answer["steps"] > 0
    assert sum("2 processes" in stderr for _, stderr, _ in ended) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nproc-per-node", "many"], "--nproc-per-node is many, but must be a whole number from 1 to 9,999, or gpu"),
        (["--nproc-per-node", "0"], "--nproc-per-node is 0"),
        (["--nnodes", "2"], "--nnodes is 2, but --rdzv-endpoint is missing"),
    ],
)
def test_wrong_options_of_the_launcher_are_wrong_usage(
    clipbert: Clipbert, tmp_path: Path, options: list[str], message: str
) -> None:
    done = clipbert("finetune", "-r", "demo_qa", "--run", tmp_path / "run", *options)
    assert done.returncode == 2
    assert message in done.stderr
