"""`clipbert doctor`: what this machine has, what works, and what to do about the rest."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import note, print_json, print_result, wrapped


def doctor(
    online: Annotated[bool, options.option("--online", "Also check that the Hugging Face Hub can be reached.")] = False,
    as_json: options.Json = False,
) -> None:
    """Examine this machine, and try what clipbert needs.

    That is versions, limits, GPUs, decoders, precisions, and processes that talk to each other. Run it first on a
    new machine, and paste its output into a bug report. It prints one line per part as soon as it is known: ok, slow
    or broken. At the end it says what is broken or slower than it could be, and what to do. Nothing is written, and
    without --online nothing is sent. The exit code is 1 if something is broken.
    """
    from clipbert_cli.doctor.examine import examine

    findings = []
    for finding in examine(online=online):
        findings.append(finding)
        line = f"{finding.state:8}{finding.part:19}{finding.value}"
        if as_json:
            note(*wrapped(line, indent=27, stream=sys.stderr))
        else:
            print_result(*wrapped(line, indent=27, stream=sys.stdout))
    is_broken = any(finding.state == "broken" for finding in findings)
    verdicts = sorted(finding.verdict() for finding in findings if finding.state != "ok")
    if as_json:
        print_json({"is_broken": is_broken, "findings": [asdict(finding) for finding in findings]})
    else:
        print_result("", *(line for each in verdicts or ["ok"] for line in wrapped(each, indent=2, stream=sys.stdout)))
    raise typer.Exit(int(is_broken))
