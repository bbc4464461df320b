"""VQA v2: questions with soft answers on the Karpathy split, and the official test questions.

Input: v2_OpenEnded_mscoco_{train,val}2014_questions.json, v2_mscoco_{train,val}2014_annotations.json,
dataset_coco.json; where they are there: v2_OpenEnded_mscoco_{test,test-dev}2015_questions.json, and
trainval_ans2label.json, whose order of the same answers is then kept. The media id is the image file's stem.

An answer belongs to the vocabulary if at least 9 questions have it as their normalised main answer. A question's labels
are those of its ten raw answers that are in the vocabulary; 1, 2, 3, more of them score 0.3, 0.6, 0.9, 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.answers import normalize_answer
from clipbert_cli.assets.convert.base import Output, field, find, find_optional, integer, read_json, read_vocabulary
from clipbert_cli.assets.convert.karpathy import karpathy_split
from clipbert_cli.errors import AnnotationError

MIN_QUESTIONS = 9
SCORES = {1: 0.3, 2: 0.6, 3: 0.9}  # more: 1
ANSWER_TYPES = {"yes/no", "number", "other"}


def convert(raw: Path, output: Output) -> None:
    split = karpathy_split(raw)
    annotations = {year: read_annotations(raw, year) for year in ("train2014", "val2014")}
    if both := annotations["train2014"].keys() & annotations["val2014"].keys():
        raise AnnotationError(f"{len(both):,} question ids are in train2014 and in val2014, {min(both)} among them")
    counts = count_answers(annotation for whole in annotations.values() for annotation in whole.values())
    vocabulary = _ordered_vocabulary(raw, output, counts)
    records = [record for year, whole in annotations.items() for record in _records(raw, year, whole, vocabulary)]
    unknown = sum(record["image_id"] not in split for record in records)
    if unknown:
        output.warn(f"{unknown:,} questions are on no image of dataset_coco.json: left out")
    for name, splits in (("vqa_k_trainval.jsonl", {"train", "restval", "val"}), ("vqa_k_test.jsonl", {"test"})):
        output.records(
            name, (r for r in records if split.get(r["image_id"]) in splits), media="image_id", words=("question",)
        )
    for name, file in (("vqa_test2015.jsonl", "test2015"), ("vqa_test_dev2015.jsonl", "test-dev2015")):
        if find_optional(raw, f"v2_OpenEnded_mscoco_{file}_questions.json"):
            output.records(name, _questions(raw, file, "test2015"), media="image_id", words=("question",))
        else:
            output.warn(f"no v2_OpenEnded_mscoco_{file}_questions.json: {name} is not written")
    output.vocabulary("trainval_ans2label.json", vocabulary)


def read_annotations(raw: Path, year: str) -> dict[int, dict[str, Any]]:
    """question_id -> the annotation as published."""
    path = find(raw, f"v2_mscoco_{year}_annotations.json")
    annotations = field(read_json(path), str(path), "annotations", kind=list)
    found = {field(a, f"{path}, annotation {n}", "question_id", kind=int): a for n, a in enumerate(annotations)}
    if len(found) != len(annotations):
        raise AnnotationError(f"{path}: {len(annotations) - len(found):,} question ids are there twice")
    return found


def count_answers(annotations: Iterator[dict[str, Any]]) -> Counter[str]:
    """The vocabulary: normalised main answer -> number of questions, at least MIN_QUESTIONS."""
    answers = (
        normalize_answer(field(a, f"question {a['question_id']}", "multiple_choice_answer")) for a in annotations
    )
    return Counter({answer: count for answer, count in Counter(answers).items() if count >= MIN_QUESTIONS})


def soft_labels(answers: list[str], vocabulary: dict[str, int]) -> dict[str, float]:
    """The scores of one question's raw answers, in the order they first appear."""
    counts = Counter(answer for answer in answers if answer in vocabulary)
    return {answer: SCORES.get(count, 1.0) for answer, count in counts.items()}


def _ordered_vocabulary(raw: Path, output: Output, counts: Counter[str]) -> dict[str, int]:
    own = {answer: label for label, (answer, _) in enumerate(sorted(counts.items(), key=lambda e: (-e[1], e[0])))}
    path = find_optional(raw, "trainval_ans2label.json")
    if path is None:
        return own
    published = read_vocabulary(path)
    if set(published) != set(own):
        both = len(set(published) & set(own))
        output.warn(
            f"{path.name} has {len(published):,} answers, these files give {len(own):,}, {both:,} in common: "
            "its order is not used"
        )
        return own
    return published


def _questions(raw: Path, file: str, year: str) -> Iterator[dict[str, Any]]:
    path = find(raw, f"v2_OpenEnded_mscoco_{file}_questions.json")
    seen: set[int] = set()
    for index, question in enumerate(field(read_json(path), str(path), "questions", kind=list)):
        where = f"{path}, question {index}"
        image = integer(field(question, where, "image_id", kind=(int, str)), where, "image_id")
        question_id = field(question, where, "question_id", kind=int)
        if question_id in seen:
            raise AnnotationError(f"{where}: question_id {question_id} is there twice")
        seen.add(question_id)
        yield {
            "question": field(question, where, "question"),
            "image_id": f"COCO_{year}_{image:012d}",
            "question_id": question_id,
        }


def _records(
    raw: Path, year: str, annotations: dict[int, dict[str, Any]], vocabulary: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for question in _questions(raw, year, year):
        annotation = annotations.get(question["question_id"])
        where = f"question {question['question_id']} of {year}"
        if annotation is None:
            raise AnnotationError(f"{where}: no annotation has this question_id")
        answers = [field(answer, where, "answer") for answer in field(annotation, where, "answers", kind=list)]
        kind = field(annotation, where, "answer_type")
        if kind not in ANSWER_TYPES:
            raise AnnotationError(f"{where}: answer_type is {kind!r}: {', '.join(sorted(ANSWER_TYPES))} was expected")
        yield {**question, "labels": soft_labels(answers, vocabulary), "answer_type": kind}
