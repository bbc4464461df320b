"""The prediction of each single clip, beside the pooled prediction of all clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clipbert_cli.infer.prediction_lines import json_fields
from clipbert_cli.media.sampling import ClipSampling, FrameIndices, select
from clipbert_cli.store.source import MediaSource
from clipbert_cli.task.base import Task
from clipbert_cli.types import Batch, Outputs, Prediction


def with_clips(task: Task, outputs: Outputs, batch: Batch, pooled: Sequence[Prediction]) -> list[Prediction]:
    """Return the pooled predictions with a field `clips`: the fields that each clip alone would give, in order.

    Args:
        outputs: of all clips, from which `pooled` was predicted.
    """
    words = outputs.mlm_logits
    alone = [
        task.predict(
            Outputs(outputs.logits[:, clip : clip + 1], None if words is None else words[:, clip : clip + 1]), batch
        )
        for clip in range(outputs.logits.shape[1])
    ]
    return [
        dataclasses.replace(
            prediction, fields={**prediction.fields, "clips": [json_fields(each.fields) for each in own]}
        )
        for prediction, *own in zip(pooled, *alone, strict=True)
    ]


def with_times(lines: Iterable[dict[str, Any]], media: MediaSource, sampling: ClipSampling) -> Iterator[dict[str, Any]]:
    """Yield the lines of predictions; each of their `clips` says which `frames` it has, and at which `seconds`."""
    last: tuple[str, FrameIndices, tuple[tuple[float, ...], ...]] | None = None
    for line in lines:
        if "clips" not in line or media.kind == "image":
            yield line
            continue
        if last is None or last[0] != line["media_id"]:
            info = media.info(line["media_id"])
            assert info is not None
            frames = select(info, sampling)
            times = tuple(tuple(info.seconds(index) for index in clip) for clip in frames)
            last = line["media_id"], frames, times
        clips = [
            {"frames": list(frames), "seconds": [round(each, 6) for each in seconds], **clip}
            for clip, frames, seconds in zip(line["clips"], last[1], last[2], strict=True)
        ]
        yield {**line, "clips": clips}
