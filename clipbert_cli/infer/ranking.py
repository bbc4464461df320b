"""Every text with every media item: scores of a split in a folder, a search among media, and a shortlist for both.

Legend: M media items, N texts.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clipbert_cli.build import Evaluation, open_split_media, read_split
from clipbert_cli.errors import DecodeError, InterruptionError, UsageError
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring
from clipbert_cli.infer.trained import Answering, LoadedRun
from clipbert_cli.loading.order import OrderedBatches
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.source import MediaSource
from clipbert_cli.task.retrieval import checksum
from clipbert_cli.types import Example, Kind, Prediction

Progress = Callable[[int], None]

CHEAP = {"num_clips": 1, "num_frames": 1, "sampling": "middle"}
"""How a shortlist looks at a media item: one frame, as large as those that the model was trained on. Frames of half the
side give the demo's model lists that are hardly better than chance; a whole one, nearly those of four clips."""


# ------------------------------------------------------------------------------------------------ shortlist


@dataclass(frozen=True)
class Shortlist:
    """For each text the `size` media items that a cheap score puts first; only these get the true score.

    The others keep their order by the cheap score, behind all that are on the list: their scores are below 0.

    Attributes:
        cheap: (M, N) float32 in 0..1; -1 where the media item failed.
        chosen: (M, N) bool.
    """

    size: int
    media: Mapping[str, int]
    cheap: np.ndarray
    chosen: np.ndarray

    @classmethod
    def make(cls, loaded: LoadedRun, questions: Questions, size: int, progress: Progress) -> Shortlist | None:
        """Score everything cheaply, by the same model. None where the list would hold every item."""
        media = {media_id: row for row, media_id in enumerate(questions.media)}
        if size >= len(media):
            return None
        cheap = np.full((len(media), len(questions.examples)), -1.0, dtype=np.float32)
        for prediction in loaded.predict(questions.evaluation(cheaper(loaded)), progress):
            if "scores" in prediction.fields:
                cheap[media[prediction.media_id]] = prediction.fields["scores"]
        first = np.argsort(-cheap, axis=0, kind="stable")[:size]  # (size, N)
        chosen = np.zeros(cheap.shape, dtype=bool)
        np.put_along_axis(chosen, first, True, axis=0)
        return cls(size, media, cheap, chosen & (cheap >= 0))

    def wanted(self, media_ids: Sequence[str]) -> torch.Tensor:
        """(B, N) bool."""
        return torch.from_numpy(self.chosen[[self.media[media_id] for media_id in media_ids]])

    def complete(self, prediction: Prediction) -> Prediction:
        """The prediction, with scores in -1..0 for the texts that have it not on their list."""
        if "scores" not in prediction.fields:
            return prediction
        row = self.media[prediction.media_id]
        scores = np.where(self.chosen[row], prediction.fields["scores"], self.cheap[row] - 1)
        return dataclasses.replace(prediction, fields={**prediction.fields, "scores": scores.astype(np.float32)})

    def missed(self, examples: Sequence[Example]) -> float:
        """Percent of the texts whose own media item is not on their list: what recall can lose at most."""
        own = [self.chosen[self.media[example.media_id], text] for text, example in enumerate(examples)]
        return 100 * (1 - float(np.mean(own)))


def cheaper(loaded: LoadedRun) -> LoadedRun:
    """The same model, looking at a single frame."""
    infer = loaded.recipe.infer.model_copy(update=CHEAP)
    return dataclasses.replace(loaded, recipe=loaded.recipe.model_copy(update={"infer": infer}))


@dataclass(frozen=True)
class Questions:
    """Texts and the media that each of them is scored with."""

    examples: Sequence[Example]
    source: MediaSource
    media: Sequence[str]

    def evaluation(
        self, loaded: LoadedRun, *, shortlist: Shortlist | None = None, done: frozenset[int] = frozenset()
    ) -> Evaluation:
        """This process's share of the work, without the batches that are done."""
        questions = loaded.evaluation(self.examples, self.source, self.media, done=done)
        if shortlist is None:
            return questions
        assert questions.shared is not None
        return dataclasses.replace(questions, shared=dataclasses.replace(questions.shared, wanted=shortlist.wanted))


def check_every_pair(loaded: LoadedRun, what: str) -> None:
    """Raise UsageError unless the run's task scores every text with every media item."""
    if not loaded.task.every_pair:
        raise UsageError(f"the run's task is {loaded.recipe.task}: {what}", hint="give the folder of a retrieval run")


# ------------------------------------------------------------------------------------------------ a split


@dataclass(frozen=True)
class SplitScoring:
    """The scores of a split, to come.

    `missed` is what a shortlist leaves out, see `Shortlist.missed`; None without one.
    """

    loaded: LoadedRun
    questions: Questions
    shortlist: Shortlist | None
    missed: float | None

    @classmethod
    def prepare(cls, loaded: LoadedRun, split: str, shortlist: int | None, progress: Progress) -> SplitScoring:
        """Read the split, and make the shortlist where one is asked for.

        Raises:
            UsageError: the run's task does not score every text with every media item.
            ClipbertError: what is wrong with the split.
        """
        check_every_pair(loaded, "it does not score every text of a split with every media item")
        examples = read_split(loaded.recipe, split, loaded.task)
        source = open_split_media(loaded.recipe, split, examples)
        questions = Questions(examples, source, list(dict.fromkeys(example.media_id for example in examples)))
        listed = Shortlist.make(loaded, questions, shortlist, progress) if shortlist else None
        missed = None if shortlist is None else listed.missed(examples) if listed else 0.0
        return cls(loaded, questions, listed, missed)

    @property
    def total(self) -> int:
        """Media items."""
        return len(self.questions.media)

    def predictions(self, progress: Progress) -> Answering:
        """A prediction for every media item."""
        evaluation = self.questions.evaluation(self.loaded, shortlist=self.shortlist)
        answered = self.loaded.predict(evaluation, progress)
        return Answering(self.total, map(self.shortlist.complete, answered) if self.shortlist else answered)

    def write(self, path: Path, *, overwrite: bool, progress: Progress) -> int:
        """Write the scores into a folder, or go on where an interruption left it; how many media items were there.

        Raises:
            OutputError: the folder holds something else, or cannot be written.
            InterruptionError: a signal asked to stop; what is done is kept.
        """
        world = self.loaded.world
        folder = ScoreFolder(path, self._scoring())
        with ExitStack() as stack:
            opened = folder.opened(overwrite=overwrite)
            done = frozenset(world.main_first(lambda: stack.enter_context(opened)))
            already = sum(len(folder.scoring.positions(number)) for number in done)
            progress(already)
            try:
                with folder.part(world.rank) as part:
                    for number, predictions in self._batches(done, progress):
                        part.add(number, predictions)
            except InterruptionError as exc:
                raise InterruptionError(
                    exc.signal,
                    f"interrupted by {exc.signal.name}: the scores so far are kept in {path}",
                    hint="the same command goes on from here",
                ) from exc
            world.gather(None)  # everybody has written
            world.main_first(folder.finish)
        return already

    def _batches(self, done: frozenset[int], progress: Progress) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """This process's batches that are not done: number and predictions."""
        batch_size = self.loaded.recipe.infer.batch_size
        order = OrderedBatches(self.total, batch_size=batch_size, shard=self.loaded.world.shard, done=done)
        evaluation = self.questions.evaluation(self.loaded, shortlist=self.shortlist, done=done)
        answered = self.loaded.predict_own(evaluation, progress)
        for number, predictions in zip(order.numbers, answered, strict=True):
            yield number, list(map(self.shortlist.complete, predictions)) if self.shortlist else predictions

    def _scoring(self) -> Scoring:
        examples = self.questions.examples
        return Scoring(
            media=tuple(self.questions.media),
            texts=tuple(example.example_id for example in examples),
            checksum=checksum(examples),
            digest=self._digest(),
            batch_size=self.loaded.recipe.infer.batch_size,
        )

    def _digest(self) -> str:
        """Eight hexadecimal digits of all that decides a score: weights, settings, texts, precision, shortlist."""
        recipe = self.loaded.recipe
        settings = recipe.model_dump(mode="json", include={"task", "seed", "data", "model", "objective", "infer"})
        for name in ("root", "workers", "splits", "train_splits", "train_ratios"):
            del settings["data"][name]
        shortlist = self.shortlist.size if self.shortlist else None
        precision = self.loaded.precision.name
        texts = [example.texts for example in self.questions.examples]
        digest = zlib.crc32(json.dumps([settings, precision, shortlist, texts]).encode())
        for tensor in self.loaded.model.state_dict().values():
            digest = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), digest)
        return f"{digest:08x}"


# ------------------------------------------------------------------------------------------------ a search


@dataclass(frozen=True)
class Found:
    """A media item and how well it matches, 0..1; below 0 where it is on no shortlist."""

    media_id: str
    score: float


def search(
    loaded: LoadedRun,
    media: Path,
    texts: Sequence[str],
    *,
    kind: Kind,
    shortlist: int | None = None,
    progress: Callable[[int, int], None],
) -> list[list[Found]]:
    """The `infer.top` best media items of a store or folder for each text, best first.

    Args:
        shortlist: score only this many media items of each text with all clips; default: all.
        progress: called with the finished and the total number of media items.

    Raises:
        UsageError: the run's task does not score every text with every media item.
        StoreError: no media there.
    """
    check_every_pair(loaded, "it does not find media by text")
    source = open_media(media, kind=kind)
    settings = loaded.recipe.model_copy(update={"data": loaded.recipe.data.model_copy(update={"media": kind})})
    loaded = dataclasses.replace(loaded, recipe=settings)
    questions = Questions(
        [Example(str(number), "", (text,)) for number, text in enumerate(texts)], source, list(source)
    )
    total = len(questions.media)
    done = 0

    def after(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    listed = Shortlist.make(loaded, questions, shortlist, lambda count: None) if shortlist else None
    answered = list(loaded.predict(questions.evaluation(loaded, shortlist=listed), after))
    predictions = [prediction for prediction in answered if "scores" in prediction.fields]
    if not predictions:
        raise DecodeError(f"no media item can be used; the first: {answered[0].fields['media_error']}")
    if listed:
        predictions = list(map(listed.complete, predictions))
    scores = np.stack([prediction.fields["scores"] for prediction in predictions])  # (media, texts)
    best = np.argsort(-scores, axis=0, kind="stable")[: loaded.recipe.infer.top].T  # (texts, top)
    return [
        [Found(predictions[row].media_id, float(str(scores[row, text]))) for row in rows]
        for text, rows in enumerate(best.tolist())
    ]
