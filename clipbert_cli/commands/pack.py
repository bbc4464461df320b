"""`clipbert pack`: media files into one store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipbert_cli.commands.options import JsonOption

if TYPE_CHECKING:
    from clipbert_cli.data.packing import PackSummary

_LISTED = 20


def pack(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC", help="Media files, and folders that are searched for them.")
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The new store: a folder that does not exist yet.")],
    kind: Annotated[
        Literal["video", "image"] | None, typer.Option("--kind", help="What the files hold; default: see their names.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any file was skipped or is damaged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pack video or image files into one LMDB store, each under its name without the ending.

    Every file is decoded once on the way. Files that cannot be used are skipped and listed with the reason.

    Example: clipbert pack videos/ vis_db/msrvtt
    """
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import error, print_json
    from clipbert_cli.data.packing import PackProgress, pack_media

    with progress_bar("files") as bar:
        task = bar.add_task("packing", total=None)

        def show(progress: PackProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        summary = pack_media(sources, store, kind=kind, on_progress=show)
    if as_json:
        print_json(_document(summary))
    else:
        _show(summary)
        typer.echo(summary.store)
    wrong = len(summary.skipped) + len(summary.damaged)
    if strict and wrong:
        error(f"{wrong} files are skipped or damaged, and --strict is given", hint="the store holds all the others")
        raise typer.Exit(1)


def _document(summary: PackSummary) -> dict[str, Any]:
    return {
        "store": str(summary.store),
        "kind": summary.kind,
        "packed": summary.packed,
        "bytes": summary.bytes,
        "skipped": [{"file": str(path), "reason": reason} for path, reason in summary.skipped],
        "damaged": [{"file": str(path), "reason": reason} for path, reason in summary.damaged],
        "removed": [str(path) for path in summary.removed],
    }


def _show(summary: PackSummary) -> None:
    from rich.filesize import decimal

    from clipbert_cli.commands.terminal import note, warn
    from clipbert_cli.data.media_files import PLURAL

    for folder in summary.removed:
        note(f"removed {folder}, which a stopped pack had left")
    for what, files in (("skipped", summary.skipped), ("packed, but damaged", summary.damaged)):
        for path, reason in files[:_LISTED]:
            warn(f"{what}: {path}: {reason}")
        if len(files) > _LISTED:
            warn(f"{what}: {len(files) - _LISTED} more files (--json lists all)")
    packed = f"packed {summary.packed} {PLURAL[summary.kind]}, {decimal(summary.bytes)}"
    note(f"{packed}; skipped {len(summary.skipped)}, damaged {len(summary.damaged)}")
