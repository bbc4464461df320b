"""Image-text pretraining: masked words (MLM) and whether text and media belong together (ITM).

What is masked and which texts are exchanged depends on (seed, epoch, example) alone; validation sees the same masks
and the same mismatched texts every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from clipbert_cli.errors import PredictionsError, UsageError
from clipbert_cli.model.heads import HeadSpec
from clipbert_cli.task.base import Draw, Task
from clipbert_cli.task.metrics import percent
from clipbert_cli.task.pooling import NO_LABEL, masked_words, matching
from clipbert_cli.task.retrieval import NegativeCaptions, caption_example
from clipbert_cli.text.annotations import Record
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Batch, Example, Group, Outputs, Prediction, Texts

MASKED_SHARE = 0.15  # of the words; BERT (Devlin et al., NAACL 2019, section 3.1)
BECOMES_MASK, BECOMES_RANDOM = 0.8, 0.1  # of those; the rest stays
MISMATCHED_SHARE = 0.5  # of the texts; ClipBERT section 3.1


class Pair(NamedTuple):
    """What is drawn for one text: whether it is the media item's own, and the seed of its masks."""

    matches: bool
    mask_seed: int


class Pretraining(Task):
    """Records have `media_id` and `caption`, and may have `example_id`."""

    main_metric = "mlm_accuracy"

    def head(self) -> HeadSpec:
        """Masked words, and the two classes no match and match."""
        return HeadSpec(kind="pretraining", num_outputs=2)

    def parse(self, record: Record) -> Example:
        """An example of any split."""
        return caption_example(record)

    def check_truth(self, example: Example) -> None:
        """The caption itself is what is learnt."""

    def draw(self, groups: Sequence[Group], *, training: bool) -> Draw | None:
        """Mismatched texts and mask seeds, in validation too.

        Raises:
            AnnotationError: all captions belong to one media item.
        """
        return Pairs(NegativeCaptions(groups, 1))

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, *, labelled: bool) -> Texts:
        """Masked rows; targets `words` (N, L) int64, `NO_LABEL` where nothing is predicted, and `matches` (N,) int64.

        Rows that do not match are masked too, or masks would tell which match; their words are not predicted unless
        `objective.mlm_on_mismatched`: the image says nothing of them.
        """
        ids, mask = tokenizer([text for example in examples for text in example.texts])
        words = np.full_like(ids, NO_LABEL)
        for row, example in enumerate(examples):
            rng = np.random.default_rng(example.target.mask_seed)
            ids[row], words[row] = mask_words(ids[row], tokenizer, rng)
            if not (example.target.matches or self.objective.mlm_on_mismatched):
                words[row] = NO_LABEL
        matches = torch.tensor([int(example.target.matches) for example in examples])
        targets = {"words": torch.from_numpy(words), "matches": matches}
        return Texts(torch.from_numpy(ids), torch.from_numpy(mask), targets)

    def loss(self, outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        """`mlm` + `itm`; the average of `mlm` is `objective.mlm_average`'s to say."""
        assert outputs.mlm_logits is not None
        mlm = masked_words(outputs.mlm_logits, batch.targets["words"], average=self.objective.mlm_average)
        itm = matching(outputs.logits, batch.targets["matches"])
        return {"loss": mlm + itm, "mlm": mlm, "itm": itm}

    def predict(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """Fields: `words`, how many were to be predicted; `words_right`; `pairs` and `pairs_right`, one a clip."""
        assert outputs.mlm_logits is not None
        words, matches = batch.targets["words"], batch.targets["matches"]
        labelled = (words != NO_LABEL)[:, None].expand(outputs.mlm_logits.shape[:3])  # (N, K, L)
        words_right = (outputs.mlm_logits.argmax(dim=-1) == words[:, None]) & labelled  # (N, K, L)
        pairs_right = outputs.logits.argmax(dim=-1) == matches[:, None]  # (N, K)
        counts = zip(
            labelled.sum(dim=(1, 2)).tolist(),
            words_right.sum(dim=(1, 2)).tolist(),
            pairs_right.sum(dim=1).tolist(),
            strict=True,
        )
        return [
            Prediction(
                example.example_id,
                example.media_id,
                {"words": total, "words_right": right, "pairs": pairs_right.shape[1], "pairs_right": pairs},
            )
            for example, (total, right, pairs) in zip(batch.examples, counts, strict=True)
        ]

    def ask(self, example_id: str, media_id: str, text: str, options: Sequence[str]) -> Example:
        """Raises UsageError: there is nothing to ask."""
        raise UsageError(
            "the run's task is pretraining: it has learnt to answer no questions",
            hint="finetune it for a task: clipbert finetune --recipe NAME --set model.weights.checkpoint=RUN/best",
        )

    def score(self, fields: Mapping[str, Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, Any]:
        """`mlm_accuracy` over masked words, `itm_accuracy` over texts and clips, and their counts.

        An example whose media item failed is all wrong, with as many words and clips as the others have on average:
        how many it would have had is not known.
        """
        names = ("words", "words_right", "pairs", "pairs_right")
        sums = dict.fromkeys(names, 0)
        answered = [example for example in examples if "media_error" not in fields[example.example_id]]
        for example in answered:
            for name in names:
                value = fields[example.example_id].get(name)
                if type(value) is not int or value < 0:
                    raise PredictionsError(f"example {example.example_id!r}: {name} is {value!r}: it must be a count")
                sums[name] += value
        share = len(answered) / len(examples)
        return {
            "mlm_accuracy": 100 * share * sums["words_right"] / max(sums["words"], 1),
            "itm_accuracy": 100 * share * sums["pairs_right"] / max(sums["pairs"], 1),
            "masked_words": sums["words"],
            "count": len(examples),
        }

    def table(self, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """One row."""
        return [
            ("what", "accuracy %", "count"),
            ("masked words", percent(metrics["mlm_accuracy"]), str(metrics["masked_words"])),
            ("image-text matching", percent(metrics["itm_accuracy"]), str(metrics["count"])),
        ]

    def answer_text(self, fields: Mapping[str, Any]) -> str:
        return f"{fields['words_right']} of {fields['words']} masked words"


def mask_words(ids: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mask one row of token ids (L,), 0 where padded.

    15% of the words are chosen, each on its own; of those 80% become [MASK], 10% any entry of the vocabulary, 10%
    stay. [CLS], [SEP], [MASK] and padding are never chosen.

    Returns:
        the masked ids (L,), and the labels (L,): the true id where a word was chosen, else `NO_LABEL`.
    """
    special = [tokenizer.id_of[name] for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    chosen = (rng.random(ids.shape) < MASKED_SHARE) & ~np.isin(ids, special)
    fate = rng.random(ids.shape)
    drawn = rng.integers(len(tokenizer), size=ids.shape)
    replaced = np.where(fate < BECOMES_MASK, tokenizer.id_of["[MASK]"], drawn)
    masked = np.where(chosen & (fate < BECOMES_MASK + BECOMES_RANDOM), replaced, ids)
    return masked, np.where(chosen, ids, NO_LABEL)


@dataclass(frozen=True)
class Pairs:
    """Exchanges half of the texts for texts of other media items, and draws each text's mask seed."""

    others: NegativeCaptions

    def __call__(self, group: Group, rng: np.random.Generator) -> Group:
        examples = []
        for example in group.examples:
            matches = bool(rng.random() >= MISMATCHED_SHARE)
            texts = example.texts if matches else (self.others.other(group, rng),)
            target = Pair(matches, int(rng.integers(2**63)))
            examples.append(dataclasses.replace(example, texts=texts, target=target))
        return Group(group.media_id, tuple(examples))
