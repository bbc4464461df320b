"""The original's training runs, repeated with this project's tasks, optimiser, schedules and loop, number by number.

Each run is repeated in float64 over all its updates, and its first update once more in float32, the precision of the
stored gradients. Float64 makes strict comparisons possible on every processor: training amplifies rounding errors, so
that two correct float32 runs are 10 % apart in a gradient norm after some updates. `bounds.py` derives every bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import reference
import torch
from bounds import (
    CONFIDENCE,
    EXACT_NORM,
    EXACT_VALUE,
    FIRST_NORM,
    LOSS_ABSOLUTE,
    LOSS_RELATIVE,
    ONE_GRADIENT,
    RATE,
    UPDATED_VALUE,
    ZERO_GRADIENT,
    logged,
)
from goldens import golden_json, picture_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clipbert_cli.model.freezing import freeze
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.task.registry import task_class
from clipbert_cli.train import loop
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.optim import set_rates
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
# Our names of the parameters that the original's prefixes select. Rates by prefix, and other schedules than `linear`,
# are none of this project's: the test divides the groups itself, and takes the stored rates of such a run.
MULTIPLIER_PREFIX = {"classifier": "head", "grid_encoder": "visual_encoder.grid"}
# The original's eight parameter groups, in its order.
GROUPS = (
    *("transformer/decay/head", "transformer/no_decay/head", "transformer/decay", "transformer/no_decay"),
    *("visual/decay/visual_encoder.grid", "visual/no_decay/visual_encoder.grid", "visual/decay", "visual/no_decay"),
)


def stored_runs() -> Mapping[str, Any]:
    runs: Mapping[str, Any] = golden_json("training/training.json")["runs"]
    return runs


# The run as this project's objects


def train_config(run: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe's section that does what the original's configuration does, but for its prefixes and schedules.

    The original adds up the gradients of accumulated batches, this project averages them. Dividing the norm's bound and
    epsilon by their number gives the same update.
    """
    config, accumulated = run["config"], run["config"]["gradient_accumulation_steps"]
    return TrainConfig(
        batch_size=run["batch_size"],
        gradient_accumulation_steps=accumulated,
        max_steps=run["num_train_steps"],
        learning_rate=config["learning_rate"],
        visual_learning_rate=config["cnn_learning_rate"],
        eps=run["optimizer"]["eps"] / accumulated,
        weight_decay=config["weight_decay"],
        warmup_ratio=config["warmup_ratio"],
        max_grad_norm=config["grad_norm"] / accumulated if config["grad_norm"] > 0 else None,
        freeze=["visual.stem", "visual.0"],
        precision="fp32",
        log_every_steps=1,
    )


def make_task(run: Mapping[str, Any]) -> Any:
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


def make_batches(run: Mapping[str, Any]) -> list[Batch]:
    """Return one batch per micro batch of the run; the stored ones are cycled in order."""
    distinct = [make_batch(run, stored) for stored in run["batches"]]
    return [distinct[number % run["distinct_batches"]] for number in range(run["micro_batches"])]


def make_batch(run: Mapping[str, Any], stored: Mapping[str, Any]) -> Batch:
    clips, frames, side = run["clips"], run["frames_per_clip"], run["image_side"]
    pixels = picture_batch(stored["image_seed"], run["batch_size"], clips * frames, side, side)
    ids = torch.tensor(stored.get("input_ids_after_masking", stored["ids"]))
    rows = torch.tensor(run["n_examples_list"]) * run["options"]
    return Batch(
        frames=torch.from_numpy(pixels).unflatten(1, (clips, frames)),  # (B, K, T, 3, H, W)
        text_ids=ids,
        text_mask=torch.arange(ids.shape[1]) < torch.tensor(stored["text_lengths"])[:, None],
        text_item=torch.arange(run["batch_size"]).repeat_interleave(rows),
        examples=tuple(
            Example(str(number), "", ("",) * run["options"]) for number in range(sum(run["n_examples_list"]))
        ),
        targets=make_targets(run, stored),
        word_positions=reference.labelled(torch.tensor(stored["mlm_labels"])) if run["head"] == "pretrain" else None,
    )


def make_targets(run: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Tensor]:
    if run["head"] == "pretrain":
        labels = torch.tensor(stored["mlm_labels"])  # (N, L)
        words = labels[tuple(reference.labelled(labels))]  # (M,)
        return {"words": words, "matches": torch.tensor(stored["itm_labels"])}
    if run["head"] == "vqa":
        labels = torch.zeros(len(stored["ids"]), run["num_labels"])
        for row, column, value in stored["labels_sparse_row_col_value"]:
            labels[row, column] = value
        return {"labels": labels}
    return {"labels": torch.tensor(stored["labels"])}


def make_trainer(run: Mapping[str, Any], dtype: torch.dtype) -> Trainer:
    """Return a trainer on the documented weights, after the original's preliminary steps with zero gradients."""
    config = train_config(run)
    global_batch = run["batch_size"] * config.gradient_accumulation_steps
    plan = Plan.make(config, groups=global_batch * run["num_train_steps"], global_batch=global_batch, seed=0)
    model = reference.own_model(run["head"]).to(dtype)
    freeze(model, model.freezable_parts(), config.freeze)
    trainer = Trainer(model, make_task(run).loss, config=config, plan=plan, world=World(0, 1, torch.device("cpu")))
    divide_groups(trainer, run["config"])
    for _ in range(run["preliminary_zero_gradient_steps"]):
        take_preliminary_step(trainer, run["config"])
    return trainer


def divide_groups(trainer: Trainer, config: Mapping[str, Any]) -> None:
    """Divide the optimiser's groups by the original's prefixes, and set its weight decay of the CNN."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in list(trainer.optimizer.param_groups):
        part = {"transformer": "transformer", "visual": "cnn"}[group["part"]]
        if part == "cnn" and group["decay"]:
            group["decay"] = config["cnn_weight_decay"]
        # A group with a prefix differs in the preliminary steps even if its multiplier is 1.
        if original := config[f"{part}_lr_mul_prefix"]:
            prefix = MULTIPLIER_PREFIX[original]
            chosen = [each for each in group["params"] if names[id(each)].startswith(prefix)]
            group["params"] = [each for each in group["params"] if not names[id(each)].startswith(prefix)]
            divided = {"name": f"{group['name']}/{prefix}", "multiplier": config[f"{part}_lr_mul"], "params": chosen}
            trainer.optimizer.add_param_group({**group, **divided})


def take_preliminary_step(trainer: Trainer, config: Mapping[str, Any]) -> None:
    """Take a step with zero gradients: it decays the weights and counts as a step of Adam.

    No schedule has set the rates yet. The original constructs its groups with a rate of their own only where they have
    a prefix; all others, the CNN's included, start with the optimiser's default, the transformer's rate.
    """
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    set_rates(trainer.optimizer, {"transformer": config["learning_rate"], "visual": config["cnn_learning_rate"]})
    for group in trainer.optimizer.param_groups:
        if not group["name"].endswith(tuple(MULTIPLIER_PREFIX.values())):
            group["lr"] = config["learning_rate"]
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


# The repetition


@dataclasses.dataclass
class Repetition:
    """Every number of a repeated run that has a stored one beside it. The training loop calls it back.

    `values` are parameters at the stored positions by update; `gradients` are those of the first update as the
    optimiser received them (clipped). Both go by the original's names and leave out what this model does not have.
    """

    trainer: Trainer
    run: Mapping[str, Any]
    records: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    rates: list[dict[str, float]] = dataclasses.field(default_factory=list)
    values: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
    gradients: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def advance(self, step: int) -> None:
        self.rates.append({group["name"]: group["lr"] for group in self.trainer.optimizer.param_groups})
        if str(step) in self.run["after"]:
            named = dict(self.trainer.model.named_parameters())
            self.values[str(step)] = {
                name: values.detach().flatten()[positions]
                for name, positions in self.run["watch_positions"].items()
                if (values := reference.values_of(named, name)) is not None
            }

    def save(self) -> None:
        pass

    def validate(self) -> None:
        pass

    def keep_gradients(self, *_: Any) -> None:
        if not self.gradients:
            self.gradients = {name: each.clone() for name, each in gradients(self.trainer, self.run).items()}


def gradients(trainer: Trainer, run: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the gradients that the model holds now, by the original's names."""
    named = {name: each.grad for name, each in trainer.model.named_parameters() if each.grad is not None}
    found = {name: reference.values_of(named, name) for name in run["grad_l2_of_every_parameter_step1"]}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def train(repetition: Repetition, *, updates: int | None = None) -> None:
    """Train as the run did, for all of its updates or the first ones."""
    run = repetition.run
    with pytest.MonkeyPatch.context() as patch:
        if not run["config"]["decay"] == run["config"]["cnn_lr_decay"] == "linear":
            rates = run["lr_per_group_per_step"]
            first = {part: GROUPS.index(f"{part}/decay") for part in ("transformer", "visual")}
            patch.setattr(
                loop,
                "learning_rates",
                lambda config, step, total: {part: rates[step - 1][group] for part, group in first.items()},
            )
        repetition.trainer.train(make_batches(run), repetition, interrupts=Interrupts(), last_step=updates)


def length(values: Tensor) -> float:
    """Return the L2 norm, summed in float64: a sum of a million squares in float32 loses the fifth digit."""
    return float(values.detach().double().norm())


def averaged(values: list[float], count: int) -> list[float]:
    """Return the mean of every `count` values in a row."""
    return [sum(values[begin : begin + count]) / count for begin in range(0, len(values), count)]


# Float64, all updates

# This run differs from `retrieval_lse` only in the weights and the optimiser's state that it begins with.
ENOUGH = {"retrieval_lse_without_preliminary_steps": 5}


def first_updates(run: Mapping[str, Any], updates: int) -> Mapping[str, Any]:
    """Return a stored run without the numbers of later updates; its schedule is that of the whole run."""
    double = {**run["float64"], **{name: run["float64"][name][:updates] for name in ("loss", "grad_norm")}}
    after = {step: values for step, values in run["after"].items() if int(step) <= updates}
    rates = run["lr_per_group_per_step"][:updates]
    return {**run, "lr_per_group_per_step": rates, "float64": double, "after": after}


@pytest.mark.parametrize("name", list(stored_runs()))
def test_a_run_in_float64_is_the_originals(name: str) -> None:
    run, updates = stored_runs()[name], ENOUGH.get(name)
    if updates:
        run = first_updates(run, updates)
    repetition = Repetition(make_trainer(run, torch.float64), run)
    train(repetition, updates=updates)
    check_losses_and_norms(repetition)
    for step, rates in enumerate(run["lr_per_group_per_step"]):
        expected = dict(zip(GROUPS, rates, strict=True))
        found = repetition.rates[step]
        assert found == pytest.approx({group: expected[group] for group in found}, rel=RATE, abs=0), step
    check_values(repetition)
    if not updates:
        check_lengths(repetition)


def check_losses_and_norms(repetition: Repetition) -> None:
    """Compare every update's losses, averaged over its micro batches, and gradient norm with the float64 reference."""
    run, double = repetition.run, repetition.run["float64"]
    accumulated = run["config"]["gradient_accumulation_steps"]
    losses = averaged(double["loss"], accumulated)
    for step, (record, loss) in enumerate(zip(repetition.records, losses, strict=True)):
        assert record["loss"] == pytest.approx(loss, rel=0, abs=logged(loss, accumulated)), step + 1
        for part in ("mlm", "itm"):
            if part in double:
                stored = double[part][step]
                assert record[part] == pytest.approx(stored, rel=0, abs=logged(stored)), (step + 1, part)
    # The original computes no norm where clipping is off.
    for record, norm in zip(repetition.records, double["grad_norm"], strict=bool(double["grad_norm"])):
        # The original adds up the gradients of accumulated batches, this project averages them.
        assert record["grad_norm"] == pytest.approx(norm / accumulated, rel=EXACT_NORM), record["step"]


def check_values(repetition: Repetition) -> None:
    """Compare parameters at the stored positions with the float32 reference.

    The set states how far the original's float64 run was from it; this project's may not be further.
    """
    for step, stored in repetition.run["after"].items():
        bounds = repetition.run["float64"]["max_abs_difference_by_name"][step]
        for name, values in repetition.values[step].items():
            difference = (values - torch.tensor(stored["values"][name], dtype=torch.float64)).abs().max().item()
            assert difference <= bounds[name] + EXACT_VALUE, (step, name)


def check_lengths(repetition: Repetition) -> None:
    """Compare the L2 norm of every trained parameter after the last update with the float32 reference.

    Its values are nowhere further from float64 than `max_abs_difference_of_values`, so the norm of n of them is not
    further than sqrt(n) times that.
    """
    last = str(repetition.run["num_train_steps"])
    difference = repetition.run["float64"]["max_abs_difference_of_values"][last]
    named = dict(repetition.trainer.model.named_parameters())
    compared = set()
    for name, expected in repetition.run["after"][last]["l2_of_every_trainable"].items():
        values = reference.values_of(named, name)
        if values is not None:
            assert length(values) == pytest.approx(expected, rel=0, abs=difference * values.numel() ** 0.5), name
            compared.add(reference.own_name(name))
    assert compared >= {name for name, parameter in named.items() if parameter.requires_grad}


# Float32, the first update


@pytest.mark.parametrize("name", list(stored_runs()))
def test_the_first_update_in_float32_is_the_originals(name: str) -> None:
    run = stored_runs()[name]
    accumulated = run["config"]["gradient_accumulation_steps"]
    repetition = Repetition(make_trainer(run, torch.float32), run)
    repetition.trainer.optimizer.register_step_pre_hook(repetition.keep_gradients)
    train(repetition, updates=1)
    (record,) = repetition.records
    loss = averaged(run["loss"], accumulated)[0]
    assert record["loss"] == pytest.approx(loss, rel=0, abs=LOSS_ABSOLUTE + LOSS_RELATIVE * abs(loss))
    if run["grad_norm"]:
        norm = run["grad_norm"][0] / accumulated
        assert record["grad_norm"] == pytest.approx(norm, rel=FIRST_NORM, abs=0)
    check_first_values(repetition)
    check_gradients(repetition)


def check_first_values(repetition: Repetition) -> None:
    for name, values in repetition.values.get("1", {}).items():
        expected = torch.tensor(repetition.run["after"]["1"]["values"][name])
        assert float((values - expected).abs().max()) <= UPDATED_VALUE, name


def check_gradients(repetition: Repetition) -> None:
    """Compare the gradient of every parameter, its norm and the stored values, with the float32 reference.

    Rounding moves a gradient a little, unless it makes a ReLU switch: then a term appears or disappears, and how large
    it is depends on the set. So a gradient that is further off than `ONE_GRADIENT` may still differ by what it changes
    by if every ReLU switches that may. The gradients of single units are almost orthogonal, so no part of these
    switches changes a parameter's gradient more than all of them together.
    """
    run = repetition.run
    accumulated = run["config"]["gradient_accumulation_steps"]
    norm, largest = repetition.records[0]["grad_norm"], repetition.trainer.config.max_grad_norm
    clipping = min(1.0, largest / (norm + 1e-6)) if largest else 1.0
    switching: dict[str, float] = {}
    for name, clipped in repetition.gradients.items():
        # The optimiser received the gradient clipped, and averaged where the original's is a sum.
        gradient = clipped.double() / clipping * accumulated
        stored = run["grad_l2_of_every_parameter_step1"][name]
        differences = [abs(length(gradient) - stored)]
        if name in run["grad_values_step1"]:
            values = gradient.flatten()[run["watch_positions"][name]]
            expected = torch.tensor(run["grad_values_step1"][name], dtype=torch.float64)
            differences.append(float((values - expected).abs().max()))
        bound = ONE_GRADIENT * stored + ZERO_GRADIENT
        if max(differences) > bound:
            switching = switching or switching_effects(run)
            bound += switching[name]
        assert max(differences) <= bound, name
    compared = {reference.own_name(name) for name in repetition.gradients}
    assert compared >= {name for name, each in repetition.trainer.model.named_parameters() if each.requires_grad}


# ReLUs that may switch


class ReluInputs(TorchDispatchMode):
    """Keeps the input of every ReLU, in the order of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.relu_.default, torch.ops.aten.relu.default):
            self.seen.append(args[0].clone())
        return function(*args, **(kwargs or {}))


class Switch(TorchDispatchMode):
    """Makes every ReLU unit switch whose input is as close to zero as its rounding error.

    The rounding error of a layer is measured: it is the difference from `exact`, the inputs in float64. Reflecting an
    input at zero moves the values that follow by no more than rounding does, but the unit then passes a gradient that
    it blocked, or the reverse. (Two maxima of a pool may be as close to each other; they are too few to matter.)
    """

    def __init__(self, exact: list[Tensor]) -> None:
        super().__init__()
        self.exact = iter(exact)
        self.switched = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.relu_.default, torch.ops.aten.relu.default):
            values = args[0]
            error = (values - next(self.exact)).square().mean().sqrt()
            near = values.abs() <= CONFIDENCE * error
            self.switched += int(near.sum())
            values[near] *= -1
        return function(*args, **(kwargs or {}))


def switching_effects(run: Mapping[str, Any]) -> dict[str, float]:
    """Return how far the first update's gradients move if every ReLU switches that may, by the original's names.

    The lengths are those of the sum over accumulated batches, before clipping.
    """
    batches = make_batches(run)[: run["config"]["gradient_accumulation_steps"]]
    trainer = make_trainer(run, torch.float32)
    before = summed_gradients(trainer, run, batches, [nullcontext() for _ in batches])
    exact = [relu_inputs(run, batch) for batch in batches]
    after = summed_gradients(trainer, run, batches, [Switch(each) for each in exact])
    return {name: length(after[name] - gradient) for name, gradient in before.items()}


def relu_inputs(run: Mapping[str, Any], batch: Batch) -> list[Tensor]:
    trainer = make_trainer(run, torch.float64)
    trainer.model.train()
    with torch.no_grad(), ReluInputs() as inputs:
        trainer.loss(trainer.model(batch), batch)
    return inputs.seen


def summed_gradients(
    trainer: Trainer, run: Mapping[str, Any], batches: list[Batch], modes: list[AbstractContextManager[Any]]
) -> dict[str, Tensor]:
    trainer.model.train()
    trainer.model.zero_grad(set_to_none=True)
    for batch, mode in zip(batches, modes, strict=True):
        with mode:
            loss = trainer.loss(trainer.model(batch), batch)["loss"]
        loss.backward()
    return {name: gradient.double() for name, gradient in gradients(trainer, run).items()}


def test_a_unit_within_rounding_of_zero_switches_and_no_other() -> None:
    inputs = torch.tensor([[1e-7, -1e-7, 0.5, -0.5]], requires_grad=True)
    with ReluInputs() as seen:
        inputs.double().relu().sum()
    with Switch([seen.seen[0] + 1e-7]) as switch:
        inputs.clone().relu_().sum().backward()
    assert switch.switched == 2
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [[0, 1, 1, 0]]
