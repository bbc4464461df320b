"""Checkpoints with the entries of the published ones load, and everything in them is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import torch
from goldens import golden_folder, weight

from clipbert_cli.model import ClipBert, load_weights
from clipbert_cli.model.freezing import freeze
from clipbert_cli.model.weights.formats import DETECTOR, OTHER_HEAD, TIED, UNUSED, original, recognise
from clipbert_cli.recipe.load import load_recipe

pytestmark = pytest.mark.golden

DETECTOR_ENTRIES = ("cnn.feature.proposal_generator.", "cnn.feature.roi_heads.")


def keys_files() -> list[tuple[str, str]]:
    names = sorted(path.stem.removeprefix("keys_") for path in (golden_folder() / "model").glob("keys_*.json"))
    return [(name.rpartition("_")[0], name.rpartition("_")[2]) for name in names]


@pytest.mark.parametrize(("head", "size"), keys_files())
def test_every_entry_of_an_original_checkpoint_is_known(head: str, size: str) -> None:
    form = recognise(reference.entries(head, size))
    assert form.name == "original ClipBERT checkpoint"
    with torch.device("meta"):
        model = ClipBert(reference.model_config(size), reference.head_spec(head, size))
    freeze(model, model.freezable_parts(), load_recipe("msrvtt_qa", data_root=Path(".")).train.freeze)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {}
    for row in reference.golden_json(f"model/keys_{head}_{size}.json")["entries"]:
        name, shape, _, _, requires_grad, used = row
        key = form.rename(name)
        assert (key is None) == (form.reason_to_ignore(name) is not None), name
        if key is None:
            assert not used or name in reference.golden_json(f"model/keys_{head}_{size}.json")["tied"], name
            continue
        assert used, name
        found[key] = shape
        if requires_grad is not None:
            assert model.get_parameter(key).requires_grad == requires_grad, name
        else:
            assert key in dict(model.named_buffers()), name
    assert found == shapes


@pytest.mark.parametrize("size", reference.sizes())
def test_the_pretraining_checkpoint_loads_for_finetuning(size: str, tmp_path: Path) -> None:
    """The report names exactly the head as new, and the detector (and what has no use here) as ignored."""
    path = reference.write_checkpoint(tmp_path / "pretrained.pt", "pretrain", size)
    try:
        model = ClipBert(reference.model_config(size), reference.head_spec("open_ended_qa", size))
        report = load_weights(model, path)
    finally:
        path.unlink()  # 850 MB in base size
    names = reference.entries("pretrain", size)
    assert set(report.new) == {name for name in model.state_dict() if name.startswith("head.")}
    assert set(report.ignored[DETECTOR]) == {name for name in names if name.startswith(DETECTOR_ENTRIES)}
    assert report.ignored[UNUSED] == ("transformer.bert.visual_embeddings.position_embeddings.weight",)
    assert {*report.ignored[OTHER_HEAD], *report.ignored[TIED]} == {name for name in names if ".cls." in name}
    assert set(report.ignored) == {DETECTOR, UNUSED, OTHER_HEAD, TIED}
    assert set(report.loaded) | set(report.new) == set(model.state_dict())
    state = model.state_dict()
    loaded = {original(name): name for name in names}
    for key in (
        "visual_encoder.grid.weight",
        "visual_encoder.stages.3.2.branch.conv3.norm.running_var",
        "pooler.dense.weight",
    ):
        expected = weight(loaded[key], names[loaded[key]], salt=reference.salt(size))
        assert torch.equal(state[key], torch.from_numpy(expected)), key
    print(report.summary())
