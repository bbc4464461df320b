"""Every text with every media item: the scores of a split, and a search."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipbert_cli.errors import DecodeError, InterruptionError
from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.infer.score_folder import ScoreFolder, Scoring
from clipbert_cli.infer.trained import Progress, TrainedRun
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.runtime.stopping import STOP_SIGNALS
from clipbert_cli.splits import Split
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.types import Example


def write_scores(run: TrainedRun, split: Split, path: Path, *, overwrite: bool, progress: Progress) -> int:
    """Write the scores of every text of a split with each of its media items into a folder.

    An interrupted command that did the same is continued.

    Returns:
        How many media items were in the folder already.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
        InterruptionError: a signal asked to stop; finished batches are kept.
    """
    setup, examples = run.setup, split.examples
    media = tuple(dict.fromkeys(example.media_id for example in examples))
    scoring = Scoring(media, TextList.of(examples), _digest(run, examples), setup.recipe.infer.batch_size)
    folder = ScoreFolder(path, scoring)
    with ExitStack() as stack:
        opened = folder.opened(overwrite=overwrite)
        done = frozenset(setup.world.main_first(lambda: stack.enter_context(opened)))
        # The progress bar begins with what an earlier command has finished.
        already = sum(len(scoring.positions(number)) for number in done)
        progress(already)
        evaluation = setup.evaluation(split, done=done)
        try:
            with Interrupts(STOP_SIGNALS) as interrupts:
                batches = run.predictor.run_own(evaluation, progress=progress, check_interrupts=interrupts.check)
                for number, predictions in zip(evaluation.numbers, batches, strict=True):
                    folder.add(number, predictions)
        except InterruptionError as exc:
            raise InterruptionError(
                exc.signal,
                f"interrupted by {exc.signal.name}: the scores so far are kept in {path}",
                hint="the same command continues from here",
            ) from exc
        # The main process may finish the folder only after all others have written their last batch.
        setup.world.gather(None)
        setup.world.main_first(folder.finish)
    return already


def _digest(run: TrainedRun, examples: Sequence[Example]) -> str:
    """Return eight hexadecimal digits of all that can decide a score: weights, settings, texts, precision."""
    texts = [example.texts for example in examples]
    # The same command has all of these settings. How the weights were trained shows in the weights.
    settings = run.setup.recipe.model_dump(mode="json", include={"task", "data", "objective", "model", "infer"})
    content = [settings, run.setup.precision.name, texts]
    # The weights themselves, not the name of the checkpoint: `best` may have moved since the folder was begun.
    return run.weights_checksum(zlib.crc32(json.dumps(content).encode()))


@dataclass(frozen=True)
class Found:
    """A media item and how well it matches, 0..1."""

    media_id: str
    score: float


def search(
    run: TrainedRun, media: Path, texts: Sequence[str], *, progress: Callable[[int, int], None]
) -> list[list[Found]]:
    """Find the `infer.top` media items of a store or folder that match each text best, best first.

    The kind of the media is the recipe's `data.media`. Items of equal scores keep the order of the store.

    Args:
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
    done = 0

    def after(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(source))

    # A folder of one's own often has a few damaged files. They are left out of the result, unless none is left.
    answered = list(run.predict(run.setup.evaluation(split, media_ids=list(source)), after))
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
