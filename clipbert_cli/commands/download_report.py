"""The output of `clipbert download`: the plan, the results, and the instructions for data to fetch by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from clipbert_cli.commands.terminal import error, note, print_result, warn

if TYPE_CHECKING:
    from clipbert_cli.assets.acquire import PartResult
    from clipbert_cli.assets.catalog import FileEntry
    from clipbert_cli.assets.download_plan import DownloadPlan, PlannedFile, PlannedPart


def format_bytes(count: int | None, *, exact: bool = True) -> str:
    """Return a size as `6.6 GB`, `about 6.6 GB` or `size unknown`."""
    from rich.filesize import decimal

    if count is None:
        return "size unknown"
    return ("" if exact else "about ") + decimal(count)


def file_document(name: str, entry: FileEntry, mirror: str | None = None) -> dict[str, Any]:
    """Return a file of the catalogue for --json, with its addresses in the order in which they are tried."""
    from clipbert_cli.assets.fetch import sources_of

    facts = entry.model_dump(include={"bytes", "about_bytes", "sha256", "md5", "mark"})
    return {"file": name, **facts, "sources": sources_of(name, entry, mirror)}


def plan_lines(plan: DownloadPlan, mirror: str | None) -> list[str]:
    """Return the addresses, sizes and targets of all files, then the disk space that is needed and free."""
    from clipbert_cli.assets.fetch import sources_of

    lines = []
    for planned in plan.parts:
        lines.append(f"{planned.name}: {_intent(planned)}")
        for file in planned.files:
            size = format_bytes(file.entry.expected_bytes, exact=file.entry.bytes is not None)
            lines.append(f"  {file.name}, {size}{_progress_so_far(file)}")
            if not file.provided:
                lines += [f"    {source}" for source in sources_of(file.name, file.entry, mirror)]
                lines += [f"      {file.entry.note}"] * bool(file.entry.note)
        lines += [f"  -> {path}" for path in plan.layout.products(planned.part)]
        if plan.pack and planned.part.kind == "media":
            lines.append(f"  -> {plan.layout.store(planned.part)}")
    unknown = plan.unknown_sizes()
    if plan.needed_bytes() > plan.free_bytes():
        verdict = "not enough"
    else:
        verdict = "enough for the files of known size" if unknown else "enough"
    more = f" and {len(unknown)} file(s) of unknown size" if unknown else ""
    return [
        *lines,
        "",
        f"to download: {format_bytes(plan.download_bytes())}{more}",
        f"disk needed: {format_bytes(plan.needed_bytes())}; free: {format_bytes(plan.free_bytes())} ({verdict})",
    ]


def _intent(planned: PlannedPart) -> str:
    if planned.is_complete:
        return "complete, nothing to do"
    if planned.manual:
        return "must be fetched by hand (run without --dry-run for instructions)"
    verbs = {"media": "download and unpack", "annotations": "download and convert", "weights": "download"}
    return verbs[planned.part.kind]


def _progress_so_far(file: PlannedFile) -> str:
    from clipbert_cli.assets.download_plan import arrived_bytes

    if file.provided:
        return f", from {file.provided}"
    if file.target.exists():
        return ", downloaded"
    arrived = arrived_bytes(file.target)
    return (f", {format_bytes(arrived)} downloaded" if arrived else "") + (", optional" if file.optional else "")


def plan_document(plan: DownloadPlan, mirror: str | None) -> dict[str, Any]:
    """Return the plan for --json."""
    from clipbert_cli.assets.download_plan import arrived_bytes

    def file_plan(file: PlannedFile) -> dict[str, Any]:
        return {
            **file_document(file.name, file.entry, mirror),
            "target": str(file.target),
            "arrived_bytes": arrived_bytes(file.target),
            "optional": file.optional,
            "provided": str(file.provided) if file.provided else None,
        }

    return {
        "data": str(plan.layout.data),
        "parts": [
            {
                "part": planned.name,
                "kind": planned.part.kind,
                "is_complete": planned.is_complete,
                "manual": planned.manual,
                "files": [file_plan(file) for file in planned.files],
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


def result_document(plan: DownloadPlan, results: Sequence[PartResult]) -> dict[str, Any]:
    """Return the results for --json: the state of each part, and source and checksum of each downloaded file."""
    states = [result.state for result in results]
    parts = []
    for result in results:
        part = asdict(result)
        part |= {
            "part": part.pop("name"),
            "kind": result.part.kind,
            "products": [str(path) for path in plan.layout.products(result.part)],
            "manual": result.part.manual if result.state == "manual" else None,
        }
        parts.append(part)
    return {
        "data": str(plan.layout.data),
        **{state: states.count(state) for state in ("complete", "partial", "manual")},
        "parts": parts,
    }


def show_results(
    plan: DownloadPlan, results: Sequence[PartResult], *, command: str, by_hand: Sequence[str], as_json: bool
) -> None:
    """Print one line per part on stdout (not with `as_json`); warnings, errors and instructions go to stderr.

    Args:
        command: the command that continues a download that failed.
        by_hand: the options of a command that takes files that were fetched by hand.
    """
    for result in results:
        for warning in result.warnings:
            warn(warning)
    offline = [result for result in results if result.unreached]
    for result in (each for each in results if not as_json and each not in offline):
        products = ", ".join(map(str, plan.layout.products(result.part)[:1]))
        print_result(f"{result.state:9} {result.name:26} {products}")
    if offline:
        _show_unreached(offline, command)
    partial = [result for result in results if result.state == "partial" and not result.unreached]
    for result in partial:
        error(f"{result.name} is not complete", *_lines(result.errors), hint=result.hint)
    if unadvised := [result for result in partial if not result.hint]:
        note(*_other_ways(unadvised, command))
    # What is fetched by hand needs a network, too.
    manual = [] if offline else [result for result in results if result.state == "manual"]
    for line in _instructions(plan, manual, by_hand):
        note(line)
    for result in results:
        part, store = result.part, plan.layout.store(result.part)
        if part.kind == "media" and result.state == "complete" and not store.exists():
            note(f"next: clipbert pack {plan.layout.folder(part)} {store}")


def _show_unreached(offline: Sequence[PartResult], command: str) -> None:
    """Print the one reason why no connection was made, for all parts."""
    hosts = list(dict.fromkeys(host for result in offline for host in result.unreached))
    named = ", ".join([*hosts[:2], *(["..."] if len(hosts) > 2 else [])])
    proxies = " and ".join(sorted(f"{name.upper()}_PROXY" for name in getproxies() if name != "no"))
    check = f"check {proxies}" if proxies else f"test with curl -I https://{hosts[0]} (a proxy: HTTPS_PROXY)"
    by_hand = shlex.join(result.name for result in offline if result.part.manual)
    other = f"by hand: clipbert assets ls {by_hand}" if by_hand else "give files: --source FOLDER"
    error(
        f"no network, or a proxy is {'down' if proxies else 'needed'}: no host was reached ({named})",
        hint=f"{check}, then run again: {command}; or {other}",
    )


def _other_ways(partial: Sequence[PartResult], command: str) -> list[str]:
    """Return what to do about parts that no source gave whole; it is said once for all of them."""
    elsewhere = "--source FOLDER takes files that you downloaded elsewhere; --dry-run lists their addresses"
    lines = [
        f"next: run the command again, which continues the download: {command}",
        f"  without these sources: --mirror URL asks another server first, and {elsewhere}",
    ]
    if any(result.part.kind == "weights" for result in partial):
        lines.append(
            "  without these weights: training may start at random, with model.weights.bert and model.visual.weights "
            "null (docs/own-data.md)"
        )
    return lines


def _lines(errors: Sequence[str]) -> list[str]:
    """Return the lines of the errors of a part. Where several files failed for one reason, the first one is shown."""
    of_reason: dict[str, list[str]] = {}
    for each in errors:
        of_reason.setdefault(each.rpartition(": ")[2], []).append(each)
    lines = []
    for first, *others in of_reason.values():
        lines += first.splitlines()
        if others:
            lines.append(f"  and {len(others)} more {'file' if len(others) == 1 else 'files'} for the same reason")
    return lines


def _instructions(plan: DownloadPlan, results: Sequence[PartResult], given_options: Sequence[str]) -> list[str]:
    """Return what the user does for each part that no source gave."""
    if not results:
        return []
    lines = ["", f"To fetch by hand: {len(results)} of {len(plan.parts)} parts"]
    for result in results:
        given = "FOLDER" if len(result.part.files) > 1 else "FILE"
        lines += ["", f"== {result.name}: {result.part.title}"]
        lines += [f"   {line}" for line in _lines(result.errors)]
        lines += [f"   {line}" for line in (result.part.manual or "").strip().splitlines()]
        commands = []
        if result.part.files:
            lines.append("   Files: " + ", ".join(file.rsplit("/", 1)[1] for file in result.part.files))
            commands.append(["clipbert", "download", result.name, *given_options, "--source", given])
        if result.part.kind == "media":
            commands.append(["clipbert", "pack", "UNPACKED_FOLDER", str(plan.layout.store(result.part))])
        lines.append(f"   Then run: {' or '.join(map(shlex.join, commands))}")
    return lines
