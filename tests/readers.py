"""Which task reads what a converter writes, and with which check."""

import pytest

from clipbert_cli.errors import AnnotationError
from clipbert_cli.recipe.schema import InferConfig, ObjectiveConfig
from clipbert_cli.task.image_qa import ImageQa
from clipbert_cli.task.multiple_choice import MultipleChoice
from clipbert_cli.task.open_ended_qa import OpenEndedQa
from clipbert_cli.task.pretraining import Pretraining
from clipbert_cli.task.retrieval import Retrieval
from clipbert_cli.text.annotations import read_answers, read_examples

TRAINING, TRUTH, UNKNOWN = "training", "truth", "unknown"
FILES = {
    "coco_captions/coco_train_captions.jsonl": (Pretraining, TRAINING),
    "coco_captions/coco_val_captions.jsonl": (Pretraining, TRUTH),
    "vg_captions/vg_train_captions.jsonl": (Pretraining, TRAINING),
    "vg_captions/vg_val_captions.jsonl": (Pretraining, TRUTH),
    "vqa/vqa_k_trainval.jsonl": (ImageQa, TRAINING),
    "vqa/vqa_k_test.jsonl": (ImageQa, TRUTH),
    "vqa/vqa_test2015.jsonl": (ImageQa, UNKNOWN),
    "vqa/vqa_test_dev2015.jsonl": (ImageQa, UNKNOWN),
    "vg_qa/vg_k_trainval.jsonl": (ImageQa, TRAINING),
    "msrvtt_retrieval/train.jsonl": (Retrieval, TRAINING),
    "msrvtt_retrieval/train_9k.jsonl": (Retrieval, TRAINING),
    "msrvtt_retrieval/val.jsonl": (Retrieval, TRUTH),
    "msrvtt_retrieval/test.jsonl": (Retrieval, TRUTH),
    "msrvtt_mc/test.jsonl": (MultipleChoice, TRUTH),
    "msrvtt_qa/train.jsonl": (OpenEndedQa, TRAINING),
    "msrvtt_qa/val.jsonl": (OpenEndedQa, TRUTH),
    "msrvtt_qa/test.jsonl": (OpenEndedQa, TRUTH),
    "didemo_retrieval/train.jsonl": (Retrieval, TRAINING),
    "didemo_retrieval/val.jsonl": (Retrieval, TRUTH),
    "didemo_retrieval/test.jsonl": (Retrieval, TRUTH),
    "anet_retrieval/train.jsonl": (Retrieval, TRAINING),
    "anet_retrieval/dev.jsonl": (Retrieval, TRUTH),
    "tgif_qa/action_train.jsonl": (MultipleChoice, TRAINING),
    "tgif_qa/action_val.jsonl": (MultipleChoice, TRUTH),
    "tgif_qa/action_test.jsonl": (MultipleChoice, TRUTH),
    "tgif_qa/transition_train.jsonl": (MultipleChoice, TRAINING),
    "tgif_qa/transition_val.jsonl": (MultipleChoice, TRUTH),
    "tgif_qa/transition_test.jsonl": (MultipleChoice, TRUTH),
    "tgif_qa/frameqa_train.jsonl": (OpenEndedQa, TRAINING),
    "tgif_qa/frameqa_val.jsonl": (OpenEndedQa, TRUTH),
    "tgif_qa/frameqa_test.jsonl": (OpenEndedQa, TRUTH),
    "msvd_retrieval/train.jsonl": (Retrieval, TRAINING),
    "msvd_retrieval/val.jsonl": (Retrieval, TRUTH),
    "msvd_retrieval/test.jsonl": (Retrieval, TRUTH),
    "msvd_qa/train.jsonl": (OpenEndedQa, TRAINING),
    "msvd_qa/val.jsonl": (OpenEndedQa, TRUTH),
    "msvd_qa/test.jsonl": (OpenEndedQa, TRUTH),
    "next_qa/train.jsonl": (MultipleChoice, TRAINING),
    "next_qa/val.jsonl": (MultipleChoice, TRUTH),
    "next_qa/test.jsonl": (MultipleChoice, UNKNOWN),
    "caption_lists/train_full.jsonl": (Retrieval, TRAINING),
    "caption_lists/val_full.jsonl": (Retrieval, TRUTH),
    "caption_lists/test_full.jsonl": (Retrieval, TRUTH),
    "caption_lists/train_jsfusion.jsonl": (Retrieval, TRAINING),
    "caption_lists/val_jsfusion.jsonl": (Retrieval, TRUTH),
}
VOCABULARIES = {
    "vqa": "trainval_ans2label.json",
    "vg_qa": "trainval_ans2label.json",
    "msrvtt_qa": "train_ans2label.json",
    "msvd_qa": "train_ans2label.json",
    "tgif_qa": "frameqa_trainval_ans2label.json",
}


def check_readable(converter, folder, counts, answers_folder):
    """Read all files of a conversion; file -> its examples.

    Args:
        counts: the converter's, which must be those of the examples.
        answers_folder: where the vocabulary is that its answers must be in.
    """
    answers = None
    if converter in VOCABULARIES:
        answers = _answers(answers_folder / VOCABULARIES[converter])
    examples = {}
    for name, count in counts.items():
        if name == VOCABULARIES.get(converter):
            assert len(answers) == count.records
            continue
        task_class, check = FILES[f"{converter}/{name}"]
        examples[name] = _examples(folder / name, task_class(ObjectiveConfig(), InferConfig(), answers), check)
        assert len(examples[name]) == count.records
        assert len({example.media_id for example in examples[name]}) == count.media
    return examples


def _answers(path):
    if path.read_bytes() == b"{}\n":
        with pytest.raises(AnnotationError, match="expected an object"):
            read_answers(path)
        return {}
    return read_answers(path)


def _examples(path, task, check):
    def parse(record):
        example = task.parse(record)
        if check == TRAINING:
            task.check_training(example)
        if check in (TRAINING, TRUTH):
            task.check_truth(example)
        else:
            assert example.target is None
        return example

    if path.stat().st_size == 0:
        with pytest.raises(AnnotationError, match="no records in it"):
            read_examples(path, parse)
        return []
    return read_examples(path, parse)
