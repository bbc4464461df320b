"""READ FIRST: how a recipe becomes objects.

    recipe ──► Setup(recipe, task, tokenizer, world) ─────────────────────────────────────┐
                                                                                          ▼
    annotations ─► Example ┐                                                          train/loop.py
                           ├─► GroupDataset ─► collate ─► Batch ─► model ─► task.loss     │
    store ─► bytes ─► clips ┘                               └─► infer.Predictor ─► Prediction ─► predictions.jsonl
                                                                                        └─► task.score ─► metrics

`Setup` makes each object of the drawing: `split` reads examples and opens their media (`splits.py`), `training_data`
and `batches` feed the training loop, `evaluation` feeds the predict path, `model` builds the network. Few other
files see the whole recipe (`docs/architecture.md` lists them); everything else receives its own section.

    finetune   train.Training ─► Setup.for_training ─► Training.run
    infer      Setup.for_run ─► infer/trained.py ─► Predictor.run
    eval       build_task, splits.read_split ─► infer/score.py

torch and the stores are imported inside functions, because `clipbert eval` needs neither.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipbert_cli.errors import RecipeError, RunError, StoreError, WeightsError
from clipbert_cli.hub import is_hub_name, local_folder
from clipbert_cli.recipe.load import resolve
from clipbert_cli.splits import Split, check_columns, learnable, open_split
from clipbert_cli.task.registry import task_class
from clipbert_cli.text.annotations import group_by_media, read_answers
from clipbert_cli.text.fields import Columns
from clipbert_cli.types import Example

if TYPE_CHECKING:
    from pathlib import Path

    from clipbert_cli.loading.dataset import GroupDataset, MediaSettings, OnBadMedia, Position
    from clipbert_cli.loading.loader import BatchLoader
    from clipbert_cli.loading.mixture import MixedDataset
    from clipbert_cli.media.backend import Decoder
    from clipbert_cli.media.sampling import ClipSampling
    from clipbert_cli.model.clipbert import ClipBert
    from clipbert_cli.model.weights.transfer import LoadReport, Part
    from clipbert_cli.recipe.schema import Recipe
    from clipbert_cli.runs.folder import RunFolder
    from clipbert_cli.runtime.distributed import World
    from clipbert_cli.runtime.precision import Precision
    from clipbert_cli.store.source import MediaSource
    from clipbert_cli.task.base import Draw, Task
    from clipbert_cli.text.tokenizer import Tokenizer
    from clipbert_cli.types import Batch, Group, Kind, Texts

logger = logging.getLogger("clipbert")


# ------------------------------------------------------------------------------------------ without torch


def build_task(recipe: Recipe, answers: Mapping[str, int] | None = None) -> Task:
    """Return the recipe's task. A task that needs `answers` can only parse and score without them.

    Raises:
        RecipeError: there is no such task.
    """
    return task_class(recipe.task)(recipe.objective, recipe.infer, answers)


def files_named(recipe: Recipe) -> dict[str, Path]:
    """Return the files and folders that a recipe names, by the setting that names each, but for those of the Hub."""
    data, model = recipe.data, recipe.model
    named: dict[str, str | None] = {
        f"data.splits.{name}.{part}": path
        for name, split in data.splits.items()
        if split
        for part, path in (("annotations", split.annotations), ("media", split.media))
    }
    named |= {
        "data.answers": data.answers,
        "model.tokenizer": model.vocabulary,
        "model.weights.checkpoint": model.weights.checkpoint,
        "model.weights.bert": model.weights.bert,
        "model.visual.weights": model.visual.weights,
    }
    return {key: resolve(recipe, path) for key, path in named.items() if path and not is_hub_name(path)}


def local_place(recipe: Recipe, place: str) -> Path:
    """Return weights or a vocabulary of a recipe as a local file or folder; what is on the Hub is downloaded.

    Raises:
        UsageError, DownloadError: see `hub.local_folder`.
    """
    return local_folder(place) if is_hub_name(place) else resolve(recipe, place)


def read_vocabulary(recipe: Recipe) -> dict[str, int] | None:
    """Read the recipe's answers, or return None if it names none.

    Raises:
        AnnotationError: the file is missing or wrong.
    """
    return None if recipe.data.answers is None else read_answers(resolve(recipe, recipe.data.answers))


def training_sampling(recipe: Recipe) -> ClipSampling:
    """Return how clips are taken from a video in training."""
    from clipbert_cli.media.sampling import ClipSampling

    data = recipe.data
    return ClipSampling(
        strategy=data.sampling,
        num_clips=data.num_clips,
        num_frames=data.num_frames,
        fps=data.fps,
        times=data.clip_times,
    )


def evaluation_sampling(recipe: Recipe) -> ClipSampling:
    """Return how clips are taken from a video in validation and inference."""
    from clipbert_cli.media.sampling import ClipSampling

    data, infer = recipe.data, recipe.infer
    return ClipSampling(
        # None of several clips spread over a video is special. For a single one the recipe says where it starts.
        strategy=infer.single_clip if (infer.sampling, infer.num_clips) == ("clips", 1) else infer.sampling,
        num_clips=infer.num_clips,
        num_frames=data.num_frames,
        fps=data.fps,
        safeguard=True,
        times=data.clip_times,
    )


# ------------------------------------------------------------------------------------------ what Setup makes


@dataclass(frozen=True)
class SharedTexts:
    """The texts that every media item is scored with, in the order of `examples`."""

    examples: tuple[Example, ...]
    texts: Texts


@dataclass(frozen=True)
class Evaluation:
    """This process's batches to predict.

    Attributes:
        shared: the texts that all media meet. The batches then hold media only. None if each batch has its own texts.
        total: how many predictions all processes make together.
        numbers: the number of each of `batches`, counted over all processes.
        ahead: whether batches may be taken before the predictions of earlier ones are made.
    """

    batches: Iterable[Batch]
    shared: SharedTexts | None
    total: int
    numbers: Sequence[int] = ()
    ahead: bool = True


# ------------------------------------------------------------------------------------------ the composition


def _difference(own: Sequence[str], given: Sequence[str]) -> str:
    """Return the first entry at which two vocabularies differ, and how many do; empty if they are equal."""
    pairs = enumerate(itertools.zip_longest(own, given))
    differing = [(number, mine, other) for number, (mine, other) in pairs if mine != other]
    if not differing:
        return ""
    number, mine, other = differing[0]
    more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
    return f"entry {number} is {mine!r} in the one and {other!r} in the other{more}"


@dataclass(frozen=True)
class Setup:
    """Makes everything that training and inference need from one recipe."""

    recipe: Recipe
    task: Task
    tokenizer: Tokenizer
    world: World
    # The fields of each split's records, noted while a training reads its splits.
    columns: dict[str, Columns] | None = None
    # The decoder of each kind of media, once it is chosen.
    decoders: dict[Kind, Decoder] = field(default_factory=dict)

    @classmethod
    def for_training(cls, recipe: Recipe, world: World, *, begun: RunFolder | None = None) -> Setup:
        """Read the answers and the vocabulary that the recipe names, or those of the run that is resumed.

        Args:
            begun: the folder of that run. What the recipe names must be the same, or not be there any more.

        Raises:
            RunError: it is something else.
            ClipbertError: a file is missing or wrong.
        """
        from clipbert_cli.text.tokenizer import Tokenizer

        # The run folder keeps this recipe, and `infer` may be called from another working directory.
        root = str(resolve(recipe, "."))
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
        if begun:
            setup = cls.for_run(recipe, begun, world)
            setup.refuse_other_answers(recipe)
            setup.refuse_other_tokenizer(recipe)
            return dataclasses.replace(setup, columns={})
        task = build_task(recipe, read_vocabulary(recipe))
        tokenizer = Tokenizer(local_place(recipe, recipe.model.vocabulary), max_length=recipe.data.max_text_length)
        return cls(recipe, task, tokenizer, world, columns={})

    @classmethod
    def for_run(cls, recipe: Recipe, folder: RunFolder, world: World) -> Setup:
        """Take the answers and the vocabulary from a run folder, which needs no other files."""
        from clipbert_cli.text.tokenizer import Tokenizer

        answers = read_answers(folder.answers) if task_class(recipe.task).needs_answers else None
        tokenizer = Tokenizer(folder.vocabulary, max_length=recipe.data.max_text_length)
        return cls(recipe, build_task(recipe, answers), tokenizer, world)

    def refuse_other_answers(self, recipe: Recipe) -> None:
        """Raise RunError if the recipe names answers that are not those of this run; its own are used."""
        path = resolve(recipe, recipe.data.answers or "")
        if self.answers is None or recipe.data.answers is None or not path.exists():
            return
        given = build_task(recipe, read_answers(path)).answers
        if difference := _difference(list(self.answers), list(given)):
            raise RunError(
                f"{path} (data.answers) has other answers than the run: {difference}",
                hint="restore the file as the run has it (answers.json in its folder), or train a new run",
            )

    def refuse_other_tokenizer(self, recipe: Recipe) -> None:
        """Raise RunError if the recipe names a tokenizer that is not that of this run; its own is used."""
        from clipbert_cli.text.tokenizer import Tokenizer

        path = resolve(recipe, recipe.model.vocabulary)
        if path.exists() and Tokenizer(path, max_length=self.tokenizer.max_length).files() != self.tokenizer.files():
            raise RunError(
                f"{path} (model.tokenizer) is another tokenizer than the run's {self.tokenizer.vocabulary_file}",
                hint="restore the file as the run has it, or train a new run",
            )

    def refuse_other_model(self, model: ClipBert) -> None:
        """Raise RunError if a model was trained with other answers or another vocabulary than this setup has."""
        head = model.head_spec
        if self.answers is not None:
            # Models that do not say what their outputs mean still need one for each answer.
            trained = head.answers or list(self.answers)[: head.num_outputs]
            if difference := _difference(list(trained), list(self.answers)):
                raise RunError(
                    f"the answers (answers.json) are not those of the model: {difference}",
                    hint="restore answers.json in the folder of the run",
                )
        if model.vocabulary not in (None, self.tokenizer.digest):
            raise RunError(
                f"{self.tokenizer.vocabulary_file}: the model was trained with another vocabulary",
                hint="restore the file in the folder of the run",
            )

    def changed(self, **sections: Mapping[str, Any]) -> Setup:
        """Return a setup with other settings, for example `changed(infer={"num_clips": 1})`. They are not checked."""
        updates = {name: getattr(self.recipe, name).model_copy(update=values) for name, values in sections.items()}
        return dataclasses.replace(self, recipe=self.recipe.model_copy(update=updates))

    @property
    def answers(self) -> Mapping[str, int] | None:
        """The answer vocabulary, or None if the task has none."""
        return self.task.answers if self.task.needs_answers else None

    @property
    def precision(self) -> Precision:
        """The number format of the recipe as far as the device supports it; inference uses the one of training."""
        from clipbert_cli.runtime.precision import Precision

        train = self.recipe.train
        return Precision.choose(train.precision, self.world.device, tf32=train.tf32)

    def model(self, *, resumed: Path | None = None) -> tuple[ClipBert, list[LoadReport]]:
        """Return the model, and the reports of what was loaded into it.

        Args:
            resumed: the checkpoint that the run continues from. The files that the recipe names are not read then, and
                the checkpoint's weights are loaded later.

        Raises:
            RecipeError: the tokenizer's vocabulary has another size than the model's.
            WeightsError: weights are missing or do not fit.
        """
        import torch

        from clipbert_cli.model.clipbert import ClipBert
        from clipbert_cli.model.pretrained import load_start, plan_model

        recipe, data = self.recipe, self.recipe.data
        # The parts of a whole model's checkpoint are replaced by those of the other files.
        places: dict[Part, str | None] = {
            "all": recipe.model.weights.checkpoint,
            "bert": recipe.model.weights.bert,
            "visual": recipe.model.visual.weights,
        }
        files = {} if resumed else {part: local_place(recipe, place) for part, place in places.items() if place}
        config, vision = plan_model(recipe.model, files, vocabulary=len(self.tokenizer), resumed=resumed)
        if len(self.tokenizer) != config.bert.vocab_size:
            raise RecipeError(
                f"model.bert.vocab_size is {config.bert.vocab_size}: {self.tokenizer.vocabulary_file} "
                f"has {len(self.tokenizer)} entries",
                hint="set model.bert.vocab_size to null, which takes the size of the vocabulary, or name in "
                "model.tokenizer the vocabulary that the model was trained with",
            )
        for part in ("all", "bert"):
            self._check_words_of(files.get(part))
        # What no file provides starts at random. The seed makes two runs of one recipe equal.
        torch.manual_seed(recipe.seed)
        head = dataclasses.replace(self.task.head(), task=recipe.task)
        model = ClipBert(config, head, vision, self.tokenizer.digest)
        model.visual_encoder.check_frame_size(data.frame_size)
        try:
            data.check_text_length(model.sizes.max_position_embeddings)
        except ValueError as exc:
            raise RecipeError(str(exc)) from exc
        return model, load_start(model, files)

    def _check_words_of(self, weights: Path | None) -> None:
        """Compare the tokenizer with the one in the folder of weights, as other programs save it, if there is one.

        Raises:
            WeightsError: the vocabularies differ, so that words would get the embeddings of others.
        """
        from clipbert_cli.text.tokenizer import Tokenizer, has_vocabulary

        if weights is None or not has_vocabulary(weights):
            return
        theirs, own = Tokenizer(weights, max_length=self.tokenizer.max_length), self.tokenizer
        if difference := _difference(own.entries, theirs.entries):
            raise WeightsError(
                f"{weights}: its word embeddings belong to another vocabulary than the one of model.tokenizer, "
                f"{own.vocabulary_file}: {difference}",
                hint=f"set model.tokenizer to {weights}; null takes the tokenizer of model.weights.bert",
            )
        for name, value in dataclasses.asdict(theirs.settings).items():
            if value != (used := getattr(own.settings, name)):
                logger.warning("%s has %s %s, but texts are read with %s (model.tokenizer)", weights, name, value, used)

    def split(self, name: str, check: Callable[[Example], None] | None = None) -> Split:
        """Read a split's examples and open its media.

        Args:
            check: see `splits.read_split`.

        Raises:
            ClipbertError: see `splits.open_split`.
        """
        columns = None if self.columns is None else self.columns.setdefault(name, Columns(self.recipe.data.fields))
        return open_split(self.recipe, name, self.task, check, columns=columns)

    def check_columns(self) -> list[str]:
        """Return warnings about the fields of all splits that were read for training, one sentence each.

        Raises:
            RecipeError: an entry of `data.fields` matches no record of any of them.
        """
        return check_columns(self.recipe, self.task, self.columns or {})

    def training_data(self) -> MixedDataset:
        """Return the groups of all training splits with their clips, sampled as the recipe's `data` section says.

        Raises:
            ClipbertError: something is missing or wrong in a split's annotations or media.
        """
        from clipbert_cli.loading.mixture import MixedDataset

        data, sampling = self.recipe.data, training_sampling(self.recipe)
        parts = []
        for name in data.train_splits:
            # Each split is a data set of its own: negatives are drawn within a split, and splits may have own stores.
            skips = data.on_unknown_answer == "skip"
            split = self.split(name, self.task.check_truth if skips else self.task.check_training)
            present = [example for example in split.examples if example.media_id not in split.media.absent]
            if not present:
                raise StoreError(
                    f"{split.media.path} has no {data.media} of split {name!r}",
                    hint="correct data.splits or data.media_id",
                )
            if skips:
                present = learnable(self.task, name, present)
            groups = group_by_media(present, max_examples=data.max_examples_per_group)
            draw = self.task.draw(groups, training=True)  # negatives and masks, drawn anew in each epoch
            parts.append(self._dataset(groups, split.media, sampling, draw, on_bad_media=data.on_bad_media))
        return MixedDataset(parts)

    def evaluation(
        self, split: Split, *, media_ids: Sequence[str] = (), done: Collection[int] = frozenset()
    ) -> Evaluation:
        """Return this process's share of the batches to predict, with clips as the recipe's `infer` section says.

        How examples are grouped changes speed and memory, never a prediction. Media that cannot be decoded are never
        replaced or left out, because each example needs a prediction. The batch reports them, unless
        `data.on_bad_media` is `error`.

        Args:
            media_ids: further media items, if the task scores every text with every item.
            done: numbers of batches that are left out.
        """
        from clipbert_cli.loading.mixture import MixedDataset
        from clipbert_cli.loading.order import OrderedBatches

        infer = self.recipe.infer
        most = infer.max_examples_per_group
        groups, of_all = self.task.questions(split.examples, media_ids=media_ids, max_examples=most)
        shared = None
        if of_all:
            # Tokenized once here, and not by every loading process for every media item.
            shared = SharedTexts(tuple(of_all), self.task.collate(of_all, self.tokenizer, labelled=False))
        draw = self.task.draw(groups, training=False)
        on_bad_media: OnBadMedia = "error" if self.recipe.data.on_bad_media == "error" else "report"
        sampling = evaluation_sampling(self.recipe)
        dataset = self._dataset(groups, split.media, sampling, draw, on_bad_media=on_bad_media)
        order = OrderedBatches(len(groups), batch_size=infer.batch_size, shard=self.world.shard, done=done)
        total = len(groups) if shared else len(split.examples)
        return Evaluation(self.batches(MixedDataset([dataset]), order, labelled=False), shared, total, order.numbers)

    def media_settings(
        self, sampling: ClipSampling, kind: Kind, media: Sequence[tuple[MediaSource, Iterable[str]]] = ()
    ) -> MediaSettings:
        """Return the settings that turn a media item into frames.

        Args:
            media: sources, and the ids that are read from them.
        """
        from clipbert_cli.loading.dataset import MediaSettings

        data = self.recipe.data
        return MediaSettings(
            sampling,
            frame_size=data.frame_size,
            max_pixels=data.max_pixels,
            rotation=data.rotation,
            black_frames=data.black_frames,
            decoder=self._decoder(kind, media),
        )

    def _decoder(self, kind: Kind, media: Sequence[tuple[MediaSource, Iterable[str]]]) -> Decoder:
        """Return the decoder of the media of a kind.

        It depends on the device, and on how many of the media that are read first the device decodes. The first choice
        is kept: decoders convert colours in different ways, and validation must see frames like those of training.
        """
        from clipbert_cli.media.backend import choose_decoder
        from clipbert_cli.store.gpu_share import share_of, suited

        if kind not in self.decoders:
            chosen = choose_decoder(self.recipe.data.decoder, self.world.device, kind)
            on_gpu = chosen.name == "dali" and chosen.device_type == "cuda"
            self.decoders[kind] = suited(chosen, share_of(media, chosen)) if on_gpu else chosen
        return self.decoders[kind]

    def _dataset(
        self,
        groups: Sequence[Group],
        source: MediaSource,
        sampling: ClipSampling,
        draw: Draw | None,
        *,
        on_bad_media: OnBadMedia,
    ) -> GroupDataset:
        from clipbert_cli.loading.dataset import GroupDataset

        media_ids = (group.media_id for group in groups)
        settings = self.media_settings(sampling, source.kind, [(source, media_ids)])
        return GroupDataset(groups, source, settings, seed=self.recipe.seed, on_bad_media=on_bad_media, draw=draw)

    def batches(self, dataset: MixedDataset, order: Iterable[Sequence[Position]], *, labelled: bool) -> BatchLoader:
        """Return the batches of the data in the given order, with targets if they are `labelled`."""
        from clipbert_cli.loading.loader import BatchLoader

        texts = functools.partial(self.task.collate, tokenizer=self.tokenizer, labelled=labelled)
        return BatchLoader(
            dataset,
            texts,
            order,
            workers=self.recipe.data.workers,
            max_bad_fraction=self.recipe.data.max_bad_fraction,
        )
