"""Does any broken or hostile input end a command in another way than with its result or with one message?

    python benchmarks/fuzz.py [--cases 5000] [--seed 0] [--only recipes runs] [--keep FOLDER] [--json]

Hypothesis changes files of a small good world (data, runs, predictions, a store, media), and commands read them
(`tests/fuzzing.py`). Each kind of input has a process, one per core at a time. A case is understood, or refused with
one message and with nothing changed. The table counts both by kind of input; anything else is a fault, which is printed
with its command. `--keep` writes the changed files of each fault. `slowest_s` are seconds of CPU.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from argparse import Namespace
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness import Outcome, command_line, run

from clipbert_cli.cores import available_cores

from fuzzing import KINDS, Case, TooSlowError, World, each_case  # isort: skip

OUTCOMES = ("understood", "refused", "faults")


def run_cases(kind: str, *, good: Path, options: Namespace) -> dict[str, Any]:
    """Run the cases of a kind; return the counts of their outcomes and the slowest one."""
    warnings.simplefilter("error")
    world = World(good, good.with_name(kind))
    counts: Counter[str] = Counter()
    slowest = 0.0

    def work(case: Case) -> None:
        nonlocal slowest
        begin = time.process_time()
        try:
            counts[world.run(case)] += 1
        except (Exception, TooSlowError) as exc:  # noqa: BLE001  it is the result
            counts["faults"] += 1
            print(f"{kind}: clipbert {' '.join(case.command)}: {type(exc).__name__}: {exc}", file=sys.stderr)
            if options.keep:
                write_fault(options.keep / f"{kind}_{counts['faults']}", case)
        slowest = max(slowest, time.process_time() - begin)

    each_case(world, kind, work, cases=options.cases // len(options.only), number=options.seed)
    return {"cases": counts.total(), **{name: counts[name] for name in OUTCOMES}, "slowest_s": slowest}


def write_fault(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    for number, (name, content) in enumerate([*case.files.items(), *case.records.items()]):
        if isinstance(content, bytes):
            (folder / f"{number}_{Path(str(name)).name}").write_bytes(content)
    (folder / "fault.txt").write_text(f"{case}\n\n{traceback.format_exc()}")


def measure(options: Namespace, folder: Path) -> Outcome:
    begin = time.perf_counter()
    work = partial(run_cases, good=World.make(folder).good, options=options)
    os.environ["OMP_NUM_THREADS"] = "1"
    # Started anew: torch's threads do not outlive a fork.
    with ProcessPoolExecutor(available_cores(), mp_context=get_context("spawn")) as pool:
        report = dict(zip(options.only, pool.map(work, options.only), strict=True))
    total, faults = (sum(row[name] for row in report.values()) for name in ("cases", "faults"))
    result = f"{faults} faults in {total} cases, in {time.perf_counter() - begin:.0f} s"
    return Outcome(report, result, reached=not faults)


if __name__ == "__main__":
    parser = command_line(__doc__, cases=5000, seed=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path, help="write the changed files of each fault below this folder")
    run(parser, measure)
