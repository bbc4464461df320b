"""How much memory and time does it take to refuse a hostile input?

    python benchmarks/refused.py [--only TEXT] [--json]

Each input promises much (`tests/refused_inputs.py`): it has no end, is deeply nested, or is small on the disk and large
in memory. A command of its own process reads it. Its peak of memory must stay below 1 GB, and it must end within 10
seconds of processor time, with one message and exit code 1 or 2. A command that waits for more than a minute is ended,
which is a fault. The table has the inputs that took most, and those that reached a limit.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from harness import Outcome, command_line, run

from fuzzing import World, measured  # isort: skip
from refused_inputs import cases  # isort: skip

MEGABYTES, SECONDS = 1000, 10
SHOWN = 10


def measure(options: Namespace, folder: Path) -> Outcome:
    world = World.make(folder)
    rows = {name: measured(world, case) for name, case in cases(world).items() if options.only in name}
    shares = {name: max(row["peak_mb"] / MEGABYTES, row["cpu_seconds"] / SECONDS) for name, row in rows.items()}
    over = {name: row for name, row in rows.items() if shares[name] > 1}
    wrong = {name: row for name, row in rows.items() if row["fault"]}
    most = sorted(rows, key=shares.__getitem__)[-SHOWN:]
    report = {name: rows[name] for name in {**dict.fromkeys(reversed(most)), **over, **wrong}}
    peak, seconds = (max(row[name] for row in rows.values()) for name in ("peak_mb", "cpu_seconds"))
    result = (
        f"{len(rows)} inputs refused with at most {peak:.0f} MB in {seconds:.1f} s of processor time; {len(over)} took "
        "more than allowed"
    )
    return Outcome(report, f"{result}, {len(wrong)} ended otherwise", reached=not over and not wrong)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--only", default="", help="inputs whose names have this in them")
    run(parser, measure)
