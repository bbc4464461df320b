"""Measures items per second with two loading processes and with one, and what the machine allows."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clipbert_cli.loading.dataset import GroupDataset, MediaSettings
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.pack import pack_media
from clipbert_cli.types import Example, Group, Texts

_ITEMS = 48
"""Items to load at least, so that each process has several batches while all of them work."""


def measure_workers(videos: list[bytes], settings: MediaSettings, *, repeats: int) -> dict[str, float]:
    """Return the loader's items per second with one and with two processes, and their ratio.

    Also returns the same ratio for processes that decode alone and share nothing, which is what the machine allows. All
    measurements take turns, and the best of each counts.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "videos"
        folder.mkdir()
        for number, data in enumerate(videos):
            (folder / f"{number}.mp4").write_bytes(data)
        pack_media([folder], Path(temporary) / "store", workers=2)
        source = open_media(Path(temporary) / "store", kind="video")
        groups = [Group(media_id, (Example("", media_id, ("",)),)) for media_id in source]
        groups *= math.ceil(_ITEMS / len(groups))
        groups = [groups[place] for place in np.random.default_rng(0).permutation(len(groups))]
        dataset = GroupDataset(groups, source, settings, seed=0)
        rates = dict.fromkeys((1, 2), 0.0)
        alone = dict.fromkeys((1, 2), 0.0)
        for _ in range(repeats):
            for count in rates:
                rates[count] = max(rates[count], _steady_rate(dataset, count))
                alone[count] = max(alone[count], _rate_alone(dataset, count))
    return {
        "one_worker_items_per_second": rates[1],
        "two_workers_items_per_second": rates[2],
        "two_against_one": rates[2] / rates[1],
        "machine_two_against_one": alone[2] / alone[1],
    }


def _rate_alone(dataset: GroupDataset, processes: int) -> float:
    """Return the summed items per second of processes that each decode all items."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    team = [context.Process(target=lambda: answers.put(_steady_rate(dataset, 0))) for _ in range(processes)]
    for process in team:
        process.start()
    rate = sum(answers.get() for _ in team)
    for process in team:
        process.join()
    return float(rate)


def _steady_rate(dataset: GroupDataset, workers: int) -> float:
    """Return the items per second while every process works.

    That is from the first batch of the process that starts last until each process has one batch left.
    """
    order = OrderedBatches(len(dataset), batch_size=4)
    arrived = []  # when, and how many items
    for batch in BatchLoader(dataset, _no_texts, order, workers=workers):
        arrived.append((time.perf_counter(), len(batch.media_ids)))
    steady = arrived[max(workers, 1) - 1 : len(arrived) - workers]
    return sum(count for _, count in steady[1:]) / (steady[-1][0] - steady[0][0])


def _no_texts(examples: Sequence[Example]) -> Texts:
    return Texts(torch.zeros((len(examples), 1), dtype=torch.long), torch.ones((len(examples), 1), dtype=torch.bool))
