"""A folder with the scores of every text with every media item, written batch by batch and resumable after a kill.

    scores/
      scores.npy      float32 (M, N): one row per media item, one column per text; NaN where the media item failed
      ids.json        {"media": [M ids], "texts": [N texts as in prediction_lines.py], "errors": {media id: reason},
                      "rows": [the CRC-32 of each row of scores.npy], "checksum": of all these in their order}
      unfinished/     removed at the end
        state.json    what is scored, and by which model
        rows-B.npy    the rows of batch B, as in the whole array
        error-P       the reason why the media item at position P failed
        .lock         held by the command that writes

A batch counts when its file of rows is there, which appears whole and after the reasons of its failed items. So a kill
at any moment leaves only batches that are complete or that are computed again. The folder is complete when `scores.npy`
has been renamed into it; a folder `unfinished` beside it is then only a leftover.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_cli.errors import OutputError, PredictionsError, UnreadableError
from clipbert_cli.files import LockHeldError, atomic_file, atomic_path, fsync, lock, publish_file, refuse_link, remove
from clipbert_cli.foreign import map_array, read_json, read_text
from clipbert_cli.infer.prediction_lines import Row, Rows, TextList
from clipbert_cli.path_kinds import SCORES, UNFINISHED
from clipbert_cli.system_errors import unwritable
from clipbert_cli.text.fields import RecordError
from clipbert_cli.types import Prediction, PredictionKey

IDS, STATE, LOCK = "ids.json", "state.json", ".lock"
# A million texts have some 130 MB and four million names.
MAX_IDS_BYTES, MAX_IDS_PARTS = 2**28, 4_500_000


@dataclass(frozen=True)
class Scoring:
    """The scored pairs: M media items in batches, N texts, and a digest of all that decides a score.

    Two commands, or an interrupted one and its continuation, may write into one folder only if all of it is equal.
    """

    media: tuple[str, ...]
    texts: TextList
    digest: str
    batch_size: int

    @property
    def batches(self) -> int:
        """The number of batches."""
        return -(-len(self.media) // self.batch_size)

    def positions(self, number: int) -> range:
        """Return the positions in `media` of batch `number`."""
        return range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.media)))


@dataclass(frozen=True)
class ScoreFolder:
    """Scores that are being written. Every process has this object; the main process opens and finishes the folder."""

    path: Path
    scoring: Scoring

    @property
    def unfinished(self) -> Path:
        return self.path / UNFINISHED

    # ------------------------------------------------------------------------------------ the main process only

    @contextmanager
    def opened(self, *, overwrite: bool) -> Iterator[set[int]]:
        """Make the folder or continue it, keep other commands out meanwhile, and yield the numbers of finished batches.

        Raises:
            OutputError: the folder holds something else, another command writes into it, or it cannot be written.
        """
        self._check_replaceable(overwrite=overwrite)
        with ExitStack() as stack:
            try:
                self.unfinished.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(self.unfinished / LOCK))
                done = self._continued(overwrite=overwrite)
            except LockHeldError as exc:
                raise OutputError(f"{self.path}: {exc.owner} writes these scores", hint="wait until it ends") from exc
            except OSError as exc:
                if self.unfinished.is_dir() and not (self.unfinished / STATE).exists():
                    remove(self.unfinished)
                    with suppress(OSError):  # the folder was there before, with something in it
                        self.path.rmdir()
                raise unwritable(self.path, exc) from exc
            yield done

    def _check_replaceable(self, *, overwrite: bool) -> None:
        """Raise OutputError unless the path is free, or holds scores that may be continued or replaced."""
        if not os.path.lexists(self.path):
            return
        refuse_link(self.unfinished)
        names = {each.name for each in self.path.iterdir()} if self.path.is_dir() else {""}
        if names - {SCORES, IDS, UNFINISHED}:
            raise OutputError(f"{self.path} exists already and holds no scores", hint="name another folder")
        if SCORES in names and not overwrite:
            raise OutputError(
                f"{self.path} exists already with all its scores", hint="name another folder, or give --overwrite"
            )

    def _continued(self, *, overwrite: bool) -> set[int]:
        """Return the finished batches; remove what is of no use if there are none to continue."""
        state, described = self.unfinished / STATE, json.dumps(asdict(self.scoring))
        if overwrite:
            for file in (state, self.path / SCORES, self.path / IDS):
                file.unlink(missing_ok=True)
        elif state.exists() and not _holds(state, described):
            raise OutputError(
                f"{self.path} holds unfinished scores of other weights, settings, media or texts",
                hint="give the command that began them, name another folder, or give --overwrite",
            )
        if not state.exists():
            # The state is written last: without it nothing here counts.
            for leftover in self.unfinished.iterdir():
                if leftover.name != LOCK:
                    leftover.unlink()
            with atomic_file(state) as stream:
                stream.write(described)
        return {number for number in range(self.scoring.batches) if self._rows(number) is not None}

    def _rows(self, number: int) -> np.ndarray | None:
        """Return the rows of a finished batch; None where there is none, or a damaged disk has cut its file."""
        try:
            rows = map_array(self.unfinished / f"rows-{number}.npy")
        except (OSError, UnreadableError):
            return None
        shape = (len(self.scoring.positions(number)), len(self.scoring.texts.keys))
        return rows if rows.dtype == np.float32 and rows.shape == shape else None

    def finish(self) -> None:
        """Put the batches together and write `ids.json`; the folder is complete afterwards.

        Raises:
            OutputError: it cannot be written.
        """
        media, texts = self.scoring.media, self.scoring.texts
        with self._writing():
            with atomic_path(self.unfinished / SCORES) as file:
                scores = np.lib.format.open_memmap(file, mode="w+", dtype="<f4", shape=(len(media), len(texts.keys)))
                for number in range(self.scoring.batches):
                    rows = self._rows(number)
                    assert rows is not None, "not all batches are finished"
                    scores[self.scoring.positions(number)] = rows
                scores.flush()
                fsync(file)
            errors = {
                media[position]: (self.unfinished / f"error-{position}").read_text(encoding="utf-8")
                for position, row in enumerate(scores)
                if np.isnan(row).all()
            }
            rows_crc32 = [zlib.crc32(row) for row in scores]
            ids = {"media": media, "texts": texts.to_json(), "errors": errors, "rows": rows_crc32}
            with atomic_file(self.path / IDS, durable=True) as stream:
                stream.write(json.dumps({**ids, "checksum": _checksum(ids)}) + "\n")
            publish_file(self.unfinished / SCORES, self.path / SCORES)
            shutil.rmtree(self.unfinished)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise unwritable(self.path, exc, then="give the same command again, which continues from here") from exc

    # ------------------------------------------------------------------------------------ every process

    def add(self, number: int, predictions: Sequence[Prediction]) -> None:
        """Write the predictions of batch `number`.

        Raises:
            OutputError: they cannot be written.
        """
        fields = {prediction.media_id: prediction.fields for prediction in predictions}
        positions = self.scoring.positions(number)
        rows = np.full((len(positions), len(self.scoring.texts.keys)), np.nan, dtype="<f4")
        with self._writing():
            for row, position in enumerate(positions):
                found = fields[self.scoring.media[position]]
                if "scores" in found:
                    rows[row] = found["scores"]
                else:
                    with atomic_file(self.unfinished / f"error-{position}", durable=True) as stream:
                        stream.write(found["media_error"])
            with atomic_file(self.unfinished / f"rows-{number}.npy", mode="wb", durable=True) as stream:
                np.save(stream, rows)


def _holds(path: Path, text: str) -> bool:
    try:
        return read_text(path, limit=4 * len(text)) == text
    except UnreadableError:
        return False


# ------------------------------------------------------------------------------------------------ reading


def read_scores(path: Path) -> Rows:
    """Read the scores of a folder, equal to those of a predictions file.

    Raises:
        PredictionsError: the scores are unfinished, damaged, or not those that were written.
    """
    if not (path / SCORES).exists():
        raise PredictionsError(
            f"{path}: these scores are unfinished", hint="give the same clipbert infer command again"
        )
    hint = f"the folder needs {SCORES} and {IDS} as clipbert infer wrote them; run it again"
    try:
        scores = map_array(path / SCORES)
        ids = read_json(path / IDS, limit=MAX_IDS_BYTES, max_parts=MAX_IDS_PARTS)
    except (OSError, UnreadableError) as exc:
        raise PredictionsError(f"{path}: the scores are damaged: {exc}", hint=hint) from exc
    try:
        texts = _check_ids(ids)
    except RecordError as exc:
        raise PredictionsError(f"{path / IDS}: the scores are damaged: {exc}", hint=hint) from exc
    shape = (len(ids["media"]), len(texts.keys))
    if scores.dtype != np.float32 or scores.shape != shape:
        raise PredictionsError(
            f"{path / SCORES}: {scores.dtype} {scores.shape}, expected float32 {shape} as {IDS} says", hint=hint
        )
    rows = {}
    for row, (name, crc32) in enumerate(zip(ids["media"], ids["rows"], strict=True)):
        where = f"{path / SCORES}, row {row}"
        if name in ids["errors"]:
            rows[PredictionKey(name)] = Row(where, {"media_id": name, "media_error": ids["errors"][name]})
            continue
        if not np.isfinite(scores[row]).all():
            raise PredictionsError(f"{where} ({name!r}): a score is not a finite number", hint=hint)
        if zlib.crc32(scores[row].tobytes()) != crc32:
            raise PredictionsError(
                f"{where} ({name!r}): these are not the scores that were written: their checksum differs", hint=hint
            )
        rows[PredictionKey(name)] = Row(where, {"media_id": name, "scores": scores[row]})
    return Rows(rows, texts)


def _checksum(ids: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of all that says which media item and text a score belongs to."""
    content = [ids[name] for name in ("media", "texts", "errors", "rows")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_ids(ids: Any) -> TextList:
    """Return the texts of `ids.json`. Raises RecordError if it is not as it was written."""
    if not isinstance(ids, dict) or not ids.keys() >= {"media", "texts", "errors", "rows"}:
        raise RecordError("it must be an object with media, texts, errors and rows")
    media, errors, rows = ids["media"], ids["errors"], ids["rows"]
    if not isinstance(media, list) or any(not isinstance(name, str) for name in media) or len({*media}) != len(media):
        raise RecordError("media must be a list of media ids, each once")
    if not isinstance(errors, dict) or any(not isinstance(reason, str) for reason in errors.values()):
        raise RecordError("errors must be an object of media ids and reasons")
    if not isinstance(rows, list) or len(rows) != len(media):
        raise RecordError("rows must be a list with one checksum per media item")
    texts = TextList.parse(ids["texts"])
    # The order says which row and column a score belongs to, and nothing else does.
    if ids.get("checksum") != _checksum(ids):
        raise RecordError("media, texts, errors and rows are not those that were written: their checksum differs")
    return texts
