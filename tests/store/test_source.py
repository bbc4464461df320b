"""Media of folders: which files are read, and what is said about the others."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hostile_inputs import SPECIAL, make_special

from clipbert_cli.errors import StoreError
from clipbert_cli.store.source import MediaFolder
from clipbert_cli.types import Kind


def message(path: Path, kind: Kind = "video") -> str:
    """Return what is said about a file that is no medium."""
    started = time.process_time()
    with pytest.raises(StoreError) as refused:
        MediaFolder(path.parent, kind=kind, files={"a": path}).read("a")
    assert time.process_time() - started < 1
    return f"{refused.value}; {refused.value.hint}"


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("command", ["cat /dev/zero", "yes", "sleep 60", "printf abc", "true"])
def test_a_pipe_of_a_shell_is_no_medium(command: str, kind: Kind) -> None:
    """`<(command)` could be without an end, and a video is read more than once."""
    with subprocess.Popen(command.split(), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        path = Path(f"/dev/fd/{writer.stdout.fileno()}")
        expected = f"{kind} 'a' cannot be read from {path}: it is a pipe: write it to a regular file first"
        assert message(path, kind).startswith(expected)
        writer.kill()


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_no_medium(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 characters
    make_special(tmp_path / "a", kind)
    assert f"video 'a' cannot be read from {tmp_path}/a: it" in message(tmp_path / "a")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**33)
    assert "it is larger than 4 GiB" in message(tmp_path / "a")
