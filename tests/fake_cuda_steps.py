"""Started by tests/model/test_fake_cuda.py: training steps and predictions of every task on fake CUDA tensors.

    python fake_cuda_steps.py LIBRARY

Prints one JSON document: for each step the devices and dtypes of losses and gradients. A tensor on a wrong device, or a
number that is read from a tensor (`.item()`), is an error.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from typing import Any

# The library registers itself with torch's, which must be loaded before it, and both before Python's part of torch.
spec = importlib.util.find_spec("torch")
assert spec is not None
assert spec.origin is not None
ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libtorch_cpu.so"), mode=ctypes.RTLD_GLOBAL)
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from small_models import small_config  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from clipbert_cli.infer.predict import encode  # noqa: E402
from clipbert_cli.infer.text_batches import Budget  # noqa: E402
from clipbert_cli.model.clipbert import ClipBert  # noqa: E402
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig, TrainConfig  # noqa: E402
from clipbert_cli.runtime.precision import Precision  # noqa: E402
from clipbert_cli.task.registry import TASKS, task_class  # noqa: E402
from clipbert_cli.train.model_options import apply_options  # noqa: E402
from clipbert_cli.types import Batch, Example  # noqa: E402

CUDA = torch.device("cuda", 0)
# Items, clips, texts per item (options, or a text and its negatives), text tokens, answers.
ITEMS, CLIPS, TEXTS, LENGTH, ANSWERS = 2, 2, 2, 6, 5


def batch_of(name: str) -> Batch:
    """A batch on the CPU as the task `name` makes it."""
    rows = ITEMS * (TEXTS if name in ("multiple_choice", "retrieval") else 1)
    targets: dict[str, dict[str, torch.Tensor]] = {
        "open_ended_qa": {"labels": torch.zeros(rows, dtype=torch.int64)},
        "image_qa": {"labels": torch.rand(rows, ANSWERS)},
        "multiple_choice": {"labels": torch.zeros(ITEMS, dtype=torch.int64)},
        "retrieval": {"labels": torch.zeros(rows, dtype=torch.int64)},
        "pretraining": {"words": torch.full((rows,), 7), "matches": torch.zeros(rows, dtype=torch.int64)},
    }
    return Batch(
        frames=torch.zeros(ITEMS, CLIPS, 2, 3, 64, 64, dtype=torch.uint8),
        text_ids=torch.ones(rows, LENGTH, dtype=torch.int64),
        text_mask=torch.ones(rows, LENGTH, dtype=torch.bool),
        text_item=torch.arange(ITEMS).repeat_interleave(rows // ITEMS),
        examples=tuple(Example(f"{item}", "", ("",) * (rows // ITEMS)) for item in range(ITEMS)),
        targets=targets[name],
        word_positions=torch.tensor([list(range(rows)), [2] * rows]) if name == "pretraining" else None,
    )


def train(name: str, precision: Precision, *, recomputed: bool, options: dict[str, Any]) -> dict[str, Any]:
    """One forward and backward pass on fake CUDA tensors."""
    task = task_class(name)(ObjectiveConfig(num_labels=ANSWERS, num_negatives=1, **options), InferConfig(), {})
    with CUDA:
        model = ClipBert(small_config(), task.head())
    apply_options(model, TrainConfig(activation_checkpointing=recomputed, epochs=1))
    batch = batch_of(name).to(CUDA)
    with precision.autocast(CUDA):
        outputs = model(batch)
        losses = task.loss(outputs, batch)
    losses["loss"].backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    found = [*losses.values(), *gradients]
    return {
        "computed": str(outputs.logits.dtype),
        "gradients": len(gradients),
        "devices": sorted({str(each.device) for each in found}),
        "dtypes": sorted({str(each.dtype) for each in gradients}),
    }


def predict(name: str, precision: Precision) -> dict[str, Any]:
    """Encode the clips in parts, and score the texts as validation does."""
    task = task_class(name)(ObjectiveConfig(num_labels=ANSWERS, num_negatives=1), InferConfig(), {})
    with CUDA:
        model = ClipBert(small_config(), task.head()).eval()
    batch = batch_of(name).to(CUDA)
    with torch.inference_mode(), precision.autocast(CUDA):
        visual = encode(model, batch.frames, Budget(2))  # (B, K, V, D)
        outputs = model.score(model.embed_text(batch.text_ids), batch.text_mask, visual[batch.text_item])
    computed = str(outputs.logits.dtype)
    return {"computed": computed, "devices": [str(outputs.logits.device)], "shape": list(outputs.logits.shape)}


def main() -> None:
    # Autocast asks the CUDA runtime, which is not there.
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True  # type: ignore[method-assign]
    results: dict[str, Any] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, precision, recomputed in itertools.product(TASKS, ("fp32", "bf16", "fp16"), (False, True)):
            kind = f"{name} {precision}{' recomputed' if recomputed else ''}"
            results[kind] = train(name, Precision(precision), recomputed=recomputed, options={})
        results["retrieval margin"] = train(
            "retrieval", Precision("bf16"), recomputed=False, options={"loss": "margin", "pool": "max"}
        )
        for name in TASKS:
            results[f"{name} predicted"] = predict(name, Precision("bf16"))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
