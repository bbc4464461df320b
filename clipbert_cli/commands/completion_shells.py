"""The forms in which bash, zsh and fish pass the words of a line and expect candidates."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable

from clipbert_cli.commands.completion_values import Candidates


def unquoted(word: str) -> str:
    """Return a word as the shell passes it to a command, also if its quotes are not closed yet."""
    for closing in ("", "'", '"'):
        try:
            parts = shlex.split(word + closing)
        except ValueError:
            continue
        return parts[0] if parts else ""
    return word


def _read_bash() -> list[str]:
    """Return the words up to the cursor. Bash splits them at `=` and `:` as well, which are joined again here."""
    words: list[str] = []
    pieces = os.environ["COMP_WORDS"].split("\n")
    join = False
    for piece in [*pieces, ""][1 : int(os.environ["COMP_CWORD"]) + 1]:
        is_break = bool(piece) and not piece.strip("=:")
        if words and (is_break or join):
            words[-1] += piece
        else:
            words.append(piece)
        join = is_break
    return words or [""]


def _write_bash(found: Candidates, word: str) -> str:
    # Bash replaces what follows the last of these characters, and inserts a candidate as it is.
    kept = max(word.rfind("="), word.rfind(":")) + 1
    quoted = word[:1] in ("'", '"')
    start = len(unquoted(word[:kept]))
    values = [value[start:] for value, _ in found]
    return "\n".join(values if quoted else [re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value) for value in values])


def _read_line() -> list[str]:
    """Return the words up to the cursor of zsh and fish, which pass them as one text."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = re.findall(r"(?:[^\s'\"\\]|\\.|'[^']*'?|\"(?:[^\"\\]|\\.)*\"?)+", line)[1:]
    return words if words and not line[-1:].isspace() else [*words, ""]


def _write_zsh(found: Candidates, word: str) -> str:
    items = [
        shlex.quote(value.replace("\\", "\\\\").replace(":", "\\:") + (f":{meaning}" if meaning else ""))
        for value, meaning in found
    ]
    if not items:
        return "_files"
    return f"local -a _clipbert_found; _clipbert_found=({' '.join(items)}); _describe clipbert _clipbert_found"


def _write_fish(found: Candidates, word: str) -> str:
    lines = ["\t".join(filter(None, item)) for item in found]
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        # fish asks first whether there is anything; if there is not, it completes names of files.
        raise SystemExit(0 if lines else 1)
    return "\n".join(lines)


SHELLS: dict[str, tuple[Callable[[], list[str]], Callable[[Candidates, str], str]]] = {
    "bash": (_read_bash, _write_bash),
    "zsh": (_read_line, _write_zsh),
    "fish": (_read_line, _write_fish),
}
