"""A step and full memory on the CPU and on a GPU: the same numbers, and the same answers to the same mistakes."""

from __future__ import annotations

import pytest
import torch
from small_models import small_config
from task_batches import batch_of, task_of
from torch import Tensor

from clipbert_cli.errors import MemoryFullError
from clipbert_cli.infer.text_batches import Budget
from clipbert_cli.memory import memory_advice
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.recipe.schema import TrainConfig
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.registry import TASKS
from clipbert_cli.train.model_options import apply_options

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def step(name: str, device: str, precision: Precision, *, recomputed: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and the gradients of one training step, on the CPU."""
    precision.choose_kernels()
    torch.manual_seed(0)
    task = task_of(name)
    model = ClipBert(small_config(), task.head()).train()
    apply_options(model, TrainConfig(activation_checkpointing=recomputed, epochs=1))
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(name)
    batch.frames.random_(generator=generator)
    batch.text_ids.random_(5, 60, generator=generator)
    model, batch = model.to(device), batch.to(torch.device(device))
    with precision.autocast(torch.device(device)):
        losses = task.loss(model(batch), batch)
    losses["loss"].backward()
    gradients = {key: each.grad.cpu() for key, each in model.named_parameters() if each.grad is not None}
    return losses["loss"].detach().cpu(), gradients


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_step_of_every_task_has_the_cpus_loss_and_gradients(name: str, device: str, recomputed: bool) -> None:
    exact = Precision("fp32", tf32=False)
    expected, gradients = step(name, "cpu", exact, recomputed=False)
    loss, found = step(name, device, exact, recomputed=recomputed)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert found.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()) + 1e-7)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_in_16_bits_stays_near_the_exact_one(name: str, device: str, precision: str) -> None:
    expected, gradients = step(name, "cpu", Precision("fp32"), recomputed=False)
    loss, found = step(name, device, Precision(precision), recomputed=False)
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    assert found.keys() == gradients.keys()
    assert all(each.dtype == torch.float32 for each in found.values())


def too_much(device: str, count: int) -> Tensor:
    """A tensor that no memory holds: a pebibyte for each of `count`."""
    return torch.empty(count * 2**50, dtype=torch.uint8, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_full_memory_is_one_message_with_the_settings_that_need_less(device: str) -> None:
    place = "the GPU's memory is full" if device == "cuda" else "memory is full"
    with pytest.raises(MemoryFullError, match=place) as caught, memory_advice(train=[("batch_size", 64)]):
        too_much(device, 1)
    assert "half of train.batch_size" in (caught.value.hint or "")
    assert "(now 64)" in (caught.value.hint or "")


@pytest.mark.parametrize("device", DEVICES)
def test_parts_that_do_not_fit_are_halved(device: str) -> None:
    budget, done = Budget(8), []

    def work(start: int, stop: int) -> None:
        if stop - start > 2:
            too_much(device, stop - start)
        done.append((start, stop))

    budget.parts(8, 1, work)
    assert done == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert torch.ones(3, device=device).sum().item() == 3  # the device goes on
