"""`clipbert download`: fetch public data and weights, and put them where recipes look for them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.download_report import plan_document, plan_lines, result_document, show_results
from clipbert_cli.commands.terminal import note, print_json, print_result, warn
from clipbert_cli.commands.typed_line import typed_line
from clipbert_cli.errors import ClipbertError, OutputError, UsageError
from clipbert_cli.files import is_locked, lock

if TYPE_CHECKING:
    from clipbert_cli.assets.acquire import PartResult
    from clipbert_cli.assets.download_plan import DownloadPlan

ToOption = Annotated[
    Path, options.option("--to", "The data folder, where the recipes' relative paths start.", metavar="DATA")
]
CatalogOption = Annotated[
    Path | None,
    options.option("--catalog", "A YAML file that adds to the shipped catalogue or changes it.", metavar="FILE"),
]
OnlyOption = Annotated[
    Literal["annotations", "media", "weights"] | None, options.option("--only", "Take only the parts of this kind.")
]


def download(
    context: typer.Context,
    assets: Annotated[
        list[str],
        options.argument(
            "ASSET",
            "Assets, parts of assets (msrvtt/qa), or recipes and all they need; or hf:ORG/NAME[@REVISION], a "
            "model on the Hugging Face Hub, which is kept where HF_HOME says.",
        ),
    ],
    to: ToOption = Path("."),
    dry_run: Annotated[
        bool, options.option("--dry-run", "Print every address, size and target, and whether the disk is large enough.")
    ] = False,
    only: OnlyOption = None,
    pack: Annotated[bool, options.option("--pack", "Also pack media into the store that the recipes read.")] = False,
    source: Annotated[
        Path | None, options.option("--source", "Use files that you downloaded yourself.", metavar="FILE|FOLDER")
    ] = None,
    mirror: Annotated[
        str | None, options.option("--mirror", "Try URL/ASSET/FILE before all other sources.", metavar="URL")
    ] = None,
    catalog: CatalogOption = None,
    keep_archives: Annotated[
        bool, options.option("--keep-archives", "Keep downloaded archives after they are unpacked or converted.")
    ] = False,
    workers: Annotated[int, options.number("--workers", "How many files to download at the same time.", most=64)] = 4,
    as_json: options.Json = False,
) -> None:
    """Download and prepare what an asset or a recipe needs.

    Files are downloaded, checked, unpacked and converted.

    The same command can be given again at any time: complete parts are left alone, and interrupted downloads continue.
    For data that must be fetched by hand, prints instructions. `clipbert assets ls` lists what can be downloaded.

    Exit code 0: everything is complete. 1: something failed or must be fetched by hand. 2: wrong usage.
    """
    from clipbert_cli.assets.catalog import is_address, load_catalog
    from clipbert_cli.assets.download_plan import make_plan
    from clipbert_cli.hub import is_hub_name, local_folder

    line = typed_line(context)
    if any(map(is_hub_name, assets)):
        if not all(map(is_hub_name, assets)):
            raise UsageError(
                "assets and models of the Hub were named together", hint="download them one after the other"
            )
        if given := line.without("assets")[line.start :]:
            raise UsageError(
                f"{' '.join(given)} has no effect on models of the Hub, which are kept where HF_HOME says",
                hint=f"leave it out, or keep them in DIR with: HF_HOME=DIR clipbert download {shlex.join(assets)}",
            )
        print_result(*(str(local_folder(name)) for name in assets))
        return
    if mirror is not None and not is_address(mirror):
        raise UsageError(f"--mirror is {mirror!r}: an address that starts with http:// or https:// was expected")
    loaded = load_catalog(catalog)
    parts = loaded.select(assets, only=only)
    for demo in (name for name in assets if name.startswith("demo_") and loaded.needs_of(name) == []):
        task = demo.removeprefix("demo_")
        note(f"{demo} needs no download, its data are made by: clipbert demo --task {task}")
    plan = make_plan(loaded, parts, to, source=source, pack=pack)
    if dry_run:
        if as_json:
            print_json(plan_document(plan, mirror))
        else:
            print_result(*plan_lines(plan, mirror))
        return
    _check_disk(plan)
    lock_file = to / ".download.lock"
    if is_locked(lock_file):
        note(f"another process is downloading into {to}: waiting until it is done")
    with lock(lock_file, wait=True):
        # Another process may have completed parts while this one waited for the lock.
        plan = make_plan(loaded, parts, to, source=source, pack=pack)
        results = _fetch(plan, mirror=mirror, workers=workers, keep=keep_archives)
    if pack:
        _pack(plan, results)
    if as_json:
        print_json(result_document(plan, results))
    show_results(
        plan,
        results,
        command=line.with_values({}),
        by_hand=line.without("assets", "source", "only")[line.start :],
        as_json=as_json,
    )
    if any(result.state != "complete" for result in results):
        raise typer.Exit(1)


def _check_disk(plan: DownloadPlan) -> None:
    """Refuse downloads whose exact sizes do not fit on the disk; warn where estimated sizes do not fit."""
    exact, free = plan.download_bytes(exact=True), plan.free_bytes()
    if exact > free:
        raise OutputError(
            f"{plan.layout.data}: {exact:,} bytes are to be downloaded and {free:,} are free",
            hint="choose a larger disk with --to, or fewer parts with --only",
        )
    if plan.needed_bytes() > free:
        warn(f"{plan.layout.data}: up to {plan.needed_bytes():,} bytes are needed and {free:,} are free")


def _fetch(plan: DownloadPlan, *, mirror: str | None, workers: int, keep: bool) -> list[PartResult]:
    from clipbert_cli.assets.acquire import acquire
    from clipbert_cli.assets.fetch import Fetcher
    from clipbert_cli.commands.download_progress import DownloadBars

    with DownloadBars() as progress:
        fetcher = Fetcher(progress=progress, mirror=mirror, contents={"original ClipBERT checkpoint": _check_original})
        try:
            return acquire(plan, fetcher, workers=workers, keep=keep)
        finally:
            fetcher.close()


def _check_original(path: Path) -> None:
    """Raise WeightsError if a file is no checkpoint of the original. torch is loaded for this alone."""
    from clipbert_cli.model.pretrained import check_original

    check_original(path)


def _pack(plan: DownloadPlan, results: list[PartResult]) -> None:
    """Pack complete media that have no store yet, and note it in their results."""
    from clipbert_cli.commands.progress import counting
    from clipbert_cli.store.packing import pack_media

    for result in results:
        store = plan.layout.store(result.part)
        if result.part.kind != "media" or result.state != "complete" or store.exists():
            continue
        with counting(f"packing {result.name}", "files") as show:
            try:
                summary = pack_media(
                    [plan.layout.folder(result.part)], store, kind=result.part.media_kind, on_progress=show
                )
            except ClipbertError as exc:
                # One store that cannot be packed does not keep the others from being packed.
                result.fail(exc, "not packed: ")
                continue
        result.packed = f"packed {summary.packed:,}, skipped {len(summary.skipped):,}"
        if summary.skipped:
            path, reason = summary.skipped[0]
            result.warnings.append(f"{len(summary.skipped):,} files were not packed, the first: {path}: {reason}")
