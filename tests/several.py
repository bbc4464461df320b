"""The processes of tests/runtime/test_distributed.py: each writes its answers to FOLDER/RANK.json.

torchrun --nproc-per-node N tests/several.py FOLDER
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from clipbert_cli.build import Evaluation
from clipbert_cli.errors import RunError
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.recipe.schema import InferConfig
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.runtime.process_exit import run_and_exit
from clipbert_cli.types import Batch, Example, Outputs, Prediction


def messages(world: World) -> Any:
    """Return the result of each of the world's methods in this process."""
    calls: list[int] = []
    from_main = world.main_first(lambda: calls.append(world.rank) or {"from": world.rank})

    def fail() -> None:
        raise RunError(f"rank {world.rank} fails", hint="as asked")

    try:
        world.main_first(fail)
        failure = None
    except RunError as exc:
        failure = [str(exc), exc.hint]
    return {
        "gathered": world.gather({"rank": world.rank}),
        "sum": world.reduce(torch.tensor([1.0, float(world.rank)])).tolist(),
        "from_main": from_main,
        "calls": calls,
        "failure": failure,
        "shard": [world.shard.rank, world.shard.size],
    }


class Doubling(nn.Module):
    """Logits (N, 1, 1): the first pixel times two."""

    visual_encoder = SimpleNamespace(weights_kept=nullcontext)

    def encode_visual(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[:, :, 0, 0, 0, :1, None].float()  # (B, K, 1, 1)

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, 1)

    def scorer(self, dtype: torch.dtype) -> DoublingScorer:
        return DoublingScorer()


class DoublingScorer:
    """Scores (S, 1) of sequences with one visual token."""

    num_outputs = 1

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def __call__(self, text: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return 2 * visual[:, 0]


class ScoreTask:
    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        values = outputs.logits[:, 0, 0].tolist()
        return [Prediction(each.key, {"value": v}) for each, v in zip(batch.examples, values, strict=True)]


def predictions(world: World, count: int) -> Any:
    """Return media ids and values, as this process receives them."""

    def batch(indices: list[int]) -> Batch:
        frames = torch.tensor([float(index) for index in indices]).view(-1, 1, 1, 1, 1, 1).expand(-1, 1, 1, 3, 1, 1)
        return Batch(
            frames=frames,
            text_ids=torch.zeros(len(indices), 1, dtype=torch.long),
            text_mask=torch.ones(len(indices), 1, dtype=torch.bool),
            text_item=torch.arange(len(indices)),
            examples=tuple(Example(f"e{index}", f"m{index}", ("?",)) for index in indices),
            media_ids=tuple(f"m{index}" for index in indices),
        )

    order = OrderedBatches(count, batch_size=2, shard=world.shard)
    batches = [batch([position.index for position in positions]) for positions in order]
    model: Any = Doubling()
    task: Any = ScoreTask()
    predictor = Predictor(model, task, Precision("fp32"), InferConfig(), world)
    found = predictor.run(Evaluation(batches, None, count))
    return [[each.media_id, each.fields["value"]] for each in found]


def sums_under_way(count: int) -> int:
    """Start `count` sums and return at once, so that this process ends while threads still hold their tensors.

    Those threads need Python's lock to release a tensor. They get it only where this thread waits.
    """
    sys.setswitchinterval(1000)  # seconds
    for _ in range(count):
        dist.all_reduce(torch.ones(4), async_op=True)
    return count


def main() -> None:
    folder = Path(sys.argv[1])
    with start_world("cpu") as world:
        answer = {"messages": messages(world)}
        answer["predictions"] = {count: predictions(world, count) for count in (1, 7, 8, 13)}
        answer["sums_under_way"] = sums_under_way(2000)
        (folder / f"{world.rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    run_and_exit(main)
