"""What `clipbert download` prints: the plan, the results, and the instructions for data to fetch by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert_cli.assets.acquire import PartResult
    from clipbert_cli.assets.catalog import FileEntry
    from clipbert_cli.assets.download_plan import Plan, PlannedFile, PlannedPart


def format_bytes(count: int | None, *, exact: bool = True) -> str:
    """`6.6 GB`, `about 6.6 GB`, `size unknown`."""
    from rich.filesize import decimal

    if count is None:
        return "size unknown"
    return ("" if exact else "about ") + decimal(count)


def _entry_size(entry: FileEntry) -> str:
    return format_bytes(entry.expected_bytes, exact=entry.bytes is not None)


def file_document(name: str, entry: FileEntry, mirror: str | None = None) -> dict[str, Any]:
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
    needed, free = format_bytes(plan.needed_bytes()), format_bytes(plan.free_bytes())
    more = f" and {len(unknown)} files of unknown size" if unknown else ""
    lines += [
        "",
        f"to download: {format_bytes(plan.download_bytes())}{more}",
        f"disk needed at most: {needed}; free: {free}: {_verdict(plan)}",
    ]
    return lines


def _intent(planned: PlannedPart) -> str:
    if planned.state == "complete":
        return "complete, nothing to do"
    if planned.media_folder:
        return f"take the media of {planned.media_folder}"
    if planned.manual:
        return "must be fetched by hand (run without --dry-run for the instructions)"
    return {"media": "fetch and unpack", "annotations": "fetch and convert", "weights": "fetch"}[planned.part.kind]


def _so_far(file: PlannedFile) -> str:
    if file.handed_over:
        return f", from {file.handed_over}"
    if file.target.exists():
        return ", here"
    words = f", {format_bytes(file.arrived_bytes)} here" if file.arrived_bytes else ""
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
                        **file_document(file.name, file.entry, mirror),
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
    lines = ["", f"To fetch by hand: {len(results)} of {len(plan.parts)} parts"]
    for result in results:
        given = "FOLDER" if result.part.kind == "media" or len(result.part.files) > 1 else "FILE"
        lines += ["", f"== {result.name}: {result.part.title}"]
        lines += [f"   {line}" for error in result.errors for line in error.splitlines()]
        lines += [f"   {line}" for line in (result.part.manual or "").strip().splitlines()]
        if result.part.files:
            lines.append("   Files: " + ", ".join(file.rsplit("/", 1)[1] for file in result.part.files))
        lines.append(f"   Then run: clipbert download {result.name} --to {plan.layout.data} --source {given}")
    return lines
