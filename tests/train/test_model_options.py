"""What `train` asks of the model changes how it computes, not what."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig, TrainConfig, VisualConfig
from clipbert_cli.runtime import distributed
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.train.model_options import _in_buckets, apply_options
from clipbert_cli.types import Batch, Example


def model(config: TrainConfig, *, dropout: float = 0.1, layers: int = 2) -> ClipBert:
    torch.manual_seed(1)
    sizes = ModelConfig(
        visual=VisualConfig(layer_type="basic", depths=[1, 1, 1, 1], stem_size=8, hidden_sizes=[8, 8, 16, 16]),
        bert=BertConfigSection(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout=dropout,
            attention_dropout=dropout,
        ),
    )
    made = ClipBert(sizes, HeadSpec("classifier", 3)).train()
    apply_options(made, config)
    return made


def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(
        frames=torch.randint(0, 256, (2, 2, 1, 3, 64, 64), generator=generator, dtype=torch.uint8),
        text_ids=torch.randint(5, 30, (3, 7), generator=generator),
        text_mask=torch.ones(3, 7, dtype=torch.bool),
        text_item=torch.tensor([0, 0, 1]),
        examples=tuple(Example(str(number), "m", ("?",)) for number in range(3)),
    )


def gradients(made: ClipBert) -> dict[str, Tensor]:
    torch.manual_seed(3)
    made(batch()).logits.square().sum().backward()
    return {name: each.grad for name, each in made.named_parameters() if each.grad is not None}


def test_recomputed_activations_give_the_same_gradients_dropout_included() -> None:
    plain = gradients(model(TrainConfig()))
    recomputing = model(TrainConfig(activation_checkpointing=True))
    calls: list[int] = []
    recomputing.transformer.layers[0].qkv.register_forward_hook(lambda *_: calls.append(1))
    recomputing.visual_encoder.stages[1][0].branch[0].register_forward_hook(lambda *_: calls.append(1))
    recomputed = gradients(recomputing)
    assert len(calls) == 4  # each forward, and again in the backward pass
    assert plain.keys() == recomputed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert recomputing.state_dict().keys() == model(TrainConfig()).state_dict().keys()


@pytest.mark.filterwarnings("ignore")  # the profiler's
def test_recomputation_keeps_less_than_half_of_the_activations() -> None:
    kept = {
        recompute: held_bytes(TrainConfig(freeze=["visual.stem"], activation_checkpointing=recompute))
        for recompute in (True, False)
    }
    assert 0 < kept[True] < kept[False] / 2


def held_bytes(config: TrainConfig) -> int:
    """Return the bytes that the forward pass allocates and keeps for the backward pass."""
    made, given = model(config), batch()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        logits = made(given).logits
    assert logits.requires_grad
    return sum(event.self_cpu_memory_usage for event in profiler.events())


def test_a_frozen_cnn_has_no_gradient_and_everything_else_has_one() -> None:
    made = model(TrainConfig(freeze=["visual"]))
    found = gradients(made)
    assert not [name for name in found if name.startswith("visual_encoder.")]
    assert set(found) == {name for name, each in made.named_parameters() if each.requires_grad}


def test_every_trained_parameter_gets_a_gradient() -> None:
    """So that several processes need no search for unused parameters (`find_unused_parameters=False`)."""
    made = model(TrainConfig())
    assert set(gradients(made)) == {name for name, each in made.named_parameters() if each.requires_grad}


def test_convolutions_keep_their_weights_in_the_layout_that_they_like() -> None:
    weight = model(TrainConfig()).visual_encoder.stages[1][0].branch[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)  # the compiler's
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_computes_the_same_under_the_same_names() -> None:
    plain, compiled = (model(TrainConfig(compile=each), dropout=0.0, layers=1) for each in (False, True))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        expected = plain(batch()).logits
        torch.testing.assert_close(compiled(batch()).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world that sends gradients in parts of a few kilobytes; a single process does so, too."""
    monkeypatch.setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 2000)
    small = functools.partial(DistributedDataParallel, bucket_cap_mb=0.005)
    monkeypatch.setattr(distributed, "DistributedDataParallel", small)
    torch.compiler.reset()
    with torch._dynamo.config.patch(optimize_ddp=True):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        yield World(0, 2, torch.device("cpu"))
        dist.destroy_process_group()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("precision", "recomputed", "frozen"),
    [
        ("fp32", False, []),
        ("fp32", True, ["transformer.embeddings"]),
        ("bf16", False, ["visual.stem", "visual.0"]),
        ("bf16", True, []),
        ("fp16", True, ["visual.stem"]),
    ],
)
def test_a_compiled_model_of_several_processes_has_the_gradients_of_a_plain_one(
    small_buckets: World, precision: str, recomputed: bool, frozen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    plain = model(TrainConfig(freeze=frozen), dropout=0.0, layers=1)
    options = TrainConfig(compile=True, activation_checkpointing=recomputed, freeze=frozen)
    compiled = model(options, dropout=0.0, layers=1)
    wrapped = small_buckets.wrap(compiled)
    for made in (plain, wrapped):
        with Precision(precision).autocast(small_buckets.device):
            logits = made(batch()).logits
        logits.square().sum().backward()
    assert len(graphs) > 2 or recomputed
    assert graphs
    found = {name: each.grad for name, each in compiled.named_parameters() if each.grad is not None}
    wanted = {name: each.grad for name, each in plain.named_parameters() if each.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=scale * (1e-4 if precision == "fp32" else 0.05))


def test_texts_in_buckets_give_the_outputs_of_texts_as_they_are() -> None:
    """Seven tokens become eight, or as many as the model has positions for."""
    made = model(TrainConfig(), dropout=0.0)
    lengths: list[int] = []
    made.text_embeddings.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].shape[1]))
    expected = made(batch())
    for longest, padded in ((20, 8), (7, 7)):
        found = _in_buckets(made.forward, longest=longest)(batch())
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
        assert lengths[-1] == padded
