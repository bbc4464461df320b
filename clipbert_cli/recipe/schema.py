"""The settings of a recipe: one frozen model per section, one declaration (`declaring.py`) per setting.

A package receives its own section only. `load.py` reports all mistakes of a recipe together; `settings.py` turns the
declarations into documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from clipbert_cli.recipe.declaring import (
    ALWAYS,
    AT_INFERENCE,
    BY_SET,
    NEVER,
    ON_RESUME,
    Count,
    Depth,
    Four,
    FramesPerSecond,
    NotNegative,
    PixelValue,
    Positive,
    PositiveInt,
    Section,
    Share,
    ShareBelow1,
    Three,
    Width,
    setting,
)
from clipbert_cli.types import ClipTimes, FixedSampling, Kind, MediaNames, Place, Rotation, Sampling, composed

Pool = Literal["mean", "max", "lse"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


def check_one_place(section: Any) -> Any:
    """Refuse several clips with a sampling that has one place per video: all clips would be the same."""
    if section.num_clips > 1 and section.sampling not in ("random", "clips"):
        raise ValueError(f"num_clips is {section.num_clips}: with sampling {section.sampling} it must be 1")
    return section


def check_heads(sizes: Mapping[str, Any]) -> None:
    """Raise ValueError if the attention heads of a model do not divide its width; what is left out is not checked."""
    width, heads = sizes.get("hidden_size", 0), sizes.get("num_attention_heads", 1)
    if width % heads:
        raise ValueError(f"num_attention_heads is {heads}: it must divide hidden_size ({width})")


class SplitConfig(Section):
    """The files of one split."""

    annotations: str = setting(..., AT_INFERENCE)
    """File of records: JSON lines, a JSON list, or a table (.csv, .tsv). Relative to data.root."""

    media: str = setting(..., AT_INFERENCE)
    """Store made by `clipbert pack`, or a folder of media files. Relative to data.root."""


class DataConfig(Section):
    """The annotations, their media, and how clips are taken from a video."""

    root: str = setting(".", ALWAYS)
    """Folder at which relative paths of data and weights start. If it is relative itself, it starts at the folder of
    the recipe file that states it; in shipped recipes and options at the current folder. --data-root replaces it."""

    splits: dict[str, SplitConfig | None] = setting({}, AT_INFERENCE)
    """The splits by name. `clipbert finetune` trains on train_splits and validates on `val`; others are for infer. null
    in place of a split removes one that was inherited; `val: null` trains without validation."""

    train_splits: Annotated[list[str], Field(min_length=1)] = setting(["train"], NEVER)
    """Names of the splits to train on. Each batch comes from one of them, drawn by their sizes."""

    fields: dict[str, str | Annotated[list[str], Field(min_length=1)] | None] = setting({}, AT_INFERENCE)
    """Names of fields in your annotations, if they differ from ours: our name -> your name, such as {caption:
    description}. A list names the columns that together hold a list: {options: [first, second]}. null does not read a
    field."""

    media_id: MediaNames = setting("stem", AT_INFERENCE)
    """How annotations name media: `stem` by the file's name without its ending (cat1), `name` by the file's name
    (cat1.mp4), `path` by the path from the folder of the media (pets/cat1.mp4)."""

    on_missing_media: Literal["error", "skip"] = setting("error", AT_INFERENCE)
    """What is done about records whose media are not there: stop, or leave them out of training. In evaluation they
    count as wrong."""

    answers: str | None = setting(None, NEVER)
    """JSON file with all possible answers, for tasks that choose one: an object {answer: label} or a list."""

    on_unknown_answer: Literal["error", "skip"] = setting("error", NEVER)
    """What is done about training records whose answer is not in the list of answers: stop, or leave them out. In
    evaluation they count as wrong."""

    media: Kind = setting("video", AT_INFERENCE)
    """Kind of the media. An image is treated as one clip of one frame."""

    frame_size: Annotated[int, Field(ge=64, le=6400)] = setting(448, BY_SET)
    """Side in pixels of the square that frames are scaled to fit into. The rest of it is padding."""

    sampling: Sampling = setting("random", NEVER)
    """Where the clips of training are taken. `random` draws new places in every epoch, `clips` spreads num_clips
    evenly, `start`, `middle` and `end` take one clip there, `uniform` spreads the frames of one clip evenly."""

    num_clips: Count = setting(8, NEVER)
    """Number of clips that training takes from each video."""

    num_frames: Count = setting(2, BY_SET)
    """Number of frames of a clip."""

    fps: FramesPerSecond = setting(2.0, BY_SET)
    """Rate, in frames per second of the video, at which the frames of a clip are taken."""

    fps_of_frames: FramesPerSecond | None = setting(None, AT_INFERENCE)
    """Rate at which frames were taken out of videos. With it every folder of pictures under a split's media is a video,
    whose media id is the folder's name. Stores that were packed with --frame-folders do not need it."""

    clip_times: ClipTimes = setting("presentation", BY_SET, published_only=True)
    """How clips are placed in a video: `presentation` uses the time at which each frame is shown, `header` computes
    times from the container's frame count and rate, as the original ClipBERT does."""

    black_frames: bool = setting(False, AT_INFERENCE)
    """Replace every frame by a black one, to measure how much can be answered without looking."""

    max_text_length: Annotated[int, Field(ge=3, le=512)] = setting(100, BY_SET)
    """Largest number of tokens of a text, [CLS] and [SEP] included. Longer texts are cut."""

    max_examples_per_group: Count = setting(1, NEVER)
    """Largest number of examples of one video or image that share one pass through the visual encoder in training."""

    workers: Annotated[int, Field(ge=0, le=256)] = setting(4, ALWAYS)
    """Number of processes per GPU that decode media. 0 decodes in the main process."""

    decoder: Literal["auto", "pyav", "dali"] = setting("auto", AT_INFERENCE)
    """Decoder of media: `pyav` uses the CPU, `dali` the GPU. `auto` takes DALI if it is installed and finds a GPU (for
    videos with NVDEC) that decodes at least half of the media, else PyAV."""

    on_bad_media: Literal["error", "skip", "replace"] = setting("replace", AT_INFERENCE)
    """What training does about media that cannot be decoded: stop with an error, skip them, or take another item
    instead. Evaluation stops only with `error`; otherwise such an example counts as wrong."""

    max_bad_fraction: Share = setting(0.01, ON_RESUME)
    """Training stops if a larger share of the media of the split cannot be decoded."""

    max_pixels: Annotated[int, Field(ge=1, le=2**32)] = setting(178_956_970, AT_INFERENCE)
    """Pictures and video frames with more pixels count as undecodable. Protects the memory."""

    rotation: Rotation = setting("apply", AT_INFERENCE, published_only=True)
    """`apply` turns videos and pictures upright, as their file says (display matrix, EXIF orientation). `ignore` takes
    them as they are stored, as the original ClipBERT does."""

    def check_text_length(self, positions: int) -> None:
        """Raise ValueError if texts may be longer than a model has position embeddings for."""
        if self.max_text_length > positions:
            raise ValueError(
                f"data.max_text_length is {self.max_text_length}: it must be at most "
                f"model.bert.max_position_embeddings, {positions}"
            )

    @field_validator("fields")
    @classmethod
    def _as_records_are_read(cls, fields: dict[str, Any]) -> Any:
        # The headings of a table are read in this form, and names are copied from the table.
        return composed(fields)

    _one_place = model_validator(mode="after")(check_one_place)


class VisualConfig(Section):
    """The visual encoder, which turns frames into a grid of features. The sizes are those of ResNet-50."""

    kind: Literal["resnet", "hf"] = setting("resnet", NEVER)
    """Kind of encoder. `resnet` is the residual network of detectron2 with the grid layer of ClipBERT, `hf` a vision
    model of Hugging Face's transformers, such as SigLIP, CLIP, DINOv2, ConvNeXt or Swin."""

    weights: str | None = setting(None, NEVER)
    """Pretrained weights. `resnet`: a file of grid-feats-vqa or of detectron2 (.pth); null starts at random. `hf`: a
    model's folder, or hf:ORG/NAME[@REVISION] on the Hugging Face Hub, from which its sizes come too. A relative path
    starts at data.root."""

    grid_stride: Literal[1, 2, 4] = setting(1, NEVER)
    """`hf`: average squares of so many by so many grid cells before the projection, so that a clip has fewer visual
    tokens."""

    layer_type: Literal["bottleneck", "basic"] = setting("bottleneck", NEVER)
    """`resnet`: kind of residual block: `bottleneck` as in ResNet-50, `basic` as in ResNet-18."""

    depths: Annotated[list[Depth], Four] = setting([3, 4, 6, 3], NEVER)
    """`resnet`: number of blocks of each of the four stages. [3, 4, 23, 3] is ResNet-101."""

    stem_size: Width = setting(64, NEVER)
    """`resnet`: number of channels after the first convolution."""

    hidden_sizes: Annotated[list[Width], Four] = setting([256, 512, 1024, 2048], NEVER)
    """`resnet`: number of channels after each of the four stages."""

    pixel_mean: Annotated[list[PixelValue], Three] | None = setting(None, NEVER)
    """Values subtracted from the red, green and blue of a pixel, which are 0 to 255. null takes those of the encoder:
    123.675, 116.28 and 103.53 for `resnet`, and what its preprocessor_config.json says for `hf`."""

    pixel_std: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Three] | None = setting(None, NEVER)
    """Values that red, green and blue are then divided by. null takes those of the encoder: 1 for `resnet`, and what
    its preprocessor_config.json says for `hf`."""

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> VisualConfig:
        # The sizes of a ResNet may come from a base recipe, so they are not read by kind hf but not refused either.
        if self.kind == "resnet" and self.grid_stride != 1:
            raise ValueError(f"grid_stride is {self.grid_stride}: kind resnet has no such setting, leave it out")
        if self.kind == "hf" and (self.pixel_mean is None) != (self.pixel_std is None):
            raise ValueError("pixel_mean and pixel_std belong together: set both or neither")
        return self


class BertConfigSection(Section):
    """The transformer. A size of null is that of the weights it starts from, and BERT-base's if they state none."""

    vocab_size: Annotated[int, Field(ge=1, le=10**7)] | None = setting(None, NEVER)
    """Number of entries of the tokenizer's vocabulary. null takes what the weights state, else the vocabulary's."""

    hidden_size: Width | None = setting(None, NEVER)
    """Width of the transformer; 768 in BERT-base. num_attention_heads must divide it."""

    num_hidden_layers: Depth | None = setting(None, NEVER)
    """Number of transformer layers; 12 in BERT-base."""

    num_attention_heads: Depth | None = setting(None, NEVER)
    """Number of attention heads of a layer; 12 in BERT-base."""

    intermediate_size: Width | None = setting(None, NEVER)
    """Width of the feed-forward part of a layer; 3072 in BERT-base."""

    max_position_embeddings: Width | None = setting(None, NEVER)
    """Number of position embeddings of text, which bounds data.max_text_length; 512 in BERT-base."""

    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] | None = setting(None, NEVER)
    """Activation of the feed-forward part: `gelu` is exact as in BERT, `gelu_new` its approximation."""

    layer_norm_eps: Positive | None = setting(None, NEVER)
    """Epsilon of layer norms; 1e-12 in BERT-base."""

    initializer_range: Positive = setting(0.02, NEVER)
    """Standard deviation of weights that start at random."""

    hidden_dropout: ShareBelow1 = setting(0.1, NEVER)
    """Dropout probability after the embeddings, after each part of a layer, and before the head."""

    attention_dropout: ShareBelow1 = setting(0.1, NEVER)
    """Dropout probability of attention weights."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> BertConfigSection:
        # A width that is not given may come from weights; the usual numbers of heads divide BERT-base's as well.
        check_heads({"hidden_size": self.hidden_size or 768, "num_attention_heads": self.num_attention_heads or 1})
        return self


class WeightsConfig(Section):
    """The weights at which training starts. What is null starts from random weights."""

    checkpoint: str | None = setting(None, NEVER)
    """Weights of a whole model: a checkpoint folder of a run, such as RUN/best, an original ClipBERT .pt file, or
    hf:ORG/NAME on the Hugging Face Hub. Relative to data.root."""

    bert: str | None = setting(None, NEVER)
    """Hugging Face folder of a BERT of any size, or hf:ORG/NAME on the Hub, for the transformer alone. Relative to
    data.root."""


class ModelConfig(Section):
    """The sizes of the model, the weights it starts from, and the tokenizer."""

    tokenizer: str | None = setting(None, NEVER)
    """WordPiece tokenizer: the folder of a BERT model, or its vocab.txt. tokenizer_config.json or tokenizer.json beside
    it says whether texts become lower-case. Relative to data.root. null takes the folder that weights.bert names, else
    pretrained/bert-base-uncased."""

    weights: WeightsConfig = WeightsConfig()
    visual: VisualConfig = VisualConfig()
    bert: BertConfigSection = BertConfigSection()
    pixel_random_sampling_size: Annotated[int, Field(ge=0, le=10**6)] = setting(0, NEVER)
    """Number of visual tokens per clip that training keeps, drawn at random. 0 keeps all of them."""

    @property
    def vocabulary(self) -> str:
        """The place of the tokenizer's files."""
        return self.tokenizer or self.weights.bert or "pretrained/bert-base-uncased"

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if self.weights.checkpoint and (self.weights.bert or self.visual.weights):
            raise ValueError(
                "weights.checkpoint holds the whole model: set weights.bert and visual.weights to null, or "
                "weights.checkpoint to null"
            )
        return self


class ObjectiveConfig(Section):
    """The objective of the task, and how the predictions of several clips become one. Each task reads its own."""

    pool: Pool = setting("lse", BY_SET)
    """How the predictions of the clips become one: mean, maximum, or log-sum-exp (`lse`) of their logits."""

    num_labels: Annotated[int, Field(ge=1, le=10**7)] | None = setting(None, NEVER, published_only=True)
    """Question answering: number of outputs of the answer layer. null takes the number of answers; a larger number
    leaves some without an answer, as the published checkpoints do."""

    normalize_answers: bool = setting(False, NEVER)
    """Question answering: take answers that differ in upper and lower case, spaces, or punctuation at their end for the
    same, in the list of answers, in records and in predictions."""

    num_options: Annotated[int, Field(ge=2, le=1000)] | None = setting(None, AT_INFERENCE)
    """Multiple choice: number of options that every question must have. null allows any number."""

    loss: Literal["cross_entropy", "margin"] = setting("cross_entropy", NEVER)
    """Retrieval: `cross_entropy` classifies pairs of text and video as match or no match; `margin` wants the score of a
    video's own text above those of other texts by 0.2."""

    num_negatives: Count = setting(1, NEVER)
    """Retrieval: number of texts of other videos that training shows with each text of a video."""

    mlm_average: Literal["all", "labelled"] = setting("labelled", NEVER, published_only=True)
    """Pretraining: what the loss of masked words is averaged over: the masked words, or all positions of the texts
    (`all`, as the original does)."""

    as_original: bool = setting(False, BY_SET, published_only=True)
    """Repeat three choices of the original program. Multiple choice cuts long texts at their end, where the option is,
    instead of cutting the question. Retrieval from video to text counts only the last caption of each video.
    Pretraining also predicts the masked words of texts that belong to another image."""


class TrainConfig(Section):
    """Optimisation by AdamW. A step is one update of the weights."""

    batch_size: Count = setting(16, ON_RESUME)
    """Number of groups (videos or images with their texts) per GPU and forward pass. A resumed run keeps the total per
    step."""

    gradient_accumulation_steps: Count = setting(1, ON_RESUME)
    """Number of forward passes per step. Gradients are averaged over all their examples."""

    epochs: PositiveInt = setting(10, ON_RESUME)
    """Number of passes over the training data. A resumed run may have more: from the next step on, the learning rate is
    that of the longer training at this step."""

    max_steps: PositiveInt | None = setting(None, ON_RESUME)
    """Stop after this many steps, even if `epochs` allows more. It changes on resume as `epochs` does."""

    learning_rate: Positive = setting(5e-5, NEVER)
    """Highest learning rate of the transformer and the head."""

    visual_learning_rate: Positive | None = setting(None, NEVER)
    """Highest learning rate of the visual encoder. null takes learning_rate."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = setting(None, NEVER)
    """Factor on the learning rate from each block of the visual encoder to the one before it, such as 0.75: the first
    blocks, which see edges and colours, then change least. null gives all blocks the same rate."""

    eps: Positive = setting(1e-6, NEVER)
    """Epsilon in AdamW's denominator."""

    weight_decay: NotNegative = setting(1e-3, NEVER)
    """Weight decay. Biases and LayerNorms have none."""

    freeze: list[str] = setting([], NEVER)
    """Parts of the model that are not trained, by name: `visual`, `visual.stem`, `visual.0` (a stage or block, from 0),
    `visual.0-1`, `visual.grid`, `transformer`, `transformer.embeddings`, `transformer.0-5` (layers), `head`. An encoder
    of kind `hf` has `visual.backbone` (all but the new projection), `visual.norm` and `visual.projection` in place of
    `visual.grid`."""

    warmup_ratio: Share = setting(0.1, NEVER)
    """Share of the steps in which the learning rate of `linear` rises from 0 to its highest."""

    schedule: Literal["linear", "constant"] = setting("linear", NEVER)
    """How the learning rate goes on after the warmup: `linear` falls to 0 at the last step. `constant` stays as it is
    and has no warmup, so that a run can be made longer without a jump of its rate."""

    max_grad_norm: Positive | None = setting(5.0, NEVER)
    """Gradients are scaled down to this L2 norm if theirs is larger. null never scales them."""

    ema_decay: ShareBelow1 | None = setting(None, NEVER)
    """Also keep a moving average of the weights with this decay, such as 0.999, and validate and answer with it. null
    keeps none."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = setting("auto", ON_RESUME | BY_SET)
    """Numbers to compute with. `auto` takes bf16 if the GPU has it, else fp32."""

    tf32: bool = setting(False, BY_SET)
    """Let GPUs round the inputs of float32 products and convolutions to TF32: faster than fp32, less exact."""

    activation_checkpointing: bool = setting(False, ON_RESUME)
    """Compute activations again in the backward pass: less memory, about a third more time."""

    compile: bool = setting(False, ON_RESUME)
    """Compile the model with torch.compile: a slow start, then faster steps. Needs a C++ compiler."""

    validate_every_steps: PositiveInt | None = setting(None, NEVER)
    """Validate after each so many steps. null validates after every epoch."""

    save_every_steps: PositiveInt | None = setting(None, ON_RESUME)
    """Save a checkpoint after each so many steps, beside those of every validation."""

    log_every_steps: PositiveInt = setting(10, ON_RESUME)
    """Write a line to metrics.jsonl after each so many steps."""

    keep_last: Annotated[int, Field(ge=2, le=10**6)] = setting(2, ON_RESUME)
    """Number of newest checkpoints to keep. The best one is kept too."""

    best_metric: str | None = setting(None, NEVER)
    """Metric of validation that decides which checkpoint is best, with - before it if less is better (-loss). null
    takes the task's own."""

    blind_baseline: bool = setting(True, ON_RESUME)
    """Score the last validation once more with black frames, and score a guess from the training records alone: what
    the model knows without looking."""

    trackers: list[Tracker] = setting([], ON_RESUME)
    """Experiment trackers that receive the numbers of metrics.jsonl, too: `tensorboard`, `wandb`, `mlflow`. Each needs
    its package, such as: pip install 'clipbert[wandb]'."""


class InferConfig(Section):
    """The way in which predictions are made, in validation and by `clipbert infer`, `ask` and `search`."""

    batch_size: Count = setting(16, ALWAYS)
    """Number of groups (videos or images with their texts) per forward pass."""

    num_clips: Count = setting(16, AT_INFERENCE)
    """Number of clips that are taken from each video."""

    sampling: FixedSampling = setting("clips", AT_INFERENCE)
    """Where clips are taken. `clips` spreads num_clips evenly, `start`, `middle` and `end` take one clip there,
    `uniform` spreads the frames of one clip evenly."""

    single_clip: Place = setting("start", AT_INFERENCE)
    """Where sampling `clips` takes the clip if num_clips is 1."""

    max_examples_per_group: Count = setting(8, ALWAYS)
    """Largest number of examples of one video or image that share one pass through the visual encoder."""

    top: Annotated[int, Field(ge=1, le=10**6)] = setting(5, AT_INFERENCE)
    """Number of best answers that a prediction lists."""

    _one_place = model_validator(mode="after")(check_one_place)


def _run_name(name: str) -> str:
    # The name becomes a folder below runs/: it must not leave it, be hidden, or need quotes in a shell.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("it must be made of letters, digits, `_`, `.` and `-`, and start with a letter or digit")
    return name


class Origins(dict[str, str]):
    """The places that the values of a recipe come from, by key. They do not count when two recipes are compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins)

    __hash__ = None


class Recipe(Section):
    """Everything about one run."""

    _origins: Origins = PrivateAttr(default_factory=Origins)

    name: Annotated[str, AfterValidator(_run_name)] = setting(..., NEVER)
    """Name of the recipe. Without --run, the run is kept in runs/NAME."""

    task: str = setting(..., AT_INFERENCE)
    """What is learned: open_ended_qa, multiple_choice, image_qa, retrieval or pretraining."""

    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=60)] | None = setting(
        None, ALWAYS
    )
    """Licence of the trained model, such as cc-by-4.0, for the card that clipbert runs push writes."""

    published: dict[str, dict[str, NotNegative]] = setting({}, ALWAYS)
    """Published scores by split and metric, such as {test: {accuracy: 37.4}}. `clipbert eval` and `report` show them
    beside yours. They belong to the recipe file that states them: a recipe that extends it does not inherit them, and
    --set of a split's annotations removes those of the split."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = setting(42, NEVER)
    """Number from which random weights, the order of the data and the places of clips are drawn."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    infer: InferConfig = InferConfig()

    def with_origins(self, origins: Mapping[str, str]) -> Recipe:
        """Return the recipe with what it knows of where the values of its keys come from."""
        recipe = self.model_copy()
        recipe._origins = Origins(origins)
        return recipe

    def origin(self, key: str) -> str:
        """Return where the value of a key comes from, such as `mine.yaml:3`; empty if it is the default."""
        return self._origins.get(key, "")

    @model_validator(mode="after")
    def _margin_pools(self) -> Recipe:
        if self.objective.loss == "margin" and self.objective.pool == "lse":
            raise ValueError("objective.pool is lse: with objective.loss margin it must be mean or max")
        return self

    @model_validator(mode="after")
    def _positions_suffice(self) -> Recipe:
        if (positions := self.model.bert.max_position_embeddings) is not None:
            self.data.check_text_length(positions)
        return self
