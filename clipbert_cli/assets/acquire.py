"""Carries out a plan: files come in parallel, and each part is unpacked, converted and put in place once its files
are here. One part's failure stops no other. A part is complete, or what came of it is kept for the next try.
"""

from __future__ import annotations

import queue
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clipbert_cli.assets.catalog import Catalog, Part
from clipbert_cli.assets.check_file import Received, WrongContent, check_file
from clipbert_cli.assets.convert.registry import run_converter
from clipbert_cli.assets.download_plan import Layout, Plan, PlannedFile, PlannedPart
from clipbert_cli.assets.fetch import Fetcher
from clipbert_cli.assets.partial_file import sweep_part
from clipbert_cli.assets.transfer import Stopped, lock_file, locked
from clipbert_cli.assets.unpack import unpack
from clipbert_cli.errors import ClipbertError, DownloadError, OutputError
from clipbert_cli.files import atomic_folder, link_or_copy, read_json, remove_leftovers, remove_stale_lock, write_json


@dataclass
class PartResult:
    """What became of a part. `manual`: a person must get something; `partial`: it failed and can be tried again."""

    name: str
    part: Part
    state: Literal["complete", "partial", "manual"] = "partial"
    was_complete: bool = False
    counts: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


Outcome = Received | ClipbertError | OSError | None


def acquire(plan: Plan, catalog: Catalog, fetcher: Fetcher, *, workers: int, keep: bool) -> list[PartResult]:
    """Make every part of the plan complete, as far as that goes.

    Args:
        workers: files that are fetched at the same time.
        keep: whether downloaded files stay after their parts are complete.

    Raises:
        KeyboardInterrupt: after the threads have stopped; parts of files stay.
    """
    results = {p.name: PartResult(p.name, p.part, was_complete=p.state == "complete") for p in plan.parts}
    waiting = list(plan.parts)
    for part in plan.parts:
        _sweep(part, plan.layout)
    outcomes: dict[str, Outcome] = {}
    finished: queue.Queue[tuple[str, Outcome]] = queue.Queue()
    threads = _start_fetching(plan, fetcher, finished, workers)
    try:
        while waiting:
            for planned in [p for p in waiting if all(file.name in outcomes for file in p.files)]:
                waiting.remove(planned)
                _finish(planned, plan.layout, catalog, outcomes, results[planned.name], fetcher.stop)
                if not keep:
                    _remove_used(planned, plan, results)
            if waiting:
                name, outcome = _next(finished)
                outcomes[name] = outcome
    except BaseException:
        fetcher.stop.set()
        for thread in threads:
            thread.join(timeout=3)
        raise
    return list(results.values())


def _next(finished: queue.Queue[tuple[str, Outcome]]) -> tuple[str, Outcome]:
    while True:  # a queue that waits for ever would not hear Ctrl-C everywhere
        try:
            return finished.get(timeout=0.2)
        except queue.Empty:
            continue


def _start_fetching(
    plan: Plan, fetcher: Fetcher, finished: queue.Queue[tuple[str, Outcome]], workers: int
) -> list[threading.Thread]:
    todo: queue.SimpleQueue[PlannedFile] = queue.SimpleQueue()
    for file in plan.files().values():
        todo.put(file)

    def work() -> None:
        while not fetcher.stop.is_set():
            try:
                file = todo.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((file.name, _get(file, plan, fetcher)))
            except (ClipbertError, OSError) as exc:
                finished.put((file.name, exc))
            except Stopped:
                return

    # Daemons: after Ctrl-C nobody waits for a server that is silent. What they hold is resumable at any moment.
    threads = [threading.Thread(target=work, daemon=True, name=f"fetch-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    return threads


def _get(file: PlannedFile, plan: Plan, fetcher: Fetcher) -> Received | None:
    """One file: handed over, already here, or fetched; its receipt is kept."""
    layout = plan.layout
    users = [planned.part for planned in plan.parts if file in planned.files]

    def is_used_up() -> bool:  # another process was first, and has removed the file already
        return all(layout.state(part) == "complete" for part in users)

    def record(received: Received) -> None:
        receipt = {"source": received.source, "bytes": received.bytes, "sha256": received.sha256}
        write_json(layout.receipt(file.name), receipt)

    before = read_json(layout.receipt(file.name))
    if file.handed_over:
        handed = _check_handed_over(file, file.handed_over, fetcher.stop)
        with locked(layout.receipt(file.name), fetcher.stop):
            record(handed)
        received: Received | None = handed
    else:
        received = fetcher.fetch(file.name, file.entry, file.target, unless=is_used_up, record=record)
    if received is None:
        return None
    published = file.entry.sha256 or file.entry.md5
    if not published and isinstance(before, dict) and before.get("sha256") != received.sha256:
        changed = (
            f"{file.name}: its sha256 is {received.sha256}, at its last download it was {before.get('sha256')}: "
            "the file changed at its source"
        )
        received = Received(received.source, received.bytes, received.sha256, (*received.warnings, changed))
    return received


def _check_handed_over(file: PlannedFile, path: Path, stop: threading.Event) -> Received:
    try:
        return check_file(file.name, file.entry, path, stop, source=str(path))
    except WrongContent as exc:
        raise DownloadError(
            f"{path}: not the file {file.name}: {exc}", hint="get the file again, then hand it over"
        ) from None


def _finish(
    planned: PlannedPart,
    layout: Layout,
    catalog: Catalog,
    outcomes: dict[str, Outcome],
    result: PartResult,
    stop: threading.Event,
) -> None:
    """Unpack, convert, put in place; the result says how it went."""
    if planned.state == "complete":
        result.state = "complete"
        return
    by_hand = not (planned.files or planned.media_folder)  # nothing that a program may fetch
    for file in planned.files:
        outcome = outcomes[file.name]
        by_hand = by_hand or (isinstance(outcome, DownloadError) and not file.optional)
        if isinstance(outcome, Received):
            result.warnings += outcome.warnings
        elif isinstance(outcome, Exception) and file.optional:
            result.warnings.append(f"{file.name} could not be had; {planned.name} is made without it")
        elif isinstance(outcome, Exception):
            result.errors.append(_say(outcome))
    if by_hand or result.errors:
        result.state = "manual" if by_hand and planned.part.manual else "partial"
        return
    paths = {
        file.name: file.handed_over or file.target
        for file in planned.files
        if not isinstance(outcomes[file.name], Exception)
    }
    try:
        with locked(_lock_of(planned, layout), stop):
            if layout.state(planned.part) != "complete":  # another process may have been first
                _MAKE[planned.part.kind](_Work(planned, layout, catalog, paths, result, stop))
    except (ClipbertError, OSError) as exc:
        result.errors.append(_say(exc))
    else:
        result.state = "complete"


def _lock_of(planned: PlannedPart, layout: Layout) -> Path:
    return layout.downloads / planned.name.replace("/", ".")


def _raw_of(planned: PlannedPart, layout: Layout) -> Path:
    return layout.downloads / f".raw.{planned.name.replace('/', '.')}"


def _sweep(planned: PlannedPart, layout: Layout) -> None:
    """Remove what a killed download left behind at the very end of a part."""
    for path in (*(layout.file(name, planned.part) for name in planned.part.files), _lock_of(planned, layout)):
        remove_stale_lock(lock_file(path))
        sweep_part(path)
    if planned.part.kind == "annotations" and planned.state == "complete":
        shutil.rmtree(_raw_of(planned, layout), ignore_errors=True)
        remove_leftovers(layout.data / str(planned.part.folder), "conversion")


def _say(exc: ClipbertError | OSError) -> str:
    if isinstance(exc, OSError):
        return f"{exc.filename or 'writing'}: {exc.strerror or exc}"
    return str(exc) + (f" ({exc.hint})" if exc.hint else "")


@dataclass(frozen=True)
class _Work:
    """A part whose files are here: `paths` says where each of them is."""

    planned: PlannedPart
    layout: Layout
    catalog: Catalog
    paths: dict[str, Path]
    result: PartResult
    stop: threading.Event

    @property
    def part(self) -> Part:
        return self.planned.part


def _make_weights(work: _Work) -> None:
    for name, path in work.paths.items():
        target = work.layout.file(name, work.part)
        if path != target:
            link_or_copy(path, target)


def _make_annotations(work: _Work) -> None:
    raw = _raw_of(work.planned, work.layout)
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    try:
        for name, path in work.paths.items():
            entry, base = work.catalog.files[name], name.rsplit("/", 1)[1]
            if entry.unpack:
                unpack(path, raw / f"{base}.d", kind=entry.unpack, members=entry.members, stop=work.stop)
            else:
                link_or_copy(path, raw / base)
        folder = work.layout.data / str(work.part.folder)
        converted = run_converter(str(work.part.convert), raw, folder, work.part)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
    work.result.counts = converted.counts
    work.result.warnings += converted.warnings


def _make_media(work: _Work) -> None:
    if work.planned.media_folder:
        _take_folder(work.planned.media_folder, work.layout.handed_over(work.part), work.stop)
    for name, path in work.paths.items():
        entry, target = work.catalog.files[name], work.layout.unpacked(name, work.part)
        assert entry.unpack is not None
        if not target.exists():
            unpack(path, target, kind=entry.unpack, members=entry.members, stop=work.stop)


_MAKE = {"weights": _make_weights, "annotations": _make_annotations, "media": _make_media}


def _take_folder(source: Path, target: Path, stop: threading.Event) -> None:
    """All visible files of `source`, linked where the disk allows it; the person's own folder stays as it is."""
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError(
            f"--source {source} contains {target}: a folder cannot be handed over into itself",
            hint="name the folder of media files alone",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as temporary:
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if path.is_file() and not any(name.startswith(".") for name in relative.parts):
                link_or_copy(path, temporary / relative)
            if stop.is_set():
                raise Stopped


def _remove_used(done: PlannedPart, plan: Plan, results: dict[str, PartResult]) -> None:
    """Remove the downloads of a complete part that no other part of the plan still needs."""
    needed = {file.name for p in plan.parts if results[p.name].state != "complete" for file in p.files}
    for file in done.files:
        if file.name not in needed and file.target.is_relative_to(plan.layout.downloads):
            file.target.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or gone
                file.target.parent.rmdir()
