"""How fast is a training step of this project's loop, and how much memory does it take, compared with a plain one?

    python benchmarks/train_step.py [--device cuda] [--steps 5] [--json]

The recipe is msrvtt_qa: ResNet-50 and BERT-base with random weights, 448 pixels, questions of 7 to 13 tokens. A step
has 2 videos x 2 clips x 2 frames in float32; on a GPU 16 videos x 8 clips x 2 frames in bf16, the plain side in fp16.
All sides start from the same weights and get the same batches.

    plain       plain.py: clips in a loop, batch norms and optimiser parameter by parameter, questions padded to the
                recipe's 100 tokens; `plain, 20 tokens` pads to 20 and shows what remains without that. Frames are
                copied from pinned memory and normalised on the device
    engine      clipbert_cli.train.loop.Trainer

Each side runs in a process of its own, and the sides take turns of one step (harness.py); on a GPU one side follows the
other, so that each has all of its memory. After the warm-up `--steps` steps are timed, of which the medians count;
losses are compared over all steps. `speedup`, `memory` and `loss_difference` compare the engine with the row's side.
`memory_mib` is the most that the process (on a GPU: the device) used until the last step, torch and weights included.
The exit code is 1 if the engine does not compare with `plain` as WANTED on a CPU.

Legend: B videos, K clips, T frames, C answers.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import torch
from harness import Outcome, Sides, Work, command_line, pictures, run, timed
from plain import PlainAdamW, PlainModel, normalised
from torch import nn
from torch.nn import functional as F

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.recipe.schema import BertConfigSection, InferConfig, ModelConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.train.loop import Trainer
from clipbert_cli.train.model_options import apply_options
from clipbert_cli.train.optim import set_rates
from clipbert_cli.train.plan import Plan
from clipbert_cli.types import Batch, Example

ANSWERS = 1500
SIZES = {"cpu": (2, 2, 2), "cuda": (16, 8, 2)}
"""Videos, clips, frames."""
PRECISIONS = {"cpu": "fp32", "cuda": "bf16"}
WARM_UP = {"cpu": 1, "cuda": 3}
"""Steps; a GPU's libraries choose their kernels anew for every text length that they meet."""
WANTED = {"speedup": 1.3, "memory": 0.8, "loss_difference": 1e-5}


def train_config(device: torch.device) -> TrainConfig:
    return TrainConfig(
        batch_size=SIZES[device.type][0],
        max_steps=100,
        schedule="constant",
        warmup_ratio=0,
        freeze=["visual.stem", "visual.0"],
        precision=PRECISIONS[device.type],
    )


def make_task() -> OpenEndedQa:
    answers = {f"answer {number}": number for number in range(ANSWERS)}
    return OpenEndedQa(ObjectiveConfig(num_labels=ANSWERS), InferConfig(), answers)


def make_model() -> ClipBert:
    torch.manual_seed(0)
    bert = BertConfigSection(hidden_dropout=0.0, attention_dropout=0.0)
    return ClipBert(ModelConfig(bert=bert), make_task().head())


def batches(device: torch.device) -> Iterator[Batch]:
    """Yield new frames, questions and answers for each step, the same ones for every side."""
    generator = torch.Generator().manual_seed(1)
    videos = SIZES[device.type][0]
    names = tuple(map(str, range(videos)))
    while True:
        frames = pictures(*SIZES[device.type], generator=generator)
        lengths = torch.randint(7, 14, (videos,), generator=generator)
        ids = torch.randint(1000, 30000, (videos, int(lengths.max())), generator=generator)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        batch = Batch(
            frames=frames,
            text_ids=ids * mask,
            text_mask=mask,
            text_item=torch.arange(videos),
            examples=tuple(Example(name, name, ("?",)) for name in names),
            targets={"labels": torch.randint(0, ANSWERS, (videos,), generator=generator)},
            media_ids=names,
        )
        yield batch.pin_memory() if device.type == "cuda" else batch


# ------------------------------------------------------------------------------------------------ the sides


def plain_step(device: torch.device, padded_to: int) -> Callable[[Batch], float]:
    """Return a function that does one step of the plain side and returns the loss."""
    config = train_config(device)
    model = PlainModel(make_model()).to(device)
    optimizer = PlainAdamW(model, config)
    parameters = list(optimizer.decays)
    dtype = None if config.precision == "fp32" else torch.float16
    # A larger scale would make gradients of the first steps infinite, and the weights not a number.
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=dtype is not None)

    def step(batch: Batch) -> float:
        batch = batch.to(device)  # from pinned memory, as uint8: a quarter of the bytes of normalised frames
        frames = normalised(batch.frames)  # (B, K, T, 3, H, W)
        padding = (0, padded_to - batch.text_ids.shape[1])
        ids, mask = (F.pad(each, padding) for each in (batch.text_ids, batch.text_mask))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            by_clip = [model.answer(ids, mask, model.encode(frames[:, clip])) for clip in range(frames.shape[1])]
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


def engine_step(device: torch.device) -> Callable[[Batch], float]:
    """Return a function that does one step of the training loop, set up as `clipbert finetune` does."""
    config = train_config(device)
    model = make_model().train()
    apply_options(model, config)
    plan = Plan.make(config, groups=1000, global_batch=config.batch_size, seed=0)
    trainer = Trainer(model.to(device), make_task().loss, config=config, plan=plan, world=World(0, 1, device))
    set_rates(trainer.optimizer, {"transformer": config.learning_rate, "visual": config.learning_rate})

    def step(batch: Batch) -> float:
        update = trainer.update([batch.to(device)], examples=config.batch_size)
        trainer.step += 1
        return update.losses["loss"].item()

    return step


SIDES: dict[str, Callable[[torch.device], Callable[[Batch], float]]] = {
    "plain": partial(plain_step, padded_to=100),
    "plain, 20 tokens": partial(plain_step, padded_to=20),
    "engine": engine_step,
}


def start(name: str, device: torch.device) -> Work:
    """Prepare a side, whose orders are steps; the values are the loss and the peak of memory."""
    step, stream = SIDES[name](device), batches(device)

    def work(order: str) -> tuple[tuple[float, float], float]:
        batch = next(stream)
        loss, seconds = timed(device, lambda: step(batch))
        is_gpu = device.type == "cuda"
        most = torch.cuda.max_memory_allocated() if is_gpu else 1024 * getrusage(RUSAGE_SELF).ru_maxrss
        return (loss, most / 2**20), seconds

    return work


def measure(options: Namespace, folder: Path) -> Outcome:
    device, warm_up = torch.device(options.device), WARM_UP[options.device]
    turns: list[dict[str, Any]] = [{} for _ in range(warm_up + max(1, options.steps))]
    for names in [tuple(SIDES)] if device.type == "cpu" else [(name,) for name in SIDES]:
        with Sides({name: partial(start, name, device) for name in names}) as sides:
            for turn in turns:
                turn |= sides.take("step")
    rows = {name: compare(turns, name, warm_up) for name in SIDES}
    speedup, memory, difference = (rows["plain"][name] for name in ("speedup", "memory", "loss_difference"))
    result = (
        f"the engine is x{speedup:.2f} as fast as the plain side, with x{memory:.2f} of its memory; losses differ by "
        f"at most {difference:.1e} over {len(turns)} steps"
    )
    as_wanted = speedup >= WANTED["speedup"] and memory <= WANTED["memory"] and difference <= WANTED["loss_difference"]
    return Outcome(rows, result, device.type != "cpu" or as_wanted)


def compare(turns: list[dict[str, Any]], name: str, warm_up: int) -> dict[str, Any]:
    """Return the row of a side."""
    losses = [(turn["engine"][0][0], turn[name][0][0]) for turn in turns]
    (_, memory), (_, of_engine) = (turns[-1][side][0] for side in (name, "engine"))
    return {
        "step_ms": 1000 * median(turn[name][1] for turn in turns[warm_up:]),
        "memory_mib": memory,
        "speedup": median(turn[name][1] / turn["engine"][1] for turn in turns[warm_up:]),
        "memory": of_engine / memory,
        "loss_difference": max(abs(engine / other - 1) for engine, other in losses),
    }


if __name__ == "__main__":
    parser = command_line(__doc__, steps=5)
    parser.add_argument("--device", choices=SIZES, default="cuda" if torch.cuda.is_available() else "cpu")
    run(parser, measure)
