"""VQA v2: questions with soft answers on the Karpathy split, and the official test questions.

The media id is the stem of the COCO image. An answer is in the vocabulary if at least 9 questions have it, normalised,
as their main answer. The labels of a question are those of its ten raw answers that are in the
vocabulary: an answer that 1, 2, 3 or more of ten people gave scores 0.3, 0.6, 0.9 or 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clipbert_cli.assets.convert.answer_lists import normalize_answer
from clipbert_cli.assets.convert.coco import karpathy_split
from clipbert_cli.assets.convert.raw_files import Record, find, find_optional, read_list
from clipbert_cli.assets.convert.record_writer import RecordWriter
from clipbert_cli.errors import AnnotationError

MIN_QUESTIONS = 9
SCORES = {1: 0.3, 2: 0.6, 3: 0.9}
ANSWER_TYPES = {"yes/no", "number", "other"}
# output -> (the Karpathy splits of its images)
KARPATHY_OUTPUTS = {"vqa_k_trainval.jsonl": {"train", "restval", "val"}, "vqa_k_test.jsonl": {"test"}}
TEST_OUTPUTS = {"vqa_test2015.jsonl": "test2015", "vqa_test_dev2015.jsonl": "test-dev2015"}


def convert(raw: Path, writer: RecordWriter) -> None:
    """Convert the questions and annotations of train2014 and val2014, and the questions of test2015 if they are there.

    Reads v2_OpenEnded_mscoco_*_questions.json, v2_mscoco_*_annotations.json and dataset_coco.json. The answers of the
    vocabulary are ordered by their count, then by their letters.
    """
    split = karpathy_split(raw)
    annotations = {year: read_annotations(raw, year) for year in ("train2014", "val2014")}
    # Predictions are joined with the ground truth by question_id.
    if both := annotations["train2014"].keys() & annotations["val2014"].keys():
        raise AnnotationError(f"{len(both):,} question ids are in train2014 and in val2014, {min(both)} among them")
    counts = count_answers(annotation for whole in annotations.values() for annotation in whole.values())
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    vocabulary = {answer: label for label, answer in enumerate(ordered)}
    records = [record for year, whole in annotations.items() for record in _records(raw, year, whole, vocabulary)]
    unknown = sum(record["image_id"] not in split for record in records)
    if unknown:
        writer.warnings.append(f"{unknown:,} questions are on no image of dataset_coco.json: left out")
    for name, splits in KARPATHY_OUTPUTS.items():
        kept = (record for record in records if split.get(record["image_id"]) in splits)
        writer.records(name, kept, media="image_id", words=("question",))
    for name, file in TEST_OUTPUTS.items():
        if find_optional(raw, f"v2_OpenEnded_mscoco_{file}_questions.json"):
            writer.records(name, _questions(raw, file, "test2015"), media="image_id", words=("question",))
        else:
            writer.warnings.append(f"no v2_OpenEnded_mscoco_{file}_questions.json: {name} is not written")
    writer.vocabulary("trainval_ans2label.json", vocabulary)


def read_annotations(raw: Path, year: str) -> dict[int, Record]:
    """Return question_id -> the annotation as published."""
    path = find(raw, f"v2_mscoco_{year}_annotations.json")
    annotations = list(read_list(path, "annotations"))
    found = {each.field("question_id", kind=int): each for each in annotations}
    # Messages about an annotation name its question.
    found = {question: Record(f"question {question} of {year}", each.fields) for question, each in found.items()}
    if len(found) != len(annotations):
        raise AnnotationError(f"{path}: {len(annotations) - len(found):,} question ids are there twice")
    return found


def count_answers(annotations: Iterable[Record]) -> Counter[str]:
    """Return the answers of the vocabulary: normalised main answer -> number of questions, at least MIN_QUESTIONS."""
    main = (normalize_answer(each.field("multiple_choice_answer")) for each in annotations)
    return Counter({answer: count for answer, count in Counter(main).items() if count >= MIN_QUESTIONS})


def soft_labels(answers: list[str], vocabulary: dict[str, int]) -> dict[str, float]:
    """Return answer -> score for the raw answers of one question, in the order in which they first appear."""
    # The original compares raw answers with the normalised vocabulary: "Net" gives no score to "net".
    counts = Counter(answer for answer in answers if answer in vocabulary)
    return {answer: SCORES.get(count, 1.0) for answer, count in counts.items()}


def _questions(raw: Path, file: str, year: str) -> Iterator[dict[str, Any]]:
    seen: set[int] = set()
    for question in read_list(find(raw, f"v2_OpenEnded_mscoco_{file}_questions.json"), "questions"):
        question_id = question.field("question_id", kind=int)
        if question_id in seen:
            raise question.error(f"question_id {question_id} is there twice")
        seen.add(question_id)
        yield {
            "question": question.field("question"),
            "image_id": f"COCO_{year}_{question.integer('image_id'):012d}",
            "question_id": question_id,
        }


def _records(
    raw: Path, year: str, annotations: dict[int, Record], vocabulary: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for question in _questions(raw, year, year):
        annotation = annotations.get(question["question_id"])
        if annotation is None:
            raise AnnotationError(f"question {question['question_id']} of {year}: no annotation has this question_id")
        answers = [answer.field("answer") for answer in annotation.records("answers")]
        kind = annotation.field("answer_type")
        if kind not in ANSWER_TYPES:
            raise annotation.error(f"answer_type is {kind!r}: {', '.join(sorted(ANSWER_TYPES))} was expected")
        yield {**question, "labels": soft_labels(answers, vocabulary), "answer_type": kind}
