"""What `finetune --profile` says: where a step's time goes, and how much of the machine it uses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbert_cli.train.session import Training

OTHER = "seeds, rates, counting, logs"


def measure(training: Training, steps: int, *, as_json: bool) -> None:
    """Measure, and say it: a table on stderr; on stdout the folder, or everything as JSON."""
    from clipbert_cli.commands.progress import TrainingProgress
    from clipbert_cli.commands.terminal import note, print_json, print_result
    from clipbert_cli.profile.measure import Profiling

    profiling = Profiling(training, steps)
    note(profiling.describe())
    metric = training.best.metric.removeprefix("-")
    with TrainingProgress(profiling.total_steps, metric=metric) as progress:
        result = profiling.run([progress])
    print_table(result)
    for line in summary(result):
        note(line)
    if as_json:
        print_json(result)
    else:
        print_result(str(profiling.folder))


def silence_tracer() -> None:
    """Keep torch's tracer from telling of its own start and stop; to be called before torch is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def print_table(result: Mapping[str, Any]) -> None:
    """A row a phase: mean milliseconds of a step, share of its time."""
    from rich.table import Table

    from clipbert_cli.commands.terminal import is_muted, stderr
    from clipbert_cli.train.phases import PHASES

    if is_muted():
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("phase")
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for name, what in (*PHASES.items(), ("other", OTHER)):
        spent = result["phases"][name]
        table.add_row(name, what, f"{spent['ms']:.2f}", f"{spent['share']:.1%}")
    steps = f"mean of {result['steps']}; their median is {result['median_step_ms']:.2f} ms"
    table.add_row("step", steps, f"{result['step_ms']:.2f}", "100.0%")
    stderr().print(table)


def summary(result: Mapping[str, Any]) -> list[str]:
    """Speed, memory and use of the machine; what else there is to know."""
    machine = si(result["matrix_flop_per_second"], "FLOP/s")
    lines = [
        f"speed      {result['examples_per_second']:.1f} examples/s, {result['examples_per_step']:.4g} a step",
        f"memory     {result['peak_memory_mib']:,} MiB at most",
        f"compute    {si(result['flop_per_step'], 'FLOP')} a step, {si(result['flop_per_second'], 'FLOP/s')}",
        f"MFU        {result['mfu']:.1%} of {machine} in products of large {result['precision']} matrices",
    ]
    waits = result["data_ms_by_process"]
    if len(waits) > 1:
        longest = max(waits)
        lines.insert(0, f"processes  times are of process 0; process {waits.index(longest)} waits longest for data: ")
        lines[0] += f"{longest:.2f} ms"
    if result["skipped_steps"]:
        lines.append(f"skipped    {result['skipped_steps']} of the measured steps had numbers that were not finite")
    return lines


def si(value: float, unit: str) -> str:
    """`1.23 GFLOP`."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.2f} {prefix}{unit}"
    return f"{value / 1e6:.2f} M{unit}"
