"""What the model reads and learns of each task's records: golden/text, and what is drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from goldens import golden_folder, golden_json

from clipbert_cli.errors import AnnotationError, UsageError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.base import Task
from clipbert_cli.task.image_qa import ImageQa
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.task.pretraining import NO_WORD, Pair, Pretraining, mask_words
from clipbert_cli.task.retrieval import NegativeCaptions, Retrieval
from clipbert_cli.text.annotations import group_by_media
from clipbert_cli.text.tokenizer import Tokenizer
from clipbert_cli.types import Example, Group, Texts

OBJECTIVE, INFER = ObjectiveConfig(), InferConfig()


def tokenizer(max_length: int) -> Tokenizer:
    return Tokenizer(golden_folder() / "text" / "vocab.txt", max_length=max_length)


def collated(task: Task, examples: Sequence[Example], case: dict[str, Any]) -> Texts:
    """The task's rows, checked against the original's, which pads to the longest text that is allowed."""
    texts = task.collate(examples, tokenizer(case["max_length"]), labelled=True)
    ids, mask = np.array(case["input_ids"]), np.array(case["attention_mask"])
    length = texts.ids.shape[1]
    assert texts.ids.tolist() == ids[:, :length].tolist()
    assert texts.mask.int().tolist() == mask[:, :length].tolist()
    assert not mask[:, length:].any()
    return texts


def example(number: int, *texts: str, **more: Any) -> Example:
    return Example(str(number), f"v{number}", texts, **more)


@pytest.mark.golden
def test_questions_with_options_are_the_originals() -> None:
    cases = [case for name, case in golden_json("text/text.json")["collate"].items() if name.startswith("multiple")]
    assert cases
    task = MultipleChoice(ObjectiveConfig(as_original=True), INFER, None)
    for case in cases:
        examples = [
            example(number, *item["options"], target=item["answer"], context=item["question"])
            for number, item in enumerate(case["questions"])
        ]
        assert collated(task, examples, case).targets["labels"].tolist() == case["labels"]


@pytest.mark.golden
def test_options_without_a_question_are_the_originals() -> None:
    case = golden_json("text/text.json")["collate"]["retrieval_multiple_choice"]
    examples = [example(number, *item["options"], target=item["answer"]) for number, item in enumerate(case["items"])]
    collated(MultipleChoice(OBJECTIVE, INFER, None), examples, case)


@pytest.mark.golden
def test_open_ended_questions_are_the_originals() -> None:
    case = golden_json("text/text.json")["collate"]["open_ended_qa"]
    task = OpenEndedQa(OBJECTIVE, INFER, case["answer_to_label"])
    examples = [
        example(number, item["question"], target=item["answer"]) for number, item in enumerate(case["questions"])
    ]
    assert collated(task, examples, case).targets["labels"].tolist() == case["labels"]


@pytest.mark.golden
def test_image_questions_and_their_soft_labels_are_the_originals() -> None:
    case = golden_json("text/text.json")["collate"]["vqa"]
    task = ImageQa(ObjectiveConfig(num_labels=case["num_labels"]), INFER, case["answer_to_label"])
    examples = [
        example(number, item["question"], target=item["labels"]) for number, item in enumerate(case["questions"])
    ]
    assert torch.equal(collated(task, examples, case).targets["labels"], torch.tensor(case["labels"]))


@pytest.mark.golden
def test_captions_and_negatives_are_the_originals() -> None:
    case = golden_json("text/text.json")["collate"]["retrieval_training"]
    examples = [example(number, *(each["text"] for each in group)) for number, group in enumerate(case["groups"])]
    texts = collated(Retrieval(OBJECTIVE, INFER, None), examples, case)
    assert texts.targets["labels"].tolist() == case["labels"]


@pytest.mark.golden
def test_masking_follows_the_rule_and_spares_special_tokens() -> None:
    """The shares of the original's rule, to five standard deviations; [CLS], [SEP] and padding are never chosen."""
    rule = golden_json("text/text.json")["masking_rule"]
    words = tokenizer(20)
    ids = words(["the man is playing the guitar on the street"])[0][0]
    ordinary = np.isin(ids, [words.id_of["[CLS]"], words.id_of["[SEP]"]], invert=True)
    rng = np.random.default_rng(1)
    chosen: Counter[int] = Counter()
    fates: Counter[str] = Counter()
    rounds = 4000
    for _ in range(rounds):
        masked, labels = mask_words(ids, words, rng)
        at = labels != NO_WORD
        assert (labels[at] == ids[at]).all()
        assert (masked[~at] == ids[~at]).all()
        chosen.update(np.flatnonzero(at).tolist())
        fates["mask"] += int((masked[at] == words.id_of["[MASK]"]).sum())
        fates["same"] += int((masked[at] == ids[at]).sum())
    assert set(chosen) == set(np.flatnonzero(ordinary).tolist())
    total, number = rounds * int(ordinary.sum()), sum(chosen.values())

    def spread(share: float, count: int) -> float:
        return float(5 * np.sqrt(share * (1 - share) / count))

    share = rule["probability"]
    assert number / total == pytest.approx(share, abs=spread(share, total))
    entries, random_share = len(words), rule["of_selected"]["random_token"]
    to_mask = rule["of_selected"]["mask_token"] + random_share / entries
    to_same = rule["of_selected"]["unchanged"] + random_share / entries
    assert fates["mask"] / number == pytest.approx(to_mask, abs=spread(to_mask, number))
    assert fates["same"] / number == pytest.approx(to_same, abs=spread(to_same, number))


def test_a_long_question_is_cut_before_its_options() -> None:
    words = tokenizer(12)
    question, options = "what does the man do after the child falls over on the street", ("dance", "cook food")
    kept = MultipleChoice(ObjectiveConfig(num_options=2), INFER, None)
    ids = kept.collate([example(0, *options, context=question)], words, labelled=False).ids
    for row, option in zip(ids.tolist(), options, strict=True):
        pieces = words([option])[0][0].tolist()[1:]  # with [SEP]
        assert len(row) == 12
        assert row[-len(pieces) :] == pieces
    cut = MultipleChoice(ObjectiveConfig(num_options=2, as_original=True), INFER, None)
    ids = cut.collate([example(0, *options, context=question)], words, labelled=False).ids
    assert ids[0].tolist() == ids[1].tolist()


def groups() -> list[Group]:
    """Media item v0 has three captions, v1 and v2 have one each."""
    captions = [("v0", "zero a"), ("v0", "zero b"), ("v0", "zero c"), ("v1", "one"), ("v2", "two")]
    examples = [Example(str(number), media, (text,)) for number, (media, text) in enumerate(captions)]
    return group_by_media(examples, max_examples=2)


def test_negatives_never_belong_to_the_same_media_item() -> None:
    draw = NegativeCaptions(groups(), 3)
    drawn: set[str] = set()
    for seed in range(60):
        group = draw(groups()[seed % 2], np.random.default_rng(seed))
        for original, each in zip(groups()[seed % 2].examples, group.examples, strict=True):
            assert each.texts[0] == original.texts[0]
            assert len(each.texts) == 4
            drawn |= set(each.texts[1:])
    assert drawn == {"one", "two"}


def test_random_texts_depend_on_the_generator_only() -> None:
    draw = NegativeCaptions(groups(), 2)
    assert draw(groups()[0], np.random.default_rng(5)) == draw(groups()[0], np.random.default_rng(5))
    pairs = Pretraining(OBJECTIVE, INFER, None).draw(groups(), training=False)
    assert pairs is not None
    assert pairs(groups()[0], np.random.default_rng(5)) == pairs(groups()[0], np.random.default_rng(5))


def test_captions_of_a_single_media_item_are_refused() -> None:
    with pytest.raises(AnnotationError, match="all captions belong to the media item 'v0'"):
        Retrieval(OBJECTIVE, INFER, None).draw(groups()[:2], training=True)


def test_half_of_the_pretraining_texts_belong_to_another_item() -> None:
    pairs = Pretraining(OBJECTIVE, INFER, None).draw(groups(), training=True)
    assert pairs is not None
    matches = []
    for seed in range(400):
        for each in pairs(groups()[0], np.random.default_rng(seed)).examples:
            assert each.target.matches == each.texts[0].startswith("zero")
            matches.append(each.target.matches)
    assert np.mean(matches) == pytest.approx(0.5, abs=0.1)


def test_words_of_mismatched_texts_are_masked_but_learnt_only_on_request() -> None:
    text = "the man is playing the guitar on the street"
    examples = [example(seed, text, target=Pair(seed % 2 == 0, seed)) for seed in range(40)]
    usual = Pretraining(OBJECTIVE, INFER, None).collate(examples, tokenizer(20), labelled=True)
    asked = Pretraining(ObjectiveConfig(as_original=True), INFER, None)
    both = asked.collate(examples, tokenizer(20), labelled=True)
    assert torch.equal(usual.ids, both.ids)
    (rows, tokens), (all_rows, all_tokens) = usual.word_positions, both.word_positions
    own = all_rows % 2 == 0
    assert (~own).any()
    assert torch.equal(rows, all_rows[own])
    assert torch.equal(tokens, all_tokens[own])
    assert torch.equal(usual.targets["words"], both.targets["words"][own])
    assert usual.targets["matches"].tolist() == [1, 0] * 20


def test_a_pretrained_model_refuses_questions() -> None:
    with pytest.raises(UsageError, match="pretraining: it has not learnt to answer questions") as raised:
        Pretraining(OBJECTIVE, INFER, None).ask("cat.mp4", "what is it ?", ())
    assert "clipbert finetune" in str(raised.value.hint)
