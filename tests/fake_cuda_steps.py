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
from task_batches import CLIPS, batch_of, task_of  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from clipbert_cli.infer.text_batches import Budget, encode  # noqa: E402
from clipbert_cli.model.clipbert import ClipBert, SequenceScorer  # noqa: E402
from clipbert_cli.model.transformer import Transformer  # noqa: E402
from clipbert_cli.recipe.schema import TrainConfig  # noqa: E402
from clipbert_cli.runtime.precision import Precision  # noqa: E402
from clipbert_cli.task.registry import TASKS  # noqa: E402
from clipbert_cli.train.model_options import apply_options  # noqa: E402

CUDA = torch.device("cuda", 0)


def train(name: str, precision: Precision, *, recomputed: bool, options: dict[str, Any]) -> dict[str, Any]:
    """One forward and backward pass on fake CUDA tensors."""
    task = task_of(name, **options)
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


def scorer_of(model: ClipBert, dtype: torch.dtype) -> SequenceScorer:
    """Return `model.scorer(dtype)`. Layers of fake tensors cannot be converted, so their copy is made in the dtype."""
    scorer = model.scorer()
    if dtype != torch.float32:
        scorer.dtype = dtype
        torch.set_default_dtype(dtype)
        with CUDA:
            scorer.transformer = Transformer(model.sizes).eval()
        torch.set_default_dtype(torch.float32)
    return scorer


def predict(name: str, precision: Precision) -> dict[str, Any]:
    """Encode the clips in parts, and score the texts as inference does, with the layers' weights in low precision."""
    task = task_of(name)
    with CUDA:
        model = ClipBert(small_config(), task.head()).eval()
    batch = batch_of(name).to(CUDA)
    scorer = scorer_of(model, precision.dtype)
    rows = len(batch.text_ids)
    with torch.inference_mode():
        with precision.autocast(CUDA):
            visual = encode(model, batch.frames, Budget(2))  # (B, K, V, D)
        # What `RowScorer` does for texts of one length. It computes indices from numbers, which fake tensors lack.
        text, clips = scorer.project(model.embed_text(batch.text_ids)), scorer.project(visual.flatten(0, 1))
        sequences = torch.arange(rows * CLIPS, device=CUDA)
        found = [scorer(text[sequences // CLIPS], clips[sequences % len(clips)]).unflatten(0, (-1, CLIPS))]
        if (words := batch.word_positions) is not None:
            # And what `score_with_words` does for some rows.
            with precision.autocast(CUDA):
                text = model.embed_text(batch.text_ids)
                outputs = model.score(text, batch.text_mask, visual[batch.text_item], word_positions=words)
            assert outputs.mlm_logits is not None
            found = [outputs.logits.float(), outputs.mlm_logits]
    return {
        "computed": str(clips.dtype),
        "dtypes": [str(each.dtype) for each in found],
        "devices": sorted({str(each.device) for each in found}),
        "shape": list(found[0].shape),
    }


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
        for name, precision in itertools.product(TASKS, ("fp32", "bf16", "fp16")):
            results[f"{name} {precision} predicted"] = predict(name, Precision(precision))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
