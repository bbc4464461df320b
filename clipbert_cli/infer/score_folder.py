"""Scores of every text with every media item, in a folder: written as they come, continued where they stopped.

    scores/
      scores.npy      float32 (M, N): a row a media item, a column a text; NaN where the media item failed
      ids.json        {"media": [M ids], "texts": [N ids], "checksum": of the texts, "errors": {media id: reason}}
      unfinished/     only until all is done
        state.json    what is being scored, by which model
        rows-R.f32    rows as process R computed them, batch after batch
        rows-R.jsonl  a line for each batch whose rows are on disk

A batch counts when its line is there: a line that was cut short, and rows without a line, are computed again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clipbert_cli.errors import OutputError, PredictionsError
from clipbert_cli.files import LockHeldError, atomic_file, lock
from clipbert_cli.types import Prediction

SCORES, IDS = "scores.npy", "ids.json"
UNFINISHED, STATE, LOCK = "unfinished", "state.json", ".lock"
FINISHED = ".finished"  # what UNFINISHED is called while it is removed


@dataclass(frozen=True)
class Scoring:
    """What is scored: M media items in batches, N texts, and a digest of all that decides a score.

    Two processes, or one that was interrupted and another, may write into one folder only if all of it is equal.
    """

    media: tuple[str, ...]
    texts: tuple[str, ...]
    checksum: str
    digest: str
    batch_size: int

    @property
    def batches(self) -> int:
        """How many there are."""
        return -(-len(self.media) // self.batch_size)

    def positions(self, number: int) -> range:
        """The places in `media` of batch `number`."""
        return range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.media)))


@dataclass
class Done:
    """What the journals say: the batches that are scored, where their rows are, and which media failed."""

    rows: dict[int, tuple[Path, int]] = field(default_factory=dict)
    """Media position -> file, and row in it."""
    errors: dict[str, str] = field(default_factory=dict)
    batches: set[int] = field(default_factory=set)


class ScoreFolder:
    """Scores on their way. Every process has its own; one of them opens and finishes the folder."""

    def __init__(self, path: Path, scoring: Scoring) -> None:
        self.path, self.scoring = path, scoring
        self.unfinished = path / UNFINISHED

    # The main process alone.

    @contextmanager
    def opened(self, *, overwrite: bool) -> Iterator[set[int]]:
        """Make the folder, or go on with it, and keep other commands out meanwhile; gives the batches that are done.

        Raises:
            OutputError: something else is there, another process writes there, or it cannot be written.
        """
        try:
            if overwrite:
                self._clear()
            self._make()
            with ExitStack() as stack:
                try:
                    stack.enter_context(lock(self.unfinished / LOCK, remove_file=False))
                except LockHeldError as exc:
                    raise OutputError(f"{self.path}: {exc.owner} writes these scores", hint="wait for it") from exc
                yield self._read(mend=True).batches
        except OSError as exc:
            raise OutputError(f"{self.path} cannot be written: {exc.strerror}") from exc

    def _clear(self) -> None:
        """Remove scores, and nothing else."""
        if (self.unfinished / STATE).exists():
            shutil.rmtree(self.unfinished)
        for name in (SCORES, IDS):
            (self.path / name).unlink(missing_ok=True)

    def _make(self) -> None:
        state, described = self.unfinished / STATE, json.dumps(asdict(self.scoring))
        if (self.path / SCORES).exists() and not self.unfinished.exists():
            raise OutputError(
                f"{self.path} exists already, with all its scores", hint="name another folder, or give --overwrite"
            )
        if self.path.exists() and not state.exists():
            others = [] if not self.path.is_dir() else [each.name for each in self.path.iterdir()]
            if not self.path.is_dir() or set(others) - {UNFINISHED, FINISHED}:
                raise OutputError(f"{self.path} exists already, and holds no scores", hint="name another folder")
        shutil.rmtree(self.path / FINISHED, ignore_errors=True)
        if not state.exists():
            self.unfinished.mkdir(parents=True, exist_ok=True)
            with atomic_file(state) as stream:
                stream.write(described)
        if state.read_text(encoding="utf-8") != described:
            raise OutputError(
                f"{self.path} holds unfinished scores of other weights, settings, media or texts",
                hint="give the command that began them, name another folder, or give --overwrite",
            )

    def finish(self) -> None:
        """Put all rows together, in the order of the media. The folder is complete afterwards.

        Raises:
            OutputError: it cannot be written.
        """
        done = self._read(mend=False)
        assert done.batches == set(range(self.scoring.batches)), "not all batches are done"
        ids = {"media": self.scoring.media, "texts": self.scoring.texts, "checksum": self.scoring.checksum}
        unfinished = self.unfinished / SCORES
        try:
            (self.path / IDS).write_text(json.dumps({**ids, "errors": done.errors}) + "\n", encoding="utf-8")
            with unfinished.open("wb") as file:
                self._write(file, done)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.path / SCORES)
            os.replace(self.unfinished, self.path / FINISHED)
            shutil.rmtree(self.path / FINISHED)
        except OSError as exc:
            raise OutputError(
                f"{self.path} cannot be written: {exc.strerror}", hint="the same command goes on"
            ) from exc

    def _write(self, file: BinaryIO, done: Done) -> None:
        """All rows as a .npy file."""
        media, texts = len(self.scoring.media), len(self.scoring.texts)
        header = {"descr": "<f4", "fortran_order": False, "shape": (media, texts)}
        np.lib.format.write_array_header_1_0(file, header)
        files = {path for path, _ in done.rows.values()}
        parts = {path: np.memmap(path, dtype="<f4", mode="r").reshape(-1, texts) for path in files}
        failed = np.full(texts, np.nan, dtype="<f4")
        for position in range(media):
            path, row = done.rows.get(position, (None, 0))
            file.write((failed if path is None else parts[path][row]).tobytes())

    def _read(self, *, mend: bool) -> Done:
        """What is done; with `mend` what an interruption left over is cut off."""
        done = Done()
        for journal in sorted(self.unfinished.glob("rows-*.jsonl")):
            rows_file = journal.with_suffix(".f32")
            size = rows_file.stat().st_size if rows_file.exists() else 0
            rows, kept = 0, 0
            for line in journal.read_bytes().splitlines(keepends=True):
                record = _whole(line)
                if record is None or 4 * len(self.scoring.texts) * (rows + len(record["media"])) > size:
                    break
                for position in record["media"]:
                    done.rows[position] = (rows_file, rows)
                    rows += 1
                done.errors.update(record["errors"])
                done.batches.add(record["batch"])
                kept += len(line)
            if mend:
                os.truncate(journal, kept)
                if rows_file.exists():
                    os.truncate(rows_file, 4 * len(self.scoring.texts) * rows)
        return done

    # Every process.

    @contextmanager
    def part(self, number: int) -> Iterator[Part]:
        """Where process `number` writes."""
        name = self.unfinished / f"rows-{number}"
        try:
            with name.with_suffix(".f32").open("ab") as rows, name.with_suffix(".jsonl").open("ab") as journal:
                yield Part(self.scoring, rows, journal)
        except OSError as exc:
            raise OutputError(
                f"{self.path} cannot be written: {exc.strerror}", hint="the same command goes on from here"
            ) from exc


@dataclass(frozen=True)
class Part:
    """The files of one process."""

    scoring: Scoring
    rows: BinaryIO
    journal: BinaryIO

    def add(self, number: int, predictions: Sequence[Prediction]) -> None:
        """The predictions of batch `number`: rows first, and on disk before its line says so."""
        fields = {prediction.media_id: prediction.fields for prediction in predictions}
        positions = self.scoring.positions(number)
        scored = [place for place in positions if "scores" in fields[self.scoring.media[place]]]
        for place in scored:
            self.rows.write(np.asarray(fields[self.scoring.media[place]]["scores"], dtype="<f4").tobytes())
        self.rows.flush()
        os.fsync(self.rows.fileno())
        names = [self.scoring.media[place] for place in positions if place not in scored]
        record = {"batch": number, "media": scored, "errors": {name: fields[name]["media_error"] for name in names}}
        self.journal.write(json.dumps(record).encode() + b"\n")
        self.journal.flush()


def _whole(line: bytes) -> dict[str, Any] | None:
    """A line of a journal; None where it was cut short."""
    try:
        record: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record


# ------------------------------------------------------------------------------------------------ reading


def is_score_folder(path: Path) -> bool:
    """Whether there are scores, finished or not."""
    return (path / SCORES).exists() or (path / UNFINISHED).exists()


def read_scores(path: Path) -> dict[str, Mapping[str, Any]]:
    """Fields by media id, as a predictions file of the same scores has them.

    Raises:
        PredictionsError: unfinished or damaged.
    """
    if (path / UNFINISHED).exists():
        raise PredictionsError(f"{path}: these scores are unfinished", hint="give the same clipbert infer again")
    try:
        scores = np.load(path / SCORES, mmap_mode="r", allow_pickle=False)
        ids = json.loads((path / IDS).read_text(encoding="utf-8"))
        media, texts, errors = ids["media"], ids["texts"], ids["errors"]
        checksum = ids["checksum"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise PredictionsError(f"{path}: not whole: {exc}", hint=f"it holds {SCORES} and {IDS}") from exc
    if scores.dtype != np.float32 or scores.shape != (len(media), len(texts)):
        raise PredictionsError(
            f"{path / SCORES}: {scores.dtype} {scores.shape}, expected float32 {(len(media), len(texts))} as {IDS} says"
        )
    return {
        name: {"media_error": errors[name]} if name in errors else {"texts": checksum, "scores": scores[row]}
        for row, name in enumerate(media)
    }
