"""Load weights into a model. Every entry is matched by name and shape before the model is changed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.description import description_beside
from clipbert_cli.model.heads import OUTPUT_LAYERS
from clipbert_cli.model.hf_files import vision_model_type
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import FORMATS, NOTES, OTHER_HEAD, OTHER_PART, TIED, Format, recognise
from clipbert_cli.model.weights.head_rows import HeadRows
from clipbert_cli.model.weights.weight_files import FLOATS, FOLDER_FILES, WeightFile, check_finite, read_weights
from clipbert_cli.printable import shortened

Part = Literal["all", "bert", "visual"]

MAY_BE_NEW: dict[str, tuple[str, ...]] = {
    "all": ("head.",),
    # A BERT that was saved to predict masked words has no pooler.
    "bert": ("head.", "visual_embeddings.", "transformer.pooler."),
    "visual": ("visual_encoder.grid.",),
}
"""Part of a model -> starts of names that keep their random values if a file lacks them."""


SETTINGS = {
    "all": ("a whole model", "model.weights.checkpoint"),
    "bert": ("a BERT", "model.weights.bert"),
    "visual": ("a visual encoder", "model.visual.weights"),
}
"""Part of a model -> its name in messages, and the setting that names its file."""


UNLIKE, MISSING, UNEXPECTED = "of another shape or type", "missing in the file", "unexpected in the file"
"""Why entries do not fit."""

COMPARE = (
    "compare model.visual and model.bert in the recipe with the weights, or choose other weights; quantized ones must "
    "be saved as float32"
)


@dataclass(frozen=True)
class LoadReport:
    """The fate of every entry of a file and of a model.

    Attributes:
        loaded: names in the model. Where the file has three tensors for the model's packed projection, they are
            reported as `query`, `key` and `value`; this holds for all names in the model.
        new: names in the model that keep their random values.
        ignored: reason -> names in the file.
        misfits: why they do not fit -> names in the model or file, with what differs. There are none in a report that
            `load_weights` returns.
        head: (what happens, how many outputs, their names): see `HeadRows`; empty if the file has no head for them.
    """

    source: Path
    format: str
    loaded: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    misfits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    head: tuple[tuple[str, int, str], ...] = ()

    def summary(self) -> str:
        """Return a few lines for people: number of loaded entries, new ones, ignored ones with the reason."""
        lines = [f"{self.source}: {self.format}, {len(self.loaded)} entries loaded"]
        if self.new:
            lines.append(f"  new: {', '.join(self.new)}")
        if note := NOTES.get(self.format):
            lines.append(f"  {note}")
        lines += [f"  ignored: {len(keys)} of {reason}" for reason, keys in self.ignored.items()]
        width = max((len(what) for what, _, _ in self.head), default=0)
        for number, (what, count, names) in enumerate(self.head):
            cells = f"{'' if number else 'outputs':9}{what:{width}}{count or '':>6}  {names}"
            lines.append(f"  {cells.rstrip()}")
        return "\n".join(lines)


def load_weights(
    model: ClipBert, source: str | Path | WeightFile, *, parts: Part = "all", allow_new_head: bool = True
) -> LoadReport:
    """Load `source` into `model`. If it does not fit, the model stays unchanged.

    Outputs of the head are taken over where they mean the same, see `head_rows.py`.

    Args:
        model: on any device and of any float dtype.
        source: a file, a folder with `model.safetensors` or `pytorch_model.bin`, or what was read from one.
        parts: `all` for a whole model, `bert` for text embeddings, transformer and the masked word head of a
            pretraining model, `visual` for the visual encoder.
        allow_new_head: whether outputs of the head that the file lacks, or that mean something else there, keep their
            random values.

    Raises:
        WeightsError: the file cannot be read or has another format, belongs to another vocabulary, has values that are
            no numbers, or an entry outside the head is missing, unexpected or of another shape.
    """
    file = source if isinstance(source, WeightFile) else read_weights(Path(source))
    form = expect_format(file, parts)
    saved = description_beside(file.path)
    vocabularies = {saved.vocabulary if saved else None, model.vocabulary} - {None}
    if parts != "visual" and len(vocabularies) > 1:
        raise WeightsError(
            f"{file.path}: its word embeddings belong to another vocabulary than the one of model.tokenizer",
            hint="set model.tokenizer to the vocabulary of these weights: the vocab.txt in the folder of their run",
        )
    head = HeadRows.between(saved.head if saved else None, model.head_spec)
    if not allow_new_head and (head.other or head.rows):
        raise WeightsError(
            f"{file.path}: its outputs are not those of the model: {head.other or 'they are of other answers'}",
            hint="restore the run's files, or begin a new run that starts with these weights",
        )
    state = {name: tensor for name, tensor in model.state_dict().items() if belongs(name, parts)}
    if not form.packed:
        state = split_projections(state)
    values, report = match(file, form, parts, state, head=head, allow_new_head=allow_new_head)
    if report.misfits:
        raise WeightsError(explain(report), hint=COMPARE)
    check_finite(values, file.path)
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    return report


def belongs(name: str, parts: Part) -> bool:
    """Return whether an entry of the model is among `parts`."""
    return parts == "all" or name.startswith("visual_encoder.") == (parts == "visual")


# The first convolution of the first block, as torchvision, timm, MoCo, CLIP (`visual.`) and transformers name it.
RESNET_ENTRY = re.compile(r"(^|\.)(layer1\.0\.conv1|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution)\.weight$")


def expect_format(file: WeightFile, parts: Part) -> Format:
    """Return the format of a file.

    Raises:
        WeightsError: the format is unknown, does not supply `parts`, or belongs to another network.
    """
    # The names in a vision transformer are much like those in a BERT.
    if file.path.name in FOLDER_FILES and (kind := vision_model_type(file.path.parent)):
        raise WeightsError(
            f"{file.path}: this is a vision model, a {kind} of transformers, expected {SETTINGS[parts][0]}",
            hint="name its folder in model.visual.weights and set model.visual.kind to hf",
        )
    form = recognise(file.tensors)
    if form is None and any(map(RESNET_ENTRY.search, file.tensors)):
        raise WeightsError(
            f"{file.path}: these are weights of torchvision's kind of ResNet (RGB input, stride in the 3x3 "
            "convolution, other pixel statistics), which cannot serve this network of the Caffe kind",
            hint="use grid-feats-vqa's R-50.pth (clipbert download), or model.visual.kind=hf",
        )
    if form is None:
        start = shortened([*file.tensors], 3)
        raise WeightsError(
            f"{file.path}: none of its {len(file.tensors)} entries is known; it starts with {start}",
            hint=f"expected one of: {', '.join(each.name for each in FORMATS if parts in each.parts)}",
        )
    if parts not in form.parts:
        raise WeightsError(
            f"{file.path}: this is a {form.name}, expected {SETTINGS[parts][0]}",
            hint=f"name it in {SETTINGS[form.parts[0]][1]}",
        )
    return form


def match(
    file: WeightFile,
    form: Format,
    parts: Part,
    state: Mapping[str, Tensor],
    *,
    head: HeadRows,
    allow_new_head: bool,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the new values by the model's names, and the report on all entries.

    Args:
        state: the model's entries among `parts`, with the names that `form.rename` gives.
        head: what the model takes over of the file's head.
    """
    values: dict[str, Tensor] = {}
    ignored: dict[str, list[str]] = defaultdict(list)
    misfits: dict[str, list[str]] = defaultdict(list)
    unlike: set[str] = set()
    may_be_new = tuple(prefix for prefix in MAY_BE_NEW[parts] if allow_new_head or prefix != "head.")
    for name, tensor in file.tensors.items():
        key = form.rename(name)
        if key is None and (reason := form.reason_to_ignore(name)):
            ignored[reason].append(name)
        elif key is None:
            misfits[UNEXPECTED].append(name)
        elif key in values:
            misfits[UNEXPECTED].append(f"{name} (a second {key})")
        elif head.other and key.startswith("head."):
            ignored[head.other].append(name)
        elif head.rows and key.startswith(OUTPUT_LAYERS) and _has_rows(tensor, state.get(key), head):
            values[key] = _with_rows(tensor, state[key], head.rows)
        elif key in state and state[key].shape == tensor.shape and tensor.dtype in FLOATS:
            values[key] = tensor
        elif key.startswith("head.") and "head." in may_be_new:
            ignored[OTHER_HEAD].append(name)
        elif key in state:
            unlike.add(key)
            misfits[UNLIKE].append(both_kinds(key, _kind(tensor), _kind(state[key])))
        elif not belongs(key, parts):
            ignored[OTHER_PART].append(name)
        else:
            misfits[UNEXPECTED].append(name)
    loaded = tuple(key for key in state if key in values)
    has_outputs = head.other in ignored or any(key.startswith(OUTPUT_LAYERS) for key in loaded)
    absent = [key for key in state if key not in values and key not in unlike]
    if missing := [key for key in absent if not key.startswith(may_be_new)]:
        misfits[MISSING] = missing
    if copies := untied(file, ignored.get(TIED, ()), state):
        misfits[UNEXPECTED] += copies
    return values, LoadReport(
        source=file.path,
        format=form.name,
        loaded=loaded,
        new=tuple(key for key in absent if key.startswith(may_be_new)),
        ignored={reason: tuple(names) for reason, names in ignored.items()},
        misfits=misfits,
        head=head.table if has_outputs else (),
    )


def both_kinds(name: str, found: object, expected: object) -> str:
    """Return an entry with its shape in a file beside the one that it should have."""
    return f"{name}: {found} in the file, {expected} in the model"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _has_rows(saved: Tensor, own: Tensor | None, head: HeadRows) -> bool:
    """Return whether a saved entry of the output layer has a row for each output that its description states."""
    return own is not None and saved.shape == (head.saved_outputs, *own.shape[1:]) and saved.is_floating_point()


def _with_rows(saved: Tensor, own: Tensor, rows: Sequence[int | None]) -> Tensor:
    """Return the model's entry with the file's row for each output that is taken over."""
    merged = own.detach().clone()
    for output, row in enumerate(rows):
        if row is not None:
            merged[output] = saved[row]
    return merged


def untied(file: WeightFile, copies: Iterable[str], state: Mapping[str, Tensor]) -> list[str]:
    """Return complaints about `copies` that should equal the weights which the masked word head shares, but do not.

    Only a pretraining model has this head; for others there are none.
    """
    if "head.mlm_bias" not in state:
        return []
    partners = {"decoder.weight": "embeddings.word_embeddings.weight", "decoder.bias": "predictions.bias"}
    wrong = []
    for name in copies:
        ending = next(partner for copy, partner in partners.items() if name.endswith(copy))
        partner = next((each for each in file.tensors if each.endswith(ending)), None)
        if partner is None or not torch.equal(file.tensors[name], file.tensors[partner]):
            wrong.append(f"{name} (not a copy of {ending}: the model ties them)")
    return wrong


def explain(report: LoadReport) -> list[str]:
    """Return the lines of the error message about a report with entries that do not fit."""
    return [
        f"{report.source}: this {report.format} does not fit the model ({len(report.loaded)} entries do)",
        *(f"  {what} ({len(names)}): {shortened(names)}" for what, names in report.misfits.items()),
    ]
