"""Weights of four families: everything accounted for, nothing taken in silence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_weights import (
    CONFIG,
    backbone,
    detector_heads,
    other_model,
    save_torch,
    to_bert,
    to_detectron,
    to_original,
)
from safetensors.torch import save_file

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.pretrained import save_pretrained
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import DETECTOR, OTHER_HEAD, OTHER_PART, TIED, UNUSED
from clipbert_cli.model.weights.transfer import load_weights


def assert_equal(model: ClipBert, source: ClipBert, names: tuple[str, ...]) -> None:
    assert names
    ours, theirs = split_projections(model.state_dict()), split_projections(source.state_dict())
    ours, theirs = ours | model.state_dict(), theirs | source.state_dict()
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name


def head_names(model: ClipBert) -> set[str]:
    return {name for name in model.state_dict() if name.startswith("head.")}


# The original's checkpoints


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"model": state, "optimizer": {"lr": 1.0}, "step": 3},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor.half() for name, tensor in state.items()},
    ],
    ids=["plain", "ordered", "wrapped", "module", "half"],
)
def test_original_checkpoints_load_whatever_their_wrapping(wrap: Callable, tmp_path: Path) -> None:
    source, model = other_model(), ClipBert(CONFIG, HeadSpec("pretraining", 2))
    report = load_weights(model, save_torch(wrap(to_original(source)), tmp_path / "model.pt"))
    assert set(report.loaded) == set(split_projections(model.state_dict()))
    assert report.new == ()
    if wrap(to_original(source)).get("transformer.bert.pooler.dense.bias", torch.ones(1)).dtype == torch.float32:
        assert_equal(model, source, report.loaded)
    assert model.transformer.pooler.bias.dtype == torch.float32


def test_pretraining_checkpoints_load_into_an_answering_model(tmp_path: Path, classifier: ClipBert) -> None:
    source, before = other_model(), {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    state = to_original(source)
    report = load_weights(classifier, save_torch(state, tmp_path / "model.pt"))
    assert set(report.new) == head_names(classifier)
    assert set(report.loaded) == set(split_projections(classifier.state_dict())) - head_names(classifier)
    assert_equal(classifier, source, report.loaded)
    assert all(torch.equal(classifier.state_dict()[name], before[name]) for name in report.new)
    assert set(report.ignored[DETECTOR]) == {f"cnn.feature.{name}" for name in detector_heads()}
    assert report.ignored[UNUSED] == ("transformer.bert.visual_embeddings.position_embeddings.weight",)
    assert {*report.ignored[TIED], *report.ignored[OTHER_HEAD]} == {name for name in state if ".cls." in name}
    assert set(report.loaded) | set(report.new) == set(split_projections(classifier.state_dict()))
    assert len(report.loaded) + sum(map(len, report.ignored.values())) == len(state)
    summary = report.summary()
    assert all(name in summary for name in report.new)
    assert "3 of detector heads" in summary


def test_a_head_of_another_shape_is_new_key_by_key(tmp_path: Path, classifier: ClipBert) -> None:
    path = save_torch(to_original(other_model("classifier", 9)), tmp_path / "model.pt")
    report = load_weights(classifier, path)
    assert report.new == ("head.layers.2.weight", "head.layers.2.bias")
    assert {"head.layers.0.weight", "head.layers.0.bias"} <= set(report.loaded)
    assert set(report.ignored[OTHER_HEAD]) == {"transformer.classifier.2.weight", "transformer.classifier.2.bias"}


@pytest.mark.parametrize("parts", ["bert", "visual"])
def test_one_part_of_an_original_checkpoint_can_be_taken(parts: str, tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    report = load_weights(classifier, save_torch(to_original(source), tmp_path / "m.pt"), parts=parts)  # type: ignore[arg-type]
    assert_equal(classifier, source, report.loaded)
    assert all(name.startswith("visual_encoder.") == (parts == "visual") for name in report.loaded)
    assert report.ignored[OTHER_PART]


# Hugging Face BERT


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_bert_folders_load(prefix: str, old_names: bool, file: str, tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    state = to_bert(source, prefix=prefix, old_names=old_names)
    state[f"{prefix}embeddings.position_ids"] = torch.arange(24)[None]
    (save_file if file.endswith("safetensors") else torch.save)(state, tmp_path / file)
    (tmp_path / "config.json").write_text("{}")
    report = load_weights(classifier, tmp_path, parts="bert")
    names = split_projections(classifier.state_dict())
    expected = {name for name in names if name.startswith(("text_embeddings", "transformer"))}
    assert set(report.loaded) == expected
    assert_equal(classifier, source, report.loaded)
    assert all(name.startswith(("head.", "visual_embeddings.")) for name in report.new)
    assert len(report.loaded) + sum(map(len, report.ignored.values())) == len(state)


def test_the_masked_word_head_of_bert_serves_pretraining(tmp_path: Path, pretraining: ClipBert) -> None:
    source = other_model()
    report = load_weights(pretraining, save_torch(to_bert(source), tmp_path / "model.bin"), parts="bert")
    assert {"head.mlm_bias", "head.transform.weight"} <= set(report.loaded)
    assert {name for name in report.new if name.startswith("head.")} == {"head.itm.weight", "head.itm.bias"}
    assert_equal(pretraining, source, report.loaded)


def test_a_masked_word_head_with_weights_of_its_own_is_refused(tmp_path: Path, pretraining: ClipBert) -> None:
    state = to_bert(other_model())
    state["cls.predictions.decoder.weight"] += 1
    with pytest.raises(WeightsError, match=r"decoder\.weight \(not a copy"):
        load_weights(pretraining, save_torch(state, tmp_path / "model.bin"), parts="bert")


# CNNs


@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_detectron_cnns_load(prefix: str, tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    state = to_detectron(backbone(source), prefix) | detector_heads() | {"pixel_mean": torch.ones(3, 1, 1)}
    content = {"model": state, "__author__": "somebody", "iteration": 90000}
    report = load_weights(classifier, save_torch(content, tmp_path / "R-50.pth"), parts="visual")
    assert set(report.loaded) == set(backbone(classifier))
    assert report.new == ("visual_encoder.grid.weight",)
    assert set(report.ignored[DETECTOR]) == set(detector_heads())
    assert_equal(classifier, source, report.loaded)


def test_norms_without_some_of_their_statistics_are_not_filled_in(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_detectron(backbone(other_model()))
    del state["backbone.res3.0.conv2.norm.running_var"]
    with pytest.raises(WeightsError, match=r"missing in the file \(1\): visual_encoder.stages.1.0.branch.conv2.norm"):
        load_weights(classifier, save_torch({"model": state}, tmp_path / "R-50.pth"), parts="visual")


@pytest.mark.parametrize(
    "names",
    [
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.2.bn3.bias", "fc.weight"],
        ["module.encoder_q.conv1.weight", "module.encoder_q.layer1.0.conv1.weight", "module.queue"],
        ["visual.conv1.weight", "visual.layer1.0.conv1.weight", "token_embedding.weight"],
        ["backbone.body.conv1.weight", "backbone.body.layer1.0.conv1.weight", "rpn.head.conv.weight"],
        [
            "resnet.embedder.embedder.convolution.weight",
            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
            "classifier.1.weight",
        ],
    ],
    ids=["torchvision", "MoCo", "CLIP", "Faster R-CNN", "transformers"],
)
def test_files_of_torchvisions_kind_of_resnet_say_why_they_cannot_serve(
    tmp_path: Path, classifier: ClipBert, names: list[str]
) -> None:
    file = save_torch({name: torch.zeros(2) for name in names}, tmp_path / "resnet50.pth")
    with pytest.raises(WeightsError, match=r"torchvision's kind of ResNet.*cannot serve") as error:
        load_weights(classifier, file, parts="visual")
    assert "R-50.pth" in str(error.value.hint)


# This project's own


def test_own_models_load_into_another_head(tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    save_pretrained(source, tmp_path / "pretrained")
    for place in (tmp_path / "pretrained", tmp_path / "pretrained" / "model.safetensors"):
        report = load_weights(classifier, place)
        assert_equal(classifier, source, report.loaded)
        assert set(report.new) == head_names(classifier)
        assert set(report.ignored[OTHER_HEAD]) == head_names(source)
