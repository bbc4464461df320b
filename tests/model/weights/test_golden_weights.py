"""Checkpoints with the entries of the published ones load, and the report accounts for every entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import torch
from goldens import golden_folder, weight

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.freezing import freeze
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import DETECTOR, OTHER_HEAD, TIED, UNUSED, recognise
from clipbert_cli.model.weights.transfer import load_weights
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
    shapes = {name: list(tensor.shape) for name, tensor in split_projections(model.state_dict()).items()}
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
            assert model.get_parameter(reference.own_name(name)).requires_grad == requires_grad, name
        else:
            assert key in dict(model.named_buffers()), name
    assert found == shapes


@pytest.mark.parametrize("size", reference.sizes())
def test_the_pretraining_checkpoint_loads_for_finetuning(size: str, tmp_path: Path) -> None:
    """Only the head is reported as new; only the detector and entries without use here are reported as ignored."""
    names = reference.entries("pretrain", size)
    loaded = {key: name for name in names if (key := reference.own_name(name))}
    # The published size differs in widths and in the number of layers only, so three of its entries are enough.
    few = (
        "visual_encoder.grid.weight",
        "visual_encoder.stages.3.2.branch.conv3.norm.running_var",
        "transformer.pooler.weight",
    )
    filled = {loaded[key] for key in few} if size == "base" else set(loaded.values())
    path = reference.write_checkpoint(tmp_path / "pretrained.pt", "pretrain", size, filled=filled)
    model = ClipBert(reference.model_config(size), reference.head_spec("open_ended_qa", size))
    report = load_weights(model, path)
    assert set(report.new) == {name for name in model.state_dict() if name.startswith("head.")}
    assert set(report.ignored[DETECTOR]) == {name for name in names if name.startswith(DETECTOR_ENTRIES)}
    assert report.ignored[UNUSED] == ("transformer.bert.visual_embeddings.position_embeddings.weight",)
    assert {*report.ignored[OTHER_HEAD], *report.ignored[TIED]} == {name for name in names if ".cls." in name}
    assert set(report.ignored) == {DETECTOR, UNUSED, OTHER_HEAD, TIED}
    assert set(report.loaded) | set(report.new) == set(split_projections(model.state_dict()))
    state = model.state_dict()
    compared = [name for name in filled if reference.values_of(state, name) is not None and ".cls." not in name]
    assert len(compared) >= len(few)
    for name in compared:
        expected = torch.from_numpy(weight(name, names[name], salt=reference.salt(size)))
        assert torch.equal(reference.values_of(state, name), expected), name
