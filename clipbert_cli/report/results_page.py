"""`clipbert report`: predictions and trainings on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from clipbert_cli.build import build_task, evaluation_sampling
from clipbert_cli.errors import ClipbertError
from clipbert_cli.infer.made_by import MadeBy, belonging_to
from clipbert_cli.infer.score import Joined, join
from clipbert_cli.report import predictions
from clipbert_cli.report.charts import Chart, Series, line_chart
from clipbert_cli.report.curves import Panel, Records, panels
from clipbert_cli.report.data_page import described
from clipbert_cli.report.page import write_page
from clipbert_cli.report.thumbnails import Thumbnails
from clipbert_cli.runs.baseline import sentences
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import DAMAGED, stated_devices, stated_versions, summarise
from clipbert_cli.splits import open_split_media, read_split
from clipbert_cli.store.source import MediaSource
from clipbert_cli.task.base import Task
from clipbert_cli.task.intervals import Resampling
from clipbert_cli.task.metrics import Measure, Table, compare, comparison_tables, score_table

if TYPE_CHECKING:
    from clipbert_cli.recipe.schema import Recipe


Facts = list[tuple[str, str]]
"""(name, value) of what is known about a run."""


def training_part(runs: Sequence[RunFolder]) -> tuple[dict[str, Facts], list[Chart]]:
    """Return the facts of each run by its name, and charts in which each run has its colour.

    The reason is the only fact about a run that cannot be read.
    """
    facts: dict[str, Facts] = {}
    records: dict[str, Records] = {}
    for run in runs:
        try:
            found, of_run = run_facts(run), list(run.records())
        except DAMAGED as exc:
            found, of_run = [("state", f"damaged: {exc}")], []
        facts[str(run.path)], records[str(run.path)] = found, of_run
    names = list(records)
    return facts, [_chart(panel, names) for panel in panels(records)]


def run_facts(run: RunFolder) -> Facts:
    """Return what the files of a run say about it, without loading the model."""
    summary = summarise(run)
    best = "unknown"
    if summary.best is not None:
        metric = str(summary.metric).removeprefix("-").replace("_", " ")
        best = f"{metric} {summary.best:.2f} at step {summary.best_step}"
    steps = f"{summary.step} of {summary.total_steps or 'unknown'}"
    facts = [("state", summary.state), ("step", steps), ("best validation", best)]
    facts += [("without looking", "; ".join(sentences(record))) for record in run.baselines()[-1:]]
    if entry := run.last_start():
        facts += [
            ("last start", str(entry.get("time", "unknown"))),
            ("command", " ".join(map(str, entry.get("command", [])))),
            ("versions", versions(entry)),
            ("hardware", hardware(entry)),
            ("git commit", str(entry.get("git_commit") or "unknown")),
        ]
    return facts


def versions(entry: Mapping[str, Any]) -> str:
    """Return the versions that an entry of environment.json states."""
    return ", ".join(f"{name} {version}" for name, version in stated_versions(entry).items())


def hardware(entry: Mapping[str, Any]) -> str:
    """Return the devices of an entry of environment.json, each with how often it occurs."""
    devices = stated_devices(entry)
    return ", ".join(f"{devices.count(each)} x {each}" for each in dict.fromkeys(devices)) or "unknown"


def made_facts(made: MadeBy) -> list[tuple[str, str]]:
    """Return what the meta file of predictions says about them, or that nothing is known."""
    if (meta := made.meta) is None:
        return [("made by", made.unknown)]
    weights = f"{meta.get('checkpoint', 'unknown')}, weights {meta.get('weights_crc32', 'unknown')}"
    return [
        ("run", str(meta.get("run", "unknown"))),
        ("checkpoint", weights),
        ("predicted", str(meta.get("time", "unknown"))),
        ("versions", versions(meta)),
        ("hardware", hardware(meta)),
    ]


def _chart(panel: Panel, runs: Sequence[str]) -> Chart:
    numbers = list(dict.fromkeys(curve.name for curve in panel.curves))
    several = len(runs) > 1
    series = [
        Series(
            (f"{Path(curve.run).name}: " if several else "") + curve.name.replace("_", " "),
            curve.steps,
            curve.values,
            # One run has a colour per number, several runs a colour each.
            colour=runs.index(curve.run) if several else numbers.index(curve.name),
            # Curves of equal values lie on each other: dashes show both.
            dash=numbers.index(curve.name),
        )
        for curve in panel.curves
    ]
    return line_chart(panel.title, series, x_label="step")


@dataclass(frozen=True)
class Predicted:
    """The predictions that a page shows, and the split that they belong to.

    Args:
        against: other predictions for the same split.
        blind: predictions of the same model without frames.
        facts: what is known about how they were made, as (name, value).
    """

    file: Path
    recipe: Recipe
    split: str
    against: Path | None = None
    blind: Path | None = None
    facts: Sequence[tuple[str, str]] = ()
    allow_partial: bool = False


def write_report(
    stream: IO[bytes], predicted: Predicted | None, runs: Sequence[RunFolder], *, examples: int, seed: int
) -> None:
    """Write the page.

    Args:
        examples: the number of examples that it shows.
        seed: by which they and the resamples are drawn.
        runs: their training is compared; may be empty if there are predictions.

    Raises:
        ClipbertError: predictions and split do not belong together, or cannot be read.
    """
    facts, charts = training_part(runs)
    context: dict[str, Any] = {
        "title": "Report of " + " and ".join(run.path.name for run in runs),
        "predicted": predicted is not None,
        "holds_data": predicted is not None,
        "runs": facts,
        "training_charts": charts,
        "facts": [],
    }
    if predicted is not None:
        context |= _predictions_part(predicted, examples, seed)
        # What the run scored in validation without looking, unless a file says it.
        records = runs[0].baselines()[-1:] if len(runs) == 1 and not predicted.blind else []
        context["unseen"] = [each for record in records for each in sentences(record)]
    write_page(stream, "report.html", context)


def _predictions_part(predicted: Predicted, examples: int, seed: int) -> dict[str, Any]:
    recipe, task = predicted.recipe, build_task(predicted.recipe)
    split = read_split(recipe, predicted.split, task, task.check_truth)
    files = (predicted.file, predicted.against, predicted.blind)
    with belonging_to(recipe, predicted.split, files, command="report"):
        joined = join(predicted.file, task, split, allow_partial=predicted.allow_partial)
        # Other predictions are refused unless they are for all of these examples.
        other, blind = (
            predictions.Judged.of(task, join(file, task, joined.examples)) if file else None for file in files[1:]
        )
    judged = predictions.Judged.of(task, joined)
    measures, resampling = judged.measures, Resampling(seed=seed + 1)
    chosen = predictions.choose(judged, min(examples, len(judged.worth)), seed, other)
    thumbnails = _thumbnails(recipe, predicted.split, len(chosen), task)
    described, found = task.described(joined.examples[0]), predictions.mistakes(judged)
    # The published scores of the split by the labels of their measures.
    stated = recipe.published.get(predicted.split, {})
    charts = predictions.rank_charts if task.ranks_media else predictions.confidence_charts
    return {
        "title": f"Report of {predicted.file.name}: {recipe.name}, {predicted.split}",
        "facts": _facts(predicted, task, joined),
        "published": {measure.label: stated[measure.name] for measure in measures if measure.name in stated},
        "blind": _scores(blind.measures[:1], resampling)[0] if blind else None,
        "scores": _scores(measures, resampling),
        "comparisons": comparison_tables(compare(measures, other.measures, resampling)) if other else [],
        "against": str(predicted.against or ""),
        "charts": charts(judged),
        "mistakes": found,
        "media_errors": predictions.media_errors(joined),
        "rows": predictions.rows(judged, chosen, thumbnails, other),
        "kinds": sorted({each.answer_type for each in joined.examples if each.answer_type}),
        "count": len(chosen),
        "has_worst": any(is_worst for _, is_worst in chosen),
        "has_scores": task.ranks_media or judged.has("score"),
        "text": "text" if "text" in described else "question",
        "answer": "rank" if task.ranks_media else "answer" if found else "right",
        "total": len(judged.worth),
        "ranks": task.ranks_media,
        "left_out": lambda: thumbnails.left_out,
    }


def _scores(measures: Sequence[Measure], resampling: Resampling) -> Table:
    """Return (label, score, interval, count) of each measure."""
    return score_table(measures, {each.name: each.interval(resampling) for each in measures})[1:]


def _thumbnails(recipe: Recipe, split: str, examples: int, task: Task) -> Thumbnails:
    source: MediaSource | None = None
    problem = ""
    try:
        source = open_split_media(recipe, split)
    except ClipbertError as exc:
        problem = str(exc)
    # With ranked media, each example shows one frame of the five best as well.
    singles = 5 if task.ranks_media else 0
    sampling, rotation = evaluation_sampling(recipe), recipe.data.rotation
    return Thumbnails(source, sampling, items=examples, singles=singles, rotation=rotation, problem=problem)


def _facts(predicted: Predicted, task: Task, joined: Joined) -> list[tuple[str, str]]:
    recipe = predicted.recipe
    media = {example.media_id for example in joined.examples}
    facts = [
        ("predictions", str(predicted.file)),
        ("recipe", f"{recipe.name}, task {recipe.task}"),
        ("split", predicted.split),
        ("examples", f"{len(joined.examples):,} of {len(media):,} {recipe.data.media}s"),
        ("sampling", described(evaluation_sampling(recipe))),
        *predicted.facts,
    ]
    if joined.missing or joined.unknown:
        facts.append(("left out", f"{joined.missing:,} without a prediction, {joined.unknown:,} of other records"))
    return facts
