"""Atomic files and folders, locks and fsync: the only place of the package that does this.

Whatever is written is whole or absent. A file or folder is written under a temporary name beside its final place, and
renamed when it is complete:

    .NAME.unfinished-HOST-PID    being written by process PID of machine HOST
    .NAME.removed-HOST-PID       being removed by that process

A killed process leaves such a name behind. The next writer of the same NAME on the same machine removes it. Nothing is
written through a symbolic link: a temporary name is created anew, and renaming replaces a link, never its target.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from clipbert_cli.errors import ClipbertError
from clipbert_cli.system_errors import stops_writing, system_error

# ------------------------------------------------------------------------------------------ files and folders


@contextmanager
def atomic_file(path: Path, *, mode: str = "w", durable: bool = False, replace: bool = True) -> Iterator[IO[Any]]:
    """Yield a stream whose content becomes the file `path` when the block ends without an error.

    Args:
        mode: "w" for UTF-8 text, "wb" for bytes.
        durable: fsync the content before the file gets its name.
        replace: whether a file that is there by then is replaced.

    Raises:
        FileExistsError: the file is there, and `replace` is not given.
        OSError: the file cannot be written; nothing is left of it.
    """
    with (
        atomic_path(path, replace=replace) as temporary,
        temporary.open(mode, encoding=None if "b" in mode else "utf-8") as stream,
    ):
        yield stream
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def atomic_path(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield the temporary name of an empty file that becomes `path`: for libraries that open a file by its name.

    The finished file has the permissions of any new file, whatever the library gave it.

    Args:
        replace: as in `atomic_file`.

    Raises:
        FileExistsError: the file is there, and `replace` is not given.
        OSError: the file cannot be written; nothing is left of it.
    """
    with _temporary(path, "unfinished") as temporary:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)
        if not replace:
            _refuse_present(path)
        os.replace(temporary, path)


def _refuse_present(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an error.

    Args:
        replace: whether a folder that is there already is replaced.
        durable: fsync the folder's files, the folder and its parent.

    Raises:
        FileExistsError: something is at `path`, and `replace` is not given.
        OSError: the folder cannot be written; nothing is left of it.
    """
    with _temporary(path, "unfinished") as temporary:
        temporary.mkdir()
        yield temporary
        publish_folder(temporary, path, replace=replace, durable=durable)


def publish_folder(folder: Path, path: Path, *, replace: bool = False, durable: bool = True) -> None:
    """Rename a complete folder to `path`, for work that goes on in the same folder after an interruption.

    Args:
        replace, durable: as in `atomic_folder`.

    Raises:
        FileExistsError: something is at `path`, and `replace` is not given.
        OSError: the folder cannot be renamed.
    """
    if durable:
        for entry in (entry for entry in folder.rglob("*") if not entry.is_symlink()):
            fsync(entry)
        fsync(folder)
    if replace:
        remove(path)
    _refuse_present(path)
    folder.rename(path)
    if durable:
        fsync(path.parent)


def publish_file(file: Path, path: Path) -> None:
    """Rename a complete file to `path`, on the disk as well, for work that goes on in the same file after a kill.

    Raises:
        OSError: the file cannot be renamed.
    """
    os.replace(file, path)
    fsync(path.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is removed when the block ends, for work on what `path` will hold.

    Raises:
        OSError: the folder cannot be made.
    """
    make_parents(path)
    with _temporary(path, "unfinished") as temporary:
        temporary.mkdir(mode=0o700)
        yield temporary


def temporary_folder() -> AbstractContextManager[Path]:
    """Return the context of an empty folder among the system's temporary files, which this process has once.

    Unlike a folder of `tempfile`, it does not stay for ever if the process is killed: the next one removes it.

    Raises:
        OSError: the folder cannot be made.
    """
    # Other people's processes make theirs in the same place.
    return scratch_folder(Path(tempfile.gettempdir(), f"clipbert-{os.getuid()}"))


def remove(path: Path) -> None:
    """Remove a file, link or folder; do nothing where there is none.

    A folder is renamed first, so that a removal that is cut short does not leave half a folder under its name.
    """
    if path.is_dir() and not path.is_symlink():
        with _temporary(path, "removed") as temporary:
            os.replace(path, temporary)
            shutil.rmtree(temporary)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what processes of this machine that no longer run left in `folder` while they wrote or removed `name`.

    Args:
        name: of a file or folder; default: any.
    """
    written = ".+" if name is None else re.escape(name)
    leftover = re.compile(rf"\.{written}\.(?:unfinished|removed)-(.+)-(\d+)")
    with suppress(FileNotFoundError):
        for entry in list(os.scandir(folder)):
            match = leftover.fullmatch(entry.name)
            if match and match[1] == socket.gethostname() and not _is_in_use(Path(entry.path), int(match[2])):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    # In a folder that people share, it may be somebody else's.
                    with suppress(OSError):
                        os.unlink(entry.path)


def point_link(link: Path, target: Path) -> None:
    """Make the symbolic link `link` point to `target`, relative to its own folder, in one step."""
    with _temporary(link, "unfinished") as temporary:
        temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
        os.replace(temporary, link)


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path, *, temporary: Path | None = None) -> Iterator[None]:
    """Name the path in an error of this block that is about writing it, whatever library raised it.

    Args:
        temporary: the name under which it is written, which nobody knows who gave the command.

    Raises:
        OSError: `path`, or something in it, cannot be written.
    """
    try:
        yield
    except Exception as exc:
        error = system_error(exc)
        is_known = error is not None and (isinstance(exc, OSError) or stops_writing(error))
        if error is None or not is_known or isinstance(exc, ClipbertError):
            raise
        named = str(error.filename or "")
        if temporary and f"{named}/".startswith(f"{temporary}/"):
            named = f"{path}{named.removeprefix(str(temporary))}"
        elif stops_writing(error) and (not named or Path(named) in path.parents):
            named = str(path)
        elif isinstance(exc, OSError):
            raise
        raise OSError(error.errno, error.strerror, named) from exc


def make_parents(path: Path) -> None:
    """Make the folders above `path` that are missing.

    Raises:
        OSError: one of them cannot be made.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)


_in_use: set[Path] = set()
"""The temporary names that this process is writing or removing."""


@contextmanager
def _temporary(path: Path, state: str) -> Iterator[Path]:
    """Yield a name beside `path` that no other process uses; what is there when the block ends is removed."""
    remove_leftovers(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{state}-{socket.gethostname()}-{os.getpid()}")
    if temporary in _in_use:
        raise FileExistsError(errno.EEXIST, "another thread is writing it", str(path))
    _in_use.add(temporary)
    try:
        with naming(path, temporary=temporary):
            yield temporary
    finally:
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        elif os.path.lexists(temporary):  # on a read-only disk, removing what is not there fails
            temporary.unlink()
        _in_use.discard(temporary)


def _is_in_use(temporary: Path, process: int) -> bool:
    """Return whether `process` can still be writing there. A number may be used again, so our own proves nothing."""
    if process == os.getpid():
        return temporary in _in_use
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def write_together(files: Mapping[Path, str]) -> None:
    """Write text files, all of them or none: each has its new content on the disk before the first gets its name.

    Raises:
        OSError: one of them cannot be written; all are as they were.
    """
    with ExitStack() as stack:
        for path, text in files.items():
            stream = stack.enter_context(atomic_file(path))
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document, in a folder that is made where it is missing.

    Raises:
        OSError: the file cannot be written; an earlier one is as it was.
    """
    make_parents(path)
    with atomic_file(path) as stream:
        stream.write(json.dumps(value, indent=1) + "\n")


# ------------------------------------------------------------------------------------------ links


def refuse_link(path: Path) -> None:
    """Raise OSError if `path` is a symbolic link: a folder from a stranger could have it point anywhere."""
    if path.is_symlink():
        raise _is_link(path)


def without_links(name: str, flags: int) -> int:
    """Open a file for `open(..., opener=without_links)`, to write in place and never through a link.

    Raises:
        OSError: the file is a symbolic link, or cannot be opened.
    """
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _is_link(Path(name)) from None
        raise


def _is_link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "it is a symbolic link, and nothing is written through one", str(path))


# ------------------------------------------------------------------------------------------ locks


class LockHeldError(Exception):
    """Another process, or another thread of this one, holds the lock; `owner` is what it wrote there."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextmanager
def lock(file: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock on `file` against other processes and threads. The system releases it whatever ends this process.

    A child made by fork does not hold the lock: it closes the descriptor, so that a loading process that outlives its
    parent does not block the next run.

    Args:
        file: is created where it is missing, names the process that holds the lock, and is removed afterwards.
        wait: wait while another holds the lock.

    Raises:
        LockHeldError: another holds it, and `wait` is not given.
        OSError: the file cannot be made.
    """
    descriptor = _locked(file, wait=wait)
    if descriptor is None:
        raise LockHeldError(lock_owner(file))
    _close_in_children()
    _held.add(descriptor)
    try:
        with suppress(OSError):  # on a full disk the lock is held without its owner's name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        if descriptor in _held:  # a child made by fork has closed it, and the lock is not the child's to release
            with suppress(OSError):  # the disk may be read-only by now
                if _is_at(descriptor, file):
                    file.unlink()
            _held.discard(descriptor)
            os.close(descriptor)


def is_locked(file: Path) -> bool:
    """Return whether another process or thread holds the lock on `file`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _lock_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _locked(file: Path, *, wait: bool) -> int | None:
    """Return the descriptor of the locked file, None where another holds it."""
    while True:
        make_parents(file)
        try:
            descriptor = without_links(str(file), os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # another process removed the empty folder just now
            continue
        locked = False
        try:
            if not _lock_descriptor(descriptor, wait=wait):
                return None
            # The last holder may have removed the file meanwhile: a lock on a removed file excludes nobody.
            locked = _is_at(descriptor, file)
            if locked:
                return descriptor
        finally:
            if not locked:
                os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    """Return whether an open file still has its name, which another file may have by now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _lock_descriptor(descriptor: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def lock_owner(file: Path) -> str:
    """Return the process that holds the lock on `file`, as it wrote it there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"


@functools.cache
def _close_in_children() -> None:
    """Register, once per process, that a child made by fork closes the descriptors of this process's locks."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
