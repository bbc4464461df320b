"""What strangers' files have in them: documents under the names of media, archives that reach outside or grow, and what
is no file at all."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import zipfile
from pathlib import Path

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(hostile) (w) file\nshowpage\n%%EOF\n"
EPS_HEADER = b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + len(EPS).to_bytes(4, "little") + bytes(18)
DASH = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>'

# Each names a file or an address beside it, or is read by a program that its library starts.
DOCUMENTS = {
    "PostScript": EPS,
    "PostScript with a preview": EPS_HEADER + EPS,
    "a Windows metafile": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "a FITS image": b"SIMPLE  =                    T".ljust(2880),
    "an XPM image": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c red", "a"};\n',
    "an SVG image": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a PDF document": b"%PDF-1.4\n1 0 obj <</Type /Catalog /OpenAction <</S /Launch /F (sh)>>>> endobj\n",
    "an MSL script": b'<?xml version="1.0"?><image><read filename="/etc/passwd"/></image>',
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "a playlist with an address": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\nfile subprocess:sh\n",
    "a DASH manifest": DASH,
    "a session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "a subtitle": b"1\n00:00:00,000 --> 00:00:01,000\n<img src=/etc/passwd>\n",
    "text of a terminal": b"\x1b[2J\x1b[31m" * 200,
    "a picture list": b"P6\n1 1\n255\n",
}

BAD_NAMES = (
    "../escape.txt",
    "a/../../escape.txt",
    "/tmp/escape.txt",
    "..\\escape.txt",
    "C:\\escape.txt",
    "\\escape.txt",
)


def zipped(files: dict[str, bytes], *, odd: int | None = None) -> bytes:
    """Return a zip archive; `odd` is the type of one more member, `a/odd`, such as a link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if odd is not None:
            info = zipfile.ZipInfo("a/odd")
            info.create_system, info.external_attr = 3, (odd | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """Return a tar archive, compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member that is no file: a link to `target`, a device, a pipe."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def understated(content: bytes, size: int) -> bytes:
    """Return a zip archive whose headers state 10 bytes for a member of `size` bytes."""
    assert content.count(size.to_bytes(4, "little")) == 2  # local header and directory
    return content.replace(size.to_bytes(4, "little"), (10).to_bytes(4, "little"))


GOOD = {"a/one.txt": b"one", "three.txt": b""}
BOMB = 110_000_000


def archives() -> dict[str, bytes]:
    """Return hostile archives by file name; each has good members before the bad one."""
    made = {f"name{number}.zip": zipped({**GOOD, name: b"bad"}) for number, name in enumerate(BAD_NAMES)}
    made |= {f"name{number}.tar": tarred(*GOOD.items(), (name, b"bad")) for number, name in enumerate(BAD_NAMES)}
    for number, target in enumerate(("/etc/passwd", "../../etc/passwd", "a/one.txt")):
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            made[f"link{number}{kind.decode()}.tar"] = tarred(*GOOD.items(), (special("a/link", kind, target), b""))
    made["through.tar"] = tarred((special("a", tarfile.SYMTYPE, ".."), b""), ("a/escape.txt", b"bad"))
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        made[f"special{kind.decode()}.tar"] = tarred(*GOOD.items(), (special("a/device", kind), b""))
    for odd in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        made[f"odd{odd}.zip"] = zipped(GOOD, odd=odd)
    made["bomb.zip"] = zipped({**GOOD, "zeros": bytes(BOMB)})
    made["bomb.tar"] = tarred(*GOOD.items(), ("zeros", bytes(BOMB)))
    made["understated.zip"] = understated(zipped({"zeros": bytes(BOMB)}), BOMB)
    made["twice.tar"] = tarred(("same", b"1"), ("same", b"2"))
    made["under.tar"] = tarred(("a", b"1"), ("a/b", b"2"))
    made["cut.zip"] = zipped({str(number): bytes(999) for number in range(20)})[:400]
    made["no_archive.zip"] = b"x" * 1000
    made["no_archive.tar"] = b"\x1f\x8b" + bytes(1000)
    return made


SPECIAL = ("a folder", "a named pipe", "a socket", "a link to a device", "a link to itself", "not readable")


def make_special(path: Path, kind: str) -> None:
    """Put at `path` something that is no regular file."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "a link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    else:
        path.symlink_to("/proc/self/mem")
