"""Weights of four families: everything accounted for, nothing taken in silence, nothing run."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_models import small_config
from torch import Tensor

from clipbert_cli.errors import WeightsError
from clipbert_cli.model import ClipBert, HeadSpec, load_weights
from clipbert_cli.model.weight_formats import DETECTOR, IMAGE_CLASSIFIER, OTHER_HEAD, OTHER_PART, TIED, UNUSED

State = dict[str, Tensor]
CONFIG = small_config()


def other_model(kind: str = "pretraining", outputs: int = 2) -> ClipBert:
    torch.manual_seed(11)
    model = ClipBert(CONFIG, HeadSpec(kind, outputs))  # type: ignore[arg-type]
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def to_detectron(state: State, prefix: str = "backbone.") -> State:
    """Our CNN's entries in detectron2's names (written apart from the package's own map)."""
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("cnn.")
        name = name.replace("convolution.", "").replace("normalization.", "norm.")
        name = name.replace("stem.embedder.", "stem.conv1.")
        if match := re.match(r"stages\.(\d)\.layers\.(\d)\.(shortcut|layer\.(\d))\.(.*)", name):
            layer = "shortcut" if match[3] == "shortcut" else f"conv{int(match[4]) + 1}"
            name = f"res{int(match[1]) + 2}.{match[2]}.{layer}.{match[5]}"
        renamed[prefix + name] = tensor
    return renamed


def backbone(model: ClipBert) -> State:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("cnn.st")}


def detector_heads() -> State:
    return {
        "proposal_generator.rpn_head.conv.weight": torch.ones(3, 3),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(15, 4),
        "roi_heads.box_head.fc1.bias": torch.ones(4),
    }


def to_bert(model: ClipBert, *, prefix: str = "bert.", old_names: bool = False) -> State:
    """Our transformer's entries in the names of Hugging Face's BertForPreTraining."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("encoder.", "pooler.")):
            renamed[prefix + name] = tensor
        elif name.startswith("text_embeddings."):
            renamed[prefix + name.removeprefix("text_")] = tensor
        elif name.startswith("head.transform."):
            renamed[name.replace("head.", "cls.predictions.")] = tensor
        elif name == "head.mlm_bias":
            renamed["cls.predictions.bias"] = tensor
        elif name.startswith("head.itm."):
            renamed[name.replace("head.itm.", "cls.seq_relationship.")] = tensor
    if "cls.predictions.bias" in renamed:
        renamed["cls.predictions.decoder.weight"] = renamed[prefix + "embeddings.word_embeddings.weight"].clone()
    if old_names:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in renamed.items()
        }
    return renamed


def to_original(model: ClipBert) -> State:
    """A checkpoint as the original ClipBERT wrote it, detector heads and copies of tied weights included."""
    state = {f"transformer.{name}": tensor for name, tensor in to_bert(model).items()}
    if "head.mlm_bias" in model.state_dict():
        state["transformer.cls.predictions.decoder.bias"] = state["transformer.cls.predictions.bias"].clone()
    state |= {
        f"cnn.feature.{name}": tensor for name, tensor in (to_detectron(backbone(model)) | detector_heads()).items()
    }
    state["cnn.grid_encoder.0.weight"] = model.cnn.grid.weight.detach()
    visual = "transformer.bert.visual_embeddings."
    state[visual + "position_embeddings.weight"] = torch.ones(24, 16)
    for name, tensor in model.visual_embeddings.state_dict().items():
        name = name.replace("row_embeddings", "row_position_embeddings")
        state[visual + name.replace("column_embeddings", "col_position_embeddings")] = tensor
    for name, tensor in model.head.state_dict().items():
        if name.startswith("layers."):
            state[f"transformer.classifier.{name.removeprefix('layers.')}"] = tensor
    return state


def save_torch(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def save_pickle(content: Any, path: Path, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def arrays(state: State) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_equal(model: ClipBert, source: ClipBert, names: tuple[str, ...]) -> None:
    assert names
    ours, theirs = model.state_dict(), source.state_dict()
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
    assert set(report.loaded) == set(model.state_dict())
    assert report.new == ()
    if wrap(to_original(source)).get("transformer.bert.pooler.dense.bias", torch.ones(1)).dtype == torch.float32:
        assert_equal(model, source, report.loaded)
    assert model.pooler.dense.bias.dtype == torch.float32


def test_pretraining_checkpoints_load_into_an_answering_model(tmp_path: Path, classifier: ClipBert) -> None:
    source, before = other_model(), {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    state = to_original(source)
    report = load_weights(classifier, save_torch(state, tmp_path / "model.pt"))
    assert set(report.new) == head_names(classifier)
    assert set(report.loaded) == set(classifier.state_dict()) - head_names(classifier)
    assert_equal(classifier, source, report.loaded)
    assert all(torch.equal(classifier.state_dict()[name], before[name]) for name in report.new)
    assert set(report.ignored[DETECTOR]) == {f"cnn.feature.{name}" for name in detector_heads()}
    assert report.ignored[UNUSED] == ("transformer.bert.visual_embeddings.position_embeddings.weight",)
    assert {*report.ignored[TIED], *report.ignored[OTHER_HEAD]} == {name for name in state if ".cls." in name}
    assert set(report.loaded) | set(report.new) == set(classifier.state_dict())
    assert len(report.loaded) + len(report.ignored_keys) == len(state)
    summary = report.summary()
    assert all(name in summary for name in report.new)
    assert "3 of detector heads" in summary


def test_a_head_of_another_shape_is_new_key_by_key(tmp_path: Path, classifier: ClipBert) -> None:
    path = save_torch(to_original(other_model("classifier", 9)), tmp_path / "model.pt")
    report = load_weights(classifier, path)
    assert report.new == ("head.layers.2.weight", "head.layers.2.bias")
    assert {"head.layers.0.weight", "head.layers.0.bias"} <= set(report.loaded)
    assert set(report.ignored[OTHER_HEAD]) == {"transformer.classifier.2.weight", "transformer.classifier.2.bias"}


@pytest.mark.parametrize("parts", ["bert", "cnn"])
def test_one_part_of_an_original_checkpoint_can_be_taken(parts: str, tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    report = load_weights(classifier, save_torch(to_original(source), tmp_path / "m.pt"), parts=parts)  # type: ignore[arg-type]
    assert_equal(classifier, source, report.loaded)
    assert all(name.startswith("cnn.") == (parts == "cnn") for name in report.loaded)
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
    expected = {name for name in classifier.state_dict() if name.startswith(("text_embeddings", "encoder", "pooler"))}
    assert set(report.loaded) == expected
    assert_equal(classifier, source, report.loaded)
    assert all(name.startswith(("head.", "visual_embeddings.")) for name in report.new)
    assert len(report.loaded) + len(report.ignored_keys) == len(state)


def test_the_masked_word_head_of_bert_serves_pretraining(tmp_path: Path, pretraining: ClipBert) -> None:
    source = other_model()
    report = load_weights(pretraining, save_torch(to_bert(source), tmp_path / "model.bin"), parts="bert")
    assert {"head.mlm_bias", "head.transform.dense.weight"} <= set(report.loaded)
    assert {name for name in report.new if name.startswith("head.")} == {"head.itm.weight", "head.itm.bias"}
    assert_equal(pretraining, source, report.loaded)


def test_a_masked_word_head_with_weights_of_its_own_is_refused(tmp_path: Path, pretraining: ClipBert) -> None:
    state = to_bert(other_model())
    state["cls.predictions.decoder.weight"] += 1
    with pytest.raises(WeightsError, match=r"decoder\.weight \(not a copy"):
        load_weights(pretraining, save_torch(state, tmp_path / "model.bin"), parts="bert")


# CNNs


@pytest.mark.parametrize("prefix", ["backbone.", ""])
@pytest.mark.parametrize(("suffix", "as_arrays"), [(".pth", False), (".pth", True), (".pkl", True)])
def test_detectron_cnns_load(prefix: str, suffix: str, as_arrays: bool, tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    state = to_detectron(backbone(source), prefix) | detector_heads() | {"pixel_mean": torch.ones(3, 1, 1)}
    content = {"model": arrays(state) if as_arrays else state, "__author__": "somebody", "iteration": 90000}
    path = (save_pickle if suffix == ".pkl" else save_torch)(content, tmp_path / f"R-50{suffix}")
    report = load_weights(classifier, path, parts="cnn")
    assert set(report.loaded) == set(backbone(classifier))
    assert report.new == ("cnn.grid.weight",)
    assert set(report.ignored[DETECTOR]) == set(detector_heads())
    assert_equal(classifier, source, report.loaded)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_caffe_cnns_load_with_their_folded_norms(protocol: int, tmp_path: Path, classifier: ClipBert) -> None:
    """The form of detectron2's ImageNetPretrained/MSRA/R-50.pkl: Caffe2 names, scale and shift only."""
    source = other_model()
    content: dict[str, np.ndarray] = {"fc1000_w": np.ones((10, 4), "f"), "fc1000_b": np.ones(10, "f")}
    content["conv1_w_momentum"] = np.ones(3, "f")
    for name, array in arrays(to_detectron(backbone(source), "")).items():
        if "running" in name:
            continue
        name = name.replace("stem.conv1.norm", "res_conv1_bn").replace("stem.conv1", "conv1")
        name = re.sub(r"\.norm$|\.norm(?=\.)", "_bn", name).replace("bn.weight", "bn_s").replace("bn.bias", "bn_b")
        name = name.replace(".shortcut", "_branch1").replace(".conv1", "_branch2a")
        name = name.replace(".conv2", "_branch2b").replace(".conv3", "_branch2c").replace(".weight", "_w")
        content[name.replace(".", "_")] = array
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res2_0_branch2a_bn_b"} <= set(content)
    report = load_weights(classifier, save_pickle(content, tmp_path / "R-50.pkl", protocol), parts="cnn")
    assert_equal(classifier, source, report.loaded)
    assert set(report.loaded) | set(report.implied) == set(backbone(classifier))
    assert set(report.ignored[IMAGE_CLASSIFIER]) == {"fc1000_w", "fc1000_b"}
    norm = classifier.cnn.stem.embedder.normalization
    scale, shift = norm.affine()
    assert torch.allclose(scale, norm.weight, atol=1e-5)
    assert torch.allclose(shift, norm.bias, atol=1e-5)
    assert "folded" in report.summary()


def test_norms_without_some_of_their_statistics_are_not_filled_in(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_detectron(backbone(other_model()))
    del state["backbone.res3.0.conv2.norm.running_var"]
    with pytest.raises(WeightsError, match=r"missing in the file \(1\): cnn.stages.1.layers.0.layer.1.normalization"):
        load_weights(classifier, save_torch({"model": state}, tmp_path / "R-50.pth"), parts="cnn")


def test_torchvisions_network_is_refused_by_name(tmp_path: Path, classifier: ClipBert) -> None:
    content = {"model": arrays(to_detectron(backbone(other_model()), "")), "__author__": "torchvision"}
    with pytest.raises(WeightsError, match="torchvision's weights") as error:
        load_weights(classifier, save_pickle(content, tmp_path / "R-50.pkl"), parts="cnn")
    assert "MSRA" in str(error.value.hint)


# This project's own


def test_own_models_load_into_another_head(tmp_path: Path, classifier: ClipBert) -> None:
    source = other_model()
    source.save_pretrained(tmp_path / "pretrained")
    for place in (tmp_path / "pretrained", tmp_path / "pretrained" / "model.safetensors"):
        report = load_weights(classifier, place)
        assert_equal(classifier, source, report.loaded)
        assert set(report.new) == head_names(classifier)
        assert set(report.ignored[OTHER_HEAD]) == head_names(source)


# What does not fit


def refuse(model: ClipBert, path: Path, message: str, **arguments: Any) -> WeightsError:
    """Loading fails with `message` and leaves the model as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, path, **arguments)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert caught.value.hint
    return caught.value


def test_an_entry_of_another_shape_is_named_with_both_shapes(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_original(other_model())
    state["transformer.bert.visual_embeddings.row_position_embeddings.weight"] = torch.ones(100, 16)
    refuse(
        classifier,
        save_torch(state, tmp_path / "m.pt"),
        r"visual_embeddings\.row_embeddings\.weight: \(100, 16\) in the file, \(4, 16\) in the model",
    )


def test_missing_and_unexpected_entries_are_named(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_original(other_model())
    del state["transformer.bert.pooler.dense.bias"]
    state["transformer.bert.encoder.layer.2.output.dense.bias"] = torch.ones(16)
    error = refuse(classifier, save_torch(state, tmp_path / "m.pt"), r"missing in the file \(1\): pooler.dense.bias")
    assert "unexpected in the file (1): transformer.bert.encoder.layer.2.output.dense.bias" in str(error)


def test_long_lists_are_cut(tmp_path: Path, classifier: ClipBert) -> None:
    state = {name: tensor for name, tensor in to_original(other_model()).items() if ".encoder." not in name}
    error = refuse(classifier, save_torch(state, tmp_path / "m.pt"), r"missing in the file \(32\)")
    assert "and 20 more" in str(error)


def test_integers_are_not_taken_for_weights(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_original(other_model())
    state["transformer.bert.pooler.dense.bias"] = torch.ones(16, dtype=torch.int64)
    refuse(classifier, save_torch(state, tmp_path / "m.pt"), "pooler.dense.bias")


def test_two_entries_for_one_place_are_refused(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_bert(other_model())
    state["bert.embeddings.LayerNorm.gamma"] = torch.ones(16)
    refuse(classifier, save_torch(state, tmp_path / "m.bin"), "a second text_embeddings", parts="bert")


@pytest.mark.parametrize(
    ("make", "parts", "message"),
    [
        (lambda: to_bert(other_model()), "cnn", "this is a Hugging Face BERT, expected a cnn"),
        (lambda: to_bert(other_model()), "all", "this is a Hugging Face BERT, expected a whole model"),
        (lambda: to_detectron(backbone(other_model())), "bert", "this is a detectron2 CNN, expected a bert"),
        (
            lambda: {"a.weight": torch.ones(1), "b.bias": torch.ones(1)},
            "all",
            "none of its 2 entries is known.*a.weight",
        ),
        (dict, "all", "holds no tensors"),
        (lambda: {"epoch": 3}, "all", "entry 'epoch' is of type int"),
        (lambda: [torch.ones(1)], "all", "holds a list"),
    ],
)
def test_another_kind_of_content_is_named(
    make: Callable, parts: str, message: str, tmp_path: Path, classifier: ClipBert
) -> None:
    path = save_torch(make(), tmp_path / "m.pt")
    with pytest.raises(WeightsError, match=message):
        load_weights(classifier, path, parts=parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b'{"message": "Not Found"}', "JSON text"),
        (b"", "is empty"),
        (b"\x00\x01garbage" * 20, "cannot be read as|or is damaged"),
    ],
)
def test_what_is_no_weights_is_said(
    suffix: str, content: bytes, message: str, tmp_path: Path, classifier: ClipBert
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    refuse(classifier, path, message)


@pytest.mark.parametrize("name", ["m.pt", "old.pt", "m.pkl", "model.safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_file_is_refused(name: str, share: float, tmp_path: Path, classifier: ClipBert) -> None:
    path, state = tmp_path / name, to_original(other_model())
    if name == "m.pkl":
        save_pickle(arrays(state), path)
    elif name == "model.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "m.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    error = refuse(classifier, path, "cannot be read as|or is damaged")
    assert name in str(error)


def test_places_without_weights_are_named(tmp_path: Path, classifier: ClipBert) -> None:
    refuse(classifier, tmp_path / "absent.pt", "absent.pt: no such file")
    (tmp_path / "vocab.txt").write_text("[PAD]")
    with pytest.raises(WeightsError, match=r"holds vocab\.txt; expected model\.safetensors or pytorch_model\.bin"):
        load_weights(classifier, tmp_path)
    with pytest.raises(WeightsError, match=r"unknown kind of file '\.txt'"):
        load_weights(classifier, tmp_path / "vocab.txt")


# Nothing is run


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".bin"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_file_that_wants_to_run_code_is_refused_and_nothing_runs(
    suffix: str, protocol: int, tmp_path: Path, classifier: ClipBert
) -> None:
    marker, path = tmp_path / "it_ran", tmp_path / f"evil{suffix}"
    content = {"model": {"res2.0.conv1.weight": Malicious(marker)}}
    if suffix == ".pkl":
        save_pickle(content, path, protocol)
    else:
        torch.save(content, path, pickle_protocol=max(protocol, 2))
    refuse(classifier, path, "refused|holds more than", parts="cnn")
    assert not marker.exists()


@pytest.mark.parametrize(
    "source",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfromstring\n.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13tR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0ccore.records\x93.",
        b"\x80\x04\x8c\x0bcollections\x8c\x09abc.Sized\x93.",
    ],
)
def test_the_unpickler_admits_arrays_and_containers_only(source: bytes, tmp_path: Path, classifier: ClipBert) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(source)
    refuse(classifier, path, "the pickle names .*: refused", parts="cnn")


def test_arrays_of_objects_are_not_weights(tmp_path: Path, classifier: ClipBert) -> None:
    content = {"res2.0.conv1.weight": np.array([1, "two", None], dtype=object)}
    refuse(classifier, save_pickle(content, tmp_path / "m.pkl"), "is of type ndarray", parts="cnn")
