"""Weights that do not fit are refused by name and leave the model as it was, and no code in their files is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_vision_models import write_vision_model
from made_weights import backbone, other_model, save_torch, to_bert, to_detectron, to_original
from safetensors.torch import save_file

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.weights.transfer import load_weights

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
    state["transformer.bert.visual_embeddings.row_position_embeddings.weight"] = torch.ones(4, 16)
    refuse(
        classifier,
        save_torch(state, tmp_path / "m.pt"),
        r"visual_embeddings\.row_embeddings\.weight: float32 \(4, 16\) in the file, float32 \(100, 16\) in the model",
    )


def test_missing_and_unexpected_entries_are_named(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_original(other_model())
    del state["transformer.bert.pooler.dense.bias"]
    state["transformer.bert.encoder.layer.2.output.dense.bias"] = torch.ones(16)
    error = refuse(
        classifier, save_torch(state, tmp_path / "m.pt"), r"missing in the file \(1\): transformer.pooler.bias"
    )
    assert "unexpected in the file (1): transformer.bert.encoder.layer.2.output.dense.bias" in str(error)


@pytest.mark.parametrize("kind", ["vit", "siglip", "beit", "swin", "convnext"])
@pytest.mark.parametrize("parts", ["all", "bert", "visual"])
def test_a_vision_model_is_told_from_a_bert_and_a_resnet(
    tmp_path: Path, classifier: ClipBert, kind: str, parts: str
) -> None:
    write_vision_model(kind, tmp_path)
    error = refuse(classifier, tmp_path, f"this is a vision model, a {kind} of transformers, expected", parts=parts)
    assert error.hint == "name its folder in model.visual.weights and set model.visual.kind to hf"


def test_long_lists_are_cut(tmp_path: Path, classifier: ClipBert) -> None:
    state = {name: tensor for name, tensor in to_original(other_model()).items() if ".encoder." not in name}
    error = refuse(classifier, save_torch(state, tmp_path / "m.pt"), r"missing in the file \(32\)")
    assert "and 12 more" in str(error)


@pytest.mark.parametrize(
    "kind", [torch.int64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_other_numbers_are_not_taken_for_weights(tmp_path: Path, classifier: ClipBert, kind: torch.dtype) -> None:
    state = to_original(other_model())
    state["transformer.bert.pooler.dense.bias"] = torch.ones(16).to(kind)
    name = str(kind).removeprefix("torch.")
    message = rf"type \(1\): transformer.pooler.bias: {name} \(16,\) in the file, float32 \(16,\) in the model"
    error = refuse(classifier, save_torch(state, tmp_path / "m.pt"), message)
    assert "float32" in (error.hint or "")


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sparse": torch.Tensor.to_sparse,
    "in rows": torch.Tensor.to_sparse_csr,
    "in columns": torch.Tensor.to_sparse_csc,
    "nested": lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
    "without values": lambda tensor: tensor.to("meta"),
}


@pytest.mark.filterwarnings("ignore:Sparse|The PyTorch API of nested")
@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_other_tensors_than_dense_ones_are_not_weights(
    tmp_path: Path, classifier: ClipBert, make: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    state = to_original(other_model())
    name = "transformer.bert.pooler.dense.weight"
    state[name] = make(state[name])
    refuse(classifier, save_torch(state, tmp_path / "m.pt"), f"entry '{name}' is a sparse or nested tensor")


def test_two_entries_for_one_place_are_refused(tmp_path: Path, classifier: ClipBert) -> None:
    state = to_bert(other_model())
    state["bert.embeddings.LayerNorm.gamma"] = torch.ones(16)
    refuse(classifier, save_torch(state, tmp_path / "m.bin"), "a second text_embeddings", parts="bert")


@pytest.mark.parametrize(
    ("make", "parts", "message"),
    [
        (lambda: to_bert(other_model()), "visual", "this is a Hugging Face BERT, expected a visual encoder"),
        (lambda: to_bert(other_model()), "all", "this is a Hugging Face BERT, expected a whole model"),
        (lambda: to_detectron(backbone(other_model())), "bert", "this is a detectron2 ResNet, expected a BERT"),
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


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
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


@pytest.mark.parametrize("name", ["m.pt", "old.pt", "model.safetensors"])
@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_file_is_refused(name: str, share: float, tmp_path: Path, classifier: ClipBert) -> None:
    path, state = tmp_path / name, to_original(other_model())
    if name == "model.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "m.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    error = refuse(classifier, path, "cannot be read as|or is damaged")
    assert name in str(error)


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f'{{"a":{ENTRY},"a":{ENTRY}}}', "its header: not usable JSON: one object has the name 'a' twice"),
        (f'{{"a":{ENTRY},"\\u0061":{ENTRY}}}', "the name 'a' twice"),
        ('{"a":{"dtype":"F32","dtype":"I64","shape":[1],"data_offsets":[0,4]}}', "the name 'dtype' twice"),
        (f'{{"__metadata__":{{"b":"1","b":"2"}},"a":{ENTRY}}}', "the name 'b' twice"),
        ("[" * 1000 + "]" * 1000, "more than 64"),
        (f'{{"a":{ENTRY}' + " " * 5_000_000 + "}", "its header of 5,000,054 bytes is longer than the 4,194,304"),
    ],
)
def test_a_header_that_readers_understand_differently_or_without_end_is_refused(
    header: str, message: str, tmp_path: Path, classifier: ClipBert
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    refuse(classifier, path, message)


def test_places_without_weights_are_named(tmp_path: Path, classifier: ClipBert) -> None:
    refuse(classifier, tmp_path / "absent.pt", "absent.pt: no such file")
    (tmp_path / "R-50.pkl").write_bytes(b"\x80\x02}.")
    with pytest.raises(WeightsError, match=r"unknown kind of file '\.pkl'"):
        load_weights(classifier, tmp_path / "R-50.pkl")
    (tmp_path / "R-50.pkl").unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]")
    expected = r"expected model\.safetensors or model\.safetensors\.index\.json or pytorch_model\.bin"
    with pytest.raises(WeightsError, match=rf"holds vocab\.txt; {expected}"):
        load_weights(classifier, tmp_path)
    with pytest.raises(WeightsError, match=r"unknown kind of file '\.txt'"):
        load_weights(classifier, tmp_path / "vocab.txt")


# Nothing is run


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_wants_to_run_code_is_refused_and_nothing_runs(
    suffix: str, protocol: int, tmp_path: Path, classifier: ClipBert
) -> None:
    marker, path = tmp_path / "it_ran", tmp_path / f"evil{suffix}"
    content = {"model": {"res2.0.conv1.weight": Malicious(marker)}}
    torch.save(content, path, pickle_protocol=protocol)
    refuse(classifier, path, "holds more than", parts="visual")
    assert not marker.exists()
