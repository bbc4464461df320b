"""A training that can kill itself inside the saving of a checkpoint.

    python tests/killed_training.py CALL RUN DATA SETTING...

It starts the run, or resumes it where it exists. At the CALLth call of a function that saving calls it kills itself
(0: never).
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipbert_cli import files
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.runs import checkpoint
from clipbert_cli.train.training import Training

SAVING = ((checkpoint, "_crc32"), (files, "fsync"), (checkpoint, "point_link"), (checkpoint, "remove"))


def main() -> None:
    last_call, run, data, *settings = sys.argv[1:]
    calls = itertools.count(1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            if next(calls) == int(last_call):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return counting

    for module, name in SAVING:
        setattr(module, name, counted(getattr(module, name)))
    recipe = load_recipe("demo_qa", overrides=settings, data_root=Path(data))
    Training(recipe, Path(run), resume=Path(run).exists()).run()


if __name__ == "__main__":
    main()
