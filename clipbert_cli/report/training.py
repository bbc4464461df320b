"""The training part of a report: facts and curves of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_cli.infer.made_by import MadeBy
from clipbert_cli.report.charts import Chart, Series, line_chart
from clipbert_cli.runs.baseline import sentences
from clipbert_cli.runs.curves import Panel, panels
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runs.summary import DAMAGED, stated_devices, stated_versions, summarise


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run on a page, as (name, value)."""

    name: str
    facts: list[tuple[str, str]]


def training_part(runs: Sequence[RunFolder]) -> tuple[list[RunFacts], list[Chart]]:
    """Return the facts of each run, and charts in which each run has its colour.

    The reason is the only fact about a run that cannot be read.
    """
    facts, records = [], {}
    for run in runs:
        try:
            found, of_run = run_facts(run), list(run.records())
        except DAMAGED as exc:
            found, of_run = RunFacts(str(run.path), [("state", f"damaged: {exc}")]), []
        facts.append(found)
        records[str(run.path)] = of_run
    names = list(records)
    return facts, [_chart(panel, names) for panel in panels(records)]


def run_facts(run: RunFolder) -> RunFacts:
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
    return RunFacts(str(run.path), facts)


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
