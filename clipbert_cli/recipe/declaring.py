"""The declaration of a setting: its bounds, its meaning, and where its value may change."""

from __future__ import annotations

from enum import Flag, auto
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# Every number has an upper bound, mostly one far above what any recipe needs: a recipe from a stranger must not make a
# machine start a million processes or allocate until it stops.
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=65_536)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
PixelValue = Annotated[float, Field(ge=-1e6, le=1e6)]
FramesPerSecond = Annotated[float, Field(gt=0, le=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1)]
Three = Field(min_length=3, max_length=3)
Four = Field(min_length=4, max_length=4)


class Change(Flag):
    """The occasions on which a setting may have another value than the run was begun with.

    `ON_RESUME`: when training is continued, because it decides nothing of what is learned but rounding and the draws of
    dropout. `BY_SET`: with `--set` at inference, which uses it. `BY_RECIPE`: `infer --recipe OTHER` takes it from the
    other recipe, because it describes the data to answer or how to answer, and not what the model was trained with.
    """

    NEVER = 0
    ON_RESUME = auto()
    BY_SET = auto()
    BY_RECIPE = auto()
    AT_INFERENCE = BY_SET | BY_RECIPE
    ALWAYS = ON_RESUME | AT_INFERENCE


NEVER, ON_RESUME, BY_SET = Change.NEVER, Change.ON_RESUME, Change.BY_SET
AT_INFERENCE, ALWAYS = Change.AT_INFERENCE, Change.ALWAYS


def setting(default: Any, change: Change, *, published_only: bool = False) -> Any:
    """Declare a setting. The text below it says, in one or two sentences, what it means to a person who is new to it.

    Args:
        default: `...` if every recipe has to give a value.
        change: where the value may change.
        published_only: True if another value than the default repeats the original program or fits the original data.
    """
    extra: dict[str, Any] = {"change": change, "published_only": published_only}
    return Field(default, json_schema_extra=extra)


class Section(BaseModel):
    """A part of a recipe: frozen, and strict about keys and about types (`"8"` is not 8)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
