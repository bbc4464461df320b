"""The division of an epoch's groups into steps and batches: decided by numbers alone, for any number of processes.

    epoch's permutation     3 0 6 | 5 1 2 | 4        7 groups, global batch 3: steps 1, 2 and 3
    step 1, two processes   3 0 . 6                  process 0 takes the first half of every step, process 1 the rest
    their batches           3 | 0 . 6                with at most one group per forward pass

The permutation and its division into steps do not depend on the number of processes. So a run may be resumed with
another number of them, and every step still learns from the same groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clipbert_cli.types import ALONE, Shard


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Epochs of `groups` groups in steps of `global_batch` groups, and these in batches of up to `batch_size` groups.

    An epoch's last step has the groups that are left. No number needs to divide another.
    """

    groups: int
    global_batch: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.groups / self.global_batch)

    def epoch(self, step: int) -> int:
        """Return the epoch, counted from 0, of step `step`, counted from 1."""
        return (step - 1) // self.steps_per_epoch

    def step(self, step: int) -> range:
        """Return the positions in the epoch's permutation of step `step`, counted from 1."""
        start = (step - 1) % self.steps_per_epoch * self.global_batch
        return range(start, min(start + self.global_batch, self.groups))

    def batches(self, step: int, shard: Shard = ALONE) -> list[range]:
        """Return the positions of one process in that step, one range per batch.

        The list is empty where a step has fewer groups than there are processes and none is left for this one.
        """
        own = nth_part(self.step(step), shard.rank, shard.size)
        count = math.ceil(len(own) / self.batch_size)
        return [nth_part(own, number, count) for number in range(count)]


def nth_part(whole: range, number: int, count: int) -> range:
    """Return part `number` of `count` consecutive parts of a range. Lengths differ by one at most, longest first."""
    length, rest = divmod(len(whole), count)
    start = number * length + min(number, rest)
    return whole[start : start + length + (number < rest)]
