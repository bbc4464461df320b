"""Archives of strangers: safe ones are unpacked completely, all others leave nothing behind."""

import gzip
import io
import os
import resource
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib

import pytest
from hostile_inputs import special, tarred, understated, zipped

from clipbert_cli.assets import unpack as unpacking
from clipbert_cli.assets.unpack import unpack
from clipbert_cli.errors import DownloadError

FILES = {"a/one.txt": b"one", "a/b/two.txt": b"two" * 1000, "three.txt": b""}


def make_zip(path, files):
    path.write_bytes(zipped(files))
    return path


def make_tar(path, members):
    """`members`: TarInfo with content, or name -> content."""
    path.write_bytes(tarred(*(members.items() if isinstance(members, dict) else members)))
    return path


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "out"


def assert_refused(archive, out, member, why):
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(DownloadError) as caught:
        unpack(archive, out, kind="zip" if archive.suffix == ".zip" else "tar")
    assert repr(member) in str(caught.value)
    assert why in str(caught.value)
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize(("kind", "make"), [("zip", make_zip), ("tar", make_tar)])
def test_an_archive_becomes_a_folder(tmp_path, out, kind, make):
    archive = make(tmp_path / "x", {"a/": b"", **FILES} if kind == "zip" else FILES)
    unpack(archive, out, kind=kind)
    assert tree(out) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("kind", "make"), [("zip", make_zip), ("tar", make_tar)])
def test_only_wanted_members_are_unpacked(tmp_path, out, kind, make):
    unpack(make(tmp_path / "x", FILES), out, kind=kind, members=["*/two.txt"])
    assert tree(out) == {"a/b/two.txt": FILES["a/b/two.txt"]}


@pytest.mark.parametrize(("kind", "make"), [("zip", make_zip), ("tar", make_tar)])
def test_an_archive_without_the_wanted_members_is_an_error(tmp_path, out, kind, make):
    with pytest.raises(DownloadError, match=r"none of its 3 files matches \*\.mp4"):
        unpack(make(tmp_path / "x", FILES), out, kind=kind, members=["*.mp4"])
    assert not any(out.parent.iterdir())


def test_leftovers_of_a_killed_unpacking_do_not_matter(tmp_path, out):
    leftover = out.with_name(".out.unpacking")
    leftover.mkdir()
    (leftover / "half.txt").write_bytes(b"half")
    unpack(make_zip(tmp_path / "x", FILES), out, kind="zip")
    assert tree(out) == FILES


BAD_NAMES = [
    ("../escape.txt", "reaches outside"),
    ("a/../../escape.txt", "reaches outside"),
    ("/tmp/escape.txt", "absolute"),
    ("..\\escape.txt", "reaches outside"),
    ("C:\\escape.txt", "absolute"),
    ("\\escape.txt", "absolute"),
]


@pytest.mark.parametrize(("name", "why"), BAD_NAMES)
def test_a_zip_name_that_reaches_outside_is_refused(tmp_path, out, name, why):
    assert_refused(make_zip(tmp_path / "x.zip", {**FILES, name: b"bad"}), out, name, why)


@pytest.mark.parametrize(("name", "why"), BAD_NAMES)
def test_a_tar_name_that_reaches_outside_is_refused(tmp_path, out, name, why):
    assert_refused(make_tar(tmp_path / "x.tar", {**FILES, name: b"bad"}), out, name, why)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "a/one.txt"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path, out, target, kind):
    members = [*FILES.items(), (special("a/link", kind, target), b"")]
    assert_refused(make_tar(tmp_path / "x.tar", members), out, "a/link", "is ")


def test_a_file_written_through_a_link_is_refused(tmp_path, out):
    (tmp_path / "outside").mkdir()
    members = [(special("a", tarfile.SYMTYPE, str(tmp_path / "outside")), b""), ("a/escape.txt", b"bad")]
    assert_refused(make_tar(tmp_path / "x.tar", members), out, "a", "is ")
    assert not any((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_in_a_tar_are_refused(tmp_path, out, kind):
    members = [*FILES.items(), (special("a/device", kind), b"")]
    assert_refused(make_tar(tmp_path / "x.tar", members), out, "a/device", "is a link or no plain file")


@pytest.mark.parametrize(
    ("mode", "why"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFCHR, "is no plain file"), (stat.S_IFIFO, "is no plain file")],
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, out, mode, why):
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(FILES, odd=mode))
    assert_refused(path, out, "a/odd", why)


def test_a_zip_bomb_is_refused_by_what_it_states(tmp_path, out):
    path = make_zip(tmp_path / "x.zip", {"zeros": bytes(110_000_000)})
    assert path.stat().st_size < 150_000
    assert_refused(path, out, "zeros", "unpacks to more than")


def test_a_tar_bomb_is_refused_by_what_it_states(tmp_path, out):
    path = make_tar(tmp_path / "x.tar", {"zeros": bytes(110_000_000)})
    assert_refused(path, out, "zeros", "unpacks to more than")


def test_a_zip_bomb_that_states_less_is_refused_while_it_grows(tmp_path, out):
    """Sizes in the headers say 10 bytes; the data unpacks to 50 MB, with the right checksum for all of it."""
    path = tmp_path / "x.zip"
    path.write_bytes(understated(zipped({"zeros": bytes(50_000_000)}), 50_000_000))
    with pytest.raises(DownloadError) as caught:
        unpack(path, out, kind="zip")
    assert "zeros" in str(caught.value)
    assert not any(out.parent.iterdir())


def test_many_small_bombs_are_added_up(tmp_path, out, monkeypatch):
    monkeypatch.setattr(unpacking, "FREE_BYTES", 3_000_000)
    monkeypatch.setattr(unpacking, "MAX_RATIO", 0)
    path = make_zip(tmp_path / "x.zip", {f"{n}.bin": bytes(1_000_000) for n in range(5)})
    assert_refused(path, out, "3.bin", "unpacks to more than")


@pytest.mark.parametrize(("suffix", "make"), [("zip", make_zip), ("tar", make_tar)])
def test_too_many_files_are_refused(tmp_path, out, suffix, make, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_FILES", 100)
    path = make(tmp_path / f"x.{suffix}", {f"{n:04}": b"" for n in range(101)})
    assert_refused(path, out, "0100", "one of more than 100 files")


ENTRIES = 30_000


def many_entries(path, kind):
    """Write an archive of ENTRIES empty members, without the libraries' help, which would take seconds."""
    if kind == "tar":
        block = bytearray(tarfile.TarInfo("0000000").tobuf())
        block[148:156] = b" " * 8
        base = sum(block) - sum(b"0000000")
        with open(path, "wb") as file:
            for n in range(ENTRIES):
                name = b"%07d" % n
                file.write(b"".join((name, block[7:148], b"%06o\0 " % (base + sum(name)), block[156:])))
            file.write(bytes(1024))
        return path
    make_zip(path, {"0000000": b""})
    data = path.read_bytes()
    directory = data.index(b"PK\x01\x02")
    local, entry = data[:directory], bytearray(data[directory : data.index(b"PK\x05\x06")])
    at = entry.index(b"0000000")
    with open(path, "wb") as file:
        file.write(local)
        for n in range(ENTRIES):
            entry[at : at + 7] = b"%07d" % n
            file.write(entry)
        size, offset = len(entry) * ENTRIES, len(local)
        end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + (45).to_bytes(2, "little") * 2 + bytes(8)
        end64 += (ENTRIES).to_bytes(8, "little") * 2 + size.to_bytes(8, "little") + offset.to_bytes(8, "little")
        file.write(end64)
        file.write(b"PK\x06\x07" + bytes(4) + (offset + size).to_bytes(8, "little") + (1).to_bytes(4, "little"))
        file.write(b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2))
    return path


def test_a_large_directory_of_a_zip_is_refused_before_it_is_read(tmp_path, out, monkeypatch):
    archive = many_entries(tmp_path / "x.zip", "zip")
    monkeypatch.setattr("clipbert_cli.assets.unpack.MAX_DIRECTORY", ENTRIES * 50)
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", None)
    with pytest.raises(
        DownloadError, match=r"x\.zip: refused: its directory of 1,\d{3},\d{3} bytes has more than 1,500,000"
    ):
        unpack(archive, out, kind="zip")
    assert not out.exists()


def test_an_archive_of_very_many_entries_is_refused_before_they_are_all_read(tmp_path, out, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_FILES", 500)
    archive = many_entries(tmp_path / "x.tar", "tar")
    assert_refused(archive, out, "0000500", "one of more than 500 files")


@pytest.mark.parametrize(("suffix", "make"), [("zip", make_zip), ("tar", make_tar)])
@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_a_cut_archive_leaves_nothing(tmp_path, out, suffix, make, cut):
    path = make(tmp_path / f"x.{suffix}", {f"{n}": os.urandom(10_000) for n in range(20)})
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(DownloadError, match=r"damaged|shorter"):
        unpack(path, out, kind=suffix)
    assert not any(out.parent.iterdir())


def test_a_damaged_member_leaves_nothing(tmp_path, out):
    path = make_zip(tmp_path / "x.zip", {"good": b"good", "bad": b"bad" * 100})
    data = bytearray(path.read_bytes())
    data[data.index(b"bad") + 3 + 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DownloadError, match="damaged"):
        unpack(path, out, kind="zip")
    assert not any(out.parent.iterdir())


def test_a_repeated_name_is_refused(tmp_path, out):
    path = tmp_path / "x.tar"
    assert_refused(make_tar(path, [("same", b"1"), ("same", b"2")]), out, "same", "is there twice")


def test_a_file_under_a_file_is_refused(tmp_path, out):
    archive = make_tar(tmp_path / "x.tar", [("a", b"1"), ("a/b", b"2")])
    assert_refused(archive, out, "a/b", "is there twice")


def test_an_encrypted_member_is_refused(tmp_path, out):
    path = make_zip(tmp_path / "x.zip", {"secret": b"x"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert_refused(path, out, "secret", "is encrypted")


HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE),
    tarfile.SOLARIS_XHDTYPE,
)


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("first", [True, False])
def test_a_header_is_not_read_beyond_its_limit(kind, first, tmp_path, out):
    """Half a gigabyte of zeros, which are half a megabyte in the archive."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    long = special("long", kind)
    long.size = 2**29
    with gzip.open(tmp_path / "x.tar", "wb", compresslevel=1) as file:
        if not first:
            file.write(gzip.decompress(tarred(("one", b"1")))[:1024])
        file.write(long.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2**29 // 2**24):
            file.write(bytes(2**24))
    with pytest.raises(DownloadError, match="the header 'long' states 536870912 bytes"):
        unpack(tmp_path / "x.tar", out, kind="tar")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert not out.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"GNU.sparse.map": "a,b", "GNU.sparse.size": "3"},
        {"GNU.sparse.size": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "q"},
        {"GNU.sparse.map": "9" * 5000, "GNU.sparse.size": "3"},
        {"path": "../escape"},
        {"size": "-5"},
        {"size": "9" * 30},
    ],
)
def test_fields_of_a_header_without_sense_are_one_message(fields, tmp_path, out):
    member = tarfile.TarInfo("a")
    member.size, member.pax_headers = 3, fields
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DownloadError, match=r"damaged, or no tar archive|refused: member"):
        unpack(tmp_path / "x.tar", out, kind="tar")
    assert not out.exists()


def test_a_file_that_is_not_an_archive_is_an_error(tmp_path, out):
    path = tmp_path / "x"
    path.write_bytes(zlib.compress(b"x"))
    for kind in ("zip", "tar"):
        with pytest.raises(DownloadError, match=f"damaged, or no {kind} archive"):
            unpack(path, out, kind=kind)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OSError, match="No space left"):
            unpack(make_zip(tmp_path / "x.zip", {"big": os.urandom(3_000_000)}), disk / "out", kind="zip")
        assert not any(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_zip_behind_other_bytes_is_unpacked_and_one_with_its_directory_elsewhere_refused(tmp_path, out):
    make_zip(tmp_path / "x.zip", FILES)
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(b"#!/bin/sh\nexit\n" + b"x" * 1000 + whole)
    unpack(tmp_path / "x.zip", out, kind="zip")
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == sorted(
        name.rpartition("/")[2] for name in FILES
    )
    end = whole.rindex(b"PK\5\6")
    size, start = struct.unpack("<II", whole[end + 12 : end + 20])
    members, directory, rest = whole[:start], whole[start : start + size], whole[end:]
    for moved in (directory + members + rest, whole[:end] + b"x" * 500 + rest, members + rest):
        (tmp_path / "y.zip").write_bytes(moved)
        with pytest.raises(DownloadError, match="damaged, or no zip archive"):
            unpack(tmp_path / "y.zip", tmp_path / "other", kind="zip")
        assert not (tmp_path / "other").exists()
