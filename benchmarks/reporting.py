"""What every benchmark has in common: `--json`, `--plot FILE`, a person's lines, and one line of result at the end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from typing import Any


def command_line(doc: str | None, *, chart: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options that all have; `chart` says what `--plot` draws, None that there is nothing to draw."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    if chart:
        parser.add_argument("--plot", metavar="FILE", help=f"{chart}, PNG")
    return parser


def show(options: argparse.Namespace, report: Mapping[str, Any], *, lines: Iterable[str] = (), result: str) -> None:
    """Print the report: one document, `result` in it, or the lines and the result behind them."""
    if options.json:
        print(json.dumps({**report, "result": result}, indent=1))
    else:
        print(*lines, result, sep="\n")
