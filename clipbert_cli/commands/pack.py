"""`clipbert pack`: media files into one store."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import error, note, print_json, print_result, warn_of_each
from clipbert_cli.errors import UsageError
from clipbert_cli.foreign import excerpt, parse_fraction
from clipbert_cli.printable import plural
from clipbert_cli.types import Kind, MediaIds, OnDuplicate

if TYPE_CHECKING:
    from clipbert_cli.store.gpu_share import GpuShare
    from clipbert_cli.store.ingest import Transcode
    from clipbert_cli.store.packing import PackSummary

WorkersOption = Annotated[
    int | None,
    options.number(
        "--workers",
        "Number of processes that decode; 0 decodes in this process. By default there is one per processor core.",
        least=0,
        most=256,
    ),
]


def pack(
    sources: Annotated[
        list[Path], options.argument("SRC", "Media files, or folders that are searched for media files at any depth.")
    ],
    store: Annotated[
        Path, options.argument("STORE", "Folder of the new store; with --add, of the store that is added to.")
    ],
    kind: Annotated[
        Kind | None, options.option("--kind", "Kind of the media files. By default the endings of their names decide.")
    ] = None,
    workers: WorkersOption = None,
    add: Annotated[
        bool, options.option("--add", "Add the files to an existing store, which nobody may read meanwhile.")
    ] = False,
    on_duplicate: Annotated[
        OnDuplicate,
        options.option(
            "--on-duplicate",
            "If several files have the same media id: stop, take the first one in the order of their paths, or "
            "take the longest video.",
        ),
    ] = "error",
    transcode: Annotated[
        str | None,
        options.option(
            "--transcode",
            "Re-encode the videos with loss, so that clips are decoded three to four times as fast. SIDE is the "
            "longer side in pixels, GOP the number of frames between key frames, CRF the quality of x264 (0 is best, "
            "51 worst). 448:16:23 is a good choice.",
            metavar="SIDE:GOP:CRF",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        options.number(
            "--max-pixels",
            "Skip pictures and videos with more pixels per frame. The default is that of data.max_pixels, which "
            "training compares with as well.",
            most=2**32,
        ),
    ] = None,
    frame_folders: Annotated[
        bool,
        options.option(
            "--frame-folders",
            "Every folder of pictures holds the frames of a video, in the order of their numbers. The media id is "
            "the folder's name. Needs --fps.",
        ),
    ] = False,
    fps: Annotated[
        str | None,
        options.option(
            "--fps",
            "With --frame-folders: how many of the frames make a second, such as 25, 29.97 or 30000/1001.",
            metavar="N",
        ),
    ] = None,
    ids: Annotated[
        MediaIds,
        options.option(
            "--id",
            "The media id of a file: its name without the ending, or its path from SRC without the ending, which "
            "keeps files of one name in several folders apart.",
        ),
    ] = "stem",
    strict: Annotated[
        bool, options.option("--strict", "Exit with code 1 if a file was skipped or is damaged.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Pack video or image files into one LMDB store.

    The media id of a file is its name without the ending. Every file is decoded once completely. Files that cannot be
    decoded are skipped and listed with the reason. If packing was stopped, the same command continues it.
    """
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.media.ffmpeg import MAX_PIXELS
    from clipbert_cli.store.gpu_share import share_of
    from clipbert_cli.store.lmdb_store import open_store
    from clipbert_cli.store.packing import pack_media

    settings = _transcode(transcode)
    with counting("packing", "files") as show:
        summary = pack_media(
            sources,
            store,
            kind=kind,
            add=add,
            on_duplicate=on_duplicate,
            transcode=settings,
            max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
            ids=ids,
            frame_rate=_frame_rate(fps, frame_folders=frame_folders),
            workers=worker_count(workers),
            on_progress=show,
        )
    packed = open_store(summary.store)
    on_gpu = share_of([(packed, packed)])
    if as_json:
        print_json(_document(summary, on_gpu))
    else:
        _show(summary, on_gpu)
        print_result(str(summary.store))
    wrong = len(summary.skipped) + len(summary.damaged)
    if strict and wrong:
        error(
            f"{plural(wrong, 'file')} skipped or damaged, which --strict does not allow",
            hint=f"fix or remove these files; {summary.store} holds all the others",
        )
        raise typer.Exit(1)


def worker_count(workers: int | None) -> int:
    """Return the number of worker processes that --workers asks for."""
    from clipbert_cli.cores import available_cores

    return available_cores() if workers is None else workers


def _frame_rate(value: str | None, *, frame_folders: bool) -> Fraction | None:
    if not frame_folders:
        if value is not None:
            raise UsageError("--fps is the rate of --frame-folders: videos state their own", hint="leave --fps out")
        return None
    try:
        rate = parse_fraction(value or "")
    except ValueError:
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(
            f"--fps is {excerpt(str(value))}: --frame-folders needs the rate at which the frames were taken, "
            "more than 0 and at most 1000 per second",
            hint="for example --fps 25, or the rate that was given to ffmpeg with -vf fps=",
        )
    return rate


def _transcode(value: str | None) -> Transcode | None:
    from clipbert_cli.store.ingest import Transcode

    if value is None:
        return None
    try:
        long_side, gop, crf = (int(part) for part in value.split(":"))
        return Transcode(long_side, gop, crf)
    except ValueError as exc:
        raise UsageError(
            f"--transcode is {excerpt(value)!r}, but must be SIDE:GOP:CRF, three whole numbers (SIDE from 16 to 16384, "
            "GOP from 1 to 10000, CRF from 0 to 51)",
            hint="for example --transcode 448:16:23",
        ) from exc


def _document(summary: PackSummary, on_gpu: GpuShare | None) -> dict[str, object]:
    return {
        **asdict(summary),
        "store": str(summary.store),
        "skipped": [{"file": str(path), "reason": reason} for path, reason in summary.skipped],
        "damaged": [{"file": str(path), "reason": reason} for path, reason in summary.damaged],
        "not_taken": [str(path) for path in summary.not_taken],
        "on_gpu": None if on_gpu is None else on_gpu.to_json(),
    }


def _show(summary: PackSummary, on_gpu: GpuShare | None) -> None:
    from rich.filesize import decimal

    if summary.resumed:
        note(f"continued: {plural(summary.resumed, 'file')} had been packed before")
    warn_of_each("skipped", summary.skipped)
    warn_of_each("packed, but damaged", summary.damaged)
    packed = f"packed {plural(summary.packed, summary.kind)}, {decimal(summary.bytes)}"
    note(f"{packed}; skipped {len(summary.skipped)}, damaged {len(summary.damaged)}")
    if on_gpu is not None:
        note(f"a usual GPU decodes {on_gpu.describe()}")
    if summary.not_taken:
        endings = Counter(path.suffix.lower() or "no ending" for path in summary.not_taken)
        listed = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        note(f"not taken, because of their endings: {listed} (--json lists the files; name a file itself to pack it)")
