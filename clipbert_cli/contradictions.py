"""Contradictions in a recipe, found without reading its annotations and media.

The schema checks each section by itself. This module knows the tasks as well, so it can compare the settings of the
whole recipe, with each other and with the list of answers if that exists already. `clipbert recipes validate` and every
training ask it first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from clipbert_cli.errors import RecipeError
from clipbert_cli.model.freezing import PART
from clipbert_cli.printable import did_you_mean, listed, plural
from clipbert_cli.recipe.load import resolve
from clipbert_cli.recipe.schema import ObjectiveConfig, Recipe
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import normal_answers, read_answers
from clipbert_cli.text.fields import unknown_names


def check_training_recipe(recipe: Recipe) -> list[str]:
    """Return warnings about a recipe that is to be trained, one sentence each.

    Raises:
        RecipeError: training is impossible; all reasons together.
        AnnotationError: the list of answers is damaged.
    """
    if not recipe.data.splits:
        raise RecipeError(
            f"recipe {recipe.name} names no data: data.splits is empty",
            hint="name your files in a recipe of your own, as the head of this one shows: "
            f"clipbert recipes copy {recipe.name} mine.yaml",
        )
    answers = _listed_answers(recipe)
    mistakes = [
        *_answers(recipe, answers),
        *_splits(recipe),
        *unknown_names(recipe.data.fields),
        *_metrics(recipe),
        *_visual_weights(recipe),
        *_parts(recipe),
    ]
    if mistakes:
        raise RecipeError(listed([_placed(recipe, mistake) for mistake in mistakes]))
    warnings = [
        *_too_few_answers(recipe, answers),
        *_unread_objective(recipe),
        *_unread_fields(recipe),
        *_same_split(recipe),
        *_frozen_at_random(recipe),
    ]
    return [_placed(recipe, warning) for warning in warnings]


def _placed(recipe: Recipe, sentence: str) -> str:
    """Return a sentence that begins with a key, and the file and line of its value where that is known."""
    origin = recipe.origin(sentence.partition(" ")[0])
    return f"{sentence} ({origin})" if origin else sentence


def check_any_recipe(recipe: Recipe) -> list[str]:
    """Return warnings about a recipe of any purpose: some are for `infer` only, and some are to be extended.

    Raises:
        RecipeError: see `check_training_recipe`; or the recipe has no such task.
    """
    task_class(recipe.task)
    splits = recipe.data.splits
    if "val" in splits or any(name in splits for name in recipe.data.train_splits):
        return check_training_recipe(recipe)
    if splits:
        return ["data.splits has neither train nor val: this recipe is for clipbert infer and eval alone"]
    return ["data.splits is empty: add data.splits.train and data.splits.val to train"]


def _listed_answers(recipe: Recipe) -> Collection[str]:
    """Return the answers that the recipe names; none while their file does not exist, which training refuses."""
    named = recipe.data.answers
    if named is None or not task_class(recipe.task).needs_answers or not (path := resolve(recipe, named)).exists():
        return ()
    return read_answers(path)


# ------------------------------------------------------------------------------------------------ impossible


def _answers(recipe: Recipe, answers: Collection[str]) -> Iterator[str]:
    needed, named = task_class(recipe.task).needs_answers, recipe.data.answers
    if needed and named is None:
        yield (
            f"data.answers is null, but task {recipe.task} chooses from a list of answers: name its file "
            "(clipbert recipes answers makes one of the training split)"
        )
    if named is not None and not needed:
        yield (
            f"data.answers is {named!r}, but task {recipe.task} has no list of answers: set data.answers to null "
            "(leaving it out keeps the value of an extended recipe)"
        )
    outputs = recipe.objective.num_labels
    if outputs is not None and outputs < len(answers):
        yield (
            f"objective.num_labels is {outputs}, but {_count(recipe, answers)}: set it to null, which takes the number "
            "of answers"
        )
    if recipe.objective.normalize_answers:
        try:
            normal_answers(answers)
        except RecipeError as exc:
            yield f"{exc}: {exc.hint}"


def _count(recipe: Recipe, answers: Collection[str]) -> str:
    return f"{resolve(recipe, recipe.data.answers or '')} has {plural(len(answers), 'answer')}"


def _splits(recipe: Recipe) -> Iterator[str]:
    data = recipe.data
    known = ", ".join(name for name, split in data.splits.items() if split) or "no splits"
    for name in dict.fromkeys(data.train_splits):
        if not data.splits.get(name):
            yield f"data.train_splits has {name!r}, but data.splits has {known}: add data.splits.{name}"
        if data.train_splits.count(name) > 1:
            yield f"data.train_splits has {name!r} {data.train_splits.count(name)} times: name it once"
    if "val" not in data.splits:
        yield f"data.splits has {known} and no val: add it, or set data.splits.val to null to train without validation"


def _metrics(recipe: Recipe) -> Iterator[str]:
    metrics, best = task_class(recipe.task).metrics, recipe.train.best_metric
    if best and best.removeprefix("-") not in (*metrics, "loss"):
        yield f"train.best_metric is {best!r}, but must be {_one_of(best, (*metrics, 'loss'))}"
    for split, scores in recipe.published.items():
        if not recipe.data.splits.get(split):
            yield f"published.{split} is no split, but must be {_one_of(split, recipe.data.splits)}"
        for metric in set(scores) - set(metrics):
            must = _one_of(metric, metrics)
            yield f"published.{split}.{metric} is no metric of task {recipe.task}, but must be {must}"


def _one_of(word: str, known: Collection[str]) -> str:
    return f"one of {', '.join(known)}{did_you_mean(word.removeprefix('-'), known)}"


def _visual_weights(recipe: Recipe) -> Iterator[str]:
    """Yield weights of another kind of visual encoder, which a recipe may have from the one that it extends."""
    visual = recipe.model.visual
    is_file = visual.weights is not None and visual.weights.endswith((".pth", ".pkl", ".pt"))
    if visual.kind == "hf" and (is_file or not (visual.weights or recipe.model.weights.checkpoint)):
        value = "null" if visual.weights is None else repr(visual.weights)
        yield f"model.visual.weights is {value}: with kind hf it names the folder of the model, or hf:ORG/NAME"
    if visual.kind == "resnet" and (visual.weights or "").startswith("hf:"):
        yield f"model.visual.weights is {visual.weights!r}, but model.visual.kind is resnet: set it to hf"


def _parts(recipe: Recipe) -> Iterator[str]:
    """Yield names of parts that no model has. How many layers a model has, only its weights may know."""
    for name in recipe.train.freeze:
        if not PART.fullmatch(name):
            yield (
                f"train.freeze has {name!r}, which is no part of a model: name visual, visual.stem, visual.0-1, "
                "transformer, transformer.embeddings, transformer.0-5 or head"
            )
    if {"visual", "transformer", "head"} <= set(recipe.train.freeze):
        yield "train.freeze has visual, transformer and head: nothing is left to train; leave out what should learn"


# ------------------------------------------------------------------------------------------------ probably not meant


def _too_few_answers(recipe: Recipe, answers: Collection[str]) -> Iterator[str]:
    outputs = recipe.objective.num_labels
    if len(answers) == 1:
        yield f"{_count(recipe, answers)}: there is nothing to choose"
    if answers and outputs is not None and outputs > len(answers):
        yield (
            f"objective.num_labels is {outputs}, but {_count(recipe, answers)}: outputs without an answer make "
            "training harder; null takes the number of answers"
        )


def _unread_objective(recipe: Recipe) -> Iterator[str]:
    read = task_class(recipe.task).objective_settings
    for name, field in ObjectiveConfig.model_fields.items():
        value = getattr(recipe.objective, name)
        if name not in read and value != field.default:
            yield f"objective.{name} is {value!r}, but task {recipe.task} does not read it"


def _frozen_at_random(recipe: Recipe) -> Iterator[str]:
    """Yield frozen parts that no weights are loaded into: they would keep their random start."""
    weights = recipe.model.weights
    if weights.checkpoint is not None:
        return
    starts = {
        "visual": ("model.visual.weights", recipe.model.visual.weights),
        "transformer": ("model.weights.bert", weights.bert),
    }
    for part, (key, value) in starts.items():
        frozen = [name for name in recipe.train.freeze if name.partition(".")[0] == part]
        if frozen and value is None:
            yield (
                f"train.freeze has {', '.join(frozen)}, but {key} is null: what starts at random never learns; "
                "set train.freeze to [], or name weights"
            )


def _unread_fields(recipe: Recipe) -> Iterator[str]:
    read = task_class(recipe.task).fields
    for name, own in recipe.data.fields.items():
        if name not in read and own is not None:
            yield f"data.fields.{name} is {own!r}, but task {recipe.task} reads {', '.join(read)}"
    taken: dict[str, str] = {}
    for name, own in recipe.data.fields.items():
        for each in [own] if isinstance(own, str) else own or ():
            if taken.setdefault(each, name) != name:
                yield f"data.fields.{taken[each]} and data.fields.{name} are both {each!r}"


def _same_split(recipe: Recipe) -> Iterator[str]:
    trained = {recipe.data.splits[name]: name for name in recipe.data.train_splits}
    for name, split in recipe.data.splits.items():
        if split in trained and name not in recipe.data.train_splits:
            yield (
                f"data.splits.{name} has the files of data.splits.{trained[split]}: its scores are those of records "
                "that were trained on"
            )
