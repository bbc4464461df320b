"""A training step of this project's loop against a plain one, both from the same weights and on the same batches.

    python benchmarks/train_step.py [--case cpu recomputed cuda] [--steps 5] [--json]

The recipe is msrvtt_qa: ResNet-50 and BERT-base with random weights, 448 pixels, questions of 7 to 13 tokens. Each side
runs in a process of its own, and the sides take turns of one step (harness.py); on a GPU one side follows the other, so
that each has all of its memory. One step (three on a GPU) warms up,
then `--steps` steps are timed, and in one more step the operations are counted. The medians count; losses are compared
over all steps.

    cpu         2 videos x 2 clips x 2 frames in float32
    recomputed  1 video x 16 clips x 2 frames in float32: `train.activation_checkpointing` against keeping everything
    cuda        16 videos x 8 clips x 2 frames in bf16, the plain side in fp16; needs a GPU

    plain       plain.py: clips in a loop, batch norms and optimiser parameter by parameter, questions padded to the
                recipe's 100 tokens; `plain, 20 tokens` pads to 20 and shows what remains without that. Frames are
                copied from pinned memory and normalised on the device
    engine      clipbert_cli.train.loop.Trainer

`speedup`, `memory` and `loss_difference` compare the last side with the row's. `memory_mib` is the most that the
process (on a GPU: the device) used until the last timed step, torch and weights included. `mfu` is the share of the
machine's rate in products of large matrices that the step reaches. The exit code is 1 if `cpu` does not reach the
numbers in WANTED, or if `recomputed` saves no memory or changes a loss.

Legend: B videos, K clips, T frames, C answers.
"""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import Sides, Work, command_line, counted, show, timed
from plain import PlainAdamW, PlainModel, normalised
from torch import nn
from torch.nn import functional as F

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.profile.flops import matrix_product_rate
from clipbert_cli.recipe.schema import BertConfigSection, InferConfig, ModelConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.model_options import apply_options
from clipbert_cli.train.optim import set_rates
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Example

ANSWERS, FRAME_SIZE = 1500, 448
WARM_UP = {"cpu": 1, "cuda": 3}
"""Steps; a GPU's libraries choose their kernels anew for every text length that they meet."""
WANTED = {"speedup": 1.3, "memory": 0.8, "loss_difference": 1e-5}


@dataclass(frozen=True)
class Case:
    """B videos x K clips x T frames; all sides are compared with the last one."""

    precision: str
    videos: int
    clips: int
    frames: int
    sides: tuple[str, ...] = ("plain", "plain, 20 tokens", "engine")
    device_type: str = "cpu"

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_type)


CASES = {
    "cpu": Case("fp32", 2, 2, 2),
    "recomputed": Case("fp32", 1, 16, 2, sides=("engine", "engine, recomputed")),
    "cuda": Case("bf16", 16, 8, 2, device_type="cuda"),
}
MODEL = ModelConfig(bert=BertConfigSection(hidden_dropout=0.0, attention_dropout=0.0))


def train_config(case: Case, *, recompute: bool = False) -> TrainConfig:
    return TrainConfig(
        batch_size=case.videos,
        max_steps=100,
        schedule="constant",
        warmup_ratio=0,
        freeze=["visual.stem", "visual.0"],
        precision=case.precision,
        activation_checkpointing=recompute,
    )


def make_task() -> OpenEndedQa:
    answers = {f"answer {number}": number for number in range(ANSWERS)}
    return OpenEndedQa(ObjectiveConfig(num_labels=ANSWERS), InferConfig(), answers)


def make_model() -> ClipBert:
    torch.manual_seed(0)
    return ClipBert(MODEL, make_task().head())


def batches(case: Case) -> Iterator[Batch]:
    """Yield new frames, questions and answers for each step, the same ones for every side."""
    generator = torch.Generator().manual_seed(1)
    while True:
        coarse = torch.randint(0, 256, (case.videos * case.clips * case.frames, 3, 14, 14), generator=generator)
        frames = F.interpolate(coarse.float(), size=(FRAME_SIZE, FRAME_SIZE), mode="bilinear").to(torch.uint8)
        lengths = torch.randint(7, 14, (case.videos,), generator=generator)
        ids = torch.randint(1000, 30000, (case.videos, int(lengths.max())), generator=generator)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        batch = Batch(
            frames=frames.view(case.videos, case.clips, case.frames, 3, FRAME_SIZE, FRAME_SIZE),
            text_ids=ids * mask,
            text_mask=mask,
            text_item=torch.arange(case.videos),
            examples=tuple(Example(str(number), str(number), ("?",)) for number in range(case.videos)),
            targets={"labels": torch.randint(0, ANSWERS, (case.videos,), generator=generator)},
            media_ids=tuple(map(str, range(case.videos))),
        )
        yield batch.pin_memory() if case.device_type == "cuda" else batch


# ------------------------------------------------------------------------------------------------ the sides


def plain_step(case: Case, padded_to: int) -> Callable[[Batch], float]:
    """Return a function that does one step of the plain side and returns the loss."""
    config = train_config(case)
    model = PlainModel.of(make_model()).to(case.device)
    optimizer = PlainAdamW(model, config)
    parameters = list(optimizer.decays)
    dtype = None if case.precision == "fp32" else torch.float16
    # A larger scale would make gradients of the first steps infinite, and the weights not a number.
    scaler = torch.amp.GradScaler(case.device_type, init_scale=2.0**10, enabled=dtype is not None)

    def step(batch: Batch) -> float:
        batch = batch.to(case.device)  # from pinned memory, as uint8: a quarter of the bytes of normalised frames
        frames = normalised(batch.frames)  # (B, K, T, 3, H, W)
        padding = (0, padded_to - batch.text_ids.shape[1])
        ids, mask = (F.pad(each, padding) for each in (batch.text_ids, batch.text_mask))
        with torch.autocast(case.device_type, dtype=dtype, enabled=dtype is not None):
            by_clip = [model.answer(ids, mask, model.encode(frames[:, clip])) for clip in range(case.clips)]
            logits = torch.stack(by_clip, dim=1)  # (B, K, C)
            loss = F.cross_entropy(logits.float().logsumexp(dim=1), batch.targets["labels"])
        scaler.scale(loss).backward()
        # GradScaler only unscales the gradients of torch's own optimisers.
        if scaler.is_enabled():
            torch._foreach_div_([parameter.grad for parameter in parameters], scaler.get_scale())
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        return loss.item()

    return step


def engine_step(case: Case, *, recompute: bool = False) -> Callable[[Batch], float]:
    """Return a function that does one step of the training loop, set up as `clipbert finetune` does."""
    config = train_config(case, recompute=recompute)
    model = make_model().train()
    apply_options(model, config)
    world = World(rank=0, size=1, device=case.device)
    plan = Plan.make(config, groups=1000, global_batch=case.videos, seed=0)
    trainer = Trainer(model.to(world.device), make_task().loss, config=config, plan=plan, world=world)
    set_rates(trainer.optimizer, {"transformer": config.learning_rate, "visual": config.learning_rate})

    def step(batch: Batch) -> float:
        update = trainer.update([batch.to(world.device)], examples=case.videos)
        trainer.step += 1
        return update.losses["loss"].item()

    return step


SIDES: dict[str, Callable[[Case], Callable[[Batch], float]]] = {
    "plain": partial(plain_step, padded_to=100),
    "plain, 20 tokens": partial(plain_step, padded_to=20),
    "engine": engine_step,
    "engine, recomputed": partial(engine_step, recompute=True),
}


def start(name: str, case: Case) -> Work:
    """Prepare a side. Its values have `loss`, `memory_mib`, and after the order `count` also `flops`."""
    step, stream = SIDES[name](case), batches(case)

    def work(order: str) -> tuple[dict[str, Any], float]:
        batch, flops = next(stream), None
        if order == "count":
            (loss, seconds), flops = counted(lambda: timed(case.device, lambda: step(batch)))
        else:
            loss, seconds = timed(case.device, lambda: step(batch))
        return {"loss": loss, "memory_mib": peak_memory(case.device), "flops": flops}, seconds

    return work


def peak_memory(device: torch.device) -> int:
    """Return the most that this process has used, in MiB: of the GPU's memory or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


# ------------------------------------------------------------------------------------------------ the command


def measure(case: Case, steps: int) -> dict[str, dict[str, Any]]:
    """Return one row per side."""
    warm_up = WARM_UP[case.device_type]
    together = [case.sides] if case.device_type == "cpu" else [(name,) for name in case.sides]
    turns: list[dict[str, Any]] = [{} for _ in range(warm_up + steps + 1)]
    for names in together:
        with Sides({name: partial(start, name, case) for name in names}) as sides:
            for turn in turns:
                turn |= sides.take("count" if turn is turns[-1] else "step")
    rate = matrix_product_rate(case.device, Precision(case.precision).dtype or torch.float32)
    timed_turns, other = turns[warm_up:-1], case.sides[-1]
    rows = {}
    for name in case.sides:
        seconds = statistics.median(turn[name][1] for turn in timed_turns)
        flops, memory = turns[-1][name][0]["flops"], timed_turns[-1][name][0]["memory_mib"]
        rows[name] = {
            "step_ms": 1000 * seconds,
            "gflop": flops / 1e9,
            "mfu": flops / rate / seconds,
            "memory_mib": memory,
            "speedup": statistics.median(turn[name][1] / turn[other][1] for turn in timed_turns),
            "memory": timed_turns[-1][other][0]["memory_mib"] / memory,
            "loss_difference": max(abs(turn[other][0]["loss"] / turn[name][0]["loss"] - 1) for turn in turns),
        }
    return rows


def reaches_limits(name: str, row: dict[str, Any]) -> bool:
    """Return whether a case's first side compares with the last one as wanted."""
    if name == "recomputed":
        return bool(row["memory"] < 1 and row["loss_difference"] == 0)
    fast = row["speedup"] >= WANTED["speedup"] and row["memory"] <= WANTED["memory"]
    return name == "cuda" or bool(fast and row["loss_difference"] <= WANTED["loss_difference"])


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed (recomputed: at most 1)")
    parser.add_argument("--case", choices=CASES, nargs="+", help="default: those that this machine can run")
    options = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    results, reached = [], []
    for name in options.case or [name for name in CASES if name != "cuda" or torch.cuda.is_available()]:
        # A recomputed step takes most of a minute, and its memory does not vary.
        steps = 1 if name == "recomputed" else max(1, options.steps)
        rows = measure(CASES[name], steps)
        report |= {f"{name}, {side}": row for side, row in rows.items()}
        first, *_, last = rows
        row = rows[first]
        reached.append(reaches_limits(name, row))
        results.append(
            f"{name}: {last} against {first} x{row['speedup']:.2f} as fast, memory x{row['memory']:.2f}, losses within "
            f"{row['loss_difference']:.1e} over {steps + WARM_UP[CASES[name].device_type] + 1} steps"
        )
    show(options, report, result="; ".join(results))
    return int(not all(reached))


if __name__ == "__main__":
    sys.exit(main())
