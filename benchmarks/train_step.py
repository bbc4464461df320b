"""A training step of this project's engine against the plain way, both from the same weights on the same batches.

    python benchmarks/train_step.py [--json] [--plot FILE] [--steps 5]

The recipe is msrvtt_qa: ResNet-50 and BERT-base at random weights, frames of 448 pixels, questions of 7 to 13 tokens.
On the CPU 2 videos x 2 clips x 2 frames in float32; on a GPU, where there is one, 16 x 8 x 2 in bf16 too. Each side
runs in a process of its own; they take turns step by step, so that a busy machine slows both alike. The median step
counts.

    plain    plain torch: clips in a loop, frames normalised in float32 on the CPU, questions padded to the recipe's 100
             tokens, BatchNorm2d in evaluation mode, attention written out, BERT's AdamW written out, in 8 groups
    engine   clipbert_cli.engine.train.Trainer

`plain, 20 tokens` pads to 20: what remains when padding is not the point. FLOPs are counted by torch; the machine's
rate is that of a product of two large matrices, measured between the steps; MFU is the share of it that a step reaches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from clipbert_cli.batch import Batch, Example
from clipbert_cli.engine.distributed import World
from clipbert_cli.engine.model_options import apply_options
from clipbert_cli.engine.optim import set_rates
from clipbert_cli.engine.plan import Plan
from clipbert_cli.engine.train import Trainer
from clipbert_cli.model import ClipBert
from clipbert_cli.recipe.schema import BertConfigSection, InferConfig, ModelConfig, ObjectiveConfig, TrainConfig
from clipbert_cli.task.video_qa import OpenEndedQa

ANSWERS, MAXIMUM, SIDE = 1500, 100, 448
WANTED = {"speedup": 1.3, "memory": 0.8, "loss_difference": 1e-5}


@dataclass(frozen=True)
class Case:
    """B videos x K clips x T frames on a device."""

    device: str
    precision: str
    videos: int
    clips: int
    frames: int


CASES = {"cpu": Case("cpu", "fp32", 2, 2, 2), "cuda": Case("cuda", "bf16", 16, 8, 2)}


# ------------------------------------------------------------------------------------------------ what both sides use


def model_config() -> ModelConfig:
    """The published sizes. No dropout: the two sides could not draw the same."""
    return ModelConfig(bert=BertConfigSection(hidden_dropout=0.0, attention_dropout=0.0))


def train_config(case: Case) -> TrainConfig:
    return TrainConfig(
        batch_size=case.videos, max_steps=100, schedule="constant", warmup_ratio=0, precision=case.precision
    )


def task() -> OpenEndedQa:
    answers = {f"answer {number}": number for number in range(ANSWERS)}
    return OpenEndedQa(ObjectiveConfig(num_labels=ANSWERS), InferConfig(), answers)


def start_model() -> ClipBert:
    torch.manual_seed(0)
    return ClipBert(model_config(), task().head())


def batches(case: Case) -> Iterator[Batch]:
    """New pictures and questions each step: coarse squares of colour, and words."""
    generator = torch.Generator().manual_seed(1)
    while True:
        coarse = torch.randint(0, 256, (case.videos * case.clips * case.frames, 3, 14, 14), generator=generator)
        frames = F.interpolate(coarse.float(), size=(SIDE, SIDE), mode="bilinear").to(torch.uint8)
        lengths = torch.randint(7, 14, (case.videos,), generator=generator)
        ids = torch.randint(1000, 30000, (case.videos, int(lengths.max())), generator=generator)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        yield Batch(
            frames=frames.view(case.videos, case.clips, case.frames, 3, SIDE, SIDE),
            text_ids=ids * mask,
            text_mask=mask,
            text_item=torch.arange(case.videos),
            examples=tuple(Example(str(number), str(number), ("?",)) for number in range(case.videos)),
            targets={"labels": torch.randint(0, ANSWERS, (case.videos,), generator=generator)},
            media_ids=tuple(map(str, range(case.videos))),
        )


# ------------------------------------------------------------------------------------------------ the plain way


class ConvNorm(nn.Module):
    """Convolution, fixed batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs).eval().requires_grad_(False)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalization(self.convolution(x))
        return F.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.layer = nn.Sequential(
            ConvNorm(inputs, inner, 1, stride), ConvNorm(inner, inner, 3), ConvNorm(inner, outputs, relu=False)
        )
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, relu=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x) + self.shortcut(x))


class PlainCnn(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        cnn = config.cnn
        self.stem = nn.ModuleDict({"embedder": ConvNorm(3, cnn.stem_size, 7, 2)})
        widths = [cnn.stem_size, *cnn.hidden_sizes]
        self.stages = nn.ModuleList(
            nn.ModuleDict(
                {
                    "layers": nn.Sequential(
                        *(
                            Bottleneck(widths[i] if j == 0 else widths[i + 1], widths[i + 1], 2 if i and j == 0 else 1)
                            for j in range(depth)
                        )
                    )
                }
            )
            for i, depth in enumerate(cnn.depths)
        )
        self.grid = nn.Conv2d(widths[-1], config.bert.hidden_size, 3, padding=1, bias=False)
        for stage in [self.stem, *self.stages][: cnn.freeze_at]:
            stage.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem["embedder"](x), 3, 2, 1)
        for stage in self.stages:
            x = stage["layers"](x)
        return F.relu(F.max_pool2d(self.grid(x), 2)).permute(0, 2, 3, 1)  # (M, h, w, D)


class PlainModel(nn.Module):
    """The same model under the same names, as one writes it down."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bert = self.bert = config.bert
        width = bert.hidden_size
        self.cnn = PlainCnn(config)

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=bert.layer_norm_eps)

        self.text_embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(bert.vocab_size, width, padding_idx=0),
                "position_embeddings": nn.Embedding(bert.max_position_embeddings, width),
                "token_type_embeddings": nn.Embedding(bert.type_vocab_size, width),
                "LayerNorm": norm(),
            }
        )
        self.visual_embeddings = nn.ModuleDict(
            {
                "row_embeddings": nn.Embedding(bert.max_grid_rows, width),
                "column_embeddings": nn.Embedding(bert.max_grid_columns, width),
                "token_type_embeddings": nn.Embedding(1, width),
                "LayerNorm": norm(),
            }
        )
        layers = []
        for _ in range(bert.num_hidden_layers):
            projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
            attended = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": norm()})
            attention = nn.ModuleDict({"self": nn.ModuleDict(projections), "output": attended})
            wide = nn.ModuleDict({"dense": nn.Linear(width, bert.intermediate_size)})
            output = nn.ModuleDict({"dense": nn.Linear(bert.intermediate_size, width), "LayerNorm": norm()})
            layers.append(nn.ModuleDict({"attention": attention, "intermediate": wide, "output": output}))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})
        hidden = config.head.hidden_scale * width
        self.head = nn.ModuleDict(
            {"layers": nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, ANSWERS))}
        )

    def clip(self, frames: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """One clip of every video, (B, T, 3, H, W) normalised, with its question (B, L): logits (B, C)."""
        grid = self.cnn(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(dim=1)  # (B, h, w, D)
        places, words = self.visual_embeddings, self.text_embeddings
        grid = grid + places["row_embeddings"].weight[: grid.shape[1], None]
        grid = grid + places["column_embeddings"].weight[: grid.shape[2]]
        visual = places["LayerNorm"](grid.flatten(1, 2) + places["token_type_embeddings"].weight[0])
        text = words["word_embeddings"](ids) + words["position_embeddings"].weight[: ids.shape[1]]
        text = words["LayerNorm"](text + words["token_type_embeddings"].weight[0])
        x = torch.cat([text, visual], dim=1)  # (B, L+V, D)
        seen = torch.cat([mask, mask.new_ones(visual.shape[:2])], dim=1)
        bias = torch.where(seen, 0.0, -10000.0)[:, None, None]  # (B, 1, 1, L+V), as BERT's code does it
        for layer in self.encoder["layer"]:
            x = self.transform(layer, x, bias)
        pooled = self.pooler["dense"](x[:, 0]).tanh()
        return self.head["layers"](pooled)

    def transform(self, layer: Any, x: Tensor, bias: Tensor) -> Tensor:
        heads = self.bert.num_attention_heads
        query, key, value = (
            layer["attention"]["self"][name](x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        context = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        attended = layer["attention"]["output"]
        x = attended["LayerNorm"](attended["dense"](context) + x)
        wide = F.gelu(layer["intermediate"]["dense"](x))
        return layer["output"]["LayerNorm"](layer["output"]["dense"](wide) + x)


class PlainAdamW:
    """BERT's rule, a parameter at a time."""

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig) -> None:
        self.groups, self.config = groups, config
        self.state: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        first, second = self.config.betas
        for group in self.groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if parameter not in self.state:
                    self.state[parameter] = (torch.zeros_like(parameter), torch.zeros_like(parameter))
                mean, square = self.state[parameter]
                mean.mul_(first).add_(gradient, alpha=1 - first)
                square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
                size = self.config.learning_rate * math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
                parameter.addcdiv_(mean, square.sqrt().add_(self.config.eps), value=-size)
                if group["decay"]:
                    parameter.add_(parameter, alpha=-self.config.learning_rate * group["decay"])


def eight_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Transformer and CNN, new layers and old ones, with decay and without."""
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fixed = any(word in name for word in ("bias", "LayerNorm"))
            groups.setdefault((name.startswith("cnn."), name.startswith(("head", "cnn.grid")), fixed), []).append(
                parameter
            )
    return [{"params": members, "decay": 0.0 if key[2] else decay} for key, members in groups.items()]


def plain_step(case: Case, maximum: int) -> Callable[[Batch], float]:
    """The plain way's step."""
    config = train_config(case)
    model = PlainModel(model_config()).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    weights = start_model().state_dict()
    mean = weights["cnn.pixel_mean"] if "cnn.pixel_mean" in weights else torch.tensor(model_config().cnn.pixel_mean)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    model.to(case.device)
    optimizer = PlainAdamW(eight_groups(model, config.weight_decay), config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    dtype = {"fp32": None, "bf16": torch.float16}[case.precision]  # on a GPU the plain way is fp16
    scaler = torch.amp.GradScaler(case.device, enabled=dtype is not None)

    def step(batch: Batch) -> float:
        frames = (batch.frames.float() - mean.view(-1, 1, 1)).flip(3).to(case.device)  # (B, K, T, 3, H, W), BGR
        room = (0, maximum - batch.text_ids.shape[1])
        ids, mask = (F.pad(each, room).to(case.device) for each in (batch.text_ids, batch.text_mask))
        with torch.autocast(case.device, dtype=dtype, enabled=dtype is not None):
            logits = torch.stack([model.clip(frames[:, clip], ids, mask) for clip in range(case.clips)], dim=1)
            loss = F.cross_entropy(logits.float().logsumexp(dim=1), batch.targets["labels"].to(case.device))
        scaler.scale(loss).backward()
        if scaler.is_enabled():  # by hand: the optimiser is not torch's
            for parameter in parameters:
                parameter.grad.div_(scaler.get_scale())
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        return loss.item()

    return step


# ------------------------------------------------------------------------------------------------ the engine


def engine_step(case: Case) -> Callable[[Batch], float]:
    """The engine's step, as `clipbert finetune` sets it up."""
    config = train_config(case)
    model = start_model().train()
    apply_options(model, config)
    world = World(rank=0, size=1, device=torch.device(case.device))
    trainer = Trainer(
        model.to(world.device),
        task(),
        config=config,
        plan=Plan.make(config, groups=1000, global_batch=case.videos),
        world=world,
        seed=0,
    )
    set_rates(trainer.optimizers, {"transformer": config.learning_rate, "cnn": config.learning_rate})

    def step(batch: Batch) -> float:
        update = trainer.update([batch], examples=case.videos)
        trainer.step += 1
        return update.losses["loss"].item()

    return step


SIDES: dict[str, Callable[[Case], Callable[[Batch], float]]] = {
    "plain": lambda case: plain_step(case, MAXIMUM),
    "plain, 20 tokens": lambda case: plain_step(case, 20),
    "engine": engine_step,
}


# ------------------------------------------------------------------------------------------------ measuring


def serve(side: str, case: Case) -> None:
    """One side: a step for every line on stdin, answered by a line of JSON."""
    step, stream = SIDES[side](case), batches(case)
    answers = sys.stdout
    for order in sys.stdin:
        batch = next(stream)
        if case.device == "cuda":
            batch = batch.pin_memory()
        counter = FlopCounterMode(display=False) if order.strip() == "count" else None
        _wait(case)
        begin = time.perf_counter()
        if counter:
            with counter:
                loss = step(batch)
        else:
            loss = step(batch)
        _wait(case)
        answer = {"loss": loss, "seconds": time.perf_counter() - begin, "memory_mib": peak_memory(case)}
        if counter:
            answer["flops"] = counter.get_total_flops()
        print(json.dumps(answer), file=answers, flush=True)


def _wait(case: Case) -> None:
    if case.device == "cuda":
        torch.cuda.synchronize()


def peak_memory(case: Case) -> int:
    """The most that the process has used, in MiB: of the GPU, or of the machine."""
    if case.device == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


def product_rate(case: Case) -> float:
    """FLOPs a second of a product of two large matrices, the best of five."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.precision]
    size = 8192 if case.device == "cuda" else 2048
    left, right = (torch.rand(size, size, device=case.device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(5):
        _wait(case)
        begin = time.perf_counter()
        left @ right
        _wait(case)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


class Side:
    """A process that takes one side's steps."""

    def __init__(self, name: str, case: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--side", name, "--case", case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        self.steps: list[dict[str, float]] = []

    def step(self, order: str = "step") -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with exit code {self.process.wait()}")
        self.steps.append(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(name: str, steps: int) -> dict[str, Any]:
    """Everything of one case: a row a side, and the machine's rate."""
    case = CASES[name]
    sides = [Side(side, name) for side in SIDES]
    rates = [product_rate(case)]
    try:
        for number in range(steps):
            for side in sides:
                side.step("count" if number == 0 else "step")  # the first step, which warms up, is not timed
            rates.append(product_rate(case))
    finally:
        for side in sides:
            side.close()
    rate = max(rates)
    rows = {side.name: summary(side.steps, rate) for side in sides}
    engine = sides[-1]
    for side in sides:
        row = rows[side.name]
        row["speedup"] = round(row["step_ms"] / rows["engine"]["step_ms"], 2)
        row["memory"] = round(rows["engine"]["memory_mib"] / row["memory_mib"], 2)
        pairs = zip(engine.steps, side.steps, strict=True)
        row["loss_difference"] = max(abs(one["loss"] / other["loss"] - 1) for one, other in pairs)
    return {"product_gflops": round(rate / 1e9, 1), "steps": steps, "sides": rows}


def summary(steps: list[dict[str, float]], rate: float) -> dict[str, Any]:
    seconds, flops = statistics.median(step["seconds"] for step in steps[1:]), steps[0]["flops"]
    return {
        "step_ms": round(1000 * seconds),
        "gflops": round(flops / 1e9),
        "floor_ms": round(1000 * flops / rate),
        "mfu": round(flops / rate / seconds, 3),
        "memory_mib": steps[-1]["memory_mib"],
    }


def reached(report: Mapping[str, Any]) -> bool:
    """Whether the CPU's case holds what is wanted of it."""
    row = report["sides"]["plain"]
    return bool(
        row["speedup"] >= WANTED["speedup"]
        and row["memory"] <= WANTED["memory"]
        and row["loss_difference"] <= WANTED["loss_difference"]
    )


def plot(report: Mapping[str, Any], file: str) -> None:
    """Bars of step times over the floor by operations."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(report), figsize=(5 * len(report), 3), squeeze=False)
    for axis, (case, each) in zip(axes[0], report.items(), strict=True):
        names = list(each["sides"])
        axis.barh(names, [each["sides"][name]["step_ms"] for name in names], label="step")
        axis.barh(names, [each["sides"][name]["floor_ms"] for name in names], height=0.3, label="floor by operations")
        axis.set(title=case, xlabel="ms")
        axis.legend()
    figure.tight_layout()
    figure.savefig(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--plot", metavar="FILE", help="step times over their floor, PNG")
    parser.add_argument("--steps", type=int, default=5, help="at least 2; the first is not timed")
    parser.add_argument("--case", choices=CASES, action="append", help="default: those that this machine has")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    here = options.case or [name for name in CASES if name == "cpu" or torch.cuda.is_available()]
    if options.side:
        serve(options.side, CASES[here[0]])
        return 0
    report = {name: measure(name, max(2, options.steps)) for name in here}
    if options.json:
        print(json.dumps(report, indent=1))
    for name, each in report.items() if not options.json else ():
        for side, row in each["sides"].items():
            print(
                f"{name:5} {side:16} {row['step_ms']:7} ms a step, floor {row['floor_ms']} ms, MFU {row['mfu']:.2f}, "
                f"{row['memory_mib']} MiB  engine: x{row['speedup']:.2f}, memory x{row['memory']:.2f}, "
                f"loss differs by {row['loss_difference']:.1e}"
            )
        print(f"{name:5} matrix product   {each['product_gflops']} GFLOP/s")
    if options.plot:
        plot(report, options.plot)
    return 0 if "cpu" not in report or reached(report["cpu"]) else 1


if __name__ == "__main__":
    sys.exit(main())
