"""The declarations of `schema.py` as data: which settings exist, what each expects, and where each may change; and what
other training programs, the original ClipBERT among them, call them.

`python -m clipbert_cli.recipe.settings` prints `docs/settings.md`.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from clipbert_cli.printable import similar
from clipbert_cli.recipe.declaring import Change
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.recipe.values import KeyPath, write_yaml

_OTHER_NAMES = {
    "data.splits.NAME.annotations": "txt_db train_txt_db val_txt_db inference_txt_db train_datasets train_file",
    "data.splits.NAME.media": "img_db vis_db train_img_db val_img_db inference_img_db video_dir image_dir",
    "data.answers": "ans2label ans2label_path",
    "data.frame_size": "image_size img_size resolution max_img_size",
    "data.sampling": "frm_sampling_strategy",
    "data.num_clips": "n_clips train_n_clips",
    "data.num_frames": "n_frames num_frm",
    "data.max_text_length": "max_length max_seq_length max_txt_len",
    "data.max_examples_per_group": "max_n_example_per_group",
    "data.workers": "n_workers num_workers dataloader_num_workers",
    "model.tokenizer": "tokenizer_dir tokenizer_name",
    "model.weights.checkpoint": "model weights ckpt pretrained model_name_or_path e2e_weights_path",
    "model.weights.bert": "bert_weights_path",
    "model.visual.kind": "backbone encoder visual_encoder",
    "model.visual.weights": "detectron2_weights_path",
    "objective.pool": "score_agg_func",
    "train.epochs": "n_epochs max_epochs num_epochs num_train_epochs",
    "train.batch_size": "bs train_batch_size per_device_train_batch_size",
    "train.learning_rate": "lr base_lr init_lr",
    "train.visual_learning_rate": "cnn_learning_rate cnn_lr",
    "train.schedule": "scheduler lr_scheduler lr_scheduler_type",
    "train.warmup_ratio": "warmup warmup_steps warmup_epochs",
    "train.max_grad_norm": "grad_norm clip_grad grad_clip gradient_clip_val",
    "train.gradient_accumulation_steps": "grad_accum accumulate_grad_batches accum_iter",
    "train.freeze": "freeze_cnn freeze_backbone",
    "train.precision": "fp16 bf16 fp32 amp mixed_precision",
    "train.activation_checkpointing": "gradient_checkpointing",
    "train.validate_every_steps": "valid_steps eval_steps",
    "train.save_every_steps": "save_steps",
    "train.log_every_steps": "logging_steps",
    "train.keep_last": "save_total_limit",
    "train.trackers": "wandb use_wandb tensorboard report_to",
    "infer.batch_size": "val_batch_size eval_batch_size inference_batch_size",
    "infer.num_clips": "inference_n_clips",
    "seed": "random_seed manual_seed",
}
"""Setting -> its other names."""


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe.

    Args:
        key: dotted name; `NAME` stands for a key that a person chooses, as in `data.splits.NAME.media`.
        meaning: what it does.
        expected: what its value must be, such as `a whole number of at least 1`.
        default: its value as YAML, or None if every recipe has to give one.
        change, published_only: as in `setting`, which declares it.
    """

    key: str
    meaning: str
    expected: str
    default: str | None
    change: Change
    published_only: bool

    def facts(self) -> dict[str, str]:
        """Return what to know beside the meaning, each fact by its name."""
        return {
            "value": self.expected,
            "default": "none; it must be given" if self.default is None else self.default,
            "may change on --resume": "yes" if Change.ON_RESUME in self.change else "no",
            "may be overridden at inference": _at_inference(self.change),
        }


def _at_inference(change: Change) -> str:
    if Change.BY_RECIPE in change:
        return "yes"
    return "with `--set`, not by another recipe" if Change.BY_SET in change else "no"


# ------------------------------------------------------------------------------------------------- the schema


def annotation_at(path: KeyPath) -> Any:
    """Return the schema's type at a key path, or None if the schema has no such key."""
    found: Any = Recipe
    for key in path:
        kind = bare(found)
        if is_section(kind) and key in kind.model_fields:
            field = kind.model_fields[str(key)]
            # pydantic keeps the bounds of a field apart from its type.
            found = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        elif get_origin(kind) is dict:
            found = get_args(kind)[1]
        elif get_origin(kind) is list and isinstance(key, int):
            found = get_args(kind)[0]
        else:
            return None
    return found


def bare(kind: Any) -> Any:
    """Return a type without its bounds and without `| None`."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    inner = [each for each in get_args(kind) if each is not NoneType]
    return bare(inner[0]) if NoneType in get_args(kind) else kind


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def keys_of(path: KeyPath) -> list[str]:
    """Return the keys of the section at a key path; none if it is no section."""
    kind = bare(annotation_at(path))
    return list(kind.model_fields) if is_section(kind) else []


def expected(kind: Any) -> str:
    """Describe the values of a type: `a whole number of at least 1`, `text or null`."""
    return _words(TypeAdapter(kind).json_schema())


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        # A list comes last: `or null` behind its values would read as if they might be null.
        kinds = sorted(schema["anyOf"], key=lambda each: each.get("type") == "array")
        return any_of([_words(each) for each in kinds])
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return any_of([str(choice) for choice in choices])
    match "object" if "$ref" in schema else schema.get("type"):
        case "array":
            low, high = schema.get("minItems"), schema.get("maxItems")
            count = {None: ""}.get(low, f"at least {low} " if high is None else f"{low} ")
            return f"a list of {count}values, each {_words(schema['items'])}"
        case "object":
            inner = schema.get("additionalProperties")
            # A section's keys are explained one by one.
            is_section = "$ref" in str(inner)
            values = f", each value {_words(inner)}" if isinstance(inner, dict) and not is_section else ""
            return f"a section of `key: value` lines{values}"
        case kind:
            names = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
            return names.get(str(kind), str(kind)) + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:,.0f} to {schema['maximum']:,.0f}"
    words = {"minimum": "of at least", "exclusiveMinimum": "greater than"}
    words |= {"maximum": "at most", "exclusiveMaximum": "less than"}
    found = [f"{text} {schema[name]:,.0f}" for name, text in words.items() if name in schema]
    return f" {' and '.join(found)}" if found else ""


def any_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


@functools.cache
def all_settings() -> dict[str, Setting]:
    """Return every setting by its key, in the order of the schema."""
    return {key: found for key, found in _declarations().items() if isinstance(found, Setting)}


@functools.cache
def all_sections() -> dict[str, str]:
    """Return the meaning of every section by its key."""
    return {key: found for key, found in _declarations().items() if isinstance(found, str)}


@functools.cache
def _declarations() -> dict[str, Setting | str]:
    return dict(_declared(Recipe, ()))


def _declared(section: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Setting | str]]:
    for name, field in section.model_fields.items():
        inner, key = bare(field.annotation), ".".join((*path, name))
        if not is_section(inner):
            setting = Setting(
                key=key,
                meaning=" ".join(field.description.split()),
                expected=expected(annotation_at((*path, name))),
                default=None if field.default is PydanticUndefined else write_yaml({"x": field.default})[2:].strip(),
                **field.json_schema_extra,
            )
            yield key, setting
            inner, key = bare(get_args(inner)[-1]) if get_origin(inner) is dict else None, f"{key}.NAME"
        if is_section(inner):
            yield key, inner.__doc__
            yield from _declared(inner, tuple(key.split(".")))


def settings_of(key: str) -> list[Setting]:
    """Return the setting with this key, or the settings of the section with this key; "" has them all."""
    own = key.split(".")
    return [each for each in all_settings().values() if not key or each.key.split(".")[: len(own)] == own]


def nearest(key: str) -> list[str]:
    """Return up to three keys of settings or sections that resemble `key`, in full or in their last word."""
    known, last = [*all_settings(), *all_sections()], key.rpartition(".")[2]
    # A key of another section is the more frequent mistake: `batch_size` is in train and in infer.
    alike = similar(last, [name.rpartition(".")[2] for name in known])
    others = called(last) or [name for name in known if name.rpartition(".")[2] in alike]
    return similar(key, known, cutoff=0.8) or others[:3]


def called(name: str) -> list[str]:
    """Return the settings that a name means: that of other programs (`lr`), the key, or its last word."""
    others = [key for key, names in _OTHER_NAMES.items() if name in names.split()]
    return others or [key for key in all_settings() if name in (key, key.rpartition(".")[2])]


# ----------------------------------------------------------------------------------- where a setting may change


def setting_of(key: str) -> Setting | None:
    """Return the setting that a key belongs to, as `data.splits.train.media` to `data.splits`, or None."""
    while key and key not in all_settings():
        key = key.rpartition(".")[0]
    return all_settings().get(key)


def change_of(key: str) -> Change:
    """Return where a setting may change; nowhere for a section or an unknown key."""
    found = setting_of(key)
    return found.change if found else Change.NEVER


def flat(values: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by their names, joined by a separator; an empty section is a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, separator, f"{prefix}{name}{separator}")
        else:
            found[prefix + name] = value
    return found


def learned_settings(recipe: Recipe, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Return the values, by dotted name, that must stay as they are when a run is resumed."""
    values = flat(recipe.model_dump(exclude_defaults=exclude_defaults))
    return {key: value for key, value in values.items() if Change.ON_RESUME not in change_of(key)}


def with_inference_settings(own: Recipe, other: Recipe) -> Recipe:
    """Return the recipe of a run with the settings of another one that may be overridden at inference."""
    values, others = own.model_dump(), other.model_dump()
    for key, setting in all_settings().items():
        if Change.BY_RECIPE in setting.change and "NAME" not in key:
            *sections, name = key.split(".")
            functools.reduce(dict.__getitem__, sections, values)[name] = functools.reduce(
                dict.__getitem__, sections, others
            )[name]
    # Validated again: a value may be right in each recipe and wrong in the mixture.
    return Recipe.model_validate(values)


# ------------------------------------------------------------------------------------------------ documentation


def with_comments(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return YAML of a recipe's values in which a comment above each setting says what it means."""
    indent, lines = "  " * len(path), []
    for name, value in values.items():
        key = ".".join((*path, name))
        meaning = all_settings()[key].meaning if key in all_settings() else all_sections()[key].partition("\n")[0]
        lines += textwrap.wrap(meaning, 80, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if key in all_sections():
            lines += [f"{indent}{name}:", with_comments(value, (*path, name))]
        else:
            lines += [textwrap.indent(write_yaml({name: value}), indent)]
    return "\n".join(lines)


def settings_page() -> str:
    """Return `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Every setting of a recipe. Set one in a recipe's YAML or with `--set KEY=VALUE`.",
        "`clipbert recipes explain KEY` prints the same on a terminal.",
        "This page is generated: `make docs`.",
        "",
    ]
    sections = {"": "Settings at the top of a recipe.", **all_sections()}
    for section, meaning in sections.items():
        own = [each for each in all_settings().values() if each.key.rpartition(".")[0] == section]
        lines += [f"## {f'`{section}`' if section else 'Top'}", "", meaning, ""]
        for each in own:
            lines += [f"### `{each.key}`", "", each.meaning, ""]
            facts = each.facts() | ({"default": f"`{each.default}`"} if each.default is not None else {})
            lines += [f"* {name.replace('--resume', '`--resume`')}: {value}" for name, value in facts.items()]
            lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_page(), end="")
