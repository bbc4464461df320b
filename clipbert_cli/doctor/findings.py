"""The result of looking at one part of a machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["ok", "slow", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Args:
        part: what was looked at.
        value: what was found.
        state: `slow` means that it works, but could be faster.
        problem: what is wrong, "" if nothing is.
        advice: what to do about it.
    """

    part: str
    value: str
    state: State = "ok"
    problem: str = ""
    advice: str = ""

    def but(self, state: State, problem: str, advice: str) -> Finding:
        """Return the same finding with what is wrong about it."""
        return replace(self, state=state, problem=problem, advice=advice)

    def verdict(self) -> str:
        """Return the line that a person reads at the end, "" if all is well."""
        said = {"ok": "", "slow": "slower than it could be", "broken": "broken"}[self.state]
        return f"{said}: {self.part}: {self.problem}; {self.advice}" if said else ""


def binary_size(count: float) -> str:
    """Return a number of bytes for people, such as `7.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
