"""The output of `finetune --profile`: where a step's time goes, and how much of the machine it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipbert_cli.commands.terminal import aligned, note, print_json, print_result

if TYPE_CHECKING:
    from clipbert_cli.train.training import Training


def measure(training: Training, steps: int, *, as_json: bool) -> None:
    """Profile a training: print a table to stderr, and to stdout the profile's file or everything as JSON."""
    from clipbert_cli.commands.progress import TrainingProgress
    from clipbert_cli.profile.profiler import Profiler

    profiler = Profiler(training, steps)
    note(profiler.describe())
    with TrainingProgress(profiler.last_step, metric=training.best.metric_name) as progress:
        result = profiler.run([progress])
    note(*phase_table(result), *summary(result))
    profiler.write(result)
    if as_json:
        print_json({"profile": str(profiler.file), **result})
    else:
        print_result(str(profiler.file))


def phase_table(result: Mapping[str, Any]) -> list[str]:
    """Return one line per phase: its mean milliseconds of a step, and its share of the step."""
    from clipbert_cli.train.logs import PHASES

    other = "random seeds, learning rates, counting, logs"
    rows = [
        (name, PHASES.get(name, other), f"{spent['ms']:.2f}", f"{spent['share']:.1%}")
        for name, spent in result["phases"].items()
    ]
    steps = f"mean of {result['steps']}; their median is {result['median_step_ms']:.2f} ms"
    rows = [("phase", "", "ms", "share"), *rows, ("step", steps, f"{result['step_ms']:.2f}", "100.0%")]
    return aligned(rows, left=2)


def summary(result: Mapping[str, Any]) -> list[str]:
    """Return the lines about speed, memory, and use of the machine."""
    machine = si(result["matrix_flop_per_second"], "FLOP/s")
    each = f"{result['examples_per_step']:.4g} examples per step"
    lines = [
        f"speed      {result['examples_per_second']:.1f} examples/s, {each}",
        f"memory     {result['peak_memory_mib']:,} MiB at most",
        f"compute    {si(result['flop_per_step'], 'FLOP')} per step, {si(result['flop_per_second'], 'FLOP/s')}",
        f"MFU        {result['mfu']:.1%} of {machine}, the rate of products of large {result['precision']} matrices",
    ]
    waits = result["data_ms_by_process"]
    if len(waits) > 1:
        longest = max(waits)
        lines.insert(
            0,
            f"processes  times are of process 0; process {waits.index(longest)} waits longest for data: "
            f"{longest:.2f} ms",
        )
    if result["skipped_steps"]:
        lines.append(f"skipped    {result['skipped_steps']} of the timed steps had numbers that were not finite")
    return lines


def si(value: float, unit: str) -> str:
    """Return a number of operations with its unit: `1.23 GFLOP`."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.2f} {prefix}{unit}"
    return f"{value / 1e6:.2f} M{unit}"
