"""Does any broken or hostile input end a command in another way than with its result or with one message?

    python benchmarks/fuzz.py [--cases 5000] [--seed 0] [--only recipes runs] [--keep FOLDER] [--json]

Hypothesis changes one file of a small good world (data, runs, predictions, a store, media), and a command reads it in
this process (`tests/fuzzing.py`). A case is understood, or refused with one message and with nothing changed. The table
counts both by kind of input; anything else is a fault, which is printed with its command. `--keep` writes the changed
files of each fault.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import KINDS, Case, TooSlowError, World
from harness import command_line, show
from hypothesis import HealthCheck, Phase, given, seed, settings


def run_cases(world: World, kind: str, *, cases: int, number: int, keep: Path | None) -> dict[str, Any]:
    """Run so many cases of a kind; return the counts of their outcomes and the slowest one."""
    counts: Counter[str] = Counter()
    slowest = 0.0

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind](world))
    def work(case: Case) -> None:
        nonlocal slowest
        begin = time.perf_counter()
        try:
            counts[world.run(case)] += 1
        except (Exception, TooSlowError) as exc:  # noqa: BLE001  it is the result
            counts["faults"] += 1
            print(f"{kind}: clipbert {' '.join(case.command)}: {type(exc).__name__}: {exc}", file=sys.stderr)
            if keep:
                write_fault(keep / f"{kind}_{counts['faults']}", case)
        slowest = max(slowest, time.perf_counter() - begin)

    work()
    return {"cases": counts.total(), **{name: counts[name] for name in OUTCOMES}, "slowest_s": slowest}


OUTCOMES = ("understood", "refused", "faults")


def write_fault(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    for number, (name, content) in enumerate([*case.files.items(), *case.records.items()]):
        (folder / f"{number}_{Path(str(name)).name}").write_bytes(content)
    (folder / "fault.txt").write_text(f"{case}\n\n{traceback.format_exc()}")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path, help="write the changed files of each fault below this folder")
    options = parser.parse_args()
    warnings.simplefilter("error")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        each = options.cases // len(options.only)
        report = {
            kind: run_cases(world, kind, cases=each, number=options.seed, keep=options.keep) for kind in options.only
        }
    faults = sum(row["faults"] for row in report.values())
    total = sum(row["cases"] for row in report.values())
    result = f"{faults} faults in {total} cases, in {time.perf_counter() - begin:.0f} s"
    show(options, report, result=result)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
