"""Questions about media that come one after the other, answered while further ones are still being written.

    asked ─► windows of what is there already ─► batches of media with their questions ─► Predictor ─► answers in order

A window ends where the source of the questions has nothing more for the moment, so that a single question is answered
at once and a file of them in full batches. Media are decoded once, also for questions of later windows.

K clips, T frames, S canvas side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from clipbert_cli.build import Evaluation, evaluation_sampling
from clipbert_cli.cores import available_cores
from clipbert_cli.errors import ClipbertError, DecodeError
from clipbert_cli.infer.trained import TrainedRun
from clipbert_cli.loading.dataset import FailedItem, Item, MediaSettings, Position, collate, load_clips
from clipbert_cli.media.canvas import resize_pad
from clipbert_cli.media.sampling import select
from clipbert_cli.runtime.interrupts import Interrupts
from clipbert_cli.store.source import single_item
from clipbert_cli.types import Batch, Example, Group, Kind, Prediction, VideoInfo

KINDS: tuple[Kind, ...] = ("video", "image")

# Clips of this many bytes are kept for later questions about the same media: some 50 videos at the published sizes.
_KEPT_BYTES = 2**28


@dataclass(frozen=True)
class Frames:
    """A video that is decoded already: (T, h, w, 3) uint8 RGB, shown at `fps` frames per second."""

    pixels: np.ndarray = field(repr=False)
    fps: float

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ValueError(f"frames are {self.pixels.dtype} {shape}, but must be uint8 (T, h, w, 3)")
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}, but must be greater than 0")

    @property
    def info(self) -> VideoInfo:
        """The facts from which clips are sampled."""
        count, height, width, _ = self.pixels.shape
        rate = Fraction(self.fps).limit_denominator(1000)
        return VideoInfo(width, height, count, count, rate, 1 / rate, tuple(range(count)))

    def clips(self, settings: MediaSettings, kind: Kind) -> torch.Tensor:
        """Return (K, T, 3, S, S) uint8; an image, which is a single frame, is one clip."""
        indices = ((0,),) if kind == "image" else select(self.info, settings.sampling)
        canvas = torch.stack([resize_pad(self.pixels[list(clip)], settings.frame_size) for clip in indices])
        return torch.zeros_like(canvas) if settings.black_frames else canvas


Media = Path | bytes | Frames
"""A media file, the bytes of one, or decoded frames."""


@dataclass(frozen=True)
class Asked:
    """One question about one media item.

    Args:
        name: how messages and predictions name the media item.
    """

    kind: Kind
    media: Media
    name: str
    question: str
    options: Sequence[str] = ()


class Asker:
    """Answers questions with a trained run."""

    def __init__(self, run: TrainedRun) -> None:
        self.run = run
        # The numbers of the questions that each batch answers, in the order of its predictions.
        self._numbers: deque[list[int]] = deque()
        # Also clips that a thread still decodes, so that two questions wait for the same ones.
        self._kept: OrderedDict[tuple[object, ...], Future[torch.Tensor]] = OrderedDict()

    def answers(
        self,
        windows: Iterable[Sequence[Asked | ClipbertError]],
        *,
        check_interrupts: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction | ClipbertError]:
        """Yield the prediction of each question in order, or the error that it has instead.

        A mistake of a question, such as missing options, and media that cannot be used are errors of that question
        alone. An error that takes a question's place is passed through.

        Args:
            windows: questions that are answered together. The next window is taken when this one is answered.
            check_interrupts: called several times within a batch; it may raise.
        """
        done: dict[int, Prediction | ClipbertError] = {}
        self._numbers.clear()
        next_number = 0
        with ThreadPoolExecutor(available_cores()) as pool:
            # One pass of the predictor answers all windows: preparing the weights for inference takes a while.
            # The next window may depend on the answers to this one.
            evaluation = Evaluation(self._batches(windows, done, pool), shared=None, total=0, ahead=False)
            for predictions in self.run.predictor.run_own(evaluation, check_interrupts=check_interrupts):
                for number, prediction in zip(self._numbers.popleft(), predictions, strict=True):
                    reason = prediction.fields.get("media_error")
                    done[number] = prediction if reason is None else DecodeError(str(reason))
                while next_number in done:
                    yield done.pop(next_number)
                    next_number += 1

    def _batches(
        self,
        windows: Iterable[Sequence[Asked | ClipbertError]],
        done: dict[int, Prediction | ClipbertError],
        pool: ThreadPoolExecutor,
    ) -> Iterator[Batch]:
        """Yield the batches of all windows. Errors that need no model are put into `done`."""
        recipe = self.run.setup.recipe
        size, most = recipe.infer.batch_size, recipe.infer.max_examples_per_group
        first = 0
        for window in windows:
            # A batch holds either videos of K clips or images of one.
            groups: dict[Kind, list[_AskedGroup]] = {kind: [] for kind in KINDS}
            latest: dict[tuple[object, ...], _AskedGroup] = {}
            for number, asked in enumerate(window, start=first):
                try:
                    if isinstance(asked, ClipbertError):
                        raise asked
                    example = self.run.setup.task.ask(asked.name, asked.question, list(asked.options))
                    key = _identity(asked)
                except ClipbertError as exc:
                    done[number] = exc
                    continue
                if key not in latest or len(latest[key].examples) == most:
                    latest[key] = _AskedGroup(key, asked)
                    groups[asked.kind].append(latest[key])
                latest[key].examples.append(example)
                latest[key].numbers.append(number)
            first += len(window)
            batches = [kind[start : start + size] for kind in groups.values() for start in range(0, len(kind), size)]
            yield from self._decoded(batches, pool)

    def _decoded(self, batches: Sequence[Sequence[_AskedGroup]], pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Yield the batches with their clips; an empty one where there is none, so that errors come out too."""
        decoding: deque[list[tuple[_AskedGroup, Future[torch.Tensor]]]] = deque()
        for groups in batches:
            decoding.append([(group, self._clips(group, pool)) for group in groups])
            # The next batch is decoded while the model computes this one.
            if len(decoding) > 1:
                yield self._collated(decoding.popleft())
        yield self._collated(decoding.popleft() if decoding else [])

    def _clips(self, group: _AskedGroup, pool: ThreadPoolExecutor) -> Future[torch.Tensor]:
        """Return the clips of a media item, which a thread decodes unless they are kept."""
        if group.key not in self._kept:
            setup = self.run.setup
            settings = setup.media_settings(evaluation_sampling(setup.recipe), group.asked.kind)
            # DALI decodes batches of a loader in the process that owns the GPU, and not single items in threads.
            self._kept[group.key] = pool.submit(_load, group.asked, dataclasses.replace(settings, pyav_only=True))
        self._kept.move_to_end(group.key)
        return self._kept[group.key]

    def _collated(self, groups: Sequence[tuple[_AskedGroup, Future[torch.Tensor]]]) -> Batch:
        items: list[Item | FailedItem] = []
        answered: list[int] = []
        failed: list[int] = []
        for place, (asked, clips) in enumerate(groups):
            position, group = Position(0, place), Group(asked.asked.name, tuple(asked.examples))
            try:
                items.append(Item(position, group, clips.result()))
                answered += asked.numbers
            except ClipbertError as exc:
                items.append(FailedItem(position, group, exc))
                failed += asked.numbers
                # The file may have been repaired when it is asked about again.
                self._kept.pop(asked.key, None)
        self._forget()
        # The predictor reports failed media first.
        self._numbers.append([*failed, *answered])
        setup = self.run.setup
        texts = functools.partial(setup.task.collate, tokenizer=setup.tokenizer, labelled=False)
        loaded = collate(items, texts)
        reasons = tuple((item.group, str(item.error)) for item in loaded.failed)
        return dataclasses.replace(loaded.batch, failed=reasons)

    def _forget(self) -> None:
        """Forget the clips that were used least recently, until the others fit into the limit."""
        sizes = deque(
            clips.result().nbytes if clips.done() and clips.exception() is None else 0 for clips in self._kept.values()
        )
        while len(sizes) > 1 and sum(sizes) > _KEPT_BYTES:
            self._kept.popitem(last=False)
            sizes.popleft()


def ask_files(
    run: TrainedRun, files: Sequence[tuple[Kind, Path]], questions: Sequence[str], *, options: Sequence[str] = ()
) -> list[tuple[Asked, Prediction]]:
    """Answer every question about every file, all videos before all images.

    Args:
        options: the answers to choose from, if the task chooses.

    Raises:
        UsageError: the run's task answers no such questions.
        DecodeError: a file cannot be decoded. A person who asks about a few files wants to know at once what is wrong.
    """
    # A file that is given twice is answered once.
    own = sorted(dict.fromkeys(files), key=lambda file: KINDS.index(file[0]))
    asked = [Asked(kind, file, str(file), question, options) for kind, file in own for question in questions]
    with Interrupts() as interrupts:
        found = list(Asker(run).answers([asked], check_interrupts=interrupts.check))
    answers = []
    for each, answer in zip(asked, found, strict=True):
        if isinstance(answer, ClipbertError):
            raise answer
        answers.append((each, answer))
    return answers


@dataclass
class _AskedGroup:
    """Questions about one media item that are answered in one batch."""

    key: tuple[object, ...]
    asked: Asked
    examples: list[Example] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


def _identity(asked: Asked) -> tuple[object, ...]:
    """Return what tells a media item from all others.

    Raises:
        DecodeError: there is no such file.
    """
    media = asked.media
    if isinstance(media, Path):
        try:
            state = media.stat()
        # A path with a null character is a ValueError.
        except (OSError, ValueError) as exc:
            raise DecodeError(f"no such {asked.kind} file: {media}") from exc
        # A file that is written anew under the same name is another one.
        return asked.kind, str(media.absolute()), state.st_mtime_ns, state.st_size
    if isinstance(media, Frames):
        return asked.kind, media.fps, media.pixels.shape, hashlib.blake2b(media.pixels.tobytes()).digest()
    return asked.kind, hashlib.blake2b(media).digest()


def _load(asked: Asked, settings: MediaSettings) -> torch.Tensor:
    """Return the clips of a media item, (K, T, 3, S, S) uint8."""
    if isinstance(asked.media, Frames):
        return asked.media.clips(settings, asked.kind)
    clips = load_clips(single_item(asked.name, asked.media, kind=asked.kind), asked.name, settings, None)
    assert isinstance(clips, torch.Tensor)
    return clips
