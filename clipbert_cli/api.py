"""The package from Python: a trained model that answers, and media as arrays. `docs/python.md` shows each part.

clipbert_cli.load(run) ─► Model.ask, Model.search, Model.predict
clipbert_cli.MediaStore, clipbert_cli.sample_clips       without torch and without a model
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbert_cli.errors import ClipbertError
from clipbert_cli.media.sampling import ClipSampling
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.sampled_clips import SampledClips, sample_clips_of
from clipbert_cli.store.source import single_item
from clipbert_cli.types import Kind, Sampling, VideoInfo

if TYPE_CHECKING:
    from clipbert_cli.infer.asking import Media
    from clipbert_cli.infer.ranking import Found
    from clipbert_cli.infer.trained import TrainedRun


@dataclass(frozen=True)
class Candidate:
    """An answer that could be given, and its score."""

    answer: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The answer to a question, its score in 0..1, and the best answers, this one first."""

    answer: str
    score: float
    top: tuple[Candidate, ...]


class Model:
    """A trained model. `load` makes it."""

    def __init__(self, run: TrainedRun) -> None:
        from clipbert_cli.infer.asking import Asker

        self._run = run
        self._asker = Asker(run)

    @property
    def task(self) -> str:
        """The name of the task that the model was trained for."""
        return self._run.setup.recipe.task

    def ask(
        self,
        media: str | Path | bytes | np.ndarray,
        question: str = "",
        options: Sequence[str] | None = None,
        *,
        kind: Kind | None = None,
        fps: float | None = None,
    ) -> Answer:
        """Answer a question about one video or image. Media are decoded once, however often they are asked about.

        Args:
            media: a file, its bytes, or frames (T, h, w, 3) uint8 RGB; one image is (h, w, 3).
            options: the answers to choose from, if the task chooses.
            kind: `video` or `image`. Default: what the model was trained on, and for an array what its shape says.
            fps: how many frames of the array are shown per second. Default: the recipe's `data.fps`.

        Raises:
            UsageError: the model's task answers no such questions, or there is no such file.
            DecodeError: the media item cannot be decoded.
        """
        from clipbert_cli.infer.asking import Asked, Frames

        data = self._run.setup.recipe.data
        given: Media
        if isinstance(media, np.ndarray):
            kind = "image" if media.ndim == 3 else "video"
            given = Frames(media[None] if media.ndim == 3 else media, fps or data.fps)
        else:
            given = media if isinstance(media, bytes) else Path(media)
        name = str(given) if isinstance(given, Path) else "the given media"
        asked = Asked(kind or data.media, given, name, question, tuple(options or ()))
        (found,) = self._asker.answers([[asked]])
        if isinstance(found, ClipbertError):
            raise found
        return self._answer(found.fields)

    def _answer(self, fields: Any) -> Answer:
        task = self._run.setup.task
        top = [Candidate(task.answer_text(each), each["score"]) for each in fields.get("top", ())]
        return Answer(task.answer_text(fields), fields["score"], tuple(top))

    def search(self, texts: Sequence[str], media: str | Path, *, top: int | None = None) -> list[list[Found]]:
        """Find the media items of a folder or store that match each text best, best first.

        Args:
            top: how many items per text. Default: the recipe's `infer.top`.

        Raises:
            UsageError: the model was not trained for retrieval.
            StoreError, DecodeError: there are no media that can be used.
        """
        from clipbert_cli.infer.ranking import search

        run = self._run
        if top is not None:
            run = dataclasses.replace(run, setup=run.setup.changed(infer={"top": top}))
        return search(run, Path(media), list(texts), progress=lambda done, total: None)

    def predict(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the predictions for a split of the recipe, as `clipbert infer` writes them (docs/inference.md)."""
        from clipbert_cli.infer.prediction_lines import prediction_lines

        setup = self._run.setup
        split = setup.split(name)
        return prediction_lines(setup.task, split.examples, self._run.predict(setup.evaluation(split)))


def load(
    source: str | Path,
    *,
    checkpoint: str = "best",
    weights: str = "auto",
    device: str | None = None,
    settings: Iterable[str] = (),
) -> Model:
    """Load a trained model.

    Args:
        source: what `--run` takes: the folder of a run or of an exported model, or `hf:org/name` on the Hub.
        checkpoint: `best`, `latest` or `step_N`.
        weights: `plain`, `ema`, or `auto` for the ones that validation scored.
        device: such as `cpu` or `cuda:1`. Default: the first GPU, or the CPU.
        settings: changes of the recipe, such as `infer.num_clips=8`.

    Raises:
        ClipbertError: the run, the checkpoint or a setting is missing or wrong.
    """
    from clipbert_cli.infer.trained import RunSelection, open_run
    from clipbert_cli.runtime.distributed import start_world

    selection = RunSelection(Path(source), checkpoint, weights, overrides=tuple(settings))
    return Model(open_run(selection, start_world(device)))


@dataclass(frozen=True)
class MediaItem:
    """One video or image of a store or folder.

    Args:
        data: the bytes of its file.
        info: the facts about a video; None for an image.
    """

    media_id: str
    kind: Kind
    data: bytes = field(repr=False)
    info: VideoInfo | None


class MediaStore:
    """The media items of a store that `clipbert pack` made, or of a folder of files, by media id.

    Raises:
        PathError: nothing is there, or it is neither of both.
    """

    def __init__(self, path: str | Path, *, kind: Kind | None = None) -> None:
        self.path = Path(path)
        self._source = open_media(self.path, kind=kind)

    @property
    def kind(self) -> Kind:
        """The kind of the store's media."""
        return self._source.kind

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __contains__(self, media_id: object) -> bool:
        return media_id in self._source

    def __getitem__(self, media_id: str) -> MediaItem:
        """Return an item.

        Raises:
            KeyError: there is no such item.
        """
        if media_id not in self._source:
            raise KeyError(media_id)
        return MediaItem(media_id, self.kind, self._source.read(media_id), self._source.info(media_id))


def sample_clips(
    video: str | Path | bytes | MediaItem,
    *,
    num_clips: int = 1,
    num_frames: int = 2,
    fps: float = 2.0,
    sampling: Sampling = "clips",
    seed: int = 0,
) -> SampledClips:
    """Decode clips of a video file in its own size, upright.

    Args:
        video: a file, its bytes, or an item of a `MediaStore`.
        sampling: where clips are taken, as `infer.sampling`; `random` draws with the seed.

    Raises:
        ValueError: the numbers do not go together.
        DecodeError: the video cannot be decoded.
    """
    if isinstance(video, MediaItem):
        name, source = video.media_id, single_item(video.media_id, video.data, kind=video.kind)
    else:
        name = "the given bytes" if isinstance(video, bytes) else str(video)
        source = single_item(name, video if isinstance(video, bytes) else Path(video), kind="video")
    clips = ClipSampling(sampling, num_clips, num_frames, fps, safeguard=sampling == "clips")
    return sample_clips_of(source, name, clips, seed=seed)
