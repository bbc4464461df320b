"""`clipbert assets`: list, check and convert the public data and weights that `clipbert download` fetches."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.download import CatalogOption, OnlyOption, ToOption
from clipbert_cli.commands.download_report import file_document, format_bytes
from clipbert_cli.commands.terminal import print_json, print_result, warn
from clipbert_cli.errors import OutputError

if TYPE_CHECKING:
    from clipbert_cli.assets.catalog import AssetPart, Catalog

assets_app = typer.Typer(no_args_is_help=True, help="List, check and convert public data and weights.")

AssetsArgument = Annotated[
    list[str] | None, options.argument("ASSET", "Assets, parts of assets (msrvtt/qa) or recipes. Default: everything.")
]


@assets_app.command("ls", epilog="Example: clipbert assets ls msrvtt --to $DATA")
def list_command(
    assets: AssetsArgument = None,
    to: ToOption = Path("."),
    catalog: CatalogOption = None,
    as_json: options.Json = False,
) -> None:
    """List what can be downloaded.

    The list has sizes, terms of use and sources, and says what the data folder has already. For a part that is named
    it also says how to fetch it by hand.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.download_plan import DataLayout

    loaded, layout = load_catalog(catalog), DataLayout(to)
    parts = loaded.select(assets or list(loaded.assets))
    if as_json:
        print_json(
            [
                {
                    "part": name,
                    **part.model_dump(include={"title", "kind", "manual"}),
                    "asset": loaded.asset_of(name).model_dump(include={"title", "licence", "home"}),
                    "is_complete": layout.is_complete(part),
                    "files": [file_document(file, loaded.files[file]) for file in (*part.files, *part.optional)],
                    "products": [str(path) for path in layout.products(part)],
                }
                for name, part in parts.items()
            ]
        )
        return
    previous = None
    for name, part in parts.items():
        asset = loaded.asset_of(name)
        if asset is not previous:
            if previous:
                print_result("")
            home = [f"  home: {asset.home}"] if asset.home else []
            print_result(f"{name.split('/')[0]}: {asset.title}", f"  terms: {asset.licence}", *home)
            previous = asset
        state = "complete" if layout.is_complete(part) else "absent"
        print_result(f"  {name:24} {part.kind:11} {_part_size(loaded, part):>15}  {state}")
        print_result(f"    {part.title}; {_part_sources(loaded, part)}")
        if name in (assets or ()):
            print_result(*(f"    {line}" for line in (part.manual or "").splitlines()))


@assets_app.command("check", epilog="Example: clipbert assets check msrvtt")
def check_command(
    assets: AssetsArgument = None, only: OnlyOption = None, catalog: CatalogOption = None, as_json: options.Json = False
) -> None:
    """Ask every source whether it still has its file.

    The answers include the size of each file. Nothing is downloaded.

    Exit code 0: every file has a source that answers and agrees with the catalogue. 1: some files have none.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.fetch import check_sources

    loaded = load_catalog(catalog)
    parts = loaded.select(assets or list(loaded.assets), only=only)
    names = dict.fromkeys(name for part in parts.values() for name in (*part.files, *part.optional))
    answers = check_sources({name: loaded.files[name] for name in names if loaded.files[name].sources})
    agreed = {name: any(answer.ok for answer in found) for name, found in answers.items()}
    if as_json:
        checked = {name: [asdict(answer) for answer in found] for name, found in answers.items()}
        print_json([{"file": name, "ok": agreed[name], "sources": found} for name, found in checked.items()])
    else:
        for name, found in answers.items():
            print_result(f"{name}: {'ok' if agreed[name] else 'NO SOURCE'}")
            for answer in found:
                size = "" if answer.bytes is None else f", {format_bytes(answer.bytes)}"
                print_result(f"  {answer.source}", f"    {answer.answer}{size}")
    if not all(agreed.values()):
        raise typer.Exit(1)


@assets_app.command("convert", epilog="Example: clipbert assets convert msrvtt_qa raw/ $DATA/txt_db/msrvtt_qa")
def convert_command(
    name: Annotated[
        str,
        options.argument(
            "NAME",
            "Name of the converter: coco_captions, vg_captions, vqa, vg_qa, msrvtt_retrieval, msrvtt_mc, "
            "msrvtt_qa, didemo_retrieval, anet_retrieval, tgif_qa, msvd_retrieval, msvd_qa, next_qa or caption_lists.",
        ),
    ],
    raw_dir: Annotated[Path, options.argument("RAW_DIR", "The folder with the original files, unpacked.")],
    out_dir: Annotated[Path, options.argument("OUT_DIR", "The folder to write to, which may not exist yet.")],
    overwrite: options.Overwrite = False,
    catalog: CatalogOption = None,
    as_json: options.Json = False,
) -> None:
    """Convert original annotations to JSONL records.

    Answer vocabularies are written as well.

    Prints a warning where a count differs from the published one. The same input always gives the same bytes.
    """
    from clipbert_cli.assets.catalog import load_catalog
    from clipbert_cli.assets.convert.registry import part_of, run_converter

    part = part_of(load_catalog(catalog), name)
    present = [out_dir / file for file in (part.outputs if part else ()) if (out_dir / file).exists()]
    if present and not overwrite:
        raise OutputError(f"{present[0]} exists already", hint="name another folder, or give --overwrite")
    converted = run_converter(name, raw_dir, out_dir, part)
    for warning in converted.warnings:
        warn(warning)
    if as_json:
        files = {file: asdict(count) for file, count in converted.counts.items()}
        print_json({"converter": name, "folder": str(out_dir), "files": files, "warnings": converted.warnings})
        return
    for file, count in converted.counts.items():
        unit = "answers" if count.media is None else f"records, {count.media:,} media"
        print_result(f"{out_dir / file}  {count.records:,} {unit}")


def _part_size(catalog: Catalog, part: AssetPart) -> str:
    files = [catalog.files[file] for file in part.files]
    known = [file.expected_bytes for file in files if file.expected_bytes is not None]
    return format_bytes(sum(known), exact=all(file.bytes for file in files)) if known else "-"


def _part_sources(catalog: Catalog, part: AssetPart) -> str:
    hosts = dict.fromkeys(urlsplit(url).hostname for file in part.files for url in catalog.files[file].sources)
    return f"from {', '.join(map(str, hosts))}" if hosts else "by hand"
