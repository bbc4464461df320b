"""Sides of a benchmark, each in a process of its own, that work in turns of a second.

How fast a machine is changes from one second to the next, with what its neighbours do. So that all sides meet the same
machine, each is stopped (SIGSTOP) when its slice of time is over and the next goes on; slices are as long, one against
the other, as the sides' work is, so that all end together. Between the slices the machine's own rate is measured, by
products of large matrices: the mean over the same time. A GPU is not stopped: there a side ends its work first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from clipbert_cli.profile.flops import MATRIX_SIDE, matrix_product_rate, synchronize

SLICE = 1.0
"""Seconds of the side with the most work; long against stopping and going on, short against the changes."""

MACHINE = "machine"
"""The side that measures what the machine can do meanwhile."""

Span = tuple[float, float]
"""Begin and end by `time.perf_counter`, which is the same clock in all processes."""


# ------------------------------------------------------------------------------------------------ in a side's process


def serve(work: Callable[[str], Mapping[str, Any]]) -> None:
    """Say that work can begin; then do what each line on stdin orders, and answer with a line of JSON.

    The process ends with the benchmark that started it, also while it is stopped (Linux: PR_SET_PDEATHSIG).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    print("{}", flush=True)
    for order in sys.stdin:
        print(json.dumps(work(order.strip())), flush=True)


def serve_products(device: torch.device, dtype: torch.dtype) -> None:
    """Answer each order with what some matrix products take: {"flops": of them, "seconds": that they took}.

    On a GPU, whose clocks rise in the first of them, it is what the best take in a second.
    """
    if device.type == "cuda":
        serve(lambda _: {"flops": matrix_product_rate(device, dtype), "seconds": 1.0})
        return
    side, count = MATRIX_SIDE["cpu"], 2
    pair = [torch.rand(side, side).to(dtype) for _ in range(2)]

    def products(_: str) -> dict[str, float]:
        begin = time.perf_counter()
        for _ in range(count):
            torch.mm(*pair)
        return {"flops": 2.0 * side**3 * count, "seconds": time.perf_counter() - begin}

    serve(products)


@dataclass
class Clock:
    """Notes when the parts of some work were done, for `Answer.parts`."""

    device: torch.device
    spans: dict[str, list[Span]] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        synchronize(self.device)
        begin = time.perf_counter()
        yield
        synchronize(self.device)
        self.spans.setdefault(part, []).append((begin, time.perf_counter()))


def lengths(spans: Mapping[str, Sequence[Span]]) -> dict[str, float]:
    """Seconds of each part, of work that was never stopped."""
    return {part: sum(end - begin for begin, end in each) for part, each in spans.items()}


# ------------------------------------------------------------------------------------------------ in the benchmark


@dataclass(frozen=True)
class Answer:
    """What a side answered, and when it was at work until then."""

    fields: dict[str, Any]
    slices: tuple[Span, ...]

    def parts(self) -> dict[str, float]:
        """Seconds of each part that the side noted as `spans`, without the time that it was stopped."""
        return {part: sum(map(self._at_work, spans)) for part, spans in self.fields["spans"].items()}

    def _at_work(self, span: Span) -> float:
        begin, end = span
        return sum(max(0.0, min(end, stop) - max(begin, start)) for start, stop in self.slices)


class Side:
    """A process that takes orders, one at a time."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.answers: list[Answer] = []
        self._slices: list[Span] = []
        self._order = ""
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def give(self, order: str) -> None:
        """What it is to do. It is told so in its first slice: a process that waits for orders begins at once."""
        self._order = order + "\n"

    def work(self, seconds: float | None = None) -> bool:
        """Let it work for so long, or until it has answered; whether it has."""
        assert self._process.stdin
        assert self._process.stdout
        begin = time.perf_counter()
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended, as reading says
            self._process.stdin.write(self._order)
            self._process.stdin.flush()
        self._order = ""
        answered = bool(select.select([self._process.stdout], [], [], seconds)[0])
        if not answered:
            self._process.send_signal(signal.SIGSTOP)
        self._slices.append((begin, time.perf_counter()))
        if answered:
            line = self._process.stdout.readline()
            if not line:
                raise SystemExit(f"{self.name}: its process ended with exit code {self._process.wait()}")
            self.answers.append(Answer(json.loads(line), tuple(self._slices)))
            self._slices.clear()
        return answered

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Wait until it has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


class Turns:
    """All sides, and `machine`, the process that measures what the machine can do meanwhile.

    Args:
        script: the benchmark, started with `--side NAME` and `options` for each of `names`, and for MACHINE.
    """

    def __init__(self, script: str, names: Sequence[str], options: Sequence[str], *, device: torch.device) -> None:
        self.device = device
        self.sides = [Side(name, [script, "--side", name, *options]) for name in names]
        self.machine = Side(MACHINE, [script, "--side", MACHINE, *options])

    def __enter__(self) -> Turns:
        try:
            for side in (*self.sides, self.machine):  # while one still begins, nothing is measured
                side.work()
                side.answers.clear()
            self._measure_machine()  # the first is the slowest
            self.machine.answers.clear()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for side in (*self.sides, self.machine):
            side.kill()
        for side in (*self.sides, self.machine):
            side.close()

    def take(self, orders: Mapping[str, str], work: Mapping[str, float] | None = None) -> dict[str, Answer]:
        """Give each side an order; `work` is how much each has to do, one against the other, default: the same."""
        work = work or dict.fromkeys(orders, 1.0)
        most = max(work.values())
        for side in self.sides:
            side.give(orders[side.name])
        waiting = self.sides
        while waiting:
            self._measure_machine()
            waiting = [side for side in waiting if not side.work(self._slice(work[side.name] / most))]
        self._measure_machine()
        return {side.name: side.answers[-1] for side in self.sides}

    def _slice(self, share: float) -> float | None:
        return None if self.device.type == "cuda" else SLICE * share

    def _measure_machine(self) -> None:
        self.machine.give("products")
        self.machine.work()

    def rate(self, *, since: int = 0) -> float:
        """FLOPs a second of matrix products, from the `since`th measurement on."""
        answers = [answer.fields for answer in self.machine.answers[since:]]
        return sum(each["flops"] for each in answers) / sum(each["seconds"] for each in answers)
