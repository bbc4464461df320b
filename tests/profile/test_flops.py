"""What is counted is what is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clipbert_cli.model import flops
from clipbert_cli.model.flops import flop_counter, matrix_product_rate


def test_a_layer_counts_forward_and_backward() -> None:
    layer, rows = nn.Linear(32, 16), torch.randn(8, 32, requires_grad=True)
    with flop_counter() as counter:
        layer(rows).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 8 * 32 * 16  # the layer, its weights' gradient, the rows'


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_counts_whichever_way_it_is_computed(dropout: float, masked: bool) -> None:
    query, key, value = (torch.randn(2, 4, length, 16, requires_grad=True) for length in (24, 40, 40))
    mask = torch.zeros(2, 1, 1, 40) if masked else None
    with flop_counter() as counter:
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * (2 * 4 * 24 * 40 * 16)  # three times two products


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_machine_has_a_rate(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setitem(flops.MATRIX_SIDE, "cpu", 64)
    assert matrix_product_rate(torch.device("cpu"), dtype) > 0
