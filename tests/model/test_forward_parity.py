"""The forward pass equals the original's, number by number, and these comparisons notice the usual mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

import clipbert_cli.model.resnet
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.resnet import FrozenBatchNorm2d
from clipbert_cli.types import Batch

pytestmark = pytest.mark.golden

SIZE_CASES = [(size, case["id"]) for size in reference.sizes() for case in reference.cases(size)]
SIZE_CASE_HEADS = [(size, case, head) for size, case in SIZE_CASES for head in reference.heads(size)]


@pytest.mark.parametrize(("size", "case_id"), SIZE_CASES)
def test_every_stage_agrees(size: str, case_id: str, golden_encoded: Callable[[str, str], reference.Encoded]) -> None:
    case = reference.case_named(size, case_id)
    values = reference.visual_values(golden_encoded(size, case_id), case)
    differences = reference.compare_visual(size, case, values)
    assert differences
    assert not reference.too_far(differences)


@pytest.mark.parametrize(("size", "case_id", "head"), SIZE_CASE_HEADS)
def test_every_head_agrees(
    size: str,
    case_id: str,
    head: str,
    golden_model: Callable[[str], ClipBert],
    golden_encoded: Callable[[str, str], reference.Encoded],
) -> None:
    model = reference.with_head(golden_model(size), head, size)
    differences = reference.head_parity(model, golden_encoded(size, case_id), size, head, case_id)
    assert differences
    assert not reference.too_far(differences)


@pytest.mark.parametrize("case_id", [case["id"] for case in reference.cases("tiny") if case.get("clips", 1) > 1])
def test_forward_is_encode_embed_and_score(case_id: str, golden_model: Callable[[str], ClipBert]) -> None:
    head = reference.heads("tiny")[-1]
    model = reference.with_head(golden_model("tiny"), head, "tiny")
    frames, texts = reference.frames("tiny", case_id), reference.texts("tiny", head, case_id)
    with torch.no_grad():
        whole = model(Batch(frames, texts.ids, texts.mask, texts.item, ()))
        parts = model.score(model.embed_text(texts.ids), texts.mask, model.encode_visual(frames)[texts.item])
    assert torch.equal(whole.logits, parts.logits)


# Mistakes that are easily made in this model. Section 2.2 of the set's README states how far they move the logits.


def tanh_gelu(model: ClipBert) -> None:
    for layer in model.transformer.layers:
        layer.activation = nn.GELU(approximate="tanh")


def layer_norm_epsilon(model: ClipBert) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def batch_norm_epsilon(model: ClipBert) -> None:
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0


def stride_in_3x3(model: ClipBert) -> None:
    for stage in list(model.visual_encoder.stages)[1:]:
        first, second, _ = stage[0].branch
        first.stride, second.stride = (1, 1), (2, 2)


def dilated_res5(model: ClipBert) -> None:
    for number, block in enumerate(model.visual_encoder.stages[-1]):
        for convolution in block.modules():
            if isinstance(convolution, nn.Conv2d):
                convolution.stride = (1, 1)
        if number:
            block.branch[1].dilation = block.branch[1].padding = (2, 2)


def dilated_last_blocks_only(model: ClipBert) -> None:
    for block in list(model.visual_encoder.stages[-1])[1:]:
        block.branch[1].dilation = block.branch[1].padding = (2, 2)


def rows_for_columns(model: ClipBert) -> None:
    part = model.visual_embeddings
    part.row_embeddings, part.column_embeddings = part.column_embeddings, part.row_embeddings


def no_flip_to_bgr(model: ClipBert) -> None:
    weight = model.visual_encoder.stem.conv1.weight
    weight.data = weight.data.flip(1)


def zero_padding_after_the_mean(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    right = clipbert_cli.model.resnet.normalise

    def wrong(frames: Tensor, *arguments: Any, **named: Any) -> Tensor:
        return right(frames, *arguments, **named) * (frames != 0).any(dim=1, keepdim=True)

    monkeypatch.setattr(clipbert_cli.model.resnet, "normalise", wrong)


def first_frame_for_the_mean(model: ClipBert) -> None:
    model.visual_embeddings.register_forward_pre_hook(lambda _module, inputs: (inputs[0][:, :1],))


def padding_seen(model: ClipBert) -> None:
    right = model.fuse
    model.fuse = lambda text, mask, visual: right(text, torch.ones_like(mask), visual)  # type: ignore[method-assign]


def pools_round_up(model: ClipBert) -> None:
    model.visual_encoder.pool.ceil_mode = model.visual_encoder.stem.pool.ceil_mode = True


def ignores_token_type(model: ClipBert) -> None:
    model.visual_embeddings.token_type_embeddings.weight.data.zero_()


def any_case(case: dict[str, Any]) -> bool:
    return True


MISTAKES: dict[str, tuple[Callable[..., None], Callable[[dict[str, Any]], bool]]] = {
    "tanh_gelu": (tanh_gelu, any_case),
    "layer_norm_epsilon": (layer_norm_epsilon, any_case),
    "batch_norm_epsilon": (batch_norm_epsilon, any_case),
    "stride_in_3x3": (stride_in_3x3, any_case),
    "dilated_res5": (dilated_res5, any_case),
    "dilated_last_blocks_only": (dilated_last_blocks_only, any_case),
    "rows_for_columns": (rows_for_columns, any_case),
    "no_flip_to_bgr": (no_flip_to_bgr, any_case),
    "zero_padding_after_the_mean": (zero_padding_after_the_mean, lambda case: bool(case.get("valid"))),
    "first_frame_for_the_mean": (first_frame_for_the_mean, lambda case: case["T"] > 1),
    "padding_seen": (padding_seen, any_case),
    "pools_round_up": (pools_round_up, lambda case: any(case[side] // 32 % 2 for side in "hw")),
    "ignores_token_type": (ignores_token_type, any_case),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, shows_in = MISTAKES[mistake]
    size, head = "tiny", next(each for each in reference.heads("tiny") if each != "pretrain")
    shown = [case for case in reference.cases(size) if shows_in(case)]
    if not shown:
        pytest.skip("no case of this golden set shows this mistake")
    case = min(shown, key=lambda each: each["B"] * each["T"] * each.get("clips", 1) * each["h"] * each["w"])
    model = reference.own_model(head, size)
    names = change.__code__.co_varnames[: change.__code__.co_argcount]
    change(model, **({"monkeypatch": monkeypatch} if "monkeypatch" in names else {}))
    seen = reference.too_far(reference.parity(model, size, head, case["id"]))
    print(f"{mistake}, case {case['id']}: {', '.join(map(str, itertools.islice(seen, 3)))}")
    assert seen
