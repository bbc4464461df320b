"""The original's training runs through this project's own tasks, optimiser, schedules and loop, number by number."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from goldens import golden_json, picture_batch
from reference import golden_model
from torch import Tensor
from torch.optim import Optimizer

from clipbert_cli.model.freezing import freeze
from clipbert_cli.model.weights.formats import original
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.task.registry import task_class
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.optim import peak_rates, set_rates
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Example

pytestmark = pytest.mark.golden

TASK_OF_HEAD = {
    "retrieval_ce": "retrieval",
    "retrieval_rank": "retrieval",
    "vqa": "image_qa",
    "pretrain": "pretraining",
    "multiple_choice": "multiple_choice",
    "open_ended_qa": "open_ended_qa",
}
STRICT = 5  # updates; training amplifies rounding afterwards
LOSS, NORM, VALUE = 1e-5, 1e-4, 5e-6
ONE_GRADIENT = 1e-3  # of a single parameter: one ReLU or maximum that switches shows
DRIFTING = ("retrieval_lse_without_preliminary_steps", "retrieval_rank_mean", "vqa_bce")
"""Runs whose later float32 numbers depend on the machine, as the set's README says: 1e-3 and more in a loss of order 1,
a tenth and more in a gradient norm. They are run in float64 as well, strictly at every update."""
GROUPS = (  # the original's eight, in its order
    *("transformer/decay/head", "transformer/no_decay/head", "transformer/decay", "transformer/no_decay"),
    *("visual/decay/visual_encoder.grid", "visual/no_decay/visual_encoder.grid", "visual/decay", "visual/no_decay"),
)


def runs() -> Mapping[str, Any]:
    found: Mapping[str, Any] = golden_json("training/training.json")["runs"]
    return found


def train_config(run: Mapping[str, Any]) -> TrainConfig:
    """The recipe's section that does what the original's configuration does.

    The original sums gradients over accumulated batches, we average: the same with bound and epsilon divided by their
    number.
    """
    config, accumulated = run["config"], run["config"]["gradient_accumulation_steps"]
    multipliers = {"head": config["transformer_lr_mul"]} if config["transformer_lr_mul_prefix"] else {}
    if config["cnn_lr_mul"] != 1:
        multipliers["visual_encoder.grid"] = config["cnn_lr_mul"]
    return TrainConfig(
        batch_size=run["batch_size"],
        gradient_accumulation_steps=accumulated,
        max_steps=run["num_train_steps"],
        learning_rate=config["learning_rate"],
        visual_learning_rate=config["cnn_learning_rate"],
        learning_rate_multipliers=multipliers,
        betas=config["betas"],
        eps=run["optimizer"]["eps"] / accumulated,
        weight_decay=config["weight_decay"],
        visual_weight_decay=config["cnn_weight_decay"],
        warmup_ratio=config["warmup_ratio"],
        schedule=config["decay"],
        visual_schedule=config["cnn_lr_decay"],
        max_grad_norm=config["grad_norm"] / accumulated if config["grad_norm"] > 0 else None,
        freeze=["visual.stem", "visual.0"],
        precision="fp32",
        log_every_steps=1,
    )


def task(run: Mapping[str, Any]) -> Any:
    objective = ObjectiveConfig(
        pool=run["config"]["score_agg_func"],
        num_labels=run["num_labels"],
        num_options=max(run["options"], 2),
        loss="margin" if run["head"] == "retrieval_rank" else "cross_entropy",
        num_negatives=max(run["n_examples_list"][0] - 1, 1),
        mlm_average="all",
        as_original=True,
    )
    return task_class(TASK_OF_HEAD[run["head"]])(objective, InferConfig(), {})


def batch(run: Mapping[str, Any], stored: Mapping[str, Any]) -> Batch:
    clips, frames, side = run["clips"], run["frames_per_clip"], run["image_side"]
    pixels = picture_batch(stored["image_seed"], run["batch_size"], clips * frames, side, side)
    ids = torch.tensor(stored.get("input_ids_after_masking", stored["ids"]))
    rows = torch.tensor(run["n_examples_list"]) * run["options"]
    return Batch(
        frames=torch.from_numpy(pixels).unflatten(1, (clips, frames)),
        text_ids=ids,
        text_mask=torch.arange(ids.shape[1]) < torch.tensor(stored["text_lengths"])[:, None],
        text_item=torch.arange(run["batch_size"]).repeat_interleave(rows),
        examples=tuple(Example(str(number), "", ()) for number in range(sum(run["n_examples_list"]))),
        targets=targets(run, stored),
    )


def targets(run: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Tensor]:
    if run["head"] == "pretrain":
        return {"words": torch.tensor(stored["mlm_labels"]), "matches": torch.tensor(stored["itm_labels"])}
    if run["head"] == "vqa":
        labels = torch.zeros(len(stored["ids"]), run["num_labels"])
        for row, column, value in stored["labels_sparse_row_col_value"]:
            labels[row, column] = value
        return {"labels": labels}
    return {"labels": torch.tensor(stored["labels"])}


class Watch:
    """Keeps what the loop reports, and the stored positions of parameters after every step that has any."""

    def __init__(self, trainer: Trainer, run: Mapping[str, Any]) -> None:
        self.trainer, self.run = trainer, run
        self.records: list[Mapping[str, Any]] = []
        self.rates: list[dict[str, float]] = []
        self.values: dict[str, dict[str, list[float]]] = {}

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def advance(self, step: int) -> None:
        (optimizer,) = self.trainer.optimizers
        self.rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        if str(step) in self.run["after"]:
            self.values[str(step)] = watched(self.trainer, self.run)

    def save(self) -> None:
        pass

    def validate(self) -> None:
        pass


def parameters(trainer: Trainer) -> dict[str, Tensor]:
    return dict(trainer.model.named_parameters())


def length(tensor: Tensor) -> float:
    """L2 norm, summed in float64: a million float32 squares lose the fifth digit."""
    return float(tensor.detach().double().norm().item())


def watched(trainer: Trainer, run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Parameter values at the stored positions, by the original's name; of parameters that we have."""
    mine = parameters(trainer)
    return {
        name: mine[own].detach().flatten()[positions].tolist()
        for name, positions in run["watch_positions"].items()
        if (own := original(name)) in mine
    }


def prepare(run: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Trainer:
    """A trainer on the documented weights, after the original's preliminary steps with zero gradients."""
    config = train_config(run)
    accumulated = config.gradient_accumulation_steps
    global_batch = run["batch_size"] * accumulated
    plan = Plan.make(config, groups=global_batch * run["num_train_steps"], global_batch=global_batch, seed=0)
    model = golden_model(run["head"], "tiny", dropout=0.0, attention_dropout=0.0).to(dtype)
    freeze(model, model.freezable_parts(), config.freeze)
    trainer = Trainer(model, task(run).loss, config=config, plan=plan, world=World(0, 1, torch.device("cpu")))
    for _ in range(run["preliminary_zero_gradient_steps"]):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        set_rates(trainer.optimizers, peak_rates(config))
        for optimizer in trainer.optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return trainer


@pytest.mark.parametrize("name", list(runs()))
def test_a_training_run_is_the_originals(name: str) -> None:
    run = runs()[name]
    trainer = prepare(run)
    watch = Watch(trainer, run)
    gradients: dict[str, float] = {}

    def keep_first(_optimizer: Optimizer, _args: Any, _kwargs: Any, *, of: Trainer) -> None:
        if not gradients:
            gradients.update({own: length(each.grad) for own, each in parameters(of).items() if each.grad is not None})

    trainer.optimizers[0].register_step_pre_hook(partial(keep_first, of=trainer))
    train(trainer, run, watch)
    check_losses_and_norms(name, watch)
    for step, rates in enumerate(run["lr_per_group_per_step"]):
        expected = dict(zip(GROUPS, rates, strict=True))
        assert watch.rates[step] == pytest.approx({group: expected[group] for group in watch.rates[step]}, rel=1e-9)
    for step, stored in run["after"].items():
        for parameter, values in watch.values[step].items():
            assert values == pytest.approx(stored["values"][parameter], abs=VALUE), (step, parameter)
    check_gradients(run, trainer, gradients, norm=watch.records[0]["grad_norm"])
    last = run["after"][str(run["num_train_steps"])]["l2_of_every_trainable"]
    lengths = {own: value for parameter, value in last.items() if (own := original(parameter)) in parameters(trainer)}
    found = {own: length(parameters(trainer)[own]) for own in lengths}
    assert found == pytest.approx(lengths, rel=1e-5)
    assert set(lengths) >= {own for own, parameter in parameters(trainer).items() if parameter.requires_grad}


@pytest.mark.parametrize("name", [name for name in (*DRIFTING, "pretrain_mlm_itm") if name in runs()])
def test_a_run_that_drifts_is_the_originals_in_float64(name: str) -> None:
    run = runs()[name]
    trainer = prepare(run, torch.float64)
    watch = Watch(trainer, run)
    train(trainer, run, watch)
    assert [record["loss"] for record in watch.records] == pytest.approx(run["float64"]["loss"], rel=1e-6)
    assert [record["grad_norm"] for record in watch.records] == pytest.approx(run["float64"]["grad_norm"], rel=1e-5)


def train(trainer: Trainer, run: Mapping[str, Any], watch: Watch) -> None:
    made = [batch(run, stored) for stored in run["batches"]]
    trainer.train(
        [made[number % run["distinct_batches"]] for number in range(run["micro_batches"])],
        watch,
        interrupts=Interrupts(),
    )


def check_losses_and_norms(name: str, watch: Watch) -> None:
    """Strict up to update 5; afterwards 20 times how far float32 and float64 are apart in the original so far."""
    run = runs()[name]
    accumulated = run["config"]["gradient_accumulation_steps"]
    drift = 0.0
    for step, record in enumerate(watch.records):
        micro = slice(step * accumulated, (step + 1) * accumulated)
        expected = sum(run["loss"][micro]) / accumulated
        pairs = zip(run["loss"][micro], run["float64"]["loss"][micro], strict=True)
        drift = max(drift, *(abs(single - double) for single, double in pairs))
        strict = step < STRICT
        tolerance = LOSS + 1e-6 * abs(expected) if strict else max(2e-4, 20 * drift)
        if not strict and name in DRIFTING:
            tolerance = max(tolerance, 5e-3 * max(1, abs(expected)))
        assert record["loss"] == pytest.approx(expected, abs=tolerance), step
        if not run["grad_norm"]:  # not kept where clipping is off
            continue
        norm = run["grad_norm"][step] / accumulated
        if strict or name not in DRIFTING:  # those are compared in float64, update by update
            # Where a ReLU or a pool switches, the norm jumps: from the third update on that depends on the processor's
            # order of summation. Float64 has no such excuse and is held to every update, below.
            assert record["grad_norm"] == pytest.approx(norm, rel=NORM if step < 2 else 0.02 if strict else 0.1), step
        for part in ("mlm", "itm"):
            if part in run:
                assert record[part] == pytest.approx(run[part][step], abs=tolerance), (step, part)


def check_gradients(run: Mapping[str, Any], trainer: Trainer, clipped: Mapping[str, float], *, norm: float) -> None:
    """The first update's gradient of every parameter, which the optimiser saw clipped."""
    accumulated = run["config"]["gradient_accumulation_steps"]
    bound = trainer.config.max_grad_norm
    factor = min(1.0, bound / (norm + 1e-6)) if bound else 1.0
    compared = 0
    for name, expected in run["grad_l2_of_every_parameter_step1"].items():
        if (own := original(name)) in clipped:
            assert clipped[own] / factor * accumulated == pytest.approx(expected, rel=ONE_GRADIENT, abs=1e-6), name
            compared += 1
    assert compared == len(clipped)
