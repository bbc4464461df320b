"""Every text with every media item: the scores of a split, a search, and a shortlist for both.

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
from typing import Any

import numpy as np
import torch

from clipbert_cli.build import Evaluation
from clipbert_cli.errors import DecodeError, InterruptionError
from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring
from clipbert_cli.infer.trained import Progress, TrainedRun
from clipbert_cli.recipe.settings import scoring_settings
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.runtime.stopping import STOP_SIGNALS
from clipbert_cli.splits import Split
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.types import Example, Prediction

# The settings of a shortlist: one frame from the middle, as large as those that the model was trained on.
#
# Frames of half the side give the demo's model lists that are hardly better than chance; a full frame gives nearly the
# lists of four clips.
CHEAP: Mapping[str, Mapping[str, Any]] = {"data": {"num_frames": 1}, "infer": {"num_clips": 1, "sampling": "middle"}}


@dataclass(frozen=True)
class Pairs:
    """Texts, and the media items that each of them is scored with. The media ids are in the order of the rows."""

    run: TrainedRun
    split: Split
    media_ids: Sequence[str]
    shortlist: Shortlist | None = None

    def evaluation(self, *, done: frozenset[int] = frozenset()) -> Evaluation:
        """Return this process's share of the work, without the batches whose numbers are in `done`."""
        evaluation = self.run.setup.evaluation(self.split, media_ids=self.media_ids, done=done)
        if self.shortlist is None:
            return evaluation
        assert evaluation.shared is not None
        shared = dataclasses.replace(evaluation.shared, wanted=self.shortlist.wanted)
        return dataclasses.replace(evaluation, shared=shared)

    def predict(self, progress: Progress = lambda count: None) -> Iterator[Prediction]:
        """Yield a prediction with `scores` or `media_error` for every media item."""
        return map(self.complete, self.run.predict(self.evaluation(), progress))

    def complete(self, prediction: Prediction) -> Prediction:
        """Return the prediction with the scores of the texts that the shortlist left out."""
        return prediction if self.shortlist is None else self.shortlist.complete(prediction)

    def shortlisted(self, size: int | None, progress: Progress = lambda count: None) -> Pairs:
        """Return the same pairs with a shortlist, if there are more than `size` media items."""
        # A list of all items would score every pair twice.
        if size is None or size >= len(self.media_ids):
            return self
        return dataclasses.replace(self, shortlist=Shortlist.make(self, size, progress))


@dataclass(frozen=True)
class Shortlist:
    """The `size` media items per text that a cheap score ranks first. Only these are scored with all clips.

    The other items keep the order of their cheap scores and rank behind the shortlist, with scores below 0.

    Attributes:
        rows: media id -> row of the arrays.
        cheap: (M, N) float32 in 0..1; -1 if the media item failed.
        chosen: (M, N) bool.
    """

    size: int
    rows: Mapping[str, int]
    cheap: np.ndarray
    chosen: np.ndarray

    @classmethod
    def make(cls, pairs: Pairs, size: int, progress: Progress) -> Shortlist:
        """Score all pairs cheaply, with the same model."""
        rows = {media_id: row for row, media_id in enumerate(pairs.media_ids)}
        cheap = np.full((len(rows), len(pairs.split.examples)), -1.0, dtype=np.float32)
        run = dataclasses.replace(pairs.run, setup=pairs.run.setup.changed(**CHEAP))
        for prediction in dataclasses.replace(pairs, run=run).predict(progress):
            if "scores" in prediction.fields:
                cheap[rows[prediction.media_id]] = prediction.fields["scores"]
        # A stable sort, so that equal scores give the same list on every machine.
        first = np.argsort(-cheap, axis=0, kind="stable")[:size]  # (size, N)
        chosen = np.zeros(cheap.shape, dtype=bool)
        np.put_along_axis(chosen, first, True, axis=0)
        # Failed items cannot be chosen, even where a list would have room for them.
        return cls(size, rows, cheap, chosen & (cheap >= 0))

    def wanted(self, media_ids: Sequence[str]) -> torch.Tensor:
        """Return (B, N) bool: which texts have each of B media items on their list."""
        return torch.from_numpy(self.chosen[[self.rows[media_id] for media_id in media_ids]])

    def complete(self, prediction: Prediction) -> Prediction:
        """Return the prediction with scores in -1..0 for the texts that do not have it on their list."""
        if "scores" not in prediction.fields:
            return prediction
        row = self.rows[prediction.media_id]
        # Probabilities are in 0..1, so subtracting 1 puts the cheap ones behind all others and keeps their order.
        scores = np.where(self.chosen[row], prediction.fields["scores"], self.cheap[row] - 1)
        return dataclasses.replace(prediction, fields={**prediction.fields, "scores": scores.astype(np.float32)})

    def missed(self, examples: Sequence[Example]) -> float:
        """Return the percentage of texts whose own media item is not on their list: the most that recall can lose."""
        own = [self.chosen[self.rows[example.media_id], text] for text, example in enumerate(examples)]
        return 100 * (1 - float(np.mean(own)))


def split_pairs(run: TrainedRun, name: str) -> Pairs:
    """Read a split for ranking: each of its texts with each of its media items.

    Raises:
        UsageError: the run's task does not score every text with every media item.
        ClipbertError: something is wrong with the split.
    """
    run.setup.task.require_ranking("scoring every text of a split with every media item")
    split = run.setup.split(name)
    return Pairs(run, split, list(dict.fromkeys(example.media_id for example in split.examples)))


def write_scores(pairs: Pairs, path: Path, *, overwrite: bool, progress: Progress) -> int:
    """Write the scores of all pairs into a folder, or continue an interrupted command that did.

    Returns:
        How many media items were in the folder already.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
        InterruptionError: a signal asked to stop; finished batches are kept.
    """
    world = pairs.run.setup.world
    folder = ScoreFolder(path, _scoring(pairs))
    with ExitStack() as stack:
        opened = folder.opened(overwrite=overwrite)
        done = frozenset(world.main_first(lambda: stack.enter_context(opened)))
        # The progress bar begins with what an earlier command has finished.
        already = sum(len(folder.scoring.positions(number)) for number in done)
        progress(already)
        evaluation = pairs.evaluation(done=done)
        try:
            with Interrupts(STOP_SIGNALS) as interrupts:
                batches = pairs.run.predictor.run_own(evaluation, progress=progress, check_interrupts=interrupts.check)
                for number, predictions in zip(evaluation.numbers, batches, strict=True):
                    folder.add(number, [pairs.complete(prediction) for prediction in predictions])
        except InterruptionError as exc:
            raise InterruptionError(
                exc.signal,
                f"interrupted by {exc.signal.name}: the scores so far are kept in {path}",
                hint="the same command continues from here",
            ) from exc
        # The main process may finish the folder only after all others have written their last batch.
        world.gather(None)
        world.main_first(folder.finish)
    return already


def _scoring(pairs: Pairs) -> Scoring:
    examples = pairs.split.examples
    return Scoring(
        media=tuple(pairs.media_ids),
        texts=TextList.of(examples),
        digest=_digest(pairs),
        batch_size=pairs.run.setup.recipe.infer.batch_size,
    )


def _digest(pairs: Pairs) -> str:
    """Return eight hexadecimal digits of all that decides a score: weights, settings, texts, precision, shortlist."""
    recipe = pairs.run.setup.recipe
    settings = scoring_settings(recipe)
    shortlist = pairs.shortlist.size if pairs.shortlist else None
    precision = pairs.run.setup.precision.name
    texts = [example.texts for example in pairs.split.examples]
    digest = zlib.crc32(json.dumps([settings, precision, shortlist, texts]).encode())
    # The weights themselves, not the name of the checkpoint: `best` may have moved since the folder was begun.
    return pairs.run.weights_checksum(digest)


@dataclass(frozen=True)
class Found:
    """A media item and how well it matches, 0..1; below 0 if a shortlist left it out."""

    media_id: str
    score: float


def search(
    run: TrainedRun,
    media: Path,
    texts: Sequence[str],
    *,
    shortlist: int | None = None,
    progress: Callable[[int, int], None],
) -> list[list[Found]]:
    """Find the `infer.top` media items of a store or folder that match each text best, best first.

    The kind of the media is the recipe's `data.media`. Items of equal scores keep the order of the store.

    Args:
        shortlist: score only this many media items per text with all clips. Default: all.
        progress: called with the finished and the total number of media items.

    Raises:
        UsageError: the run's task does not score every text with every media item.
        StoreError: there are no media.
        DecodeError: no media item can be decoded.
    """
    run = run.for_ranking("clipbert search")
    recipe = run.setup.recipe
    source = open_media(media, kind=recipe.data.media, frame_rate=recipe.data.fps_of_frames)
    # An empty media id: a text to search for belongs to no media item.
    split = Split([Example(None, "", (text,)) for text in texts], source)
    pairs = Pairs(run, split, list(source)).shortlisted(shortlist)
    done = 0

    def after(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(pairs.media_ids))

    # A folder of one's own often has a few damaged files. They are left out of the result, unless none is left.
    answered = list(pairs.predict(after))
    predictions = [prediction for prediction in answered if "scores" in prediction.fields]
    if not predictions:
        raise DecodeError(f"no media item can be used; the first: {answered[0].fields['media_error']}")
    scores = np.stack([prediction.fields["scores"] for prediction in predictions])  # (media, texts)
    best = np.argsort(-scores, axis=0, kind="stable")[: recipe.infer.top].T  # (texts, top)
    # Over str, a float32 becomes the shortest decimal number and not the long tail of its float64 value.
    return [
        [Found(predictions[row].media_id, float(str(scores[row, text]))) for row in rows]
        for text, rows in enumerate(best.tolist())
    ]
