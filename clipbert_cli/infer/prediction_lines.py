"""The lines of a predictions file: JSON objects, written here and read here.

A prediction for one record (question answering, multiple choice, pretraining):

    media_id        the media item
    text_digest     16 hexadecimal digits of the SHA-256 of the JSON list [question, *options] in ASCII, its texts in
                    Unicode's form NFC; without options [null, question] or [null, caption]
    occurrence      only for exact repeats of a record: 2 for the second, 3 for the third
    example_id      the record's own id, if it has one
    question        the question; `text` for a caption
    options         the options, if there are any
    answer          the prediction: an answer, or the position of an option, from 0
    option          the text of that option
    score           its probability
    top             [{"answer", "score"}, ...], the best first
    truth           the record's own answer, if it has one
    correct         what the answer is worth, 0 to 1, if the truth is known
    clips           only with --clip-scores: what each clip says on its own, with its `frames` and their `seconds`
    media_error     in place of answer, option, score and top: why the media item could not be used

A prediction is found by its first three fields and never by its place in the file. All others but the prediction itself
are there to be read by people: what is right is decided by the annotations that it is scored against.

Where every text is scored with every media item (retrieval), one line lists the texts, and each other line belongs to a
media item:

    texts_digest    of all their keys, in order
    texts           [{"media_id", "text_digest", "occurrence", "text"}, ...], the texts in the order of the scores

    media_id        the media item
    texts_digest    names the list
    scores          one probability per text of the list; or `media_error`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbert_cli.errors import PredictionsError
from clipbert_cli.path_kinds import PREDICTIONS, look_at, unlike
from clipbert_cli.printable import COUNTED, listed
from clipbert_cli.task.base import Task
from clipbert_cli.text.fields import RecordError
from clipbert_cli.text.record_files import read_records
from clipbert_cli.types import Example, Prediction, PredictionKey

if TYPE_CHECKING:
    from clipbert_cli.media.sampling import ClipSampling
    from clipbert_cli.store.source import MediaSource

WRONG_LINES = (
    "fix or remove these lines, or run clipbert infer again. Where all are wrong, they may be predictions of another "
    "task: name the recipe and split that were predicted"
)

# ------------------------------------------------------------------------------------------------ lists of texts


@dataclass(frozen=True)
class TextList:
    """The texts that media items are scored with, in the order of the scores."""

    keys: tuple[PredictionKey, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> TextList:
        return cls(tuple(example.key for example in examples), tuple(example.texts[0] for example in examples))

    @classmethod
    def parse(cls, value: Any) -> TextList:
        """Read what `to_json` returned. Raises RecordError."""
        if not isinstance(value, list):
            raise RecordError(f"texts is a JSON {type(value).__name__}: it must be a list of texts")
        keys, texts = [], []
        for number, entry in enumerate(value):
            text = entry.get("text") if isinstance(entry, dict) else None
            if not isinstance(text, str):
                raise RecordError(f"texts[{number}] is {json.dumps(entry)}: it must be an object with `text`")
            keys.append(read_key(entry, whole_media=False))
            texts.append(text)
        if len(set(keys)) != len(keys):
            raise RecordError("texts has a text twice")
        return cls(tuple(keys), tuple(texts))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on the keys and their order."""
        return hashlib.sha256(json.dumps(self.keys).encode()).hexdigest()[:16]

    def to_json(self) -> list[dict[str, Any]]:
        return [{**key.to_json(), "text": text} for key, text in zip(self.keys, self.texts, strict=True)]


# ------------------------------------------------------------------------------------------------ writing


def prediction_lines(
    task: Task, examples: Sequence[Example], predictions: Iterable[Prediction]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of the predictions for `examples`, in the order of the predictions."""
    if task.ranks_media:
        texts = TextList.of(examples)
        yield {"texts_digest": texts.digest, "texts": texts.to_json()}
        for prediction in predictions:
            yield {"media_id": prediction.media_id, "texts_digest": texts.digest, **json_fields(prediction.fields)}
        return
    of_key = {example.key: example for example in examples}
    for prediction in predictions:
        example = of_key[prediction.key]
        own_id = {} if example.example_id is None else {"example_id": example.example_id}
        yield {
            **prediction.key.to_json(),
            **own_id,
            **task.described(example),
            **json_fields(prediction.fields),
            **task.judged(prediction.fields, example),
        }


def json_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as JSON values.

    A float32 becomes the shortest decimal number that reads back as the same float32. It is half as long as one that
    reads back as the same float64.
    """
    return {
        name: [float(str(number)) for number in value] if hasattr(value, "dtype") else value
        for name, value in fields.items()
    }


def with_times(lines: Iterable[dict[str, Any]], media: MediaSource, sampling: ClipSampling) -> Iterator[dict[str, Any]]:
    """Yield the lines of predictions; each of their `clips` says which `frames` it has, and at which `seconds`."""
    from clipbert_cli.media.sampling import select

    last, taken = "", []
    for line in lines:
        if "clips" not in line or media.kind == "image":
            yield line
            continue
        if line["media_id"] != last:
            last = line["media_id"]
            info = media.info(last)
            assert info is not None
            taken = [
                {"frames": list(clip), "seconds": [round(info.seconds(index), 6) for index in clip]}
                for clip in select(info, sampling)
            ]
        yield {**line, "clips": [{**own, **clip} for own, clip in zip(taken, line["clips"], strict=True)]}


# ------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Row:
    """One prediction as it was read.

    Args:
        where: file and line, for messages.
        fields: the line's fields. `scores` is a float32 array.
    """

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """The predictions of a file or folder; `texts` are those of all scores, in their order."""

    of_key: Mapping[PredictionKey, Row]
    texts: TextList | None = None


def read_lines(path: Path, *, ranks_media: bool) -> Rows:
    """Return the predictions of a JSON lines file; `-` is standard input.

    Args:
        ranks_media: whether every line has the scores of a media item with all texts.

    Raises:
        PathError: it is no file of predictions.
        PredictionsError: for all torn lines, lines that are no predictions, and keys that occur twice, together.
    """
    if path != Path("-") and not PREDICTIONS.takes(look_at(path)):
        raise unlike(path, PREDICTIONS)
    # Many mistakes are collected, so that one run names the bad lines of a large file.
    mistakes: list[str] = []
    rows: dict[PredictionKey, Row] = {}
    texts: TextList | None = None
    for record in read_records(path):
        if len(mistakes) == COUNTED:
            break
        if isinstance(record, str):
            mistakes.append(record)
            continue
        where = record.place
        try:
            if ranks_media and "texts" in record.fields:
                own = TextList.parse(record.fields["texts"])
                if (stated := record.fields.get("texts_digest")) != own.digest:
                    found = f"texts_digest is {json.dumps(stated)}"
                    raise RecordError(f"{found}: it must be {own.digest}, the digest of these texts")
                if texts not in (None, own):
                    raise RecordError("the file lists other texts before: predict the split with one command")
                texts = own
                continue
            key = read_key(record.fields, whole_media=ranks_media)
            if key in rows:
                raise RecordError(f"{named(key, record.fields)} has a prediction already: {rows[key].where}")
            rows[key] = Row(where, _checked(record.fields, ranks_media=ranks_media))
        except RecordError as exc:
            mistakes.append(f"{where}: {exc}")
    limit = COUNTED if len(mistakes) == COUNTED else None
    # Where reading ended early, the list of texts may be behind.
    if ranks_media and limit is None:
        mistakes += _unlisted(rows, texts)
    if mistakes:
        raise PredictionsError(listed(mistakes, limit=limit), hint=WRONG_LINES)
    if not rows:
        raise PredictionsError(f"{path}: there are no predictions in it", hint=PREDICTIONS.hint)
    return Rows(rows, texts)


def read_key(fields: Mapping[str, Any], *, whole_media: bool) -> PredictionKey:
    """Return the key of a line or of an entry of `texts`; one of a media item has no text. Raises RecordError."""
    names = ("media_id",) if whole_media else ("media_id", "text_digest")
    for name in names:
        if not isinstance(fields.get(name), str):
            raise RecordError(f"{name} is {json.dumps(fields.get(name))}: it must be text")
    if whole_media:
        return PredictionKey(fields["media_id"])
    occurrence = fields.get("occurrence", 1)
    if type(occurrence) is not int or occurrence < 1:
        raise RecordError(f"occurrence is {json.dumps(occurrence)}: it must be a whole number of at least 1")
    return PredictionKey(fields["media_id"], fields["text_digest"], occurrence)


def named(key: PredictionKey, fields: Mapping[str, Any]) -> str:
    """Return the media item of a line or example, and the texts that its fields state, for messages."""
    texts = [fields[name] for name in ("question", "text", "options") if name in fields]
    return ", ".join(map(repr, [key.media_id, *texts]))


def _checked(fields: Mapping[str, Any], *, ranks_media: bool) -> Mapping[str, Any]:
    """Return the fields of a line with its scores as an array. Raises RecordError."""
    if "media_error" in fields:
        if not isinstance(fields["media_error"], str):
            raise RecordError(f"media_error is {json.dumps(fields['media_error'])}: it must be text")
        if answered := {"answer", "scores"} & fields.keys():
            raise RecordError(f"the line has both media_error and {answered.pop()}: it must have one of them")
        return fields
    return {**fields, "scores": _scores(fields.get("scores"))} if ranks_media else fields


def _scores(value: Any) -> np.ndarray:
    # The types are compared, because numpy also makes numbers of text ("0.5") and of true.
    if not isinstance(value, list) or any(type(number) not in (int, float) for number in value):
        raise RecordError("scores must be a list of numbers")
    with np.errstate(over="ignore"):
        scores = np.array(value, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise RecordError("scores has a number that no float32 can hold")
    return scores


def _unlisted(rows: Mapping[PredictionKey, Row], texts: TextList | None) -> list[str]:
    """Return what is wrong with scores whose texts are not those of the list, which may follow the lines."""
    listed, count = (texts.digest, len(texts.keys)) if texts else (None, 0)
    mistakes = []
    for row in rows.values():
        digest, scores = row.fields.get("texts_digest"), row.fields.get("scores")
        if scores is None:
            continue
        if listed is None or digest != listed:
            mistakes.append(f"{row.where}: texts_digest is {json.dumps(digest)}: no line lists these texts")
        elif len(scores) != count:
            mistakes.append(
                f"{row.where}: scores has {len(scores)} numbers: it must have one for each of the {count} texts"
            )
    return mistakes
