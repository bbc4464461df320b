"""The one predict path. Validation during training, `infer`, `ask` and `search` all use `Predictor`.

Legend: B media items, K clips, V visual tokens, N texts, R text rows, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import torch

from clipbert_cli.build import Evaluation
from clipbert_cli.errors import RunError
from clipbert_cli.infer.prediction_lines import json_fields
from clipbert_cli.infer.text_batches import Budgets, RowScorer, TextBuckets, encode, score_with_words
from clipbert_cli.loading.prefetch import on_device
from clipbert_cli.memory import memory_advice
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.recipe.schema import InferConfig
from clipbert_cli.runtime.distributed import World
from clipbert_cli.runtime.precision import Precision
from clipbert_cli.task.base import Task
from clipbert_cli.types import Batch, Outputs, Prediction, PredictionKey, Texts


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Predicts with a model as it is now.

    Args:
        infer: the recipe's `infer` section, for messages about full memory.
        clip_scores: predictions also have `clips`, what each clip says on its own.
        watch: called with the outputs of each batch, and the batch that they belong to.
    """

    model: ClipBert
    task: Task
    precision: Precision
    infer: InferConfig
    world: World
    clip_scores: bool = False
    watch: Callable[[Outputs, Batch], None] | None = None

    def run(
        self,
        evaluation: Evaluation,
        *,
        progress: Callable[[int], None] = lambda done: None,
        check_interrupts: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction]:
        """Yield one prediction per example in order of the examples; with shared texts one per media item.

        Every process yields the predictions of all processes, each exactly once, whatever their number. A single
        process yields as it computes, several gather at the end. For a media item that failed, the predictions' only
        field is `media_error`, the reason.

        Args:
            progress: called with the number of predictions after each batch of this process.
            check_interrupts: called several times within a batch; it may raise.
        """
        own = self.run_own(evaluation, progress=progress, check_interrupts=check_interrupts)
        if self.world.size == 1:
            for predictions in own:
                yield from predictions
            return
        # Process r computes batches r, r + size, ... Taking one batch of each process in turn restores their order.
        for turn in zip_longest(*self.world.gather(list(own)), fillvalue=()):
            for predictions in turn:
                yield from predictions

    @torch.inference_mode()
    def run_own(
        self,
        evaluation: Evaluation,
        *,
        progress: Callable[[int], None] = lambda done: None,
        check_interrupts: Callable[[], None] = lambda: None,
    ) -> Iterator[Sequence[Prediction]]:
        """Yield the predictions of each batch of this process; arguments as in `run`.

        Every media item is encoded once. Texts are embedded once per batch, shared texts once for all batches.
        """
        self.precision.choose_kernels()
        was_training = self.model.training
        self.model.eval()
        try:
            with memory_advice(infer=self.infer), self.model.visual_encoder.weights_kept(self.precision.dtype):
                yield from self._batches(evaluation, progress, check_interrupts)
        finally:
            self.model.train(was_training)

    def _batches(
        self, evaluation: Evaluation, progress: Callable[[int], None], check_interrupts: Callable[[], None]
    ) -> Iterator[Sequence[Prediction]]:
        model, device, shared = self.model, self.world.device, evaluation.shared
        sequence_scorer = model.scorer(self.precision.dtype)
        texts = None if shared is None else TextBuckets.of(model, shared.texts, device)
        budgets: Budgets | None = None
        for batch, moved in on_device(evaluation.batches, device, ahead=evaluation.ahead):
            failures = _failures(batch)
            if not batch.media_ids:
                yield failures
                progress(len(failures))
                continue
            if budgets is None:
                # The free memory is measured when the first batch is there: the data loader needs some as well.
                side, dtype = batch.frames.shape[-1], self.precision.dtype
                budgets = Budgets.of(model, device, frame_size=side, dtype=dtype, after=check_interrupts)
            with self.precision.autocast(device):
                visual = encode(model, moved.frames, budgets.frames)  # (B, K, V, D)
            if batch.word_positions is not None:
                with self.precision.autocast(device):
                    outputs = score_with_words(model, moved, visual, words=batch.word_positions, budget=budgets.tokens)
            else:
                own = texts or TextBuckets.of(model, Texts(batch.text_ids, batch.text_mask), device)
                scorer = RowScorer(sequence_scorer, own, budgets.tokens)
                if shared is None:
                    rows = torch.arange(len(batch.text_item))
                    outputs = scorer.score(visual, row_text=rows, row_item=batch.text_item)
                else:
                    moved = dataclasses.replace(moved, examples=shared.examples)
                    # Every text with every item, item by item.
                    count = len(shared.examples)
                    pairs = torch.arange(len(visual) * count)  # (R,)
                    outputs = scorer.score(visual, row_text=pairs % count, row_item=pairs // count)
            _check_finite(outputs, batch.media_ids)
            if self.watch:
                self.watch(outputs, moved)
            made = self.task.predict(outputs, moved)
            if self.clip_scores:
                made = self._with_clips(outputs, moved, made)
            predictions = [*failures, *made]
            yield predictions
            progress(len(predictions))

    def _with_clips(self, outputs: Outputs, batch: Batch, pooled: Sequence[Prediction]) -> list[Prediction]:
        """Return the pooled predictions with a field `clips`: the fields that each clip alone would give, in order."""
        logits, words = outputs.logits, outputs.mlm_logits
        ends = range(1, logits.shape[1] + 1)
        alone = [
            self.task.predict(
                Outputs(logits[:, end - 1 : end], None if words is None else words[:, end - 1 : end]), batch
            )
            for end in ends
        ]
        return [
            dataclasses.replace(each, fields={**each.fields, "clips": [json_fields(clip.fields) for clip in own]})
            for each, *own in zip(pooled, *alone, strict=True)
        ]


def _check_finite(outputs: Outputs, media_ids: Sequence[str]) -> None:
    """Raise RunError if the model gives scores that are no numbers: any answer taken from them would be wrong."""
    logits, words = outputs.logits, outputs.mlm_logits
    # A sum needs no memory beside the scores of words, and is a number only if all of them are.
    if not bool(torch.isfinite(logits).all()) or (
        words is not None and not bool(words.sum(dtype=torch.float64).isfinite())
    ):
        raise RunError(
            f"the model's scores for {', '.join(map(repr, media_ids))} are NaN or infinite",
            hint="compute with more precision: --set train.precision=fp32. If that does not help, the training that "
            "made the model has failed",
        )


def _failures(batch: Batch) -> list[Prediction]:
    """Return the predictions of failed groups: one per example, or one for the media item of a group without any."""
    failures = []
    for group, reason in batch.failed:
        keys = [example.key for example in group.examples] or [PredictionKey(group.media_id)]
        failures += [Prediction(key, {"media_error": reason}) for key in keys]
    return failures
