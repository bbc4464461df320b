"""What `clipbert download` prints: the list, the plan, the results, the page of what to do by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert_cli.assets.acquire import PartResult
    from clipbert_cli.assets.catalog import Catalog, FileEntry, Part
    from clipbert_cli.assets.check import Answer
    from clipbert_cli.assets.download_plan import Layout, Plan, PlannedFile, PlannedPart

Counts = Mapping[str, tuple[int, int | None]]


def size(count: int | None, *, exact: bool = True) -> str:
    """`6.6 GB`, `about 6.6 GB`, `size unknown`."""
    from rich.filesize import decimal

    if count is None:
        return "size unknown"
    return ("" if exact else "about ") + decimal(count)


def _entry_size(entry: FileEntry) -> str:
    return size(entry.expected_bytes, exact=entry.bytes is not None)


def list_lines(catalog: Catalog, parts: Mapping[str, Part], layout: Layout) -> list[str]:
    """The assets: title, terms, and a line a part with kind, size, number of sources and what is here."""
    lines: list[str] = []
    for name, asset in catalog.assets.items():
        own = {full: part for full, part in parts.items() if full.startswith(f"{name}/")}
        if not own:
            continue
        lines += [*([""] if lines else []), f"{name}: {asset.title}", f"  terms: {asset.licence}"]
        for full, part in own.items():
            lines.append(f"  {full:24} {part.kind:11} {_part_size(catalog, part):>15}  {layout.state(part)}")
            lines.append(f"    {part.title}; {_part_sources(catalog, part)}")
    return lines


def _part_size(catalog: Catalog, part: Part) -> str:
    sizes = [catalog.files[file].expected_bytes for file in part.files]
    known = [one for one in sizes if one is not None]
    if not known:
        return "-"
    exact = all(catalog.files[file].bytes for file in part.files)
    return size(sum(known), exact=exact) if len(known) == len(sizes) else f"> {size(sum(known))}"


def _part_sources(catalog: Catalog, part: Part) -> str:
    hosts = dict.fromkeys(_host(source) for file in part.files for source in catalog.files[file].sources)
    return f"from {', '.join(hosts)}" if hosts else "by hand"


def _host(source: Any) -> str:
    from urllib.parse import urlsplit

    return urlsplit(source.url).hostname or "" if source.url else f"huggingface.co/{source.repo}"


def list_document(catalog: Catalog, parts: Mapping[str, Part], layout: Layout) -> list[dict[str, Any]]:
    return [
        {
            "part": full,
            "title": part.title,
            "asset": catalog.assets[full.split("/")[0]].title,
            "kind": part.kind,
            "licence": catalog.assets[full.split("/")[0]].licence,
            "state": layout.state(part),
            "files": [_file_document(name, catalog.files[name]) for name in (*part.files, *part.optional)],
            "products": [str(path) for path in layout.products(part)],
            "manual": part.manual,
        }
        for full, part in parts.items()
    ]


def _file_document(name: str, entry: FileEntry, mirror: str | None = None) -> dict[str, Any]:
    return {
        "file": name,
        "bytes": entry.bytes,
        "about_bytes": entry.about_bytes,
        "sha256": entry.sha256,
        "md5": entry.md5,
        "mark": entry.mark,
        "sources": _addresses(name, entry, mirror),
    }


def _addresses(name: str, entry: FileEntry, mirror: str | None) -> list[str]:
    from clipbert_cli.assets.fetch import sources_of

    return [str(source) for source in sources_of(name, entry, mirror)]


def plan_lines(plan: Plan, mirror: str | None) -> list[str]:
    """Every address, size and target; then what it takes and whether the disk suffices."""
    lines = []
    for planned in plan.parts:
        lines.append(f"{planned.name}: {_intent(planned)}")
        for file in planned.files:
            lines.append(f"  {file.name}, {_entry_size(file.entry)}{_so_far(file)}")
            if not file.handed_over:
                lines += [f"    {address}" for address in _addresses(file.name, file.entry, mirror)]
        lines += [f"  -> {path}" for path in plan.layout.products(planned.part)]
        if plan.pack and planned.part.kind == "media":
            lines.append(f"  -> {plan.layout.store(planned.part)}")
    unknown = plan.unknown_sizes()
    lines.append("")
    lines.append(
        f"to download: {size(plan.download_bytes())}" + (f" and {len(unknown)} files of unknown size" * bool(unknown))
    )
    lines.append(f"disk needed at most: {size(plan.needed_bytes())}; free: {size(plan.free_bytes())}: {_verdict(plan)}")
    return lines


def _intent(planned: PlannedPart) -> str:
    if planned.state == "complete":
        return "complete, nothing to do"
    if planned.media_folder:
        return f"take the media of {planned.media_folder}"
    if planned.manual:
        return "must be got by hand (run without --dry-run for the instructions)"
    return {"media": "fetch and unpack", "annotations": "fetch and convert", "weights": "fetch"}[planned.part.kind]


def _so_far(file: PlannedFile) -> str:
    if file.handed_over:
        return f", handed over as {file.handed_over}"
    if file.target.exists():
        return ", here"
    words = f", {size(file.arrived_bytes)} here" if file.arrived_bytes else ""
    return words + (", optional" if file.optional else "")


def _verdict(plan: Plan) -> str:
    if plan.needed_bytes() > plan.free_bytes():
        return "does not suffice"
    return "suffices" if not plan.unknown_sizes() else "suffices for what is known"


def plan_document(plan: Plan, mirror: str | None) -> dict[str, Any]:
    return {
        "data": str(plan.layout.data),
        "parts": [
            {
                "part": planned.name,
                "kind": planned.part.kind,
                "state": planned.state,
                "manual": planned.manual,
                "files": [
                    {
                        **_file_document(file.name, file.entry, mirror),
                        "target": str(file.target),
                        "arrived_bytes": file.arrived_bytes,
                        "optional": file.optional,
                        "handed_over": str(file.handed_over) if file.handed_over else None,
                    }
                    for file in planned.files
                ],
                "products": [str(path) for path in plan.layout.products(planned.part)],
            }
            for planned in plan.parts
        ],
        "download_bytes": plan.download_bytes(),
        "unknown_sizes": plan.unknown_sizes(),
        "needed_bytes": plan.needed_bytes(),
        "free_bytes": plan.free_bytes(),
        "suffices": plan.needed_bytes() <= plan.free_bytes(),
    }


def result_document(plan: Plan, results: Sequence[PartResult], packed: Mapping[str, str]) -> dict[str, Any]:
    states = [result.state for result in results]
    return {
        "data": str(plan.layout.data),
        "complete": states.count("complete"),
        "partial": states.count("partial"),
        "manual": states.count("manual"),
        "parts": [
            {
                "part": result.name,
                "kind": result.part.kind,
                "state": result.state,
                "was_complete": result.was_complete,
                "products": [str(path) for path in plan.layout.products(result.part)],
                "counts": {name: {"records": n, "media": media} for name, (n, media) in result.counts.items()},
                "packed": packed.get(result.name),
                "warnings": result.warnings,
                "errors": result.errors,
                "manual": result.part.manual if result.state == "manual" else None,
            }
            for result in results
        ],
    }


def show_results(
    plan: Plan, results: Sequence[PartResult], packed: Mapping[str, str], *, what: Sequence[str], lines: bool
) -> None:
    """Results on stdout (with `lines`); warnings, errors and the page of what to do by hand on stderr."""
    import typer

    from clipbert_cli.commands.terminal import error, note, warn

    for result in results:
        for warning in result.warnings:
            warn(warning)
    if lines:
        for result in results:
            typer.echo(
                f"{result.state:9} {result.name:26} {', '.join(map(str, plan.layout.products(result.part)[:1]))}"
            )
    again = f"clipbert download {' '.join(what)} --to {plan.layout.data}"
    for result in results:
        if result.state == "partial":
            error(
                f"{result.name} is not complete\n" + "\n".join(result.errors), hint=f"again, what came is kept: {again}"
            )
    by_hand = [result for result in results if result.state == "manual"]
    for line in manual_page(plan, by_hand):
        note(line)
    unpacked = [r for r in results if r.part.kind == "media" and r.state == "complete"]
    for result in unpacked:
        if not plan.layout.store(result.part).exists():
            note(f"next: clipbert pack {plan.layout.data / str(result.part.folder)} {plan.layout.store(result.part)}")


def manual_page(plan: Plan, results: Sequence[PartResult]) -> list[str]:
    """What a person does for each part that no source gave."""
    if not results:
        return []
    lines = ["", f"To be got by hand: {len(results)} of {len(plan.parts)} parts"]
    for result in results:
        given = "FOLDER" if result.part.kind == "media" or len(result.part.files) > 1 else "FILE"
        lines += ["", f"== {result.name}: {result.part.title}"]
        lines += [f"   {line}" for error in result.errors for line in error.splitlines()]
        lines += [f"   {line}" for line in (result.part.manual or "").strip().splitlines()]
        if result.part.files:
            lines.append("   Files: " + ", ".join(file.rsplit("/", 1)[1] for file in result.part.files))
        lines.append(f"   Hand over: clipbert download {result.name} --to {plan.layout.data} --source {given}")
    return lines


def count_lines(folder: Path, counts: Counts) -> list[str]:
    """One line an output: records, and distinct media where it has any."""
    return [
        f"{folder / name}  {records:,} {'answers' if media is None else f'records, {media:,} media'}"
        for name, (records, media) in counts.items()
    ]


def check_lines(answers: Mapping[str, Sequence[Answer]]) -> list[str]:
    lines = []
    for name, found in answers.items():
        lines.append(f"{name}: {'ok' if any(answer.good for answer in found) else 'NO SOURCE'}")
        for answer in found:
            facts = [answer.says, size(answer.bytes) if answer.bytes is not None else "", answer.checksum or ""]
            lines.append(f"  {answer.source}")
            lines.append(f"    {', '.join(filter(None, facts))}")
    return lines


def check_document(answers: Mapping[str, Sequence[Answer]]) -> list[dict[str, Any]]:
    return [
        {
            "file": name,
            "ok": any(answer.good for answer in found),
            "sources": [
                {
                    "source": answer.source,
                    "ok": answer.good,
                    "says": answer.says,
                    "bytes": answer.bytes,
                    "checksum": answer.checksum,
                }
                for answer in found
            ],
        }
        for name, found in answers.items()
    ]
