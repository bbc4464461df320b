"""Learning rates over time, as shares of the peak rate.

The formulas are the original's, with one mend: its multi-step schedule skips a power of 1/2 after the last milestone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOWEST_RATE = 1e-8
"""The rate, not the share, that the original takes where its formula gives 0."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training is: update `step` of `total`, both counted from 1, in `epoch`, counted from 0."""

    step: int
    total: int
    warmup: int
    epoch: int
    milestones: Sequence[int]


def rate_factor(
    step: int, *, total: int, warmup_ratio: float, schedule: str, epoch: int = 0, milestones: Sequence[int] = ()
) -> float:
    """Share of the peak rate at update `step`, counted from 1.

    With w = int(warmup_ratio * total): `linear` is step/w before w, then falls to 0 at `total`; `invsqrt` is step/w up
    to w, then sqrt(w/step), and 0 throughout where w is 0; `constant` stays 1; `multi_step` is 1/2 to the power of the
    number of milestones that `epoch` has reached. Raises KeyError for another schedule.
    """
    return SCHEDULES[schedule](Moment(step, total, int(warmup_ratio * total), epoch, milestones))


def _linear(now: Moment) -> float:
    if now.step < now.warmup:
        return now.step / now.warmup
    return max(0.0, (now.total - now.step) / (now.total - now.warmup)) if now.total > now.warmup else 0.0


def _inverse_root(now: Moment) -> float:
    if now.warmup and now.step <= now.warmup:
        return now.step / now.warmup
    return math.sqrt(now.warmup) / math.sqrt(now.step)


def _constant(now: Moment) -> float:
    return 1.0


def _multi_step(now: Moment) -> float:
    return 0.5 ** sum(now.epoch >= milestone for milestone in now.milestones)


SCHEDULES: dict[str, Callable[[Moment], float]] = {
    "linear": _linear,
    "invsqrt": _inverse_root,
    "constant": _constant,
    "multi_step": _multi_step,
}
