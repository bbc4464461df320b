"""The golden model cases: models with the documented weights, their inputs, and comparisons with the stored numbers."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bounds import AVERAGE, FEATURE, LOSS_RELATIVE, SCORE
from goldens import golden_arrays, golden_folder, golden_json, picture_batch, sample, statistics, text, weight
from torch import Tensor
from torch.nn import functional as F

from clipbert_cli.model.clipbert import ClipBert
from clipbert_cli.model.heads import Fused, HeadSpec
from clipbert_cli.model.transformer import split_projections
from clipbert_cli.model.weights.formats import ORIGINAL
from clipbert_cli.recipe.schema import BertConfigSection, ModelConfig
from clipbert_cli.task import pooling


def sizes() -> list[str]:
    """Return the model sizes (`tiny`, `base`) for which the set stores forward passes."""
    names = [path.stem.removeprefix("forward_") for path in (golden_folder() / "model").glob("forward_*.json")]
    return sorted(names, reverse=True)


def cases(size: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = golden_json(f"model/forward_{size}.json")["cases"]
    return listed


def case_named(size: str, case_id: str) -> dict[str, Any]:
    return next(case for case in cases(size) if case["id"] == case_id)


def heads(size: str) -> list[str]:
    return list(golden_json(f"model/forward_{size}.json")["heads"])


def salt(size: str) -> str:
    value: str = golden_json(f"model/forward_{size}.json")["weights_salt"]
    return value


# The model


def entries(head: str, size: str) -> dict[str, list[int]]:
    """Return the shape of every entry of the original's checkpoint, by name."""
    return {row[0]: row[1] for row in golden_json(f"model/keys_{head}_{size}.json")["entries"]}


def model_config(size: str, **changes: Any) -> ModelConfig:
    """Return the golden model's settings; `changes` are `dropout`, `attention_dropout` or fields of `ModelConfig`."""
    path = min((golden_folder() / "model").glob(f"keys_*_{size}.json"))
    found = golden_json(f"model/{path.name}")["model_config"]
    bert = BertConfigSection(
        vocab_size=found["vocab_size"],
        hidden_size=found["hidden_size"],
        num_hidden_layers=found["num_hidden_layers"],
        num_attention_heads=found["num_attention_heads"],
        intermediate_size=found["intermediate_size"],
        max_position_embeddings=found["max_position_embeddings"],
        hidden_dropout=changes.pop("dropout", found["hidden_dropout_prob"]),
        attention_dropout=changes.pop("attention_dropout", found["attention_probs_dropout_prob"]),
    )
    return ModelConfig(bert=bert, **changes)


def head_spec(head: str, size: str) -> HeadSpec:
    if head == "pretrain":
        return HeadSpec("pretraining", 2)
    outputs = [shape[0] for name, shape in entries(head, size).items() if name.startswith("transformer.classifier.")]
    return HeadSpec("classifier", outputs[-1])


# Names. These two functions are the only ones that relate the original's entries to ours.


def own_name(name: str) -> str | None:
    """Return our name of the original's entry; None where the model has none.

    Ours packs the original's queries, keys and values into one entry.
    """
    key = ORIGINAL.rename(name)
    return None if key is None else re.sub(r"^(transformer\..+)\.(query|key|value)\.", r"\1.qkv.", key)


def values_of(named: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return what `named` (by our names) holds of the original's entry `name`; None where it has none."""
    return split_projections(named).get(ORIGINAL.rename(name) or "")


@functools.cache
def cached_weight(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    return torch.from_numpy(weight(name, shape, salt=salt))


def fill(model: ClipBert, head: str, size: str) -> ClipBert:
    """Load the documented weights into the model, each exactly once, and set it to evaluation mode."""
    state = {
        key: cached_weight(name, tuple(shape), salt(size))
        for name, shape in entries(head, size).items()
        if (key := ORIGINAL.rename(name)) is not None
    }
    places = split_projections(model.state_dict())
    assert state.keys() == places.keys()
    with torch.no_grad():
        for key, place in places.items():
            place.copy_(state[key])
    return model.eval()


def golden_model(head: str, size: str, **changes: Any) -> ClipBert:
    return fill(ClipBert(model_config(size, **changes), head_spec(head, size)), head, size)


@functools.cache
def shared_model(size: str) -> ClipBert:
    """Return the golden model of a size without dropout, built once. Callers may exchange its head and nothing else."""
    return golden_model(heads(size)[0], size, dropout=0.0, attention_dropout=0.0)


def own_model(head: str, size: str = "tiny") -> ClipBert:
    """Return a golden model that the caller may change. Copying takes a tenth of the time of building one."""
    return copy.deepcopy(with_head(shared_model(size), head, size))


def with_head(model: ClipBert, head: str, size: str) -> ClipBert:
    """Exchange the head of a model in place and return the model. Building the rest takes most of the time."""
    spec = head_spec(head, size)
    if model.head_spec != spec:
        fresh = ClipBert(small(model.config), spec)
        model.head, model.head_spec = fresh.head, spec
    state = {
        key.removeprefix("head."): cached_weight(name, tuple(shape), salt(size))
        for name, shape in entries(head, size).items()
        if (key := ORIGINAL.rename(name) or "").startswith("head.")
    }
    model.head.load_state_dict(state, strict=True)
    return model.eval()


def small(config: ModelConfig) -> ModelConfig:
    """Return settings with the same head and width, but a negligible visual encoder and transformer."""
    visual = config.visual.model_copy(update={"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "stem_size": 8})
    bert = config.bert.model_copy(update={"num_hidden_layers": 1})
    return config.model_copy(update={"visual": visual, "bert": bert})


# Inputs


@functools.cache
def frames(size: str, case_id: str) -> Tensor:
    """Return the pixels of a case: (B, K, T, 3, h, w) uint8."""
    case = case_named(size, case_id)
    clips = case.get("clips", 1)
    pixels = picture_batch(
        case["image_seed"], case["B"], clips * case["T"], case["h"], case["w"], valid=case.get("valid")
    )
    return torch.from_numpy(pixels).unflatten(1, (clips, case["T"]))


@dataclasses.dataclass(frozen=True)
class Texts:
    ids: Tensor
    mask: Tensor
    item: Tensor


def texts(size: str, head: str, case_id: str) -> Texts:
    stored = golden_json(f"model/forward_{size}.json")["heads"][head][case_id]
    ids, mask = text(stored["text_seed"], stored["n_text"], stored["L"], model_config(size).bert.vocab_size)
    assert ids.tolist() == stored["ids"], "the documented generator gives other ids than are stored"
    assert mask.sum(1).tolist() == stored["text_lengths"]
    item = torch.arange(len(stored["n_examples_list"])).repeat_interleave(torch.tensor(stored["n_examples_list"]))
    return Texts(torch.from_numpy(ids), torch.from_numpy(mask), item)


NO_LABEL = -100
"""The stored label of a token that is not predicted."""


def every_token(ids: Tensor) -> Tensor:
    """Return the positions of all tokens of ids (N, L), as `word_positions`: (2, N*L)."""
    return torch.ones_like(ids).nonzero().T


def labelled(labels: Tensor) -> Tensor:
    """Return the positions of the labels (N, L) that name a word, as `word_positions`: (2, M)."""
    return (labels != NO_LABEL).nonzero().T


def masked_words(mlm_logits: Tensor, labels: Tensor, *, average: str = "all") -> Tensor:
    """Return the loss of scores of all tokens (N*L, K, W), of which those with a label (N, L) count."""
    rows, tokens = labelled(labels)
    words = labels[rows, tokens]  # (M,)
    wanted = mlm_logits.unflatten(0, labels.shape)[rows, tokens]  # (M, K, W)
    return pooling.masked_words(wanted, words, positions=labels.numel() if average == "all" else len(words))


# Our numbers by the names of the stored ones


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Visual tokens (B, K, V, D) and the output of every stage by name: (B*K*T, ...)."""

    visual: Tensor
    stages: Mapping[str, Tensor]


@torch.no_grad()
def encode(model: ClipBert, pixels: Tensor) -> Encoded:
    stages: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: stages.__setitem__(name, output)

    encoder = model.visual_encoder
    residual = {f"res{number}": stage for number, stage in enumerate(encoder.stages, start=2)}
    watched = {"stem": encoder.stem, **residual, "grid": encoder}
    hooks = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    visual = model.encode_visual(pixels)
    for hook in hooks:
        hook.remove()
    return Encoded(visual, stages)


def visual_values(encoded: Encoded, case: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the output of every stage for the first clip, by the stored names."""
    items, clips, length = case["B"], case.get("clips", 1), case["T"]
    first = {
        name: output.unflatten(0, (items, clips, length))[:, 0].flatten(0, 1) for name, output in encoded.stages.items()
    }
    first["grid"] = first["grid"].unflatten(0, (items, length))  # (B, T, h, w, D)
    rows = torch.arange(items).repeat_interleave(torch.tensor(case["reps"]))
    return {**first, "visual_embedding": encoded.visual[rows, 0]}  # (sum of reps, V, D)


@torch.no_grad()
def head_values(model: ClipBert, encoded: Encoded, texts: Texts, stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our value of everything that is stored for a head and case, by name. `clip_logits` is (N, K, C) and covers
    all clips; everything else belongs to the first clip."""
    visual = encoded.visual[texts.item]  # (N, K, V, D)
    if model.head_spec.kind == "pretraining":
        visual = visual[:, :1]
    embedded = model.embed_text(texts.ids)
    seen: list[Fused] = []
    hook = model.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    outputs = model.score(embedded, texts.mask, visual, word_positions=every_token(texts.ids))
    hook.remove()
    sequence, pooled = (each.unflatten(0, visual.shape[:2])[:, 0] for each in seen[0])
    values = {"text_embedding": embedded, "sequence": sequence, "pooled": pooled}
    if outputs.mlm_logits is None:
        return values | {"clip_logits": outputs.logits}
    mlm_labels, itm_labels = torch.tensor(stored["mlm_labels"]), torch.tensor(stored["itm_labels"])
    words = outputs.mlm_logits[:, 0].unflatten(0, texts.ids.shape)  # (N, L, W)
    mlm_mean, itm_mean = (
        masked_words(outputs.mlm_logits, mlm_labels),
        pooling.matching(outputs.logits, itm_labels),
    )
    return values | {
        "itm_scores": outputs.logits[:, 0],
        "itm_loss": F.cross_entropy(outputs.logits[:, 0], itm_labels, reduction="none"),
        "mlm_scores": words,
        "mlm_loss": F.cross_entropy(words.flatten(0, 1), mlm_labels.flatten(), reduction="none"),
        "loss/mlm_mean": mlm_mean,
        "loss/itm_mean": itm_mean,
        "loss/total": mlm_mean + itm_mean,
    }


def finish(values: dict[str, Tensor], stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Add pooled logits and losses of a classifier head, computed from its logits (N, K, C)."""
    if "clip_logits" not in values:
        return values
    logits = values.pop("clip_logits")
    if len(stored.get("labels", logits)) < logits.shape[0]:  # multiple choice: several text rows per question
        options = config["num_labels"]
        logits = pooling.options_as_classes(logits, [options] * (len(logits) // options))  # (Q, K, 5)
    values["logits"] = logits[:, 0] if logits.shape[1] == 1 else logits.transpose(0, 1)
    for pool in pooling.POOLS:
        values[f"logits_{pool}"] = pooling.pool_clips(logits, pool)
    return values | dict(losses(logits, stored, config))


def own_first(rows: int, texts_per_item: int) -> Tensor:
    """(items, texts) bool: which texts are an item's own, if the first one of each item is."""
    return torch.arange(texts_per_item).eq(0).expand(rows // texts_per_item, -1)


def losses(logits: Tensor, stored: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    first = logits[:, :1]
    if config["loss_type"] == "bce":
        targets = torch.zeros(first[:, 0].shape)
        for row, column, value in stored["labels_sparse_row_col_value"]:
            targets[row, column] = value
        mean = F.binary_cross_entropy_with_logits(first[:, 0], targets)
        yield "loss_first_clip_mean", mean
        yield "loss_first_clip_mean_times_num_labels", pooling.binary_cross_entropy(first, targets, pool="mean")
    elif config["loss_type"] == "rank" and "labels" in stored:
        count = 1 + stored["loss_first_clip_shape"][1]
        scores = pooling.match_probability(first, pool="mean").view(-1, count)
        yield "loss", (0.2 + scores[:, 1:] - scores[:, :1]).relu()
        yield "loss_first_clip_mean", pooling.rank_margin(first, own_first(len(first), count), pool="mean")
    elif config["loss_type"] == "ce":
        labels = torch.tensor(stored["labels"])
        yield "loss", F.cross_entropy(first[:, 0], labels, reduction="none")
        yield "loss_first_clip_mean", pooling.cross_entropy(first, labels, pool="mean")
        for pool in pooling.POOLS:
            yield f"clip_loss/{pool}", pooling.cross_entropy(logits, labels, pool=pool)


# Comparison


@dataclasses.dataclass(frozen=True)
class Difference:
    """A stored number or array beside ours; `share` is the largest error divided by the tolerance."""

    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name}: {self.share:.3g} times the tolerance"


def compare_array(name: str, ours: np.ndarray, stored: np.ndarray, tolerance: float) -> Difference:
    if ours.shape != stored.shape:
        return Difference(f"{name} is {ours.shape}, stored {stored.shape}", np.inf)
    error = np.abs(ours.astype(np.float64) - stored).max()
    return Difference(name, float(error / tolerance) if np.isfinite(error) else np.inf)


def compare_statistics(name: str, ours: Tensor, stored: Mapping[str, Any]) -> Iterator[Difference]:
    """Compare the statistics over a whole tensor."""
    if list(ours.shape) != stored["shape"]:
        yield Difference(f"{name} is {list(ours.shape)}, stored {stored['shape']}", np.inf)
        return
    found = statistics(ours.numpy())
    size = found["l2"] / np.sqrt(ours.numel())
    for what, value in found.items():
        error = abs(value - stored[what])
        # An extreme is a single value, which rounding moves further than an average over the tensor.
        if what in ("min", "max"):
            bound = tolerance_of(name, np.array(stored[what]))
        else:
            bound = AVERAGE * max(abs(stored[what]), size)
        yield Difference(f"{name}.{what}", error / bound if np.isfinite(error) else np.inf)


def compare_visual(size: str, case: Mapping[str, Any], values: Mapping[str, Tensor]) -> list[Difference]:
    """Compare every stored stage of a case: its statistics and its sampled values."""
    arrays = golden_arrays(f"model/forward_{size}.npz")
    differences = []
    for stage, stored in golden_json(f"model/forward_{size}.json")["visual"][case["id"]].items():
        ours = values[stage]
        expected = arrays[f"visual/{case['id']}/{stage}"]
        differences += compare_statistics(stage, ours, stored)
        picked = sample(ours.contiguous().numpy(), stored["stride"], expected.size)
        differences.append(compare_array(f"{stage} values", picked, expected, FEATURE))
    return differences


def compare_head(size: str, head: str, case_id: str, values: Mapping[str, Tensor]) -> list[Difference]:
    """Compare every stored array and number of a head and case. Raises KeyError if we have no value for one."""
    stored = golden_json(f"model/forward_{size}.json")["heads"][head][case_id]
    prefix = f"{head}/{case_id}/"
    differences = []
    for name, expected in golden_arrays(f"model/forward_{size}.npz").items():
        if not name.startswith(prefix):
            continue
        what = name.removeprefix(prefix)
        if what.endswith("_sample"):
            what = what.removesuffix("_sample")
            stride = stored[what].get("stride") or stored[f"{what}_stride"]
            picked = sample(values[what].contiguous().numpy(), stride, expected.size)
            differences.append(compare_array(f"{what} values", picked, expected, tolerance_of(what, expected)))
        else:
            differences.append(compare_array(what, values[what].numpy(), expected, tolerance_of(what, expected)))
    for what, entry in stored.items():
        if isinstance(entry, dict) and "l2" in entry:
            differences += compare_statistics(what, values[what], entry)
    numbers = {name: stored[name] for name in stored if name.startswith("loss_first_clip_mean")}
    for group in ("clip_loss", "loss"):
        numbers |= {f"{group}/{name}": value for name, value in stored.get(group, {}).items()}
    for what, expected in numbers.items():
        differences.append(
            compare_array(what, values[what].numpy(), np.array(expected), tolerance_of("loss", np.array(expected)))
        )
    return differences


def tolerance_of(what: str, expected: np.ndarray) -> float:
    """Return the absolute bound for single values of a stored array, by its name."""
    if "loss" in what:
        # A loss moves by at most the difference of two scores, and is summed over labels.
        return 2 * SCORE + LOSS_RELATIVE * float(np.abs(expected).max(initial=0))
    return SCORE if what.startswith(("logits", "pooled", "mlm", "itm")) else FEATURE


def too_far(differences: list[Difference]) -> list[Difference]:
    return sorted((each for each in differences if each.share > 1), key=lambda each: -each.share)


def parity(model: ClipBert, size: str, head: str, case_id: str) -> list[Difference]:
    """Compare everything that is stored for a head and case, stages included."""
    case = case_named(size, case_id)
    encoded = encode(model, frames(size, case_id))
    return compare_visual(size, case, visual_values(encoded, case)) + head_parity(model, encoded, size, head, case_id)


def head_parity(model: ClipBert, encoded: Encoded, size: str, head: str, case_id: str) -> list[Difference]:
    stored_heads = golden_json(f"model/forward_{size}.json")["heads"]
    stored, config = stored_heads[head][case_id], stored_heads[head]["_config"]
    values = head_values(model, encoded, texts(size, head, case_id), stored)
    return compare_head(size, head, case_id, finish(values, stored, config))


def write_checkpoint(path: Path, head: str, size: str, *, filled: Collection[str]) -> Path:
    """Write a checkpoint in the original's format, with every entry of keys_<head>_<size>.json.

    The entries in `filled` have their documented values. All others are zeros that share one number, because generating
    and writing the 850 MB of the published size takes most of a test's time.
    """
    state = {
        name: torch.from_numpy(weight(name, shape, salt=salt(size)))
        if name in filled
        else torch.zeros(()).expand(shape)
        for name, shape in entries(head, size).items()
    }
    torch.save(state, path)
    return path
