"""The scorer of inference gives the numbers of `ClipBert.score`."""

from __future__ import annotations

import pytest
import torch
from small_models import small_config

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.transformer import split_projections


def model_of(kind: str, outputs: int, layers: int) -> ClipBert:
    torch.manual_seed(0)
    config = small_config()
    bert = config.bert.model_copy(update={"num_hidden_layers": layers, "initializer_range": 0.3})
    model = ClipBert(config.model_copy(update={"bert": bert}), HeadSpec(kind, outputs)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # biases and LayerNorms too
            if not name.startswith("visual_encoder.") and parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("kind", "outputs"), [("classifier", 7), ("pretraining", 2)])
@torch.inference_mode()
def test_the_scores_are_the_models(kind: str, outputs: int, layers: int) -> None:
    model = model_of(kind, outputs, layers)
    ids, visual = torch.randint(5, 60, (4, 6)), torch.randn(4, 1, 9, 16)
    text = model.embed_text(ids)
    mask = torch.ones_like(ids, dtype=torch.bool)
    scorer = model.scorer()
    scores = scorer(scorer.project(text), scorer.project(visual[:, 0]))
    expected = model.score(text, mask, visual).logits[:, 0]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["query", "key", "value"])
@torch.inference_mode()
def test_every_token_counts_in_the_last_layer(where: str) -> None:
    """Only the first token's output is computed there, but from all tokens."""
    model = model_of("classifier", 3, 2)
    projections = split_projections(dict(model.transformer.layers[-1].named_parameters()))
    text, visual = model.embed_text(torch.randint(5, 60, (2, 4))), torch.randn(2, 9, 16)

    def scores() -> torch.Tensor:
        scorer = model.scorer()
        return scorer(scorer.project(text), scorer.project(visual))

    before = scores()
    projections[f"{where}.weight"].mul_(1.5)
    assert not torch.allclose(before, scores(), atol=1e-4)


@torch.inference_mode()
def test_low_precision_stays_near_and_scores_are_float32() -> None:
    model = model_of("classifier", 3, 2)
    text, visual = model.embed_text(torch.randint(5, 60, (2, 4))), torch.randn(2, 9, 16)
    exact, low = model.scorer(), model.scorer(torch.bfloat16)
    expected = exact(exact.project(text), exact.project(visual))
    found = low(low.project(text), low.project(visual))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    assert not torch.equal(found, expected)
