"""The converters by name, and the comparison of what they write with the published counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clipbert_cli.assets.catalog import AssetPart, Catalog, ExpectedCount
from clipbert_cli.assets.convert import (
    caption_lists,
    coco,
    msrvtt,
    msvd,
    next_qa,
    tgif_qa,
    visual_genome,
    vqa,
)
from clipbert_cli.assets.convert.record_writer import OutputCount, RecordWriter
from clipbert_cli.errors import UsageError
from clipbert_cli.files import publish_file, scratch_folder

CONVERTERS: dict[str, Callable[[Path, RecordWriter], None]] = {
    "coco_captions": coco.convert_captions,
    "vg_captions": visual_genome.convert_captions,
    "vqa": vqa.convert,
    "vg_qa": visual_genome.convert_questions,
    "msrvtt_retrieval": msrvtt.convert_retrieval,
    "msrvtt_mc": msrvtt.convert_multiple_choice,
    "msrvtt_qa": msrvtt.convert_questions,
    "didemo_retrieval": caption_lists.convert_didemo,
    "anet_retrieval": caption_lists.convert_anet,
    "tgif_qa": tgif_qa.convert,
    "msvd_retrieval": caption_lists.convert,
    "msvd_qa": msvd.convert_questions,
    "next_qa": next_qa.convert,
    "caption_lists": caption_lists.convert,
}


def run_converter(name: str, raw: Path, folder: Path, part: AssetPart | None) -> RecordWriter:
    """Convert the original files in `raw` into `folder`, and compare the counts with those of `part`.

    Returns:
        The count of each file, and warnings for the user.

    Raises:
        UsageError: there is no converter of this name.
        AnnotationError: original files are missing or not as documented; nothing is written.
    """
    if name not in CONVERTERS:
        raise UsageError(f"{name!r}: no converter of this name", hint=f"there are {', '.join(CONVERTERS)}")
    with scratch_folder(folder) as scratch:
        writer = RecordWriter(scratch)
        CONVERTERS[name](raw, writer)
        folder.mkdir(exist_ok=True)
        # A kill between two of them leaves a part that is not complete, and that the next download converts again.
        for output in writer.counts:
            publish_file(scratch / output, folder / output)
    writer.warnings += _count_warnings(part, writer.counts) if part else ()
    return writer


def part_of(catalog: Catalog, converter: str) -> AssetPart | None:
    """Return the part that is made with a converter."""
    return next((part for part in catalog.parts().values() if part.convert == converter), None)


def _count_warnings(part: AssetPart, counts: dict[str, OutputCount]) -> list[str]:
    """Return one warning, with both numbers, for each count that differs from the published one."""
    warnings = []
    for name, count in counts.items():
        expected = part.outputs.get(name, ExpectedCount())
        for unit, found, wanted in (
            ("records", count.records, expected.records),
            ("media", count.media, expected.media),
        ):
            if wanted not in (None, found):
                warnings.append(f"{name}: {found:,} {unit} where {wanted:,} were expected ({expected.mark})")
    return warnings
