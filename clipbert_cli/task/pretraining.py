"""Image-text pretraining: masked words (MLM) and whether text and media belong together (ITM).

Masks and exchanged texts depend on (seed, epoch, example) only. Validation reads epoch 0, so it sees the same masks and
the same mismatched texts every time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clipbert_cli.errors import UsageError
from clipbert_cli.task.base import COMMON_FIELDS, Draw, Task, as_texts, make_example
from clipbert_cli.task.intervals import Sample
from clipbert_cli.task.metrics import Measure
from clipbert_cli.task.pooling import count_matches, count_words, masked_words, matching
from clipbert_cli.task.retrieval import NegativeCaptions
from clipbert_cli.text.fields import Record, RecordError
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, PredictionKey, Texts

if TYPE_CHECKING:
    from torch import Tensor

    from clipbert_cli.text.tokenizer import Tokenizer

# The share of the words that is masked (BERT: Devlin et al., NAACL 2019, section 3.1).
MASKED_SHARE = 0.15
# The shares of the masked words that become [MASK] or a random word; the rest stays as it is.
BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.1
# The share of the texts that is exchanged for a text of another media item (ClipBERT section 3.1).
MISMATCHED_SHARE = 0.5
# Where no word is to be predicted.
NO_WORD = -100
# The fields of a prediction.
COUNTS = ("words", "words_right", "pairs", "pairs_right")


class Pair(NamedTuple):
    """The random draw for one text: whether it is the media item's own, and the seed of its masks."""

    matches: bool
    mask_seed: int


class Pretraining(Task):
    """The task `pretraining`. Records have `media_id` and `caption` (one, or a list), and may have `example_id`."""

    fields = (*COMMON_FIELDS, "caption")
    required_fields = ("media_id", "caption")
    main_metric = "mlm_accuracy"
    metrics = ("mlm_accuracy", "itm_accuracy")
    objective_settings = ("pool", "mlm_average", "as_original")
    head_kind = "pretraining"
    trained_by = "pretrain"
    list_field = "caption"
    hub_task = "feature-extraction"
    use = "clipbert finetune --recipe NAME --set model.weights.checkpoint={run}"

    def num_outputs(self) -> int:
        """Return 2 for the classes no match and match; the masked words come besides."""
        return 2

    def parse(self, record: Record) -> Example:
        """Make an example of a record of any split."""
        return make_example(record, (record.text("caption"),))

    def check_truth(self, example: Example) -> None:
        """Accept every example: the caption itself is learnt."""

    def truth_text(self, example: Example) -> str:
        """Return nothing: the caption itself is learnt."""
        return ""

    def roles(self, example: Example) -> list[str]:
        """Return whether the text that was drawn belongs to the media item."""
        return ["" if example.target is None else "own text" if example.target.matches else "text of another item"]

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """Return a function that draws mismatched texts and mask seeds, in validation too.

        Raises:
            AnnotationError: all captions belong to one media item.
        """
        return Pairs(NegativeCaptions(groups, 1))

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool) -> Texts:
        """Return masked rows with the targets `words` and `matches`.

        `words` (M,) int64 are the true ids of the masked words, at `Texts.word_positions`. `matches` (N,) int64 is 1 if
        text and media item belong together. Validation needs the targets too, so `labelled` changes nothing.
        """
        ids, mask = tokenizer([text for example in examples for text in example.texts])
        words = np.full_like(ids, NO_WORD)  # (N, L)
        for row, example in enumerate(examples):
            # The seed was drawn with the pair. A generator of the loading process would depend on which process it is.
            rng = np.random.default_rng(example.target.mask_seed)
            # Mismatched texts are masked as well. Otherwise the presence of [MASK] would reveal which texts match.
            ids[row], words[row] = mask_words(ids[row], tokenizer, rng)
            # Their words are not predicted by default: the image says nothing about them.
            if not (example.target.matches or self.objective.as_original):
                words[row] = NO_WORD
        matches = np.array([example.target.matches for example in examples], dtype=np.int64)
        positions = np.stack(np.nonzero(words != NO_WORD))  # (2, M)
        targets = {"words": words[tuple(positions)], "matches": matches}
        return as_texts(ids, mask, targets, word_positions=positions)

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Return `mlm`, `itm` and their sum. `objective.mlm_average` decides what `mlm` is averaged over."""
        assert outputs.mlm_logits is not None
        words = batch.targets["words"]  # (M,)
        # The original divides by all positions of the texts, padding included.
        positions = batch.text_ids.numel() if self.objective.mlm_average == "all" else len(words)
        mlm = masked_words(outputs.mlm_logits, words, positions=positions)
        itm = matching(outputs.logits, batch.targets["matches"])
        return {"loss": mlm + itm, "mlm": mlm, "itm": itm}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Return predictions that are counts.

        Fields: `words` (masked words of all clips), `words_right`, `pairs` (one per clip) and `pairs_right`.
        """
        assert outputs.mlm_logits is not None
        assert batch.word_positions is not None
        rows = batch.word_positions[0]  # (M,)
        total, right = count_words(
            outputs.mlm_logits, batch.targets["words"], rows=rows, num_rows=len(batch.text_ids)
        )  # (N,), (N,)
        pairs = count_matches(outputs.logits, batch.targets["matches"])  # (N,)
        clips = outputs.logits.shape[1]
        return [
            Prediction(
                example.key,
                {"words": words, "words_right": words_right, "pairs": clips, "pairs_right": pairs_right},
            )
            for example, words, words_right, pairs_right in zip(
                batch.examples, total.tolist(), right.tolist(), pairs.tolist(), strict=True
            )
        ]

    def ask(self, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Raise UsageError: a pretrained model answers no questions."""
        raise UsageError(
            "the run's task is pretraining: it has not learnt to answer questions",
            hint=f"finetune it for a task: {self.use.format(run='RUN/best')}",
        )

    def check_prediction(self, fields: Mapping[str, Any], example: Example) -> None:
        """Raise RecordError unless all counts are there, and nothing is counted right more often than it occurs."""
        for name in COUNTS:
            value = fields.get(name)
            if type(value) is not int or not 0 <= value < 2**53:
                raise RecordError(f"{name} is {json.dumps(value)}: it must be a count")
        for name in ("words", "pairs"):
            if fields[f"{name}_right"] > fields[name]:
                raise RecordError(f"{name}_right is {fields[f'{name}_right']}: there are only {fields[name]} {name}")

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        """Return what a prediction has right."""
        words = f"{fields['words_right']} of {fields['words']} masked words"
        return f"{words}, {fields['pairs_right']} of {fields['pairs']} matches"

    def score(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """Return `mlm_accuracy` over masked words, `itm_accuracy` over texts and clips, and their counts.

        How many words and clips a failed media item would have had is not known. It counts as all wrong, with as many
        as the others have on average.
        """
        words = sum(fields[example.key].get("words", 0) for example in examples)
        accuracies = {measure.name: measure.value for measure in self.measures(fields, examples)}
        return {**accuracies, "masked_words": words, "count": len(examples)}

    def measures(self, fields: Mapping[PredictionKey, Mapping[str, Any]], examples: Sequence[Example]) -> list[Measure]:
        """Return both accuracies as shares of each example's words and clips."""
        found = [fields[example.key] for example in examples]
        answered = [each for each in found if "media_error" not in each]
        media = [example.media_id for example in examples]
        measures = []
        for name, label, unit in (
            ("mlm_accuracy", "masked words %", "words"),
            ("itm_accuracy", "image-text matching %", "pairs"),
        ):
            # Failed media items count as all wrong, with as many as the others have on average.
            usual = sum(each[unit] for each in answered) / max(len(answered), 1)
            sizes = [usual if "media_error" in each else each[unit] for each in found]
            right = [0 if "media_error" in each else each[f"{unit}_right"] for each in found]
            measures.append(Measure(name, label, Sample(right, media, sizes)))
        return measures


def mask_words(ids: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mask one row of token ids (L,), 0 where padded.

    Each word is chosen with a probability of 15%. 80% of the chosen words become [MASK], 10% a random entry
    of the vocabulary, and 10% stay. [CLS], [SEP], [MASK] and padding are never chosen.

    Returns:
        The masked ids (L,), and the words (L,): the true id where a word was chosen, else `NO_WORD`.
    """
    special = [tokenizer.id_of[name] for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    # Three independent draws per position, whatever is chosen, so that the number of draws does not depend on the text.
    chosen = (rng.random(ids.shape) < MASKED_SHARE) & ~np.isin(ids, special)
    fate = rng.random(ids.shape)
    drawn = rng.integers(len(tokenizer), size=ids.shape)
    replaced = np.where(fate < BECOMES_MASK, tokenizer.id_of["[MASK]"], drawn)
    masked = np.where(chosen & (fate < BECOMES_MASK + BECOMES_RANDOM), replaced, ids)
    return masked, np.where(chosen, ids, NO_WORD)


@dataclass(frozen=True)
class Pairs:
    """Exchanges half of the texts for texts of other media items, and draws the mask seed of each text."""

    others: NegativeCaptions

    def __call__(self, group: Group, rng: np.random.Generator) -> Group:
        examples = []
        for example in group.examples:
            matches = bool(rng.random() >= MISMATCHED_SHARE)
            texts = example.texts if matches else (self.others.other(group, rng),)
            # The seed fits into a signed 64-bit integer.
            target = Pair(matches, int(rng.integers(2**63)))
            # The prediction belongs to the record, whatever text is drawn.
            drawn = dataclasses.replace(example, texts=texts, target=target, drawn_from=example.text_digest)
            examples.append(drawn)
        return Group(group.media_id, tuple(examples))
