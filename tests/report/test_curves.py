"""Which numbers become curves, and in which panel."""

from __future__ import annotations

import math
from typing import Any

from clipbert_cli.report.curves import panels


def train(step: int, **numbers: Any) -> dict[str, Any]:
    return {"event": "train", "step": step, "epoch": 0, "loss": 1.0 / step, "learning_rate": 1e-4 * step, **numbers}


def drawn(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[tuple[str, str], tuple[list[int], list[float]]]]:
    return {
        panel.title: {(curve.run, curve.name): (curve.steps, curve.values) for curve in panel.curves}
        for panel in panels(runs)
    }


def test_both_rates_and_all_losses_share_a_panel_of_their_unit() -> None:
    records = [
        train(1, visual_learning_rate=1e-5, mlm=3.0, itm=0.7),
        train(2, visual_learning_rate=2e-5, mlm=2.0, itm=0.6),
        {"event": "validation", "step": 2, "loss": 0.9, "accuracy": 40.0, "mlm_accuracy": 30.0, "count": 500},
    ]
    found = drawn({"a": records})
    assert list(found) == ["loss", "validation score", "learning rate"]
    assert {name for _, name in found["loss"]} == {"loss", "mlm", "itm", "validation loss"}
    assert found["loss"]["a", "validation loss"] == ([2], [0.9])
    assert found["learning rate"]["a", "visual_learning_rate"] == ([1, 2], [1e-5, 2e-5])
    assert {name for _, name in found["validation score"]} == {"validation accuracy", "validation mlm accuracy"}


def test_counts_have_no_panel_whatever_the_task() -> None:
    pretraining = {"event": "validation", "step": 5, "mlm_accuracy": 3.0, "masked_words": 700, "count": 90}
    assert {name for _, name in drawn({"a": [pretraining]})["validation score"]} == {"validation mlm accuracy"}


def test_counts_have_no_panel_and_ranks_have_their_own() -> None:
    summary = {"recall_at_1": 20.0, "recall_at_5": 40.0, "median_rank": 7.5, "mean_rank": 30.1, "count": 1000}
    found = drawn({"a": [{"event": "validation", "step": 5, **summary, "video_to_text": summary, "missing": 3}]})
    assert list(found) == ["validation score", "validation rank"]
    assert {name for _, name in found["validation rank"]} == {"validation median rank", "validation mean rank"}


def test_several_runs_are_curves_of_the_same_panels() -> None:
    found = drawn({"a": [train(1), train(2)], "b": [train(1), train(3)]})
    assert found["loss"] == {("a", "loss"): ([1, 2], [1.0, 0.5]), ("b", "loss"): ([1, 3], [1.0, 1 / 3])}


def test_what_is_no_number_is_left_out_and_skipped_steps_show_only_where_there_are_any() -> None:
    records = [train(1, loss=None, skipped_steps=0), train(2, loss=math.nan, skipped_steps=0), {"event": "train"}]
    assert list(drawn({"a": records})) == ["learning rate"]
    assert "skipped steps" in drawn({"a": [*records, train(3, skipped_steps=2)]})
    assert drawn({"a": [{"event": "first_step", "step": 1, "seconds": 3.0}, {"step": True}, {"event": "train"}]}) == {}
