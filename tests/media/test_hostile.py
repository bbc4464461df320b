"""Media from strangers: no program is started, nothing outside is opened, and only listed formats are read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from hostile_inputs import DOCUMENTS, EPS
from made_media import image, marked_frame, video
from PIL import Image

from clipbert_cli.errors import DecodeError
from clipbert_cli.media.container import open_video
from clipbert_cli.media.images import decode_image
from clipbert_cli.types import MEDIA_SUFFIXES


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder of programs that leave a mark: those that libraries of media are known to start, and shells."""
    folder = tmp_path / "traps"
    folder.mkdir()
    names = (
        "gs gswin64c eps2pdf epstopdf convert magick inkscape rsvg-convert djpeg cjpeg ffmpeg ffprobe sh bash curl wget"
    )
    for name in names.split():
        (folder / name).write_text(f"#!/bin/dash\necho started > {tmp_path}/mark-{name}\n")
        (folder / name).chmod(0o755)
    return folder


# Runs in a process of its own, because a hook cannot be removed. It sees what Python does; the traps also catch what
# libraries start from C.
WATCHED = """
import sys

def hook(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo"):
        print("STARTED", event, arguments)
    if event == "open" and "passwd" in str(arguments[0]):
        print("OPENED", arguments)

from clipbert_cli.media.container import open_video
from clipbert_cli.media.images import decode_image, probe_image
from clipbert_cli.media.probe import probe_video
from clipbert_cli.errors import DecodeError

sys.addaudithook(hook)
for name in sys.argv[1:]:
    data = open(name, "rb").read()
    for read in (probe_image, decode_image, probe_video):
        try:
            read(data)
            print("READ", name, read.__name__)
        except DecodeError:
            pass
print("END")
"""


def test_no_document_starts_a_program_or_opens_another_file(tmp_path: Path, traps: Path) -> None:
    files = []
    for number, content in enumerate(DOCUMENTS.values()):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(content)
    environment = {**os.environ, "PATH": f"{traps}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, files)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "END\n", done.stdout + done.stderr
    assert list(tmp_path.glob("mark-*")) == []


def test_the_traps_catch_what_pillow_starts(tmp_path: Path, traps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the list of formats Pillow starts Ghostscript: the test above would fail."""
    monkeypatch.setenv("PATH", f"{traps}:{os.environ['PATH']}")
    code = "import io, sys; from PIL import Image; Image.open(io.BytesIO(sys.stdin.buffer.read())).load()"
    subprocess.run([sys.executable, "-c", code], input=EPS, capture_output=True, timeout=60)
    assert [mark.name for mark in tmp_path.glob("mark-*")] == ["mark-gs"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_document_is_refused_in_one_sentence(document: str) -> None:
    for read in (decode_image, open_video):
        with pytest.raises(DecodeError) as caught:
            read(DOCUMENTS[document])
        assert str(caught.value).count("\n") == 0


def written_by_pillow() -> Iterator[tuple[str, str]]:
    Image.init()
    for suffix in sorted(MEDIA_SUFFIXES["image"]):
        name = Image.EXTENSION.get(suffix)
        if name in Image.SAVE:
            yield suffix, name


@pytest.mark.parametrize(("suffix", "name"), list(written_by_pillow()))
def test_every_ending_of_an_image_has_its_format(suffix: str, name: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(marked_frame(3)).save(stream, name)
    assert decode_image(stream.getvalue()).shape[2] == 3


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *[("mp4", "h264"), ("mov", "h264"), ("avi", "mpeg4"), ("matroska", "h264"), ("webm", "libvpx"), ("gif", "gif")],
        *[("mpeg", "mpeg2video"), ("mpegts", "h264"), ("vob", "mpeg2video"), ("flv", "flv"), ("asf", "wmv2")],
        *[("3gp", "h263"), ("rm", "rv20"), ("mxf", "mpeg2video"), ("nut", "mpeg4"), ("wtv", "mpeg2video")],
        *[("ivf", "libvpx"), ("yuv4mpegpipe", "rawvideo"), ("mjpeg", "mjpeg"), ("mpeg1video", "mpeg1video")],
        *[("mpeg2video", "mpeg2video"), ("h264", "h264"), ("hevc", "libx265"), ("m4v", "mpeg4")],
    ],
)
def test_every_container_of_the_listed_endings_is_read(container: str, codec: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height = 352, 288
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for number in range(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(marked_frame(number, 288, 352), format="rgb24")))
        output.mux(stream.encode(None))
    with open_video(file.getvalue()) as opened:
        assert len(list(opened.frames())) >= 1


def test_a_video_is_no_image_and_an_image_no_video() -> None:
    with pytest.raises(DecodeError):
        decode_image(video(2))
    with pytest.raises(DecodeError, match="picture"):
        open_video(image(marked_frame(1), "png"))
    with pytest.raises(DecodeError, match="none of those of videos"):
        open_video(image(marked_frame(1), "tiff"))
