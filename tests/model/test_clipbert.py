"""The model's properties: shapes, clips, gradients, frozen parts, saving."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from operations import Operations
from small_models import small_config

from clipbert_cli.errors import WeightsError
from clipbert_cli.model import clipbert
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.flops import flop_counter
from clipbert_cli.model.freezing import freeze
from clipbert_cli.model.heads import Fused, HeadSpec
from clipbert_cli.model.pretrained import from_pretrained, save_pretrained
from clipbert_cli.model.resnet import BRANCHES, ConvNorm, FrozenBatchNorm2d, GridResNet
from clipbert_cli.model.transformer import ACTIVATIONS, split_projections
from clipbert_cli.recipe.schema import ModelConfig, VisualConfig
from clipbert_cli.recipe.settings import annotation_at, bare
from clipbert_cli.task.pooling import POOLS
from clipbert_cli.train.model_options import recompute_activations
from clipbert_cli.types import Batch


@pytest.mark.parametrize(
    ("key", "choices"),
    [("model.bert.hidden_act", ACTIVATIONS), ("model.visual.layer_type", BRANCHES), ("objective.pool", POOLS)],
)
def test_every_choice_of_the_schema_can_be_built(key: str, choices: dict[str, Any]) -> None:
    assert set(get_args(bare(annotation_at(tuple(key.split(".")))))) == set(choices)


def test_every_text_row_has_scores_for_every_clip(classifier: ClipBert, pretraining: ClipBert, batch: Batch) -> None:
    outputs = classifier(batch)
    assert outputs.logits.shape == (3, 3, 7)
    assert outputs.mlm_logits is None
    outputs = pretraining(batch)
    assert outputs.logits.shape == (3, 3, 2)
    assert outputs.mlm_logits.shape == (4, 3, 60)


@pytest.mark.parametrize("vocabulary", [57, 60, 63, 64])
def test_wanted_words_have_the_scores_that_they_have_among_all_words(
    vocabulary: int, config: ModelConfig, batch: Batch
) -> None:
    """Whatever the width of the vocabulary is; a product with all tokens, written out, is the reference."""
    torch.manual_seed(0)
    bert = config.bert.model_copy(update={"vocab_size": vocabulary, "initializer_range": 0.3})
    model = ClipBert(config.model_copy(update={"bert": bert}), HeadSpec("pretraining", 2)).eval()
    batch = dataclasses.replace(batch, text_ids=batch.text_ids.clamp(max=vocabulary - 1))
    head, embeddings = model.head, model.text_embeddings.word_embeddings.weight
    with torch.no_grad():
        head.mlm_bias.normal_()
    fused: list[Fused] = []
    head.register_forward_pre_hook(lambda _module, inputs: fused.append(inputs[0]))
    outputs = model(batch)
    hidden = head.norm(head.activation(head.transform(fused[0].sequence[:, :9])))  # (N*K, L, D)
    everything = (hidden @ embeddings.T + head.mlm_bias).unflatten(0, (3, 3))  # (N, K, L, W)
    expected = torch.stack([everything[row, :, token] for row, token in batch.word_positions.T.tolist()])
    torch.testing.assert_close(outputs.mlm_logits, expected, rtol=1e-5, atol=1e-5)
    found, wanted = (
        torch.autograd.grad(each.square().sum(), [embeddings, head.mlm_bias, head.transform.weight], retain_graph=True)
        for each in (outputs.mlm_logits, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 5, 27])
def test_the_work_for_words_is_that_of_the_wanted_ones(count: int, pretraining: ClipBert, batch: Batch) -> None:
    def cost(words: torch.Tensor | None) -> int:
        with flop_counter() as counter, torch.no_grad():
            pretraining(dataclasses.replace(batch, word_positions=words))
        return counter.get_total_flops()

    words = torch.ones(3, 9).nonzero()[:count].T
    # Width 16, and 60 words padded to 64; a multiplication and an addition count as two, and there are 3 clips.
    assert cost(words) - cost(None) == count * 3 * 2 * 16 * (16 + 64)


def test_batched_clips_equal_a_loop_over_clips_and_rows(classifier: ClipBert, batch: Batch) -> None:
    with torch.no_grad():
        together = classifier(batch).logits
        for row, item in enumerate(batch.text_item.tolist()):
            for clip in range(3):
                alone = dataclasses.replace(
                    batch,
                    frames=batch.frames[item : item + 1, clip : clip + 1],
                    text_ids=batch.text_ids[row : row + 1],
                    text_mask=batch.text_mask[row : row + 1],
                    text_item=torch.tensor([0]),
                )
                assert torch.allclose(classifier(alone).logits[0, 0], together[row, clip], atol=1e-6)


@pytest.mark.parametrize("most", [1, 2, 5, 12])
def test_more_frames_than_a_tensor_may_hold_are_encoded_in_parts(
    most: int, classifier: ClipBert, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outputs() -> tuple[torch.Tensor, ...]:
        found = classifier(batch).logits
        parameters = [each for each in classifier.visual_encoder.parameters() if each.requires_grad]
        return found, *torch.autograd.grad(found.square().sum(), parameters)

    expected = outputs()
    sizes: list[int] = []
    classifier.visual_encoder.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(clipbert, "MOST_NUMBERS", most * classifier.visual_encoder.frame_memory(128).largest)
    for found, wanted in zip(outputs(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert sum(sizes) == 12
    assert max(sizes) == most


def test_each_row_reads_its_own_media_item(classifier: ClipBert, batch: Batch) -> None:
    changed = batch.frames.clone()
    changed[0] = 255 - changed[0]  # item 0 is read by row 0 alone
    with torch.no_grad():
        before = classifier(batch).logits
        after = classifier(dataclasses.replace(batch, frames=changed)).logits
    assert torch.equal(before[1:], after[1:])
    assert not torch.allclose(before[0], after[0])


def test_padding_has_no_influence(pretraining: ClipBert, batch: Batch) -> None:
    with torch.no_grad():
        before = pretraining(batch)
        other_ids = torch.where(batch.text_mask, batch.text_ids, 7)
        after = pretraining(dataclasses.replace(batch, text_ids=other_ids))
        shorter = pretraining(
            dataclasses.replace(
                batch,
                text_ids=batch.text_ids[2:, :4],
                text_mask=batch.text_mask[2:, :4],
                text_item=batch.text_item[2:],
                word_positions=None,
            )
        )
    assert torch.equal(before.logits, after.logits)
    assert torch.allclose(before.logits[2:], shorter.logits, atol=1e-6)


def test_gradients_reach_everything_that_is_trained_and_nothing_else(config: ModelConfig, batch: Batch) -> None:
    for spec in (HeadSpec("classifier", 7), HeadSpec("pretraining", 2)):
        torch.manual_seed(0)
        model = ClipBert(config, spec).train()
        freeze(model, model.freezable_parts(), ["visual.stem", "visual.0"])
        outputs = model(batch)
        loss = outputs.logits.square().sum()
        if outputs.mlm_logits is not None:
            loss = loss + outputs.mlm_logits.square().sum()
        loss.backward()
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen == {
            name for name in model.state_dict() if name.startswith(("visual_encoder.stem", "visual_encoder.stages.0"))
        } & {name for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            if name in frozen:
                assert parameter.grad is None, name
        gradients = {name: each.grad for name, each in model.named_parameters() if name not in frozen}
        for name, gradient in split_projections(gradients).items():
            if not name.endswith("key.bias"):  # attention does not depend on it: softmax takes the shift out
                assert gradient.abs().max() > 0, name


def test_no_norm_adapts_to_the_data(classifier: ClipBert, batch: Batch) -> None:
    buffers = {name: buffer.clone() for name, buffer in classifier.named_buffers()}
    assert any(name.endswith("running_var") for name in buffers)
    classifier.train()(batch)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in classifier.named_buffers())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in classifier.modules())


@pytest.mark.parametrize("relu", [True, False])
def test_a_norm_in_the_weights_is_a_norm_after_the_convolution(relu: bool) -> None:
    """Values, and the gradients of weights and input."""
    torch.manual_seed(0)
    folded = ConvNorm(3, 5, 3, stride=2, relu=relu).double()
    for buffer in folded.norm.buffers():
        buffer.copy_(torch.rand(5) + 0.5)
    norm = folded.norm
    x, weight = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True), folded.weight
    y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    y = (y - norm.running_mean.view(-1, 1, 1)) / (norm.running_var + 1e-5).sqrt().view(-1, 1, 1)
    y = y * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    expected = y.relu() if relu else y
    torch.testing.assert_close(folded(x), expected)
    ours = torch.autograd.grad(folded(x).square().sum(), (x, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), (x, weight)))


def encoder_with_norms(**changes: Any) -> GridResNet:
    torch.manual_seed(0)
    encoder = GridResNet(small_config().visual.model_copy(update=changes), 8)
    for module in encoder.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for buffer in module.buffers():
                buffer.copy_(torch.rand(len(buffer)) + 0.5)
    return encoder


FRAMES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("changes", [{}, {"layer_type": "basic"}, {"depths": [2, 1, 1, 3]}, {"stem_size": 24}])
@pytest.mark.parametrize("recomputed", [False, True])
def test_kept_weights_give_the_same_features_in_fewer_operations(
    dtype: torch.dtype, changes: dict[str, Any], recomputed: bool
) -> None:
    encoder = encoder_with_norms(**changes)
    names = encoder.state_dict().keys()
    if recomputed:
        recompute_activations(encoder.parts())
    convolutions = sum(isinstance(module, ConvNorm) for module in encoder.modules())
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        with Operations() as plain:
            expected = encoder(FRAMES)
        with encoder.weights_kept(dtype):
            assert encoder.state_dict().keys() == names
            with Operations() as kept:
                found = encoder(FRAMES)
    assert torch.equal(found, expected)
    assert kept.counts["conv2d"] == plain.counts["conv2d"] == convolutions + 1
    assert plain.counts["rsqrt"] == convolutions
    # What is left beside the convolutions: normalising the frames, ReLU, residual sums, pooling.
    assert kept.counts["rsqrt"] == kept.counts["mul"] == 0
    assert kept.counts.total() <= plain.counts.total() - 6 * convolutions


@pytest.mark.parametrize("frozen", [[], ["stem"], ["stem", "0"], ["stem", "0", "1", "2", "3"]])
def test_kept_weights_of_frozen_parts_leave_the_gradients_of_the_others(frozen: list[str]) -> None:
    gradients = []
    for keeps in (False, True):
        encoder = encoder_with_norms()
        freeze(encoder, encoder.parts(), frozen)
        with encoder.weights_kept() if keeps else nullcontext(), Operations() as counted:
            encoder(FRAMES).square().sum().backward()
        trained = sum(isinstance(each, ConvNorm) and each.weight.requires_grad for each in encoder.modules())
        assert counted.counts["rsqrt"] == trained or not keeps
        gradients.append({name: each.grad for name, each in encoder.named_parameters() if each.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradient) for name, gradient in gradients[1].items())


def test_weights_are_kept_anew_in_each_block() -> None:
    """A change between two blocks counts, and a block within another leaves the outer one as it was."""
    encoder = encoder_with_norms()
    freeze(encoder, encoder.parts(), ["stem"])
    with encoder.weights_kept():
        outer = encoder.stem.conv1.kept
        assert outer is not None
        with torch.inference_mode(), encoder.weights_kept(torch.bfloat16):
            assert {each.kept[0].dtype for each in encoder.modules() if isinstance(each, ConvNorm)} == {torch.bfloat16}
        assert encoder.stem.conv1.kept is outer
        assert encoder.stages[0][0].branch.conv1.kept is None
    with torch.no_grad():
        before = encoder(FRAMES)
        encoder.stages[3][0].branch.conv2.weight.mul_(2)
        with encoder.weights_kept():
            changed = encoder(FRAMES)
        assert torch.equal(changed, encoder(FRAMES))
        assert not torch.equal(changed, before)
    with pytest.raises(KeyError), encoder.weights_kept():
        raise KeyError
    assert not any(each.kept for each in encoder.modules() if isinstance(each, ConvNorm))


def test_a_fresh_norm_is_the_identity() -> None:
    scale, shift = FrozenBatchNorm2d(3).affine()
    assert torch.allclose(scale, torch.ones(3), atol=1e-6)
    assert not shift.any()


def test_frozen_stages_keep_nothing_for_the_backward_pass() -> None:
    kept: list[torch.Size] = []
    encoder = GridResNet(small_config().visual, 8)
    for part in (encoder.stem, encoder.stages[0]):
        part.requires_grad_(False)
    shapes = {}
    encoder.stages[0].register_forward_hook(lambda _module, _inputs, output: shapes.update(res2=len(kept), out=output))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.shape) or tensor, lambda kept: kept
    ):
        encoder(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert shapes["res2"] == 0
    assert not shapes["out"].requires_grad
    assert kept


@pytest.mark.parametrize("changes", [{}, {"layer_type": "basic", "depths": [2, 2, 2, 2]}, {"depths": [2, 3, 8, 2]}])
def test_a_fresh_network_keeps_activations_in_range(changes: dict) -> None:
    torch.manual_seed(0)
    config = VisualConfig(**{"stem_size": 32, "hidden_sizes": [64, 96, 128, 160], "depths": [1, 1, 1, 1], **changes})
    frames = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    frames = torch.nn.functional.interpolate(frames[..., ::16, ::16].float(), scale_factor=16)
    with torch.no_grad():
        grid = GridResNet(config, 64)(frames)
    assert 0.1 < grid.square().mean().sqrt() < 10


def test_random_cells_are_sorted_distinct_and_for_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ClipBert(small_config(pixel_random_sampling_size=5), HeadSpec("pretraining", 2))
    frames = torch.randint(0, 256, (2, 1, 1, 3, 256, 256), dtype=torch.uint8)  # 16 cells
    assert model.eval().encode_visual(frames).shape[2] == 16
    assert model.train().encode_visual(frames).shape[2] == 5
    draws = [model.visual_embeddings.draw_cells(16, device=frames.device) for _ in range(20)]
    assert all(draw.tolist() == sorted(set(draw.tolist())) and len(draw) == 5 for draw in draws)
    assert len({tuple(draw.tolist()) for draw in draws}) > 1
    assert {cell for draw in draws for cell in draw.tolist()} == set(range(16))
    assert model.visual_embeddings.draw_cells(5, device=frames.device) is None
    chosen = torch.tensor([1, 4, 15])
    with torch.no_grad():
        every = model.eval().encode_visual(frames)
        monkeypatch.setattr(model.visual_embeddings, "draw_cells", lambda *_, **__: chosen)
        assert torch.equal(model.encode_visual(frames), every[:, :, chosen])


def test_a_grid_larger_than_its_position_embeddings_is_refused(classifier: ClipBert) -> None:
    with pytest.raises(ValueError, match=r"the grid is 101 x 2 .*position embeddings for 100 rows and 100 columns"):
        classifier.visual_embeddings(torch.zeros(1, 1, 101, 2, 16))


def test_a_text_longer_than_its_position_embeddings_is_refused(classifier: ClipBert) -> None:
    with pytest.raises(ValueError, match=r"25 tokens.*max_position_embeddings is 24"):
        classifier.embed_text(torch.ones(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("kind", "num_outputs", "message"),
    [
        ("classifier", 0, "num_outputs is 0.*at least 1"),
        ("pretraining", 3, "num_outputs is 3"),
    ],
)
def test_an_impossible_head_is_refused(kind: str, num_outputs: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadSpec(kind, num_outputs)  # type: ignore[arg-type]


def test_the_masked_word_head_shares_the_word_embeddings(pretraining: ClipBert, batch: Batch) -> None:
    assert not any("decoder" in name for name in pretraining.state_dict())
    with torch.no_grad():
        before = pretraining(batch).mlm_logits
        pretraining.text_embeddings.word_embeddings.weight[59] += 1  # a word that the batch may hold or not
        after = pretraining(batch).mlm_logits
    assert not torch.allclose(before[..., 59], after[..., 59])


def test_the_transformer_starts_as_bert_does(config: ModelConfig) -> None:
    wide = config.model_copy(update={"bert": config.bert.model_copy(update={"hidden_size": 128})})
    for name, parameter in ClipBert(wide, HeadSpec("pretraining", 2)).named_parameters():
        if name.startswith("visual_encoder."):
            continue
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name


def test_dropout_acts_in_training_only(batch: Batch) -> None:
    bert = small_config().bert.model_copy(update={"hidden_dropout": 0.5, "attention_dropout": 0.5})
    model = ClipBert(small_config(bert=bert), HeadSpec("classifier", 7))
    with torch.no_grad():
        assert not torch.equal(model.train()(batch).logits, model(batch).logits)
        assert torch.equal(model.eval()(batch).logits, model(batch).logits)


def test_it_runs_in_bfloat16_autocast_with_gradients(classifier: ClipBert, batch: Batch) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = classifier.train()(batch).logits
    logits.float().sum().backward()
    assert logits.isfinite().all()
    with torch.no_grad():
        assert torch.allclose(logits.float(), classifier(batch).logits, atol=0.05)


@pytest.mark.parametrize("spec", [HeadSpec("classifier", 7), HeadSpec("pretraining", 2)])
def test_saved_models_come_back_bitwise(spec: HeadSpec, config: ModelConfig, batch: Batch, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = ClipBert(config, spec).eval()
    save_pretrained(model, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1, "whoever may read the one may read the other"
    again = from_pretrained(tmp_path / "model")
    assert again.head_spec == spec
    assert again.config == model.config
    assert not again.training
    for (name, ours), (other_name, theirs) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(ours, theirs), name
    with torch.no_grad():
        assert torch.equal(model(batch).logits, again(batch).logits)


def test_saving_again_replaces_the_weights(classifier: ClipBert, tmp_path: Path) -> None:
    save_pretrained(classifier, tmp_path)
    with torch.no_grad():
        classifier.transformer.pooler.bias.fill_(5)
    save_pretrained(classifier, tmp_path)
    assert (from_pretrained(tmp_path).transformer.pooler.bias == 5).all()


def test_saving_where_nothing_can_be_written_names_the_place(classifier: ClipBert, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError, match="file"):
        save_pretrained(classifier, tmp_path / "file")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json: not found"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json:1: not JSON"),
        ("[]", "holds a list, expected a JSON object"),
        ('{"model_type": "bert"}', "format is None"),
        ('{"format": "clipbert", "format_version": 99}', "format_version is 99"),
        ('{"format": "clipbert", "format_version": 1}', "does not describe a model"),
    ],
)
def test_a_config_of_another_kind_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        from_pretrained(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(classifier: ClipBert, tmp_path: Path) -> None:
    save_pretrained(classifier, tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    description["head"]["num_outputs"] = 8
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=r"weight: float32 \(7, 32\) in the file, float32 \(8, 32\) in the model"):
        from_pretrained(tmp_path)
