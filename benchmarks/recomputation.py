"""What `train.activation_checkpointing` saves in memory and costs in time: a step with and without it.

    python benchmarks/recomputation.py [--steps 1] [--json] [--plot FILE]

1 video x 16 clips x 2 frames of 448 pixels in float32 on the CPU: ResNet-50 and BERT-base as in train_step.py, each way
in a process of its own, in turns; one step comes first to warm up. Memory is the most that the process used, weights,
optimiser and torch itself among it. The exit code is 1 where nothing is saved, or a loss differs.
"""

from __future__ import annotations

import sys

from reporting import command_line, show
from train_step import lines, measure, plot

CASE = "recomputed"


def main() -> int:
    parser = command_line(__doc__, chart="step times and their floor by operations")
    parser.add_argument("--steps", type=int, default=1, help="steps that are timed, after one that is not")
    options = parser.parse_args()
    report = measure(CASE, max(1, options.steps))
    if options.plot:
        plot({CASE: report}, options.plot)
    row = report["sides"]["engine"]
    result = (
        f"recomputing takes {row['memory']:.2f} of the memory and {1 / row['speedup']:.2f} of the time, "
        f"losses within {row['loss_difference']:.1e}"
    )
    show(options, report, lines=lines(CASE, report), result=result)
    return int(row["memory"] >= 1 or row["loss_difference"] > 0)


if __name__ == "__main__":
    sys.exit(main())
