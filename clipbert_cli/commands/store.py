"""`clipbert store`: verify a store, scan one for media records, list and show what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.output import refuse_other_ending, writing
from clipbert_cli.commands.pack import WorkersOption, worker_count
from clipbert_cli.commands.terminal import note, print_json, print_result, print_table, show_logs, warn, warn_of_each
from clipbert_cli.errors import ClipbertError, UsageError
from clipbert_cli.foreign import excerpt
from clipbert_cli.printable import plural
from clipbert_cli.types import Sampling

if TYPE_CHECKING:
    from clipbert_cli.store.verify import Checked

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

MAX_SHOWN = 1000
"""How many frames `show --frames` draws."""

store_app = typer.Typer(no_args_is_help=True, help="Verify, scan, list and show media stores.")

StoreArgument = Annotated[Path, options.argument("STORE", "Folder or file of a media store.")]


@store_app.command("verify", epilog="Example: clipbert store verify vis_db/msrvtt")
def verify(store: StoreArgument, workers: WorkersOption = None, as_json: options.Json = False) -> None:
    """Check every item of a store: its checksum, and that it decodes.

    The exit code is 0 if every item is as it was packed, and 1 if some are not or do not decode.
    """
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.store.verify import verify_store

    with counting("verifying", "items") as show:
        checked = verify_store(store, workers=worker_count(workers), on_progress=show)
    _report(store, checked, done="verified", as_json=as_json)


@store_app.command("scan", epilog="Example: clipbert store scan vis_db/msrvtt.lmdb")
def scan(store: StoreArgument, workers: WorkersOption = None, as_json: options.Json = False) -> None:
    """Add media records to a store of the original layout.

    A store of the original layout has nothing but media, so that each video is decoded once more on its first use.
    With the media records that `clipbert pack` writes, this is not necessary. The exit code is 0 if every item has a
    record now, and 1 if some do not decode.
    """
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.store.verify import scan_store

    with counting("scanning", "items") as show:
        checked = scan_store(store, workers=worker_count(workers), on_progress=show)
    _report(store, checked, done="scanned", as_json=as_json)


@store_app.command("ls", epilog="Example: clipbert store ls vis_db/msrvtt | head")
def list_items(store: StoreArgument, as_json: options.Json = False) -> None:
    """List the items of a store with what their records say.

    The columns are media id, bytes, width x height, codec or format, and for videos frames per second, number of
    frames, duration and how clips are decoded: `packets` decodes the packets that are needed, `linear` decodes from the
    start. The last column says what is wrong with a damaged video.

    A line on stderr says how many of the items a usual GPU decodes, and why not the others. The exit code is 1 if an
    item's record or its place in the store is damaged; `clipbert store verify` decodes, too.

    With --json, every item has the keys id, kind, codec, width, height, rotation, frames, first_seconds, last_seconds,
    rate, bytes, decoded_by, damage and not_on_gpu, the reason why a GPU does not decode it. Width and height are those
    of the first frame as it is coded; rotation is the clockwise turn in degrees that makes it upright.
    """
    from clipbert_cli.store.gpu_share import GpuShare, why_not_on_gpu
    from clipbert_cli.store.lmdb_store import open_store
    from clipbert_cli.store.records import listing

    show_logs()
    source = open_store(store)
    rows, is_damaged = [], False
    for media_id in source:
        record: dict[str, Any] | None = None
        more: dict[str, str | None] = {"not_on_gpu": None}
        try:
            record = source.sound_record(media_id)
            if source.has_records:
                more["not_on_gpu"] = why_not_on_gpu(source, media_id)
        except (ValueError, ClipbertError) as exc:
            more, is_damaged = {"damage": str(exc), "not_on_gpu": "it is damaged"}, True
        rows.append(listing(media_id, source.kind, record) | more)
    if source.damaged_pages:
        warn(f"{store}: pages are damaged, and items on them may be missing here ({source.damaged_pages})")
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)
        if source.has_records:
            note(f"a usual GPU decodes {GpuShare.of(source.kind, (row['not_on_gpu'] for row in rows)).describe()}")
    if is_damaged or source.damaged_pages:
        raise typer.Exit(1)


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = []
    for row in rows:
        known = []
        if row["width"] is not None:
            known = [str(row["bytes"]), f"{row['width']}x{row['height']}", row["codec"]]
        if known and row["kind"] == "video":
            rate = "" if row["rate"] is None else f"{row['rate']:g} fps"
            known += [rate, f"{row['frames']} frames", _seconds(row), row["decoded_by"]]
        known += filter(None, [row["damage"]])
        cells.append([row["id"], *known])
    print_table(["media id", "bytes", "size", "codec", "rate", "frames", "seconds", "decode", "damage"], cells)


@store_app.command("show", epilog="Example: clipbert store show vis_db/msrvtt video7 -o contact.png --num-clips 4")
def show_item(
    store: StoreArgument,
    media_id: Annotated[str, options.argument("MEDIA_ID", "Media id of one item, as `clipbert store ls` lists it.")],
    output: Annotated[Path, options.output("Picture to write; its ending (.png, .jpg) is its format; - is stdout.")],
    sampling: Annotated[
        Sampling, options.option("--sampling", "Where the clips start, with the meaning of data.sampling in a recipe.")
    ] = "clips",
    num_clips: Annotated[
        int, options.number("--num-clips", "Number of clips; each is one row of the picture.", most=1000)
    ] = 4,
    num_frames: Annotated[int, options.number("--num-frames", "Number of frames in each clip.", most=1000)] = 2,
    fps: Annotated[
        float, typer.Option("--fps", metavar="RATE", min=0.01, max=10_000, help="Frames per second inside a clip.")
    ] = 2.0,
    seed: Annotated[int, options.seed("Seed of the random start of `--sampling random`.")] = 0,
    frames: Annotated[
        str | None,
        options.option(
            "--frames",
            "Draw these frames, counted from 0, side by side in the size in which they are coded, not turned "
            "upright. The options of sampling are not used then.",
            metavar="N,N,...",
        ),
    ] = None,
    plain: Annotated[
        bool, options.option("--plain", "With --frames: draw no labels and no space between the frames.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Draw the sampled clips or chosen frames of one item.

    Each frame is labelled with its number and its time in seconds.
    """
    from PIL import Image

    from clipbert_cli.media.sampling import ClipSampling
    from clipbert_cli.store.lmdb_store import open_store
    from clipbert_cli.store.sampled_clips import contact_sheet, frame_sheet

    try:
        clips = ClipSampling(sampling, num_clips, num_frames, fps, safeguard=sampling == "clips")
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    refuse_other_ending(str(output), PICTURES, what="the picture")
    if as_json and str(output) == "-":
        raise UsageError("--output is -, and --json prints there as well", hint="name a file, or leave --json out")
    if plain and frames is None:
        raise UsageError("--plain is given without --frames", hint="name the frames: --frames 0,25,50")
    chosen = None if frames is None else _numbers(frames)
    show_logs()
    source = open_store(store)
    with writing(str(output), overwrite=overwrite, mode="wb") as stream:
        if chosen is None:
            sheet, sampled = contact_sheet(source, media_id, clips, seed=seed)
        else:
            sheet, sampled = frame_sheet(source, media_id, chosen, plain=plain)
        sheet.save(stream, Image.registered_extensions().get(output.suffix.lower(), "PNG"))
    if as_json:
        shown = [
            [{"frame": index, "seconds": seconds} for index, seconds in zip(*clip, strict=True)]
            for clip in zip(sampled.indices, sampled.seconds, strict=True)
        ]
        print_json({"store": str(store), "media_id": media_id, "output": str(output), "clips": shown})
    elif str(output) != "-":
        print_result(str(output))


def _numbers(frames: str) -> list[int]:
    try:
        numbers = [int(number) for number in frames.split(",", MAX_SHOWN - 1)]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) > options.MAX_COUNT:
        raise UsageError(
            f"--frames is {excerpt(frames)!r}, but must be up to {MAX_SHOWN} frame numbers from 0, separated by commas",
            hint="for example --frames 0,25,50",
        )
    return numbers


def _seconds(row: Mapping[str, Any]) -> str:
    """Return how long a video is shown; the last frame counts as long as the mean frame."""
    between = row["last_seconds"] - row["first_seconds"]
    last = between / (row["frames"] - 1) if row["frames"] > 1 else 1 / (row["rate"] or 1)
    return f"{between + last:.1f} s"


def _report(store: Path, checked: Checked, *, done: str, as_json: bool) -> None:
    """Print what was found, and exit with 1 if an item is wrong."""
    found = {"wrong": checked.wrong, "damaged": checked.damaged}
    if as_json:
        lists = {
            name: [{"media_id": media_id, "reason": reason} for media_id, reason in items]
            for name, items in found.items()
        }
        print_json({"store": str(store), "items": checked.items, **lists})
    else:
        for name, items in found.items():
            warn_of_each(name, [(media_id or store, reason) for media_id, reason in items])
        note(f"{done} {plural(checked.items, 'item')}: {len(checked.wrong)} wrong, {len(checked.damaged)} damaged")
    if checked.wrong:
        raise typer.Exit(1)
