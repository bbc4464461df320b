"""What commands ask of the system while they read hostile media and archives, as strace sees it.

No program is started but our own processes, no address is used but the given one, and no file outside the given places
is opened for writing, made, renamed or removed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hostile_inputs import DOCUMENTS, archives
from http_site import Site
from made_media import image, marked_frame, video
from running import as_options

from clipbert_cli.runtime import provenance

pytestmark = pytest.mark.strace

CHANGING = (
    "creat mkdir mkdirat mknod mknodat rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat"
)
CHANGING += " truncate chmod fchmodat chown lchown fchownat"
OPENING = "open openat openat2"
OTHER = "execve execveat connect sendto bind"
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")


@dataclass(frozen=True)
class Call:
    """A system call: its name, its text, and the paths in it, absolute."""

    name: str
    text: str
    paths: tuple[Path, ...]

    @classmethod
    def parse(cls, line: str, folder: Path) -> Call | None:
        """Return the call in a line of strace, or None for the second half of a call that is in an earlier line."""
        found = re.match(r"\d+ +(\w+)\((.*)", line)
        if found is None:
            return None
        # `AT_FDCWD</here>` or `5</there>` is the folder in which the next path begins.
        pairs = re.findall(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', found[2])
        return cls(found[1], line, tuple((Path(start or folder) / path).absolute() for start, path in pairs))

    def changes(self) -> bool:
        return self.name in CHANGING.split() or (self.name in OPENING.split() and bool(WRITING.search(self.text)))

    def is_within(self, places: Sequence[Path]) -> bool:
        """Whether every path is below one of the places, or leads to none of the file system's files."""
        normal = [Path(os.path.normpath(path)) for path in self.paths]
        return all(any(path.is_relative_to(place) for place in (*places, *NO_FILES)) for path in normal)


# Our own processes, and git, which says of which commit our own files are.
OWN = re.compile(
    rf'"{sys.executable}", \[|\["git", "--no-optional-locks", "-C", "{provenance.__file__.rpartition("/")[0]}"'
)
# Devices, and the names of semaphores.
NO_FILES = (Path("/dev/null"), Path("/dev/tty"), Path("/dev/shm"))


def trace(words: Sequence[object], folder: Path) -> tuple[subprocess.CompletedProcess[str], list[Call]]:
    """Run a command in a folder, in its processes, and return its end and the system calls."""
    log = folder.parent / "trace"
    calls = ",".join([*CHANGING.split(), *OPENING.split(), *OTHER.split()])
    strace = ["strace", "-f", "-qq", "-y", "-s", "1000", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(log)]
    # Compiled modules are written beside their sources.
    settings = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [*strace, sys.executable, "-m", "clipbert_cli", *map(str, words)],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    parsed = [Call.parse(line, folder) for line in log.read_text(errors="replace").splitlines()]
    return done, [call for call in parsed if call]


def check(calls: Sequence[Call], places: Sequence[Path], *, port: int | None = None) -> None:
    """Check that no program is started, nothing outside the places changed, and no address used but 127.0.0.1:port."""
    programs = [call.text for call in calls if call.name.startswith("execve")]
    assert [text for text in programs if not OWN.search(text)] == []
    assert programs, "strace saw nothing"
    assert [call.text for call in calls if call.changes() and not call.is_within(places)] == []
    addresses = [call.text for call in calls if call.name in ("connect", "bind", "sendto") and "AF_INET" in call.text]
    allowed = f'sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")'
    assert [text for text in addresses if allowed not in text] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of hostile documents, each under the name of a video and of a picture, and a good one of both kinds."""
    folder = tmp_path / "here"
    for kind, ending in (("videos", "mp4"), ("pictures", "png")):
        (folder / kind).mkdir(parents=True)
        for number, content in enumerate(DOCUMENTS.values()):
            (folder / kind / f"m{number}.{ending}").write_bytes(content)
    (folder / "videos/good.mp4").write_bytes(video(4))
    (folder / "pictures/good.png").write_bytes(image(marked_frame(1)))
    return folder


def write_lines(path: Path, values: Sequence[object]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("workers", [0, 1])
def test_packing_touches_the_store_alone(folder: Path, kind: str, workers: int) -> None:
    source = {"video": "videos", "image": "pictures"}[kind]
    done, calls = trace(("pack", source, "new/store", "--kind", kind, "--workers", workers), folder)
    assert done.returncode == 0, done.stderr
    assert f"skipped {len(DOCUMENTS)}" in done.stderr + done.stdout
    check(calls, [folder / "new"])
    assert any(call.changes() and "data.mdb" in call.text for call in calls)


def test_asking_changes_nothing(folder: Path, trained_run: Path) -> None:
    kinds = {"video": "videos", "image": "pictures"}
    lines = [{kind: str(path)} for kind, name in kinds.items() for path in (folder / name).iterdir()]
    write_lines(folder / "questions.jsonl", [{**line, "question": "what is it ?"} for line in lines])
    done, calls = trace(("ask", "--run", trained_run, "--questions", "questions.jsonl"), folder)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum("error" in answer for answer in answers) == 2 * len(DOCUMENTS), done.stderr
    check(calls, [])


def test_inference_touches_its_output_alone(folder: Path, trained_run: Path) -> None:
    ids = [path.stem for path in (folder / "videos").iterdir()]
    records = [{"video_id": media_id, "question": "what is it ?", "answer": "left"} for media_id in ids]
    write_lines(folder / "records.jsonl", records)
    settings = [f"data.splits.test.annotations={folder}/records.jsonl", f"data.splits.test.media={folder}/videos"]
    (folder / "out").mkdir()
    command = ("infer", "--run", trained_run, "--split", "test", "-o", "out/new.jsonl", *as_options(settings))
    done, calls = trace(command, folder)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (folder / "out/new.jsonl").read_text().splitlines()]
    assert sum(bool(answer.get("media_error")) for answer in answers) == len(DOCUMENTS)
    check(calls, [folder / "out"])


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    yield server
    server.close()


def test_downloading_touches_its_folder_and_asks_the_given_server_alone(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    made = archives()
    part = {"kind": "media", "media_kind": "image", "title": "hostile"}
    files = {f"lab/{name}": {"sources": [site.add(f"/{name}", body).url]} for name, body in made.items()}
    parts = {
        f"part{number}": {**part, "files": [name], "folder": f"media/{number}"} for number, name in enumerate(files)
    }
    document = {"files": files, "assets": {"lab": {"title": "the lab's", "licence": "internal", "parts": parts}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    done, calls = trace(("download", "lab", "--to", "data", "--catalog", tmp_path / "mine.yaml"), folder)
    assert done.returncode == 1
    assert done.stderr.count("is not complete") == len(made), done.stderr
    check(calls, [folder / "data"], port=int(site.url.rpartition(":")[2]))
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_a_started_program_and_a_written_file_are_seen(tmp_path: Path) -> None:
    """Without this the tests above could pass on a system where nothing is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    code = f"import os, socket; os.system('true'); open('{tmp_path}/other', 'w'); os.mkdir('../more')\n"
    code += "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    log = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-qq", "-y", "-o", log, sys.executable, "-c", code], cwd=folder, check=True)
    calls = [call for line in log.read_text().splitlines() if (call := Call.parse(line, folder))]
    for places, message in (([tmp_path], "192.0.2.1"), ([folder], "other|more")):
        quiet = [call for call in calls if sys.executable in call.text or not call.name.startswith("execve")]
        with pytest.raises(AssertionError, match=message):
            check(quiet, places)
    with pytest.raises(AssertionError, match="/sh"):
        check(calls, [tmp_path])
