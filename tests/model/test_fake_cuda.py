"""Training steps on fake CUDA tensors: no tensor is on a wrong device, and no step waits for a number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbert_cli.task.registry import TASKS

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each step gave, see fake_cuda_steps.py."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA, whose hooks cannot be replaced")
    from torch.utils.cpp_extension import include_paths

    library = tmp_path_factory.mktemp("fake_cuda") / "fake_cuda.so"
    options = ["-O0", "-shared", "-fPIC", "-std=c++20", *(f"-I{path}" for path in include_paths())]
    subprocess.run([compiler, *options, str(TESTS / "fake_cuda.cpp"), "-o", str(library)], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(
        [sys.executable, str(TESTS / "fake_cuda_steps.py"), str(library)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_tasks_step_stays_on_the_gpu_with_gradients_in_float32(steps: dict[str, Any]) -> None:
    trained = {name: found for name, found in steps.items() if "gradients" in found}
    assert len(trained) == len(TASKS) * 3 * 2 + 1
    for name, found in trained.items():
        assert found["devices"] == ["cuda:0"], name
        assert found["dtypes"] == ["torch.float32"], name
        assert found["gradients"] > 20, name


def test_autocast_computes_in_the_format_of_the_recipe(steps: dict[str, Any]) -> None:
    trained = {name: found["computed"] for name, found in steps.items() if "gradients" in found}
    assert {name: computed for name, computed in trained.items() if name.startswith("open_ended_qa ")} == {
        "open_ended_qa fp32": "torch.float32",
        "open_ended_qa fp32 recomputed": "torch.float32",
        "open_ended_qa bf16": "torch.bfloat16",
        "open_ended_qa bf16 recomputed": "torch.bfloat16",
        "open_ended_qa fp16": "torch.float16",
        "open_ended_qa fp16 recomputed": "torch.float16",
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_predictions_stay_on_the_gpu(steps: dict[str, Any], task: str, precision: str, dtype: str) -> None:
    """The layers compute in the recipe's format, scores are float32, and only those of words stay small."""
    found = steps[f"{task} {precision} predicted"]
    assert found["devices"] == ["cuda:0"]
    assert found["shape"][1] == 2  # one score per clip
    assert found["computed"] == f"torch.{dtype}"
    words = [f"torch.{dtype}"] if task == "pretraining" else []
    assert found["dtypes"] == ["torch.float32", *words]
