"""`train.freeze`: which parameters each name excludes from training, and which names are refused."""

from __future__ import annotations

import pytest
from small_models import small_config

from clipbert_cli.errors import RecipeError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.freezing import freeze
from clipbert_cli.model.heads import HeadSpec


@pytest.fixture
def model() -> ClipBert:
    return ClipBert(small_config(), HeadSpec("classifier", 7))


def frozen_modules(model: ClipBert, *names: str) -> set[str]:
    """The modules, by name and with as few words as tell them apart, whose parameters are all frozen."""
    freeze(model, model.freezable_parts(), names)
    parts = {
        "stem": model.visual_encoder.stem,
        **{f"stage {number}": stage for number, stage in enumerate(model.visual_encoder.stages)},
        "grid": model.visual_encoder.grid,
        "text": model.text_embeddings,
        "positions": model.visual_embeddings,
        **{f"layer {number}": layer for number, layer in enumerate(model.transformer.layers)},
        "pooler": model.transformer.pooler,
        "head": model.head,
    }
    frozen = {
        name: {parameter.requires_grad for parameter in part.parameters()} == {False} for name, part in parts.items()
    }
    trained = {
        name: {parameter.requires_grad for parameter in part.parameters()} == {True} for name, part in parts.items()
    }
    assert all(frozen[name] != trained[name] for name in parts)
    return {name for name in parts if frozen[name]}


VISUAL = {"stem", "stage 0", "stage 1", "stage 2", "stage 3", "grid"}
TRANSFORMER = {"text", "positions", "layer 0", "layer 1", "pooler"}


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        ([], set()),
        (["visual"], VISUAL),
        (["visual.stem"], {"stem"}),
        (["visual.2"], {"stage 2"}),
        (["visual.0-1"], {"stage 0", "stage 1"}),
        (["visual.1-1"], {"stage 1"}),
        (["visual.stem", "visual.0-3"], VISUAL - {"grid"}),
        (["visual.grid"], {"grid"}),
        (["transformer"], TRANSFORMER),
        (["transformer.embeddings"], {"text", "positions"}),
        (["transformer.1"], {"layer 1"}),
        (["transformer.0-1", "visual.0", "visual.0"], {"layer 0", "layer 1", "stage 0"}),
        (["visual", "transformer"], VISUAL | TRANSFORMER),
        (["head"], {"head"}),
    ],
)
def test_exactly_the_named_parts_are_frozen(model: ClipBert, names: list[str], frozen: set[str]) -> None:
    assert frozen_modules(model, *names) == frozen


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "visual.norm",
        "visual.4",
        "visual.2-4",
        "visual.1-0",
        "transformer.2",
        "transformer.0-999999999999",
        "",
        "0",
    ],
)
def test_an_unknown_part_is_refused_with_the_parts_that_exist(model: ClipBert, name: str) -> None:
    with pytest.raises(RecipeError, match="which is no part of this model") as caught:
        freeze(model, model.freezable_parts(), ["visual.stem", name])
    assert repr(name) in str(caught.value)
    assert caught.value.hint == (
        "its parts are visual, visual.stem, visual.0-3, visual.grid, "
        "transformer, transformer.embeddings, transformer.0-1, head"
    )


def test_a_model_with_nothing_left_to_train_is_refused(model: ClipBert) -> None:
    with pytest.raises(RecipeError, match=r"train\.freeze is \[visual, transformer, head\]: every parameter is frozen"):
        freeze(model, model.freezable_parts(), ["visual", "transformer", "head"])
