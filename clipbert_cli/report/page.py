"""Pages: one self-contained HTML file each, made of the templates in `templates/`.

Everything that a page shows may come from strangers: file names, questions, answers, recipes. The templates escape all
of it. A page's own style and program are in it, its pictures are data, and its policy forbids to fetch anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from clipbert_cli import __version__
from clipbert_cli.foreign import excerpt
from clipbert_cli.printable import printable

# Characters of a text in a table of counts.
_LONGEST = 120


def write_page(stream: IO[bytes], template: str, context: Mapping[str, Any]) -> None:
    """Write a page piece by piece. Iterators of the context are used up as the page is written."""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    for piece in _environment().get_template(template).generate({"version": __version__, "made": made, **context}):
        # A file name need not be UTF-8. Python holds its other bytes as surrogates, which show as escapes here.
        stream.write(piece.encode("utf-8", "backslashreplace"))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("clipbert_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cut=cut, count=count, seconds=seconds, plain=plain)
    return environment


def plain(value: object) -> str:
    """Return text in which characters that would hide or reorder it are escapes."""
    return printable(str(value))


def cut(value: str) -> str:
    """Return the beginning of a text that would fill a table; the whole one belongs into a title."""
    return excerpt(value, _LONGEST)


def count(value: int) -> str:
    """Return a count with separators of thousands."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """Return a time within a video."""
    minutes, rest = divmod(value, 60)
    return f"{int(minutes)}:{rest:05.2f}" if minutes else f"{rest:.2f} s"
