"""`clipbert download`: public data and weights, from a source that answers to files that a recipe can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from clipbert_cli.commands.options import JsonOption

if TYPE_CHECKING:
    from clipbert_cli.assets.acquire import PartResult
    from clipbert_cli.assets.download_plan import Plan


class GetContext(typer.Context):
    """Help and usage errors of `get` name the command as it is meant to be given: without `get`."""

    @property
    def command_path(self) -> str:
        return super().command_path.removesuffix(" get")


class GetCommand(TyperCommand):
    """`clipbert download WHAT`."""

    context_class = GetContext


class DownloadGroup(TyperGroup):
    """`clipbert download WHAT` is `clipbert download get WHAT`; the other subcommands go by their names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["get", *args])


download_app = typer.Typer(cls=DownloadGroup, help="Fetch public data and weights; list, check and convert them.")

WhatArgument = Annotated[
    list[str],
    typer.Argument(metavar="WHAT", help="Assets, parts of assets (msrvtt/qa) or recipes, which need several."),
]
ToOption = Annotated[Path, typer.Option("--to", metavar="DATA", help="Data folder, the recipes' data root.")]
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", metavar="FILE", help="A catalogue of your own, laid over the shipped one (YAML)."),
]
OnlyOption = Annotated[
    Literal["annotations", "media", "weights"] | None, typer.Option("--only", help="Only parts of this kind.")
]


@download_app.command(
    "get",
    cls=GetCommand,
    epilog="Example: clipbert download msrvtt_qa --to $DATA --pack\n\n"
    "See also: clipbert download ls, clipbert download check WHAT, clipbert download convert NAME RAW_DIR OUT_DIR",
)
def get_command(
    what: WhatArgument,
    to: ToOption = Path("."),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every address, size and target, and whether the disk suffices.")
    ] = False,
    only: OnlyOption = None,
    pack: Annotated[bool, typer.Option("--pack", help="Pack media into the store that recipes read.")] = False,
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="FILE|FOLDER", help="Hand over what you got by hand: files, or media."),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="URL", help="Try URL/ASSET/FILE before all other sources.")
    ] = None,
    catalog: CatalogOption = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep downloaded files once their parts are complete.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Files fetched at the same time.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Download, check, unpack and convert what a recipe or an asset needs.

    What is complete is left alone and what was interrupted goes on where it stopped, so the same command can be given
    again at any time. What no program may fetch ends in a page that says how to get it and hand it over.

    Exit code 0: everything is complete. 1: something is partial, or must be got by hand. 2: wrong usage.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.download_plan import make_plan
    from clipbert_cli.commands.download_report import plan_document, plan_lines, result_document, show_results
    from clipbert_cli.commands.terminal import print_json

    _check_mirror(mirror)
    loaded = load_catalog(catalog)
    parts = loaded.select(what, only=only)
    plan = make_plan(loaded, parts, to, source=source, pack=pack)
    if dry_run:
        if as_json:
            print_json(plan_document(plan, mirror))
        else:
            typer.echo("\n".join(plan_lines(plan, mirror)))
        return
    _check_disk(plan)
    results = _fetch(plan, loaded, mirror=mirror, workers=workers, keep=keep_archives)
    packed = _pack(plan, results) if pack else {}
    if as_json:
        print_json(result_document(plan, results, packed))
    show_results(plan, results, packed, what=what, lines=not as_json)
    if any(result.state != "complete" for result in results):
        raise typer.Exit(1)


@download_app.command("ls", epilog="Example: clipbert download ls --to $DATA")
def list_command(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="WHAT", help="Assets, parts or recipes; default: all.")
    ] = None,
    to: ToOption = Path("."),
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what can be downloaded: what it is, size, terms, sources, and what is here already."""
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.download_plan import Layout
    from clipbert_cli.commands.download_report import list_document, list_lines
    from clipbert_cli.commands.terminal import print_json

    loaded = load_catalog(catalog)
    parts = loaded.select(what or list(loaded.assets))
    if as_json:
        print_json(list_document(loaded, parts, Layout(to)))
    else:
        typer.echo("\n".join(list_lines(loaded, parts, Layout(to))))


@download_app.command("check", epilog="Example: clipbert download check msrvtt")
def check_command(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="WHAT", help="Assets, parts or recipes; default: all.")
    ] = None,
    only: OnlyOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask every source whether it answers, with which size and checksum; nothing is downloaded.

    Exit code 0: every file has a source that answers and agrees with the catalogue. 1: some have none.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.check import check_sources
    from clipbert_cli.commands.download_report import check_document, check_lines
    from clipbert_cli.commands.terminal import print_json

    loaded = load_catalog(catalog)
    parts = loaded.select(what or list(loaded.assets), only=only)
    names = dict.fromkeys(name for part in parts.values() for name in (*part.files, *part.optional))
    answers = check_sources({name: loaded.files[name] for name in names if loaded.files[name].sources})
    if as_json:
        print_json(check_document(answers))
    else:
        typer.echo("\n".join(check_lines(answers)))
    if not all(any(answer.good for answer in found) for found in answers.values()):
        raise typer.Exit(1)


@download_app.command("convert", epilog="Example: clipbert download convert msrvtt_qa raw/ $DATA/txt_db/msrvtt_qa")
def convert_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="coco_captions, vg_captions, vqa, vg_qa, msrvtt_retrieval, msrvtt_mc, msrvtt_qa, didemo_retrieval, "
            "anet_retrieval or tgif_qa.",
        ),
    ],
    raw_dir: Annotated[Path, typer.Argument(metavar="RAW_DIR", help="Folder of the original files, unpacked.")],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for the records; made if absent.")],
    order: Annotated[
        Literal["file", "time"] | None,
        typer.Option("--order", help="Sentences of a paragraph (didemo, anet) as in the file (default), or by time."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")] = False,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert original annotation files into the project's records and answer vocabularies.

    Counts that are not the published ones are warnings. The same input gives the same bytes.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.convert.registry import part_of, run_converter
    from clipbert_cli.commands.download_report import count_lines
    from clipbert_cli.commands.terminal import print_json, warn
    from clipbert_cli.errors import OutputError, UsageError

    if not raw_dir.is_dir():
        raise UsageError(f"RAW_DIR is {raw_dir}: no such folder", hint="name the folder of the original files")
    part = part_of(load_catalog(catalog), name)
    present = [out_dir / file for file in (part.outputs if part else ()) if (out_dir / file).exists()]
    if present and not overwrite:
        raise OutputError(f"{present[0]} exists already", hint="name another folder, or give --overwrite")
    converted = run_converter(name, raw_dir, out_dir, part, order=order)
    for warning in converted.warnings:
        warn(warning)
    if as_json:
        files = {file: {"records": n, "media": media} for file, (n, media) in converted.counts.items()}
        print_json({"converter": name, "folder": str(out_dir), "files": files, "warnings": list(converted.warnings)})
    else:
        typer.echo("\n".join(count_lines(out_dir, converted.counts)))


def _check_mirror(mirror: str | None) -> None:
    from clipbert_cli.errors import UsageError

    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise UsageError(f"--mirror is {mirror!r}: an address that starts with http:// or https:// was expected")


def _check_disk(plan: Plan) -> None:
    """Refuse what cannot fit, by exact sizes alone; warn where estimates say so."""
    from clipbert_cli.commands.terminal import warn
    from clipbert_cli.errors import OutputError

    free = plan.free_bytes()
    if plan.download_bytes(exact=True) > free:
        raise OutputError(
            f"{plan.layout.data}: {plan.download_bytes(exact=True):,} bytes are to come and {free:,} are free",
            hint="choose a larger disk with --to, or fewer parts with --only",
        )
    if plan.needed_bytes() > free:
        warn(f"{plan.layout.data}: about {plan.needed_bytes():,} bytes are needed at most and {free:,} are free")


def _fetch(plan: Plan, catalog: Any, *, mirror: str | None, workers: int, keep: bool) -> list[PartResult]:
    from clipbert_cli.assets.acquire import acquire
    from clipbert_cli.assets.fetch import Fetcher
    from clipbert_cli.commands.download_progress import DownloadProgress

    with DownloadProgress() as progress:
        fetcher = Fetcher(progress=progress, mirror=mirror)
        try:
            return acquire(plan, catalog, fetcher, workers=workers, keep=keep)
        finally:
            fetcher.close()


def _pack(plan: Plan, results: list[PartResult]) -> dict[str, str]:
    """Pack complete media that have no store yet; part -> what happened, in words."""
    from clipbert_cli.commands.progress import progress_bar
    from clipbert_cli.errors import ClipbertError
    from clipbert_cli.store.pack import PackProgress, pack_media

    packed = {}
    for result in results:
        store = plan.layout.store(result.part)
        if result.part.kind != "media" or result.state != "complete" or store.exists():
            continue
        folder = plan.layout.data / str(result.part.folder)
        with progress_bar("files") as bar:
            task = bar.add_task(f"packing {result.name}", total=None)

            def show(progress: PackProgress, bar: Any = bar, task: Any = task) -> None:
                bar.update(task, completed=progress.done, total=progress.total)

            store.parent.mkdir(parents=True, exist_ok=True)
            try:
                summary = pack_media([folder], store, kind=result.part.media_kind, on_progress=show)
            except ClipbertError as exc:
                result.state = "partial"
                result.errors.append(f"not packed: {exc}" + (f" ({exc.hint})" if exc.hint else ""))
                continue
        packed[result.name] = f"packed {summary.packed:,}, skipped {len(summary.skipped):,}"
        if summary.skipped:
            path, reason = summary.skipped[0]
            result.warnings.append(f"{len(summary.skipped):,} files were not packed, the first: {path}: {reason}")
    return packed
