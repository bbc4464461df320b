"""Which converters there are, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from clipbert_cli.assets.catalog import AssetPart, Catalog
from clipbert_cli.assets.convert.base import Output
from clipbert_cli.errors import UsageError

CONVERTERS = (
    "coco_captions",
    "vg_captions",
    "vqa",
    "vg_qa",
    "msrvtt_retrieval",
    "msrvtt_mc",
    "msrvtt_qa",
    "didemo_retrieval",
    "anet_retrieval",
    "tgif_qa",
)


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote: file -> (records, distinct media ids), and what the person should know."""

    counts: dict[str, tuple[int, int | None]]
    warnings: tuple[str, ...]


def run_converter(name: str, raw: Path, folder: Path, part: AssetPart | None, *, order: str | None = None) -> Converted:
    """Convert, and compare with the counts that the catalogue states for `part`.

    Raises:
        UsageError: an unknown converter, or an order where a converter joins nothing.
        AnnotationError: raw files that are missing or not as documented; nothing is written.
    """
    if name not in CONVERTERS:
        raise UsageError(f"{name!r}: no converter of this name", hint=f"there are {', '.join(CONVERTERS)}")
    convert: Callable[..., None] = import_module(f"clipbert_cli.assets.convert.{name}").convert
    if order is not None and "order" not in inspect.signature(convert).parameters:
        raise UsageError(f"--order: {name} joins no sentences", hint="leave --order out")
    with Output(folder) as output:
        convert(raw, output, **({} if order is None else {"order": order}))
    return Converted(output.counts, (*output.warnings, *(count_warnings(part, output.counts) if part else ())))


def part_of(catalog: Catalog, converter: str) -> AssetPart | None:
    """The part that states this converter's counts."""
    return next((part for part in catalog.parts().values() if part.convert == converter), None)


def count_warnings(part: AssetPart, counts: dict[str, tuple[int, int | None]]) -> list[str]:
    """One warning with both numbers for each count that is not as stated."""
    warnings = []
    for names, expected in (*part.outputs.items(), *part.totals.items()):
        files = [counts[name] for name in names.split("+") if name in counts]
        if len(files) != len(names.split("+")):
            continue
        records = sum(file[0] for file in files)
        media = sum(file[1] or 0 for file in files)
        for unit, found, wanted in (("records", records, expected.records), ("media", media, expected.media)):
            if wanted is not None and found != wanted:
                warnings.append(f"{names}: {found:,} {unit} where {wanted:,} were expected ({expected.mark})")
    return warnings
