"""`clipbert pack`: media files into one store; and checking, indexing, listing and looking at stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from clipbert_cli.commands.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from clipbert_cli.store.pack import PackSummary
    from clipbert_cli.store.verify import Checked

_LISTED = 20


class PackGroup(TyperGroup):
    """`clipbert pack SRC… STORE` is `clipbert pack media SRC… STORE`; the other subcommands go by their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["media", *args])


pack_app = typer.Typer(cls=PackGroup, help="Pack media files into a store; check, index, list and show stores.")

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A media store.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=0, max=256, help="Decoding processes; default: one a core, 0: in this process."),
]


@pack_app.command(
    "media",
    epilog="Example: clipbert pack videos/ vis_db/msrvtt\n\n"
    "See also: clipbert pack verify STORE, clipbert pack index STORE, clipbert pack ls STORE, "
    "clipbert pack show STORE MEDIA_ID -o contact.png",
)
def media_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SRC", help="Media files, and folders that are searched for them.")
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The new store, or with --add one that is there.")],
    kind: Annotated[
        Literal["video", "image"] | None, typer.Option("--kind", help="What the files hold; default: see their names.")
    ] = None,
    workers: WorkersOption = None,
    add: Annotated[bool, typer.Option("--add", help="Add to a store; nobody should read it meanwhile.")] = False,
    on_duplicate: Annotated[
        Literal["error", "first", "longest"],
        typer.Option("--on-duplicate", help="Of files with one media id: none, the first by path, the longest video."),
    ] = "error",
    transcode: Annotated[
        str | None,
        typer.Option(
            "--transcode",
            metavar="LONG_SIDE:GOP:CRF",
            help="Re-encode videos, lossy: 448:16:20 samples two to three times as fast.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any file was skipped or is damaged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pack video or image files into one LMDB store, each under its name without the ending.

    Every file is decoded once on the way. Files that cannot be used are skipped and listed with the reason. A pack that
    was stopped goes on with the same command.
    """
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.commands.terminal import error, print_json
    from clipbert_cli.store.pack import PackProgress, pack_media

    settings = _transcode(transcode)
    with progress_bar("files") as bar:
        task = bar.add_task("packing", total=None)

        def show(progress: PackProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        summary = pack_media(
            sources,
            store,
            kind=kind,
            add=add,
            on_duplicate=on_duplicate,
            transcode=settings,
            workers=_workers(workers),
            on_progress=show,
        )
    if as_json:
        print_json(_document(summary))
    else:
        _show(summary)
        typer.echo(summary.store)
    wrong = len(summary.skipped) + len(summary.damaged)
    if strict and wrong:
        error(f"{wrong} files are skipped or damaged, and --strict is given", hint="the store holds all the others")
        raise typer.Exit(1)


@pack_app.command("verify", epilog="Example: clipbert pack verify vis_db/msrvtt")
def verify_command(store: StoreArgument, workers: WorkersOption = None, as_json: JsonOption = False) -> None:
    """Compare every item with its checksum and decode it fully.

    Exit code 0: every item is what was packed. 1: some are not, or do not decode.
    """
    from clipbert_cli.store.verify import verify_store

    with _counting("checking") as show:
        checked = verify_store(store, workers=_workers(workers), on_progress=show)
    _report(store, checked, done="checked", as_json=as_json)
    if checked.wrong:
        raise typer.Exit(1)


@pack_app.command("index", epilog="Example: clipbert pack index vis_db/msrvtt.lmdb")
def index_command(
    store: StoreArgument,
    beside: Annotated[
        bool, typer.Option("--beside", help="Write STORE.index beside the store and leave the store as it is.")
    ] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add what pack learns of media to a store from elsewhere, so that its videos are not probed on first use.

    Exit code 0: every item is known now. 1: some do not decode; the others are.
    """
    from clipbert_cli.store.scan import index_store

    with _counting("indexing") as show:
        checked = index_store(store, beside=beside, workers=_workers(workers), on_progress=show)
    _report(store, checked, done="indexed", as_json=as_json)
    if checked.wrong:
        raise typer.Exit(1)


@pack_app.command("ls", epilog="Example: clipbert pack ls vis_db/msrvtt | head")
def list_command(store: StoreArgument, as_json: JsonOption = False) -> None:
    """List the items: media id, size, width x height, codec or format, and of a video seconds and frames."""
    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.store.lmdb_store import open_store

    source = open_store(store)
    rows = [{"media_id": media_id, **(source.record(media_id) or {})} for media_id in source]
    for row in rows:
        for name in ("pts", "keyframes"):
            row.pop(name, None)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        known = []
        if "width" in row:
            known = [f"{row['bytes']}", f"{row['width']}x{row['height']}", row.get("codec") or row.get("format") or ""]
        if row.get("average_rate") is not None:
            known += [f"{row['average_rate']} fps", f"{row['num_frames']} frames", row["decode"]]
        typer.echo("\t".join([row["media_id"], *known]))


@pack_app.command("show", epilog="Example: clipbert pack show vis_db/msrvtt video7 -o contact.png --num-clips 4")
def show_command(
    store: StoreArgument,
    media_id: Annotated[str, typer.Argument(metavar="MEDIA_ID", help="See clipbert pack ls.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The picture: .png, .jpg, ….")],
    sampling: Annotated[
        Literal["random", "uniform", "start", "middle", "end", "clips"],
        typer.Option("--sampling", help="Where clips start, as data.sampling and infer.sampling."),
    ] = "clips",
    num_clips: Annotated[int, typer.Option("--num-clips", min=1, help="Clips, one a row.")] = 4,
    num_frames: Annotated[int, typer.Option("--num-frames", min=1, help="Frames of a clip.")] = 2,
    fps: Annotated[float, typer.Option("--fps", min=0.01, help="Frames per second inside a clip.")] = 2.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of random clips.")] = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw the sampled clips of one item as a contact sheet, with each frame's number and time."""
    from clipbert_cli.commands.terminal import print_json
    from clipbert_cli.errors import OutputError, UsageError
    from clipbert_cli.media.sampling import ClipSampling
    from clipbert_cli.store.contact_sheet import contact_sheet, sampled_frames
    from clipbert_cli.store.lmdb_store import open_store

    try:
        clips = ClipSampling(sampling, num_clips, num_frames, fps, safeguard=sampling == "clips")
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already", hint="name another file, or give --overwrite")
    source = open_store(store)
    sheet = contact_sheet(source, media_id, clips, seed=seed)
    try:
        sheet.save(output)
    except (OSError, ValueError) as exc:
        raise OutputError(f"{output} cannot be written: {exc}", hint="name a .png file in a writable folder") from exc
    if not as_json:
        typer.echo(output)
        return
    sampled = [
        [{"frame": index, "seconds": seconds} for index, seconds in clip]
        for clip in sampled_frames(source, media_id, clips, seed=seed)
    ]
    print_json({"store": str(store), "media_id": media_id, "output": str(output), "clips": sampled})


def _workers(workers: int | None) -> int:
    from clipbert_cli.store.worker_pool import available_cores

    return available_cores() if workers is None else workers


def _transcode(value: str | None) -> Any:
    from clipbert_cli.errors import UsageError
    from clipbert_cli.store.transcode import Transcode

    if value is None:
        return None
    try:
        long_side, gop, crf = (int(part) for part in value.split(":"))
        return Transcode(long_side, gop, crf)
    except ValueError as exc:
        raise UsageError(
            f"--transcode is {value!r}: LONG_SIDE:GOP:CRF was expected, three whole numbers (at least 16, at least 1, "
            "and 0 to 51)",
            hint="for example --transcode 448:16:20",
        ) from exc


class _counting:  # noqa: N801
    """A progress bar for items."""

    def __init__(self, what: str) -> None:
        from clipbert_cli.commands.progress import progress_bar

        self._bar = progress_bar("items")
        self._what = what

    def __enter__(self) -> Any:
        self._bar.start()
        task = self._bar.add_task(self._what, total=None)
        return lambda done, total: self._bar.update(task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _report(store: Path, checked: Checked, *, done: str, as_json: bool) -> None:
    from clipbert_cli.commands.terminal import note, print_json, warn

    if as_json:
        pairs = {"wrong": checked.wrong, "damaged": checked.damaged}
        lists = {
            name: [{"media_id": media_id, "reason": reason} for media_id, reason in found]
            for name, found in pairs.items()
        }
        print_json({"store": str(store), "items": checked.items, **lists})
        return
    for what, found in (("wrong", checked.wrong), ("damaged", checked.damaged)):
        for media_id, reason in found[:_LISTED]:
            warn(f"{what}: {media_id or store}: {reason}")
        if len(found) > _LISTED:
            warn(f"{what}: {len(found) - _LISTED} more items (--json lists all)")
    note(f"{done} {checked.items} items: {len(checked.wrong)} wrong, {len(checked.damaged)} damaged")


def _document(summary: PackSummary) -> dict[str, Any]:
    return {
        "store": str(summary.store),
        "kind": summary.kind,
        "packed": summary.packed,
        "bytes": summary.bytes,
        "skipped": [{"file": str(path), "reason": reason} for path, reason in summary.skipped],
        "damaged": [{"file": str(path), "reason": reason} for path, reason in summary.damaged],
        "resumed": summary.resumed,
    }


def _show(summary: PackSummary) -> None:
    from rich.filesize import decimal

    from clipbert_cli.commands.terminal import note, warn
    from clipbert_cli.store.discover import PLURAL

    if summary.resumed:
        note(f"went on after {summary.resumed} files that a stopped pack had done")
    for what, files in (("skipped", summary.skipped), ("packed, but damaged", summary.damaged)):
        for path, reason in files[:_LISTED]:
            warn(f"{what}: {path}: {reason}")
        if len(files) > _LISTED:
            warn(f"{what}: {len(files) - _LISTED} more files (--json lists all)")
    packed = f"packed {summary.packed} {PLURAL[summary.kind]}, {decimal(summary.bytes)}"
    note(f"{packed}; skipped {len(summary.skipped)}, damaged {len(summary.damaged)}")
