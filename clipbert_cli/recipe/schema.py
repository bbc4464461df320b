"""What a recipe may say: one frozen model per section, every field with its unit, default and meaning.

A room reads its own section only. Unknown keys are errors; `load.py` reports all mistakes of a file together.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Fraction01 = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of a recipe: frozen, and strict about keys and about types (`"8"` is not 8)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Checked = TypeVar("Checked", bound=Section)


def check_one_place(section: Checked, sampling: str, num_clips: int) -> Checked:
    """`start`, `middle`, `end` and `uniform` name one place of a video: several clips there would be the same."""
    if num_clips > 1 and sampling not in ("random", "clips"):
        raise ValueError(f"num_clips is {num_clips}: with sampling {sampling} it must be 1")
    return section


class SplitConfig(Section):
    """Where one split's records and media are."""

    annotations: str = Field(description="JSONL file, one record a line; relative to data.root")
    media: str = Field(description="media store, or a folder of media files; relative to data.root")


class DataConfig(Section):
    """The records, their media, and how clips are taken."""

    root: str = Field(".", description="folder that relative data and weight paths start from (--data-root)")
    splits: dict[str, SplitConfig] = Field(
        default_factory=dict, description="split name -> files; finetune reads `train` and `val`"
    )
    train_splits: Annotated[list[str], Field(min_length=1)] = Field(
        ["train"], description="splits that training mixes; every batch comes from one of them"
    )
    train_ratios: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="how often each of train_splits is drawn; default: in proportion to their sizes"
    )
    fields: dict[str, str] = Field(
        default_factory=dict, description="neutral field name -> the name that your annotations use"
    )
    answers: str | None = Field(None, description="answer vocabulary: a JSON object {answer: label}, or a list")
    media: Literal["video", "image"] = Field("video", description="an image is one clip of one frame")
    frame_size: Annotated[int, Field(ge=64)] = Field(448, description="side of the square canvas in pixels")
    sampling: Literal["random", "uniform", "start", "middle", "end", "clips"] = Field(
        "random", description="where training clips start; `clips` are num_clips spread evenly"
    )
    num_clips: PositiveInt = Field(8, description="clips of a video in training")
    num_frames: PositiveInt = Field(2, description="frames of a clip")
    fps: Annotated[float, Field(gt=0)] = Field(2.0, description="frames per second inside a clip")
    black_frames: bool = Field(False, description="blind baseline: every frame is replaced by a black one")
    max_text_length: Annotated[int, Field(ge=3, le=512)] = Field(100, description="tokens, [CLS] and [SEP] included")
    max_examples_per_group: PositiveInt = Field(1, description="examples of one media item that share its encoding")
    workers: Annotated[int, Field(ge=0)] = Field(4, description="loading processes; 0 loads in the main process")
    decoder: Literal["auto", "pyav", "dali"] = Field(
        "auto",
        description="auto: DALI where it is installed and a GPU is there (for videos: with NVDEC), else PyAV",
    )
    on_bad_media: Literal["error", "skip", "replace"] = Field(
        "replace",
        description="what training does with media that cannot be decoded. Evaluation never skips or replaces: "
        "unless this is error, such predictions say media_error and count as wrong",
    )
    max_bad_fraction: Fraction01 = Field(0.01, description="training stops when more of the split's media were bad")
    max_pixels: PositiveInt = Field(178_956_970, description="larger pictures and video frames count as bad")
    exif_rotation: bool = Field(False, description="turn pictures as EXIF says; the original ignores it")

    @model_validator(mode="after")
    def _one_place(self) -> DataConfig:
        return check_one_place(self, self.sampling, self.num_clips)

    @model_validator(mode="after")
    def _one_ratio_a_split(self) -> DataConfig:
        if self.train_ratios is not None and len(self.train_ratios) != len(self.train_splits):
            raise ValueError(
                f"train_ratios has {len(self.train_ratios)} entries: train_splits has {len(self.train_splits)}"
            )
        return self


class VisualConfig(Section):
    """The residual network, as detectron2 builds it, and the grid layer on top."""

    kind: Literal["resnet"] = Field("resnet", description="which visual encoder")
    weights: str | None = Field(
        None, description="detectron2 or grid-feats-vqa file; model.weights.checkpoint must be null"
    )
    layer_type: Literal["bottleneck", "basic"] = Field("bottleneck", description="kind of residual block")
    depths: Annotated[list[PositiveInt], Field(min_length=4, max_length=4)] = Field(
        [3, 4, 6, 3], description="blocks of res2..res5; [3, 4, 23, 3] is ResNet-101"
    )
    stem_size: PositiveInt = Field(64, description="channels of the first convolution")
    hidden_sizes: Annotated[list[PositiveInt], Field(min_length=4, max_length=4)] = Field(
        [256, 512, 1024, 2048], description="output channels of res2..res5"
    )
    pixel_mean: Annotated[list[float], Field(min_length=3, max_length=3)] = Field(
        [123.675, 116.28, 103.53], description="subtracted from R, G, B"
    )
    pixel_std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] = Field(
        [1.0, 1.0, 1.0], description="R, G, B are divided by it"
    )


class BertConfigSection(Section):
    """The transformer; defaults are BERT-base, uncased."""

    vocab_size: PositiveInt = Field(30522, description="WordPiece entries; must be the tokenizer's")
    hidden_size: PositiveInt = Field(768, description="width D")
    num_hidden_layers: PositiveInt = Field(12, description="transformer layers")
    num_attention_heads: PositiveInt = Field(12, description="must divide hidden_size")
    intermediate_size: PositiveInt = Field(3072, description="width of the feed-forward layer")
    max_position_embeddings: PositiveInt = Field(512, description="longest text in tokens")
    type_vocab_size: PositiveInt = Field(2, description="token types of the text embedding; row 0 is used")
    layer_norm_eps: Annotated[float, Field(gt=0)] = Field(1e-12, description="epsilon of every LayerNorm")
    initializer_range: Annotated[float, Field(gt=0)] = Field(0.02, description="deviation of initial weights")
    hidden_dropout: Decay = Field(0.1, description="dropout after embeddings, layers and before the head")
    attention_dropout: Decay = Field(0.1, description="dropout of attention probabilities")
    max_grid_rows: PositiveInt = Field(100, description="rows of the grid that have a position embedding")
    max_grid_columns: PositiveInt = Field(100, description="columns of the grid that have a position embedding")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> BertConfigSection:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads is {self.num_attention_heads}: it must divide hidden_size ({self.hidden_size})"
            )
        return self


class HeadConfig(Section):
    """The classifier on the pooled first token: D -> hidden_scale * D -> ReLU -> outputs, or one linear layer."""

    kind: Literal["mlp", "linear"] = Field("mlp", description="`linear` has no hidden layer")
    hidden_scale: PositiveInt = Field(2, description="width of the hidden layer, in multiples of D")


class WeightsConfig(Section):
    """Where training starts; what is null starts from random numbers. Paths are relative to data.root."""

    checkpoint: str | None = Field(
        None, description="a whole model: an original ClipBERT .pt, or a folder or file of this project"
    )
    bert: str | None = Field(None, description="Hugging Face BERT folder; checkpoint must be null")


class ModelConfig(Section):
    """Size, starting weights and tokenizer."""

    tokenizer: str = Field("pretrained/bert-base-uncased", description="vocab.txt, or a folder that holds it")
    weights: WeightsConfig = Field(default_factory=WeightsConfig)
    visual: VisualConfig = Field(default_factory=VisualConfig)
    bert: BertConfigSection = Field(default_factory=BertConfigSection)
    head: HeadConfig = Field(default_factory=HeadConfig)
    pixel_random_sampling_size: Annotated[int, Field(ge=0)] = Field(
        0, description="visual tokens kept at random in training (pretraining: 100); 0 keeps all"
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if self.weights.checkpoint and (self.weights.bert or self.visual.weights):
            raise ValueError(
                "weights.checkpoint holds the whole model: set weights.bert and visual.weights to null, or "
                "weights.checkpoint to null"
            )
        return self


class ObjectiveConfig(Section):
    """What the task optimises and how clips are merged; each task reads its own."""

    pool: Literal["mean", "max", "lse"] = Field("lse", description="how the clips' predictions become one")
    num_labels: PositiveInt | None = Field(
        None, description="size of the answer layer; default: the answer vocabulary's. Unused labels are never answers"
    )
    num_options: Annotated[int, Field(ge=2)] = Field(5, description="multiple choice: options of every question")
    cut_options: bool = Field(
        False,
        description="multiple choice: cut the end of a question and option that are too long together, as the original "
        "does; otherwise the question is cut first",
    )
    loss: Literal["cross_entropy", "margin"] = Field(
        "cross_entropy", description="retrieval: two classes, or one score ranked above that of other texts"
    )
    margin: Annotated[float, Field(gt=0)] = Field(0.2, description="retrieval: of the margin loss, scores in 0..1")
    num_negatives: PositiveInt = Field(1, description="retrieval: captions of other media items for each caption")
    one_text_per_media: bool = Field(
        False, description="retrieval: video to text counts a video's last caption alone, as the original does"
    )
    mlm_average: Literal["all", "labelled"] = Field(
        "labelled",
        description="pretraining: masked-word loss per masked word, or per position of the text (`all`, the original)",
    )
    mlm_on_mismatched: bool = Field(
        False, description="pretraining: also predict masked words of texts that belong to another image"
    )


ScheduleName = Literal["linear", "invsqrt", "constant", "multi_step"]


class TrainConfig(Section):
    """Optimisation. One step is one optimiser update."""

    batch_size: PositiveInt = Field(16, description="groups a process and forward pass")
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="forward passes of one update; gradients average over examples"
    )
    epochs: PositiveInt = Field(10, description="passes over the training split")
    max_steps: PositiveInt | None = Field(None, description="stop after this many updates, whatever epochs says")
    optimizer: Literal["adamw", "adam", "adamax"] = Field(
        "adamw",
        description="adamw: BERT's, with decoupled decay; adam, adamax: PyTorch's, the decay is part of the gradient",
    )
    visual_optimizer: Literal["adamw", "adam", "adamax", "sgd"] | None = Field(
        None, description="of the visual encoder; default: optimizer"
    )
    visual_momentum: Decay = Field(0.9, description="of sgd")
    learning_rate: Annotated[float, Field(gt=0)] = Field(5e-5, description="peak rate of the transformer")
    visual_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak rate of the visual encoder; default: learning_rate"
    )
    learning_rate_multipliers: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="start of parameter names -> factor on their rate, e.g. {head: 10, visual_encoder.grid: 2}; the "
        "longest wins",
    )
    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.98], description="adamw, adam, adamax"
    )
    eps: Annotated[float, Field(gt=0)] = Field(1e-6, description="adamw, adam, adamax")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-3, description="biases and LayerNorms have none")
    visual_weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        None, description="of the visual encoder; default: weight_decay"
    )
    freeze: list[str] = Field(
        default_factory=list,
        description="parts of the model that are not trained: visual, visual.stem, visual.0-1 (stages or blocks by "
        "number from 0), visual.grid, transformer, transformer.embeddings, transformer.0-5 (layers), head",
    )
    warmup_ratio: Fraction01 = Field(
        0.1, description="share of the steps in which the rate of linear and invsqrt rises from 0"
    )
    schedule: ScheduleName = Field(
        "linear",
        description="linear: up over the warmup, down to 0; invsqrt: up, then down with the root of the step; "
        "constant: the peak; multi_step: halved at each of milestones",
    )
    visual_schedule: ScheduleName | None = Field(None, description="of the visual encoder; default: schedule")
    milestones: list[PositiveInt] = Field(
        default_factory=list, description="epochs, counted from 0, at whose start multi_step halves the rate"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] | None = Field(5.0, description="global L2 norm; null: no clipping")
    ema_decay: Decay | None = Field(
        None, description="keep a moving average of the weights, e.g. 0.999; null keeps none"
    )
    validate_with: Literal["ema", "plain"] = Field(
        "ema", description="weights that validation scores and infer uses, where a moving average is kept"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp32"
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, about a third more time"
    )
    compile: bool = Field(False, description="compile the model with torch.compile; needs a C++ compiler")
    max_bad_steps: PositiveInt = Field(
        20,
        description="updates in a row skipped for a loss or gradient that is not finite, at which the run stops",
    )
    validate_every_steps: PositiveInt | None = Field(None, description="default: once an epoch")
    save_every_steps: PositiveInt | None = Field(None, description="checkpoints beside those of every validation")
    log_every_steps: PositiveInt = Field(10, description="steps between lines of metrics.jsonl")
    keep_last: Annotated[int, Field(ge=2)] = Field(2, description="checkpoints kept beside the best one")
    best_metric: str | None = Field(
        None, description="metric of validation that decides the best checkpoint; default: the task's own"
    )
    tensorboard: bool = Field(False, description="also write TensorBoard events (pip install 'clipbert[tensorboard]')")

    @model_validator(mode="after")
    def _milestones_for_multi_step(self) -> TrainConfig:
        stepped = "multi_step" in (self.schedule, self.visual_schedule)
        if stepped and not self.milestones:
            raise ValueError("milestones is empty: multi_step needs the epochs at which the rate is halved")
        if self.milestones and not stepped:
            raise ValueError(f"milestones is {self.milestones}: only schedule or visual_schedule multi_step has any")
        return self


class InferConfig(Section):
    """How predictions are made, in validation and by `infer`."""

    batch_size: PositiveInt = Field(16, description="groups a forward pass")
    num_clips: PositiveInt = Field(16, description="clips of a video, spread evenly")
    num_frames: PositiveInt | None = Field(None, description="frames of a clip; default: data.num_frames")
    sampling: Literal["uniform", "start", "middle", "end", "clips"] = Field(
        "clips", description="where clips start; `clips` are num_clips spread evenly"
    )
    single_clip: Literal["start", "middle", "end"] = Field(
        "start", description="where the clip starts if there is only one, with sampling `clips`"
    )
    max_examples_per_group: PositiveInt = Field(8, description="examples of one media item that share its encoding")
    text_rows: PositiveInt | None = Field(
        None,
        description="most text rows, each times the clips, that go through the transformer together; "
        "default: as many as are fast and fit into memory",
    )
    compile: bool = Field(
        False, description="compile the transformer's layers with torch.compile; needs a C++ compiler"
    )
    top: PositiveInt = Field(5, description="answers listed per example")

    @model_validator(mode="after")
    def _one_place(self) -> InferConfig:
        return check_one_place(self, self.sampling, self.num_clips)


def _run_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("it must be made of letters, digits, `_`, `.` and `-`, and start with a letter or digit")
    return name


class Recipe(Section):
    """Everything about one run."""

    name: Annotated[str, AfterValidator(_run_name)] = Field(description="names the run folder")
    task: str = Field(description="which task of the registry")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="of weights, data order, frame sampling")
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    infer: InferConfig = Field(default_factory=InferConfig)

    @model_validator(mode="after")
    def _margin_pools(self) -> Recipe:
        if self.objective.loss == "margin" and self.objective.pool == "lse":
            raise ValueError("objective.pool is lse: with objective.loss margin it must be mean or max")
        return self

    @model_validator(mode="after")
    def _positions_suffice(self) -> Recipe:
        bert, cells = self.model.bert, -(-self.data.frame_size // 64)  # the grid has a cell for every 64 pixels
        if self.data.max_text_length > bert.max_position_embeddings:
            raise ValueError(
                f"data.max_text_length is {self.data.max_text_length}: model.bert.max_position_embeddings allows "
                f"{bert.max_position_embeddings}"
            )
        if cells > min(bert.max_grid_rows, bert.max_grid_columns):
            raise ValueError(
                f"data.frame_size is {self.data.frame_size}, a grid of {cells} x {cells} cells: "
                f"model.bert.max_grid_rows and max_grid_columns allow {bert.max_grid_rows} and {bert.max_grid_columns}"
            )
        return self
