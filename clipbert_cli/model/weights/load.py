"""Weights into a model: every entry accounted for, by name and shape, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from clipbert_cli.errors import WeightsError
from clipbert_cli.model.resnet import NORM_EPS
from clipbert_cli.model.weights.formats import FORMATS, OTHER_HEAD, OTHER_PART, TIED, Format, recognise
from clipbert_cli.model.weights.weight_files import WeightFile, read_weights

Part = Literal["all", "bert", "visual"]

LISTED = 12
"""Names that an error lists before it says how many more there are."""

MAY_BE_NEW: dict[str, tuple[str, ...]] = {
    "all": ("head.",),
    "bert": ("head.", "visual_embeddings."),
    "visual": ("visual_encoder.grid.",),
}
"""By part: what a model keeps its start values for, where a file does not have it."""


@dataclass(frozen=True)
class Mismatch:
    """An entry of the file whose shape is not the model's."""

    key: str
    found: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.key}: {self.found} in the file, {self.expected} in the model"


@dataclass(frozen=True)
class LoadReport:
    """What became of every entry.

    `loaded`, `new`, `implied`, `missing` and `mismatched` are the model's names, `ignored` and `unexpected` the file's.
    `implied` are the batch-norm statistics of a file that has them folded into scale and shift: set to the identity.
    A report that `load_weights` returns has nothing missing, unexpected or mismatched; an error's report has.
    """

    source: Path
    format: str
    parts: Part
    loaded: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    implied: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()

    @property
    def ignored_keys(self) -> tuple[str, ...]:
        """All ignored names, whatever the reason."""
        return tuple(key for keys in self.ignored.values() for key in keys)

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """A few lines for a person: what was read, what starts anew, what was left out and why."""
        lines = [f"{self.source}: {self.format}, {len(self.loaded)} entries loaded"]
        if self.new:
            lines.append(f"  new: {', '.join(self.new)}")
        if self.implied:
            lines.append(f"  {len(self.implied)} batch-norm statistics are folded into scale and shift")
        lines += [f"  ignored: {len(keys)} of {reason}" for reason, keys in self.ignored.items()]
        return "\n".join(lines)


def load_weights(
    model: nn.Module, source: str | Path, *, parts: Part = "all", allow_new_head: bool = True
) -> LoadReport:
    """Read `source` into `model`, or leave the model as it was.

    Args:
        model: a `ClipBert`, on any device and of any float dtype.
        source: a file, or a folder with `model.safetensors` or `pytorch_model.bin`.
        parts: `all` for a whole model, `bert` for text embeddings, encoder and pooler (and the masked word head of a
            pretraining model), `visual` for the visual encoder.
        allow_new_head: whether head entries that the file lacks, or has in another shape, keep their start values.

    Raises:
        WeightsError: not such a file, or an entry outside the head is missing, unexpected or of another shape.
    """
    file = read_weights(Path(source))
    form = expect_format(file, parts)
    state = {name: tensor for name, tensor in model.state_dict().items() if belongs(name, parts)}
    values, report = match(file, form, parts, state, allow_new_head=allow_new_head)
    if not report.fits:
        raise WeightsError(explain(report), hint=hint_for(report))
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    return report


def belongs(name: str, parts: Part) -> bool:
    return parts == "all" or name.startswith("visual_encoder.") == (parts == "visual")


def expect_format(file: WeightFile, parts: Part) -> Format:
    form = recognise(file.tensors)
    if form is None:
        raise WeightsError(
            f"{file.path}: none of its {len(file.tensors)} entries is known; it starts with {listed(file.tensors, 3)}",
            hint=f"expected one of: {', '.join(each.name for each in FORMATS if parts in each.parts)}",
        )
    if parts not in form.parts:
        raise WeightsError(
            f"{file.path}: this is a {form.name}, expected {'a whole model' if parts == 'all' else f'a {parts}'}",
            hint=f"name it in model.weights.{form.parts[0]}",
        )
    if file.author == "torchvision":
        raise WeightsError(
            f"{file.path}: these are torchvision's weights: RGB input, stride in the 3x3 convolution, other pixel "
            "statistics; this network is the Caffe kind",
            hint="use detectron2's ImageNetPretrained/MSRA/R-50.pkl or grid-feats-vqa's R-50.pth",
        )
    return form


def match(
    file: WeightFile, form: Format, parts: Part, state: Mapping[str, Tensor], *, allow_new_head: bool
) -> tuple[dict[str, Tensor], LoadReport]:
    """Which tensor goes where (model's name -> value), and what becomes of the rest."""
    values: dict[str, Tensor] = {}
    ignored: dict[str, list[str]] = {}
    unexpected: list[str] = []
    mismatched: list[Mismatch] = []
    may_be_new = tuple(prefix for prefix in MAY_BE_NEW[parts] if allow_new_head or prefix != "head.")
    for name, tensor in file.tensors.items():
        key = form.rename(name)
        if key is None and (reason := form.reason_to_ignore(name)):
            ignored.setdefault(reason, []).append(name)
        elif key is None:
            unexpected.append(name)
        elif key in values:
            unexpected.append(f"{name} (a second {key})")
        elif key in state and state[key].shape == tensor.shape and tensor.is_floating_point():
            values[key] = tensor
        elif key.startswith("head.") and "head." in may_be_new:
            ignored.setdefault(OTHER_HEAD, []).append(name)
        elif key in state:
            mismatched.append(Mismatch(key, tuple(tensor.shape), tuple(state[key].shape)))
        elif not belongs(key, parts):
            ignored.setdefault(OTHER_PART, []).append(name)
        else:
            unexpected.append(name)
    loaded = tuple(key for key in state if key in values)
    implied = implied_statistics(values, state, file)
    values |= implied
    other_shape = {each.key for each in mismatched}
    absent = [key for key in state if key not in values and key not in other_shape]
    unexpected += untied(file, ignored.get(TIED, ()), state)
    return values, LoadReport(
        source=file.path,
        format=form.name,
        parts=parts,
        loaded=loaded,
        new=tuple(key for key in absent if key.startswith(may_be_new)),
        ignored={reason: tuple(names) for reason, names in ignored.items()},
        implied=tuple(implied),
        missing=tuple(key for key in absent if not key.startswith(may_be_new)),
        unexpected=tuple(unexpected),
        mismatched=tuple(mismatched),
    )


def implied_statistics(
    values: Mapping[str, Tensor], state: Mapping[str, Tensor], file: WeightFile
) -> dict[str, Tensor]:
    """Identity statistics (mean 0, variance 1 - eps) for the norms of a file that has no statistics at all.

    MSRA's residual networks come with batch norm folded into scale and shift; detectron2's frozen norm fills in the
    same values.
    """
    if any(name.endswith(("running_mean", "running_var", "_rm", "_riv")) for name in file.tensors):
        return {}
    identity = {"running_mean": 0.0, "running_var": 1 - NORM_EPS}
    implied = {}
    for key, tensor in state.items():
        norm, _, leaf = key.rpartition(".")
        if leaf in identity and f"{norm}.weight" in values:
            implied[key] = torch.full_like(tensor, identity[leaf])
    return implied


def untied(file: WeightFile, copies: Iterable[str], state: Mapping[str, Tensor]) -> list[str]:
    """Copies of the masked word head's tied weights that are no copies; of interest to a pretraining model only."""
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


def listed(names: Iterable[object], limit: int = LISTED) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def explain(report: LoadReport) -> str:
    lines = [f"{report.source}: this {report.format} does not fit the model ({len(report.loaded)} entries do)"]
    for word, names in (
        ("other shapes", report.mismatched),
        ("missing in the file", report.missing),
        ("unexpected in the file", report.unexpected),
    ):
        if names:
            lines.append(f"  {word} ({len(names)}): {listed(names)}")
    return "\n".join(lines)


def hint_for(report: LoadReport) -> str:
    if report.mismatched:
        return "make the sizes in model.visual and model.bert those of the weights, or choose other weights"
    if report.missing:
        return (
            "the model in the recipe is deeper or has other parts than the weights: compare model.visual and model.bert"
        )
    return "the weights are of a larger or another model: compare model.visual and model.bert in the recipe"
