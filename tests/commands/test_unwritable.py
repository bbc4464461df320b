"""What every command that writes says of a full disk, a read-only one and a limit on the size of files.

Each is one message that names what the user named and the step that ends its cause. Nothing half-written is left, and
the same command succeeds when the cause is gone.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from running import TINY, Clipbert, as_options, fill, more_space

from clipbert_cli.commands import demo
from clipbert_cli.train import logs

SETTINGS = " ".join(as_options((*TINY, "train.epochs=1")))
TRAINING = f"finetune -r demo_qa --data-root DATA --run NEW {SETTINGS}"

COMMANDS = {
    "pack": "pack DATA/videos NEW --workers 0",
    "finetune": TRAINING,
    "finetune --resume": "finetune --run NEW --resume",
    "finetune --profile": f"{TRAINING} --set train.epochs=9 --profile 1",
    "infer": "infer --run RUN --split test -o NEW",
    "infer --format scores": "infer --run RETRIEVAL --split test --format scores -o NEW",
    "report": "report --run RUN -o NEW",
    "preview": "preview DATA/videos -o NEW",
    "store show": "store show DATA/vis_db test0000 -o NEW",
    "runs export": "runs export RUN NEW",
    "runs push": "runs push RUN --to NEW",
    "recipes copy": "recipes copy demo_qa NEW",
    "recipes answers": "recipes answers demo_qa --data-root DATA -o NEW",
    "demo": "demo NEW --size smallest",
}


@contextmanager
def full(disk: Path) -> Iterator[None]:
    fill(disk / "other")
    yield
    more_space(disk)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(disk)], check=True)


@contextmanager
def limited(disk: Path) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        more_space(disk)


CAUSES: dict[str, tuple[Callable[[Path], AbstractContextManager[None]], str, str]] = {
    "full": (full, "No space left on device", "free some space"),
    "read-only": (read_only, "Read-only file system", "make that disk writable"),
    "limited": (limited, "File too large: a file may have up to 64 bytes (ulimit -f)", "raise the limit (ulimit -f"),
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_written_is_one_message_and_the_same_command_succeeds_afterwards(
    clipbert: Clipbert,
    made_data: Path,
    trained_run: Path,
    retrieval_run: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    cause: str,
) -> None:
    given = {"NEW": disk / "new", "DATA": made_data, "RUN": trained_run, "RETRIEVAL": retrieval_run}
    words = COMMANDS[command].split()
    for name, path in given.items():
        words = [str(path) + word.removeprefix(name) if word.partition("/")[0] == name else word for word in words]
    monkeypatch.setitem(demo.SIZES, "smallest", demo.DemoSize(train=2, val=1, test=1, epochs=1))
    if command == "finetune --resume":
        shutil.copytree(trained_run, disk / "new", symlinks=True)
    begin, message, remedy = CAUSES[cause]
    with begin(disk):
        done = clipbert(*words)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == done.stderr.count("next: ") == 1, done.stderr
    error, _, hint = done.stderr.partition("error: ")[2].partition("next: ")
    assert str(disk / "new") in error
    assert message in error
    assert remedy in hint
    assert "unfinished" not in done.stderr
    assert not list(disk.rglob("*unfinished*"))
    done = clipbert(*words)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_is_full_at_a_record_of_training_says_what_is_kept(
    clipbert: Clipbert, made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.replace("NEW", str(tmp_path / "run")).replace("DATA", str(made_data)) for word in TRAINING.split()]

    def on_full_disk(*more: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(logs, "open", lambda *_, **__: open("/dev/full", "ab", buffering=0), raising=False)  # noqa: SIM115
            done = clipbert(*words, *more)
        assert done.returncode == 1
        assert done.stderr.count("error: ") == done.stderr.count("next: ") == 1, done.stderr
        return done.stderr.partition("error: ")[2]

    failed = f"{tmp_path / 'run'} cannot be written: No space left on device; "
    assert on_full_disk() == f"{failed}nothing is kept\nnext: free some space, then start again; or write elsewhere\n"
    assert clipbert(*words).returncode == 0
    said = on_full_disk("--resume", "--set", "train.epochs=2")
    assert re.match(f"{re.escape(failed)}the checkpoint of step [0-9]+ is complete\nnext: free some space, then ", said)
    assert said.endswith(f"resume with: clipbert finetune --run {tmp_path / 'run'} --resume\n")
