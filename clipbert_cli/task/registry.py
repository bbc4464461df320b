"""The tasks by name. Their modules are imported when a task is used, so that checking a name imports nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from clipbert_cli.errors import RecipeError
from clipbert_cli.printable import did_you_mean

if TYPE_CHECKING:
    from clipbert_cli.task.base import Task

# The `task` of a recipe -> file in this package and class in it. A new task adds one line.
TASKS = {
    "open_ended_qa": "open_ended_qa.OpenEndedQa",
    "image_qa": "image_qa.ImageQa",
    "multiple_choice": "multiple_choice.MultipleChoice",
    "retrieval": "retrieval.Retrieval",
    "pretraining": "pretraining.Pretraining",
}


def ranking_task(trained_for: str) -> str | None:
    """Return a task that scores every text with every media item and uses runs of the given task, if there is one."""
    for name in TASKS:
        ranker = task_class(name)
        if ranker.ranks_media and trained_for in (name, *ranker.also_answers_runs_of):
            return name
    return None


def task_class(name: str) -> type[Task]:
    """Return the class of the task of this name.

    Raises:
        RecipeError: there is none; it names the most similar one.
    """
    if name not in TASKS:
        raise RecipeError(f"task is {name!r}: it must be one of {', '.join(TASKS)}{did_you_mean(name, TASKS)}")
    module, _, attribute = TASKS[name].partition(".")
    return cast("type[Task]", getattr(import_module(f"clipbert_cli.task.{module}"), attribute))
