"""Predictions are those of the plain way, whatever the lengths, the parts, and what memory allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from small_models import small_config
from torch import Tensor

from clipbert_cli.build import Evaluation, SharedTexts
from clipbert_cli.errors import MemoryFullError
from clipbert_cli.infer import text_batches as rows
from clipbert_cli.infer.predict import Predictor
from clipbert_cli.infer.text_batches import Budget, TextBuckets
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.model.resnet import ConvNorm
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.pretraining import Pretraining
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, Texts

ALONE = World(0, 1, torch.device("cpu"))
FP32 = Precision("fp32")
LENGTHS = (9, 3, 5, 9, 4, 3, 12, 5)


def texts_of(lengths: Sequence[int]) -> Texts:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Texts(torch.randint(5, 60, mask.shape) * mask, mask)


@pytest.fixture
def model() -> ClipBert:
    torch.manual_seed(1)
    config = small_config()
    bert = config.bert.model_copy(update={"initializer_range": 0.3})
    return ClipBert(config.model_copy(update={"bert": bert}), HeadSpec("classifier", 2)).eval()


def media(items: int, *, clips: int, texts: Texts, text_item: Sequence[int], examples: Sequence[Example]) -> Batch:
    return Batch(
        frames=torch.randint(0, 256, (items, clips, 2, 3, 128, 128), dtype=torch.uint8),
        text_ids=texts.ids,
        text_mask=texts.mask,
        text_item=torch.tensor(text_item, dtype=torch.long),
        examples=tuple(examples),
        media_ids=tuple(f"v{number}" for number in range(items)),
    )


NO_TEXTS = Texts(torch.zeros((0, 1), dtype=torch.long), torch.zeros((0, 1), dtype=torch.bool))


def gallery(items: int, *, clips: int = 2) -> Batch:
    return media(items, clips=clips, texts=NO_TEXTS, text_item=[], examples=[])


def captions(lengths: Sequence[int] = LENGTHS) -> SharedTexts:
    examples = tuple(Example(str(number), "v0", ("?",)) for number in range(len(lengths)))
    return SharedTexts(examples, texts_of(lengths))


@torch.inference_mode()
def plain_scores(model: ClipBert, batch: Batch, texts: Texts) -> np.ndarray:
    """(B, N): clip after clip, text after text, padded to the longest."""
    scores = []
    for item in batch.frames:
        visual = torch.stack([model.encode_visual(clip[None, None])[0, 0] for clip in item])  # (K, V, D)
        text = model.embed_text(texts.ids)
        logits = torch.cat(
            [model.score(text[n : n + 1], texts.mask[n : n + 1], visual[None]).logits for n in range(len(text))]
        )
        scores.append(logits.logsumexp(dim=1).softmax(dim=-1)[:, 1].numpy())
    return np.stack(scores)


def retrieval() -> Retrieval:
    return Retrieval(ObjectiveConfig(), InferConfig(), None)


def scores_of(predictions: Sequence[Prediction]) -> np.ndarray:
    return np.stack([prediction.fields["scores"] for prediction in predictions])


def predicted(model: ClipBert, batch: Batch, shared: SharedTexts, **options: Any) -> np.ndarray:
    predictor = Predictor(model, retrieval(), FP32, InferConfig(), ALONE)
    found = list(predictor.run(Evaluation([batch], shared, len(batch.media_ids)), **options))
    assert [each.media_id for each in found] == list(batch.media_ids)
    return scores_of(found)


@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 6), (3,), tuple(range(3, 15))])
@pytest.mark.parametrize("clips", [1, 3])
def test_all_pairs_get_the_scores_of_a_plain_loop(model: ClipBert, lengths: Sequence[int], clips: int) -> None:
    batch, shared = gallery(3, clips=clips), captions(lengths)
    expected = plain_scores(model, batch, shared.texts)
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(predicted(model, batch, shared), expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("end", ["all", "one", "error"])
def test_folded_weights_are_kept_while_predictions_are_made_and_no_longer(
    model: ClipBert, precision: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions = [module for module in model.modules() if isinstance(module, ConvNorm)]
    names, seen = model.state_dict().keys(), []

    def watch(_outputs: Outputs, _batch: Batch) -> None:
        seen.append({each.kept[0].dtype for each in convolutions if each.kept})
        assert model.state_dict().keys() == names
        if end == "error":
            raise KeyError

    def scores() -> np.ndarray:
        made = Predictor(model, retrieval(), Precision(precision), InferConfig(), ALONE, watch=watch)
        found = made.run(Evaluation([batch, batch], shared, 6))
        if end == "one":
            first = next(found)
            found.close()
            return scores_of([first])
        with pytest.raises(KeyError) if end == "error" else nullcontext():
            return scores_of(list(found))
        return np.zeros(0)

    batch, shared = gallery(3), captions()
    first = scores()
    assert seen[0] == {Precision(precision).dtype}
    assert not any(each.kept for each in convolutions)
    with torch.no_grad():
        for each in convolutions:
            each.weight.mul_(1.5)
    second = scores()
    assert end == "error" or not np.array_equal(first, second)
    monkeypatch.setattr(ConvNorm, "kept", property(lambda self: None, lambda self, kept: None))
    np.testing.assert_array_equal(scores(), second)


@pytest.mark.parametrize("tokens", [1, 14, 40, 100, 10_000])
def test_the_size_of_parts_changes_no_score(model: ClipBert, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, shared = gallery(3), captions()
    expected = predicted(model, batch, shared)
    monkeypatch.setattr(rows, "CPU_TOKENS", tokens)
    monkeypatch.setattr(rows, "CPU_FRAMES", max(1, tokens // 20))
    np.testing.assert_allclose(predicted(model, batch, shared), expected, atol=1e-6)


def sizes_seen(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], Exception | None] = lambda tokens: None) -> list:
    """(sequences, length) of every call of the transformer; `fails` says whether it runs out of memory."""
    from clipbert_cli.model.clipbert import SequenceScorer

    seen: list[tuple[int, int]] = []
    right = SequenceScorer.__call__

    def call(self: SequenceScorer, text: Tensor, visual: Tensor) -> Any:
        length = text.shape[1] + visual.shape[1]
        if failure := fails(len(text) * length):
            raise failure
        seen.append((len(text), length))
        return right(self, text, visual)

    monkeypatch.setattr(SequenceScorer, "__call__", call)
    return seen


def test_no_padding_is_computed_and_no_pair_twice(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sizes_seen(monkeypatch)
    predicted(model, gallery(3), captions())
    visual_tokens = 4  # 128 pixels: 2 x 2 cells
    assert sum(count * (length - visual_tokens) for count, length in seen) == 3 * 2 * sum(LENGTHS)
    assert sum(count for count, _ in seen) == 3 * 2 * len(LENGTHS)


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("GET was unable to find an engine to execute this computation"),  # of a convolution on a GPU
    ],
)
def test_parts_are_halved_for_good_when_memory_runs_out(
    model: ClipBert, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, shared = gallery(3), captions()
    expected = predicted(model, batch, shared)
    tried: list[int] = []

    def fails(tokens: int) -> Exception | None:
        tried.append(tokens)
        return failure if tokens > 30 else None

    seen = sizes_seen(monkeypatch, fails)
    np.testing.assert_allclose(predicted(model, batch, shared), expected, atol=1e-6)
    assert sum(count for count, _ in seen) == 3 * 2 * len(LENGTHS)
    failed = [tokens for tokens in tried if tokens > 30]
    assert len(failed) <= 3  # it is remembered, not found out again for every part
    assert failed == sorted(failed, reverse=True)


def test_attention_does_not_use_the_kernel_that_plans_per_shape(model: ClipBert) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    predicted(model, gallery(2), captions())
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_too_little_memory_for_one_sequence_is_an_error(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes_seen(monkeypatch, lambda tokens: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(MemoryFullError, match="the GPU's memory is full: CUDA out of memory") as caught:
        predicted(model, gallery(2), captions())
    assert "infer.num_clips (now 16)" in (caught.value.hint or "")


def test_other_errors_are_not_taken_for_memory(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    sizes_seen(monkeypatch, lambda tokens: tried.append(tokens) or RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        predicted(model, gallery(2), captions())
    assert len(tried) == 1


def test_the_visual_encoder_continues_with_fewer_frames(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, shared = gallery(3), captions()
    expected = predicted(model, batch, shared)
    right, counts = model.encode_visual, []

    def encode(frames: Tensor) -> Tensor:
        counts.append(frames.shape[1])
        if frames.shape[1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(frames)

    monkeypatch.setattr(model, "encode_visual", encode)
    np.testing.assert_allclose(predicted(model, batch, shared), expected, atol=1e-6)
    assert counts == [2, *[1] * 6]


def test_options_are_scored_like_in_training(model: ClipBert) -> None:
    """Several questions a video, each of three options; rows in any order of lengths."""
    task = MultipleChoice(ObjectiveConfig(num_options=3), InferConfig(), None)
    texts = texts_of([5, 9, 4, 7, 5, 5, 3, 12, 9])
    examples = [Example(f"e{number}", f"v{number // 2}", ("a", "b", "c")) for number in range(3)]
    batch = media(2, clips=2, texts=texts, text_item=[0, 0, 0, 0, 0, 0, 1, 1, 1], examples=examples)
    predictor = Predictor(model, task, FP32, InferConfig(), ALONE)
    found = list(predictor.run(Evaluation([batch], None, len(examples))))
    with torch.inference_mode():
        expected = task.predict(model(batch), batch)
    assert [each.key for each in found] == [example.key for example in examples]
    for one, other in zip(found, expected, strict=True):
        assert one.fields["answer"] == other.fields["answer"]
        assert one.fields["score"] == one.fields["top"][0]["score"] == pytest.approx(other.fields["score"], abs=1e-5)


@pytest.mark.parametrize("words", ["none", "one row", "every token", "some"])
@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_words_are_predicted_like_in_training(words: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of any size, by texts of several lengths."""
    monkeypatch.setattr(rows, "CPU_TOKENS", tokens)
    torch.manual_seed(0)
    config = small_config()
    bert = config.bert.model_copy(update={"initializer_range": 0.3})
    model = ClipBert(config.model_copy(update={"bert": bert}), HeadSpec("pretraining", 2)).eval()
    texts = texts_of([5, 9, 4, 7, 5])
    chosen = {
        "none": torch.zeros(5, 9, dtype=torch.bool),
        "one row": torch.arange(5)[:, None] == 3,
        "every token": torch.ones(5, 9, dtype=torch.bool),
        "some": torch.rand(5, 9) < 0.3,
    }[words] & texts.mask
    positions = chosen.nonzero().T
    examples = [Example(None, f"v{number // 3}", ("a",)) for number in range(5)]
    batch = media(2, clips=2, texts=texts, text_item=[0, 0, 0, 1, 1], examples=examples)
    with torch.inference_mode():
        likely = model(dataclasses.replace(batch, word_positions=positions)).mlm_logits[:, 0].argmax(dim=-1)  # (M,)
    # Every second word is what the model finds most likely in the first clip.
    true = torch.where(torch.arange(len(likely)) % 2 == 0, likely, 0)
    targets = {"words": true, "matches": torch.tensor([1, 0, 1, 0, 1])}
    batch = dataclasses.replace(batch, targets=targets, word_positions=positions)
    task = Pretraining(ObjectiveConfig(), InferConfig(), None)
    found = list(Predictor(model, task, FP32, InferConfig(), ALONE).run(Evaluation([batch], None, 5)))
    with torch.inference_mode():
        expected = task.predict(model(batch), batch)
    assert [each.fields for each in found] == [each.fields for each in expected]
    assert [each.fields["words"] for each in found] == (2 * chosen.sum(dim=1)).tolist()
    assert sum(each.fields["words_right"] for each in found) >= (len(true) + 1) // 2
    with torch.inference_mode():
        visual, budget = model.encode_visual(batch.frames), Budget(tokens)
        parts = rows.score_with_words(model, batch, visual, words=positions, budget=budget)
        torch.testing.assert_close(parts.mlm_logits, model(batch).mlm_logits, rtol=1e-5, atol=1e-5)


def test_failed_media_get_a_prediction_with_the_reason(model: ClipBert) -> None:
    shared = captions()
    batch = dataclasses.replace(gallery(2), failed=((Group("bad", ()), "no frames"),))
    nothing = dataclasses.replace(gallery(0), failed=((Group("worse", ()), "no file"),))
    predictor = Predictor(model, retrieval(), FP32, InferConfig(), ALONE)
    found = list(predictor.run(Evaluation([nothing, batch], shared, 4)))
    assert [each.media_id for each in found] == ["worse", "bad", "v0", "v1"]
    assert found[0].fields == {"media_error": "no file"}


def test_the_model_is_in_training_mode_again_afterwards(model: ClipBert) -> None:
    model.train()
    predicted(model, gallery(1), captions())
    assert model.training
    assert all(module.training for module in model.modules())


def test_an_interruption_does_not_wait_for_the_end_of_a_batch(model: ClipBert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CPU_TOKENS", 30)
    seen = sizes_seen(monkeypatch)

    def interrupted() -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predicted(model, gallery(3), captions(), check_interrupts=interrupted)
    assert len(seen) == 3


def test_a_budget_covers_everything_once_and_remembers_what_did_not_fit() -> None:
    budget, done = Budget(100), []

    def work(start: int, stop: int) -> None:
        if stop - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(range(start, stop))

    budget.parts(17, 10, work)
    assert done == list(range(17))
    assert budget.units == 25  # 10 things did not fit, 5 did not
    budget.parts(0, 10, work)
    assert len(done) == 17


def test_texts_are_kept_by_length_without_padding(model: ClipBert) -> None:
    texts = texts_of(LENGTHS)
    with torch.inference_mode():
        buckets = TextBuckets.of(model, texts, torch.device("cpu"))
        whole = model.embed_text(texts.ids)
    assert {length: len(bucket) for length, bucket in buckets.embedded.items()} == {3: 2, 4: 1, 5: 2, 9: 2, 12: 1}
    for number, length in enumerate(LENGTHS):
        own = buckets.embedded[length][buckets.place[number]]
        torch.testing.assert_close(own, whole[number, :length])


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_scores_as_the_cpu_does(model: ClipBert, precision: str) -> None:
    batch, shared = gallery(3), captions()
    expected = predicted(model, batch, shared)
    world = World(0, 1, torch.device("cuda"))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # in which convolutions keep 10 bits
        predictor = Predictor(model.cuda(), retrieval(), Precision(precision), InferConfig(), world)
        found = scores_of(list(predictor.run(Evaluation([batch], shared, 3))))
    np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "fp32" else 0.05)
