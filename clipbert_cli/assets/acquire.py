"""Carry out a download plan: threads fetch files, and each part is unpacked, converted and put in place.

A part that fails stops no other part. A part is complete or absent; what its download has brought stays for the next
try.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipbert_cli.assets.catalog import AssetPart, archive_kind, base_name
from clipbert_cli.assets.check_file import FetchedFile, WrongContentError
from clipbert_cli.assets.connection import UnreachedError
from clipbert_cli.assets.convert.record_writer import OutputCount, RecordWriter
from clipbert_cli.assets.convert.registry import run_converter
from clipbert_cli.assets.download_plan import DataLayout, DownloadPlan, PlannedFile, PlannedPart
from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.assets.unpack import unpack
from clipbert_cli.errors import ClipbertError, DownloadError
from clipbert_cli.files import atomic_path, make_parents, remove_leftovers, scratch_folder


@dataclass
class PartResult:
    """The result for one part.

    complete: the part can be used. partial: something failed and can be tried again. manual: no source gave a file that
    the user can fetch by hand. `hint` says what to do where the same command would fail again. `unreached` has the
    hosts to which no connection was made, if no host at all was reached and nothing else is missing.
    """

    name: str
    part: AssetPart
    state: Literal["complete", "partial", "manual"] = "partial"
    counts: dict[str, OutputCount] = field(default_factory=dict)
    files: list[FetchedFile] = field(default_factory=list)
    packed: str | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hint: str | None = None
    unreached: list[str] = field(default_factory=list)

    def fail(self, exc: ClipbertError | OSError, prefix: str = "") -> None:
        """Record why files that are all here do not make the part."""
        self.state = "partial"
        self.errors.append(prefix + (str(exc) if isinstance(exc, ClipbertError) else _describe(exc)))
        self.hint = exc.hint if isinstance(exc, ClipbertError) else None


def acquire(plan: DownloadPlan, fetcher: Fetcher, *, workers: int, keep: bool) -> list[PartResult]:
    """Complete every part of the plan, as far as its files can be had. The caller holds the data folder's lock.

    Args:
        workers: number of files that are downloaded at the same time.
        keep: whether downloaded files stay after their parts are complete.

    Raises:
        KeyboardInterrupt: the threads have been told to stop; what has arrived stays.
    """
    # Also for complete parts: a process that was killed right after it had put the last file in place left some, too.
    folders = [plan.layout.downloads, *(plan.layout.folder(planned.part) for planned in plan.parts)]
    for folder in {*folders, *(folder.parent for folder in folders)}:
        remove_leftovers(folder)
    threads, fetches = _start_fetching(plan, fetcher, workers)
    results: dict[str, PartResult] = {}
    # Unpacking and converting happen here, in the main thread, which is the one that Ctrl-C interrupts.
    try:
        for planned in plan.parts:
            results[planned.name] = _complete_part(planned, plan.layout, fetches)
            # Right after each part and not at the end, which keeps the disk space low.
            if not keep:
                _remove_used(planned, plan, results)
    except BaseException:
        fetcher.stop.set()
        # One second is enough for threads to close their files; one that waits for a silent server does not notice.
        deadline = time.monotonic() + 1
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        raise
    for file in plan.files().values():
        _remove_empty(file.target.parent, plan.layout.data)
    for result in results.values():
        # Where another host has answered, the reason is not this machine's network but the host itself.
        if fetcher.has_connected:
            result.unreached = []
        elif result.unreached:
            result.state = "partial"
    return list(results.values())


def _start_fetching(
    plan: DownloadPlan, fetcher: Fetcher, workers: int
) -> tuple[list[threading.Thread], dict[str, Future[FetchedFile | None]]]:
    """Start the threads that fetch the files of a plan; return them and the future of each file."""
    files = plan.files()
    fetches: dict[str, Future[FetchedFile | None]] = {name: Future() for name in files}
    todo: queue.SimpleQueue[PlannedFile] = queue.SimpleQueue()
    for file in files.values():
        todo.put(file)

    def work() -> None:
        with suppress(queue.Empty):
            while not fetcher.stop.is_set():
                file = todo.get_nowait()
                try:
                    fetches[file.name].set_result(_check_provided(file, fetcher) or fetcher.fetch(file))
                except Exception as exc:  # noqa: BLE001 - raised again where the result is asked for
                    fetches[file.name].set_exception(exc)

    # Daemons, and not a thread pool, which the interpreter joins when it exits: after Ctrl-C nobody waits for a server
    # that is silent. Whatever such a thread is doing, the next download can continue from the disk.
    threads = [threading.Thread(target=work, daemon=True, name=f"fetch-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    return threads, fetches


def _check_provided(file: PlannedFile, fetcher: Fetcher) -> FetchedFile | None:
    """Check the copy that the user passed with --source; return None where there is none."""
    if file.provided is None:
        return None
    try:
        return fetcher.check(file, file.provided, file.provided)
    except WrongContentError as exc:
        raise DownloadError(
            f"{file.provided}: not the file {file.name}: {exc}", hint="download it again, then repeat this command"
        ) from None


def _complete_part(
    planned: PlannedPart,
    layout: DataLayout,
    fetches: Mapping[str, Future[FetchedFile | None]],
) -> PartResult:
    """Wait for the files of a part, then unpack, convert and place them."""
    result = PartResult(planned.name, planned.part)
    if planned.is_complete:
        result.state = "complete"
        return result
    arrived, left_out = [], []
    failures: list[ClipbertError | OSError] = []
    no_source = not planned.files
    for file in planned.files:
        try:
            fetched = fetches[file.name].result()
        except (ClipbertError, OSError) as exc:
            # The converters do without optional files, with a warning that says what is different.
            if file.optional:
                left_out.append(f"{file.name} could not be downloaded; {planned.name} is made without it")
            else:
                failures.append(exc)
                no_source = no_source or isinstance(exc, DownloadError)
        else:
            arrived.append(file)
            if fetched is not None:
                result.files.append(fetched)
                result.warnings += fetched.warnings
    if no_source or failures:
        result.errors = [_describe(exc) for exc in failures]
        if all(isinstance(exc, UnreachedError) for exc in failures):
            result.unreached = [host for exc in failures if isinstance(exc, UnreachedError) for host in exc.hosts]
        result.state = "manual" if no_source and planned.part.manual else "partial"
        return result
    result.warnings += left_out
    try:
        converted = _MAKE[planned.part.kind](planned, layout, arrived)
    except (ClipbertError, OSError) as exc:
        result.fail(exc)
        return result
    if converted:
        result.counts = converted.counts
        result.warnings += converted.warnings
    result.state = "complete"
    return result


def _describe(exc: ClipbertError | OSError) -> str:
    if isinstance(exc, OSError):
        return f"{exc.filename or 'writing'}: {exc.strerror or exc}"
    return str(exc) + (f" ({exc.hint})" if exc.hint else "")


def _make_weights(planned: PlannedPart, layout: DataLayout, arrived: list[PlannedFile]) -> None:
    for file in arrived:
        if file.path != file.target:
            make_parents(file.target)
            with atomic_path(file.target) as temporary:
                shutil.copyfile(file.path, temporary)


def _make_annotations(planned: PlannedPart, layout: DataLayout, arrived: list[PlannedFile]) -> RecordWriter:
    part = planned.part
    with scratch_folder(layout.downloads / planned.name.replace("/", ".")) as raw:
        for file in arrived:
            if kind := archive_kind(file.name):
                target = raw / f"{base_name(file.name)}.d"
                unpack(file.path, target, kind=kind, members=file.entry.members)
            else:
                (raw / base_name(file.name)).symlink_to(file.path.absolute())
        return run_converter(str(part.convert), raw, layout.folder(part), part)


def _make_media(planned: PlannedPart, layout: DataLayout, arrived: list[PlannedFile]) -> None:
    for file in arrived:
        kind = archive_kind(file.name)
        assert kind is not None, file.name
        unpack(file.path, layout.unpacked(file.name, planned.part), kind=kind, members=file.entry.members)


_MAKE: dict[str, Callable[[PlannedPart, DataLayout, list[PlannedFile]], RecordWriter | None]] = {
    "weights": _make_weights,
    "annotations": _make_annotations,
    "media": _make_media,
}


def _remove_used(done: PlannedPart, plan: DownloadPlan, results: Mapping[str, PartResult]) -> None:
    """Remove the downloads of a complete part, but for files that another part of the plan still needs."""
    complete = {name for name, result in results.items() if result.state == "complete"}
    needed = {file.name for part in plan.parts if part.name not in complete for file in part.files}
    for file in done.files:
        if file.name not in needed and file.target.is_relative_to(plan.layout.downloads):
            file.target.unlink(missing_ok=True)
            _remove_empty(file.target.parent, plan.layout.data)


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder below `top`, and those above it, as far as they are empty."""
    with suppress(OSError):  # it holds other downloads
        while folder != top:
            folder.rmdir()
            folder = folder.parent
